//! `trilut` without a subcommand: what this machine can do, shown on the embedded model.

use super::failure::Failure;
use super::model::{self, Source};
use super::output::{outln, say};
use super::planning::Here;
use super::{doctor, environment, run, tune};
use std::time::Duration;
use trilut_presets::preset::Effort;
use trilut_presets::{Format, Phase};
use trilut_runtime::{Config, GenerateOptions, Model, ModelOptions};

/// The embedded model is small: this is more than its layers need.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn start() -> Result<(), Failure> {
    let here = Here::find(None)?;
    let threads = environment::threads(None)?;
    outln!("{}", doctor::cpu_line(&here));
    let gguf = Source::Embedded.open()?;
    let config = Config::from_gguf(&gguf)?;
    let (shapes, bytes) = (model::shapes(&config, &[Phase::Decode]), model::bytes(&config));
    // One thread: layers this small say more about the kernels when no other thread is waited for.
    let request = here.request(shapes, bytes, Format::ALL.to_vec(), 1, Effort::Measure, LIMIT);
    let tuned = tune::tuned(&request, here.cache_file().as_deref())?;
    outln!("\n{}", tuned.table(&request).plain());
    outln!("times of one thread; the story is told by {threads}\n");
    if let Some(outcome) = tuned.outcome {
        here.remember(outcome.preset);
    }
    let plan = here.plan_of(&tuned.preset);
    let options = ModelOptions {
        threads: Some(threads),
        plan: Some(&plan),
        cpu: Some(here.cpu),
        ..ModelOptions::default()
    };
    let model = Model::open_with(&gguf, &options)?;
    let generation = run::tell(&model, run::STORY, true, &GenerateOptions::greedy())?;
    outln!("\n{}", run::figures(&generation));
    say!("\nnext: trilut run \"Once upon a time there was a fox\", trilut --help");
    Ok(())
}
