//! Results that are kept: `DIR/<cpu>/<date>.jsonl`, a line for each comparison. Files are named without
//! their directories, which say nothing to anybody else.

use super::super::failure::Failure;
use super::super::output;
use super::comparison::Comparison;
use serde::Serialize;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use trilut_presets::Machine;
use trilut_presets::preset::rfc3339;

/// How a comparison was asked for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    pub(super) rounds: u32,
    pub(super) format: Option<trilut_presets::Format>,
    pub(super) preset: Option<PathBuf>,
}

/// Where a line names files.
const FILES: [&str; 6] = ["model_filename", "program", "text", "model", "baseline_model", "preset"];

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    machine: &'a Machine,
    settings: &'a Settings,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

/// Where lines are added.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    time: String,
    machine: Machine,
    settings: Settings,
}

impl Record {
    /// Makes sure that the file can be written to before anything is measured.
    pub(super) fn open(
        directory: &Path,
        machine: &Machine,
        settings: Settings,
    ) -> Result<Self, Failure> {
        let time = rfc3339(SystemTime::now());
        let day = time.split('T').next().unwrap_or(&time);
        let path = directory.join(machine.key()).join(format!("{day}.jsonl"));
        let record = Self { time, machine: machine.clone(), settings, path };
        record.append("")?;
        Ok(record)
    }

    /// Adds a comparison.
    pub(super) fn add(&self, comparison: &Comparison) -> Result<(), Failure> {
        let Self { time, machine, settings, .. } = self;
        let line = Line { time, machine, settings, comparison };
        let mut value = serde_json::to_value(&line).map_err(|error| Failure::of(&error))?;
        leave_out_directories(&mut value);
        let text = value.to_string();
        self.append(&format!("{text}\n"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// One write, so that two programs do not mix their lines.
    fn append(&self, text: &str) -> Result<(), Failure> {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        let written = output::make_directory(parent).and_then(|()| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?
                .write_all(text.as_bytes())
        });
        written.map_err(|error| {
            Failure::of(&error).context(format!("cannot write {}", self.path.display()))
        })
    }
}

/// Leaves the last part of every path in [`FILES`].
fn leave_out_directories(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| match value {
            Value::String(text) if FILES.contains(&key.as_str()) => {
                if let Some(name) = Path::new(text.as_str()).file_name() {
                    *text = name.to_string_lossy().into_owned();
                }
            }
            value => leave_out_directories(value),
        }),
        Value::Array(values) => values.iter_mut().for_each(leave_out_directories),
        _ => {}
    }
}
