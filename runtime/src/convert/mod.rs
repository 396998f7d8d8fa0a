//! Models of other forms to GGUF: Hugging Face checkpoints (safetensors), and GGUF files of another codec.
//!
//! ```text
//! config.json, *.safetensors, tokenizer   ->  Plan  ->  side file  ->  (verified)  ->  DST
//! or a GGUF file
//! ```
//!
//! A plan lists every tensor with its origin before anything is written, so that what is wrong with a
//! source shows first; then the tensors are converted in one pass, a few megabytes at a time, out of
//! mapped files whose pages are let go. The file gets its name when it is whole.

mod architecture;
mod block_encoder;
mod checkpoint;
mod error;
mod floats;
mod from_checkpoint;
mod from_gguf;
mod plan;
mod pre_tokenizer;
mod sentence_piece;
mod synthetic;
mod ternary;
mod verify;
mod vocabulary;
mod window;
mod write;

pub use error::ConvertError;
pub use synthetic::{CheckpointOptions, CheckpointWeights, write_checkpoint};

use crate::gguf::{Gguf, TensorKind, TernaryLayouts, WriteError};
use crate::ternary::{Codec, I2sLayout};
use checkpoint::Checkpoint;
use plan::Source;
use std::ops::ControlFlow;
use std::path::Path;

/// What the number beside packed weights means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleMeaning {
    /// What config.json says.
    #[default]
    Auto,
    /// The value of weight +1.
    Multiplier,
    /// The reciprocal of that.
    Reciprocal,
}

/// How a model is converted.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the linear layers are stored: I2_S (as published files have it), TQ2_0 or TQ1_0.
    pub codec: Codec,
    /// How embedding and head are stored: F32, F16, Q8_0 or Q6_K. `None`: as they are in a GGUF file, F16
    /// out of a checkpoint.
    pub head: Option<TensorKind>,
    /// Whether models with ordinary float weights are ternarised; else they are refused.
    pub ternarise: bool,
    /// Whether the file is read back and compared before it gets its name.
    pub verify: bool,
    /// The name of the pre-tokenizer, where the files do not tell.
    pub pre: Option<String>,
    /// What the scales of packed checkpoints mean.
    pub scales: ScaleMeaning,
    /// What a GGUF file that is read does not say about its ternary tensors.
    pub layouts: TernaryLayouts,
}

impl Default for Options {
    /// I2_S; what is not ternary is refused.
    fn default() -> Self {
        Self {
            codec: Codec::I2s(I2sLayout::X86),
            head: None,
            ternarise: false,
            verify: false,
            pre: None,
            scales: ScaleMeaning::Auto,
            layouts: TernaryLayouts::default(),
        }
    }
}

/// `general.file_type` of a file whose linear layers are stored in a codec.
fn file_type(codec: Codec) -> Result<u32, ConvertError> {
    match codec {
        Codec::I2s(I2sLayout::X86) => Ok(40),
        Codec::Tq2_0 => Ok(37),
        Codec::Tq1_0 => Ok(36),
        other => {
            let rule = "is not written: I2_S, TQ2_0 and TQ1_0 are";
            Err(ConvertError::config("codec", other.name(), rule))
        }
    }
}

/// What a conversion is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Looking at the tensors, counted in layers or tensors.
    Plan,
    /// Writing, counted in bytes.
    Write,
    /// Comparing, counted in tensors.
    Verify,
}

/// What became of a ternary matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Its name in the file.
    pub name: String,
    /// Outputs.
    pub m: usize,
    /// Inputs.
    pub k: usize,
    /// The value of weight +1.
    pub scale: f32,
    /// The share of weights that are 0.
    pub zeros: f64,
    /// The root mean square of the differences between float and ternary weights, relative to that of
    /// the float ones; `None` where the source is ternary.
    pub error: Option<f64>,
}

/// What a conversion did.
#[derive(Debug, Clone)]
pub struct Report {
    /// `general.architecture`.
    pub architecture: String,
    /// The ternary matrices, in file order.
    pub tensors: Vec<TensorReport>,
    /// Tensors of the file.
    pub count: usize,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Converts `source`, a GGUF file or the directory of a checkpoint, to the GGUF file `target`. `progress` is
/// told the step, what is done of it and all of it, and may break off.
///
/// # Errors
/// When the source is broken, incomplete, no ternary model (without [`Options::ternarise`]) or of a family
/// that is not known, when the file cannot be written, when what was written differs from the source, or
/// when `progress` breaks off. Nothing is left under the name of the target then.
pub fn convert(
    source: &Path,
    target: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<Report, ConvertError> {
    let source = if source.is_dir() {
        Source::Checkpoint(Checkpoint::open(source)?)
    } else {
        Source::Gguf(Gguf::open(source)?)
    };
    write_out(&source, target, options, progress)
}

/// [`convert`] for a GGUF file that is open already, or part of the program.
///
/// # Errors
/// As [`convert`].
pub fn convert_gguf(
    source: Gguf,
    target: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<Report, ConvertError> {
    write_out(&Source::Gguf(source), target, options, progress)
}

fn write_out(
    source: &Source,
    target: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<Report, ConvertError> {
    let isa = trilut_kernels::Cpu::detect().best();
    let heads = [TensorKind::F32, TensorKind::F16, TensorKind::Q8_0, TensorKind::Q6K];
    if let Some(head) = options.head.filter(|head| !heads.contains(head)) {
        return Err(ConvertError::config(
            "head",
            head.name(),
            "is not written: F32, F16, Q8_0 and Q6_K are",
        ));
    }
    let each = |done: usize, all: usize| match progress(Step::Plan, done as u64, all as u64) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ConvertError::Cancelled),
    };
    let mut plan = match source {
        Source::Checkpoint(checkpoint) => {
            from_checkpoint::plan(source, checkpoint, isa, options, each)?
        }
        Source::Gguf(gguf) => from_gguf::plan(source, gguf, isa, options, each)?,
    };
    let (file, tensors) = write::write(&mut plan, target, isa, source, progress)?;
    if options.verify {
        verify::verify(&plan, file.side(), isa, source, progress)?;
    }
    let architecture = Gguf::open(file.side())?.architecture()?.to_owned();
    file.commit().map_err(WriteError::Io)?;
    Ok(Report { architecture, tensors, count: plan.items.len(), notes: plan.notes })
}
