//! A model of a new shape, served by kernels that this crate generates for it with `trilut::kernels!`.

use std::ops::ControlFlow;
use std::path::Path;
use trilut::runtime::dummy::{DummyOptions, write_dummy};
use trilut::runtime::{Engine, GenerateOptions, Model};

/// Kernels for every layer of the model in `tiny.toml`, on every instruction set.
pub mod kernels {
    trilut::kernels! {
        model = "tiny.toml";
        formats = [i2_s, base3];
        // Of prompts and of a few tokens at once, for layers of any size.
        kernels = [
            gemm_madd_r1t16_avx2, gemm_dot_r4t16_avx512,
            batch_i2s_madd_r2t2_avx2, batch_i2s_dot_r2t2_avx512, batch_i2s_madd_r2t2_neon,
        ];
    }
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

/// Opens the model with this crate's kernels, which are checked against the scalar reference first.
///
/// # Errors
/// When a kernel is not exact on this CPU, or the file is no model.
pub fn open(file: &Path) -> Result<Model, Failure> {
    Ok(Engine::builder().kernels(&kernels::REGISTRY).threads(2).open(file)?)
}

/// The same with trilut's own kernels alone.
///
/// # Errors
/// When the file is no model.
pub fn open_plain(file: &Path) -> Result<Model, Failure> {
    Ok(Engine::builder().threads(2).open(file)?)
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
