//! Results that are kept: `DIR/<cpu>/<date>.jsonl`, a line for each comparison.

use super::super::failure::Failure;
use super::comparison::Comparison;
use serde::Serialize;
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
        let text = serde_json::to_string(&line).map_err(|error| Failure::of(&error))?;
        self.append(&format!("{text}\n"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// One write, so that two programs do not mix their lines.
    fn append(&self, text: &str) -> Result<(), Failure> {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(parent).and_then(|()| {
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
