//! `trilut dummy`: a model file of a known shape with random weights, for measuring speed.

use super::failure::Failure;
use super::{interrupt, output};
use crate::cli::output::say;
use indicatif::{ProgressBar, ProgressStyle};
use std::ops::ControlFlow;
use std::path::PathBuf;
use trilut_presets::models;
use trilut_runtime::convert::{
    CheckpointOptions, CheckpointWeights, ConvertError, write_checkpoint,
};
use trilut_runtime::dummy::{DummyError, DummyOptions, Head, write_dummy};
use trilut_runtime::ternary::{Codec, I2sLayout};

/// Write a model file with random weights, in the shape of a known model.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the model, such as bitnet-2b-4t or dummy-1b.
    #[arg(short, long, value_name = "NAME")]
    model: String,
    /// File to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Type of the token embedding and the head.
    #[arg(long, value_enum, default_value = "f16")]
    head: HeadType,
    /// How the ternary weights are stored.
    #[arg(long, value_enum, default_value = "i2_s")]
    codec: CodecType,
    /// Write a Hugging Face checkpoint instead, to measure conversions: --output is its directory.
    #[arg(long, value_enum, value_name = "WEIGHTS", conflicts_with_all = ["codec", "head"])]
    safetensors: Option<Weights>,
    /// Weight files of the checkpoint; at most one for each tensor.
    #[arg(long, default_value_t = 1, requires = "safetensors",
        value_parser = clap::value_parser!(u32).range(1..))]
    shards: u32,
    /// Only the first N layers; `trilut bench --layers` projects what all would take.
    #[arg(long, value_name = "N", conflicts_with = "safetensors")]
    layers: Option<usize>,
    /// Random seed.
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum HeadType {
    /// 16-bit floats, as official files have.
    F16,
    /// 32-bit floats.
    F32,
    /// The upper halves of 32-bit floats.
    Bf16,
    /// 8-bit codes in blocks of 32.
    #[value(name = "q8_0")]
    Q8_0,
    /// 6-bit codes in blocks of 256.
    #[value(name = "q6_k")]
    Q6K,
    /// 5-bit codes in blocks of 32.
    #[value(name = "q5_0")]
    Q5_0,
    /// 4-bit codes in blocks of 32.
    #[value(name = "q4_0")]
    Q4_0,
    /// 4-bit codes with an offset in blocks of 32.
    #[value(name = "q4_1")]
    Q4_1,
    /// 4-bit codes in blocks of 256.
    #[value(name = "q4_k")]
    Q4K,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Weights {
    /// Packed codes with a scale.
    Packed,
    /// The bf16 weights of training.
    Masters,
}

impl From<HeadType> for Head {
    fn from(head: HeadType) -> Self {
        match head {
            HeadType::F16 => Self::F16,
            HeadType::F32 => Self::F32,
            HeadType::Bf16 => Self::BF16,
            HeadType::Q8_0 => Self::Q8_0,
            HeadType::Q6K => Self::Q6K,
            HeadType::Q5_0 => Self::Q5_0,
            HeadType::Q4_0 => Self::Q4_0,
            HeadType::Q4_1 => Self::Q4_1,
            HeadType::Q4K => Self::Q4K,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CodecType {
    /// bitnet.cpp's 2 bits, as official files have.
    #[value(name = "i2_s")]
    I2S,
    /// llama.cpp's base 3.
    #[value(name = "tq1_0")]
    Tq1_0,
    /// llama.cpp's 2 bits.
    #[value(name = "tq2_0")]
    Tq2_0,
    /// llama.cpp's 2 bits with a scale for each 64.
    #[value(name = "q2_0")]
    Q2_0,
    /// ik_llama.cpp's base 3.
    #[value(name = "iq1_bn")]
    Iq1Bn,
    /// ik_llama.cpp's 2 bits.
    #[value(name = "iq2_bn")]
    Iq2Bn,
    /// ik_llama.cpp's 2 bits, four rows interleaved.
    #[value(name = "iq2_bn_r4")]
    Iq2BnR4,
}

impl From<CodecType> for Codec {
    fn from(codec: CodecType) -> Self {
        match codec {
            CodecType::I2S => Self::I2s(I2sLayout::X86),
            CodecType::Tq1_0 => Self::Tq1_0,
            CodecType::Tq2_0 => Self::Tq2_0,
            CodecType::Q2_0 => Self::Q2_0 { group: 64 },
            CodecType::Iq1Bn => Self::Iq1Bn,
            CodecType::Iq2Bn => Self::Iq2Bn,
            CodecType::Iq2BnR4 => Self::Iq2BnR4,
        }
    }
}

pub(crate) fn dummy(args: &Args) -> Result<(), Failure> {
    let spec = models::find(&args.model).ok_or_else(|| {
        let names: Vec<&str> = models::all().iter().map(|model| model.name.as_str()).collect();
        Failure::usage(format!("there is no model named `{}`", args.model))
            .because(format!("the names are {}", names.join(", ")))
            .hint("trilut dummy --model bitnet-2b-4t -o dummy.gguf")
    })?;
    interrupt::heed_termination();
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("[{bar:24}] {bytes} of {total_bytes}  left {eta}");
    bar.set_style(style.expect("the template is well-formed").progress_chars("=> "));
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let cancelled = match args.safetensors {
        Some(weights) => {
            let weights = match weights {
                Weights::Packed => CheckpointWeights::Packed,
                Weights::Masters => CheckpointWeights::Masters,
            };
            let options =
                CheckpointOptions { weights, seed: args.seed, shards: args.shards as usize };
            output::make_directory(&args.output).map_err(|error| {
                Failure::of(&error).context(format!("cannot write to {}", args.output.display()))
            })?;
            match write_checkpoint(spec, options, &args.output, &mut progress) {
                Err(ConvertError::Cancelled) => true,
                written => {
                    written?;
                    false
                }
            }
        }
        None => {
            output::check_file(&args.output)?;
            let options = DummyOptions {
                seed: args.seed,
                head: args.head.into(),
                codec: args.codec.into(),
                layers: args.layers,
            };
            match write_dummy(spec, options, &args.output, &mut progress) {
                Err(DummyError::Cancelled) => true,
                written => {
                    written?;
                    false
                }
            }
        }
    };
    bar.finish_and_clear();
    if cancelled {
        return Err(Failure::interrupted());
    }
    say!("wrote {}", args.output.display());
    Ok(())
}
