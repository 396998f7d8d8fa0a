//! A model of a new shape, tuned and served by kernels that this crate's build script generates for it.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use trilut::presets::Preset;
use trilut::presets::preset::Effort;
use trilut::runtime::dummy::{DummyOptions, write_dummy};
use trilut::runtime::gguf::Gguf;
use trilut::runtime::{Config, Engine, GenerateOptions, Model};
use trilut::tuning::{Silent, tune};

/// What `build.rs` generated.
pub mod kernels {
    trilut::include_kernels!();
}

/// Any failure of this example.
pub type Failure = Box<dyn std::error::Error>;

/// Writes a model of the shape with random weights.
///
/// # Errors
/// When the file cannot be written.
pub fn write_model(file: &Path) -> Result<(), Failure> {
    let spec = trilut::presets::models::ModelSpec::from_toml(include_str!("../tiny.toml"))?;
    write_dummy(&spec, DummyOptions::default(), file, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(())
}

/// Finds the fastest kernels for the model on this machine, this crate's own among them.
///
/// # Errors
/// When a kernel is not exact on this CPU, or the file is no model.
pub fn tuned(file: &Path) -> Result<Preset, Failure> {
    let engine = Engine::builder().kernels(&kernels::REGISTRY).threads(1).build()?;
    let config = Config::from_gguf(&Gguf::open(file)?)?;
    let limit = Duration::from_secs(2);
    let request = trilut::layers::request(&engine, &config, Effort::Estimate, limit);
    Ok(tune(&request, &mut Silent)?.preset)
}

/// Opens the model with this crate's kernels and, where there is one, with what the tuner found.
///
/// # Errors
/// When a kernel is not exact on this CPU, or the file is no model.
pub fn open(file: &Path, tuned: Option<Preset>) -> Result<Model, Failure> {
    let engine = Engine::builder().kernels(&kernels::REGISTRY).threads(1);
    let engine = tuned.into_iter().fold(engine, |engine, preset| engine.tuned(preset));
    Ok(engine.open(file)?)
}

/// The same with trilut's own kernels alone.
///
/// # Errors
/// When the file is no model.
pub fn open_plain(file: &Path) -> Result<Model, Failure> {
    Ok(Engine::builder().threads(1).open(file)?)
}

/// Continues a prompt by the most likely tokens.
///
/// # Errors
/// When the prompt does not fit.
pub fn tell(model: &Model, prompt: &str) -> Result<String, Failure> {
    let options = GenerateOptions { max_tokens: 24, ..GenerateOptions::greedy() };
    let told = model.session()?.generate(prompt, &options, |_| ControlFlow::Continue(()))?;
    Ok(told.text)
}
