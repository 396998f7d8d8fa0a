//! `trilut` without a subcommand: what this machine can do, shown on the embedded model.

use super::failure::Failure;
use super::model::{self, Source};
use super::planning::Here;
use super::{doctor, environment, run, tune};
use std::time::Duration;
use trilut_presets::preset::Effort;
use trilut_presets::{Format, ladder};
use trilut_runtime::{Config, GenerateOptions, Model, ModelOptions};

/// The embedded model is small: this is more than its layers need.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn start() -> Result<(), Failure> {
    let here = Here::find(None)?;
    let threads = environment::threads(None)?;
    println!("{}", doctor::cpu_line(&here));
    let gguf = Source::Embedded.open()?;
    let shapes = model::shapes(&Config::from_gguf(&gguf)?);
    let bytes = model::bytes(&shapes);
    let request =
        here.request(shapes, bytes, Format::ALL.to_vec(), threads, Effort::Measure, LIMIT);
    // Without a cache directory the records live in a file that only this run sees.
    let temporary = std::env::temp_dir().join(format!("trilut-{}.toml", std::process::id()));
    let path = ladder::cache_file(&here.machine).unwrap_or(temporary.clone());
    let tuned = tune::tuned(&request, &path, false);
    if path == temporary {
        // Nothing is lost when it stays behind.
        let _ = std::fs::remove_file(&temporary);
    }
    let tuned = tuned?;
    println!("\n{}", tuned.table.plain());
    let plan = tuned
        .preset
        .to_plan(trilut_presets::machine::Likeness::SameCpu, |name| {
            trilut_kernels::find(name).map(|kernel| kernel.hash)
        })
        .plan;
    let options = ModelOptions {
        threads: Some(threads),
        plan: Some(&plan),
        cpu: Some(here.cpu),
        ..ModelOptions::default()
    };
    let model = Model::open_with(&gguf, &options)?;
    let generation = run::tell(&model, run::STORY, true, &GenerateOptions::greedy())?;
    println!("\n{}", run::figures(&generation));
    eprintln!("\nnext: trilut run \"Once upon a time there was a fox\", trilut --help");
    Ok(())
}
