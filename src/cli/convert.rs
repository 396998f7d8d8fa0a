//! `trilut convert` and `trilut quantize`: models of other forms to GGUF.

use super::failure::Failure;
use super::layouts::Layouts;
use super::model::{EMBEDDED, Source};
use super::output::{count, outln, say};
use super::table::Table;
use super::{interrupt, output};
use indicatif::{ProgressBar, ProgressStyle};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trilut_runtime::convert::{
    self, ConvertError, Options, Report, ScaleMeaning, Step, TensorReport,
};
use trilut_runtime::gguf::{Gguf, TensorKind, TernaryLayouts};
use trilut_runtime::ternary::{Codec, I2sLayout};

/// Convert a ternary model: a Hugging Face checkpoint or a GGUF file of another codec.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// What `weight_scale` of packed checkpoints means; config.json says it without this.
    #[arg(long, value_enum, default_value = "auto")]
    scales: Scales,
    /// Print every ternary tensor with its scale and its share of zeros.
    #[arg(long)]
    tensors: bool,
}

/// Make a ternary model of any float Llama-type model, for measuring: quality is lost.
#[derive(Debug, clap::Args)]
pub(crate) struct QuantizeArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Directory of a checkpoint (config.json, *.safetensors, tokenizer), or GGUF file; `demo` is the
    /// embedded model where nothing else has this name.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// GGUF file to write.
    #[arg(value_name = "DST")]
    target: PathBuf,
    /// Codec of the linear layers.
    #[arg(long, value_enum, default_value = "i2_s")]
    codec: CodecName,
    /// Type of token embedding and head; without it as in the GGUF file, or f16 from a checkpoint.
    #[arg(long, value_enum)]
    head: Option<HeadType>,
    /// Read the file back and compare every tensor before it gets its name.
    #[arg(long)]
    verify: bool,
    /// Name of the pre-tokenizer, such as llama-bpe or qwen2, where the checkpoint does not tell.
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    #[command(flatten)]
    layouts: Layouts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CodecName {
    /// 2 bits per weight; executed in place.
    #[value(name = "i2_s")]
    I2S,
    /// 2.06 bits per weight, as llama.cpp stores it.
    #[value(name = "tq2_0")]
    Tq2_0,
    /// 1.69 bits per weight, as llama.cpp stores it.
    #[value(name = "tq1_0")]
    Tq1_0,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum HeadType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit codes in blocks of 32.
    #[value(name = "q8_0")]
    Q8_0,
    /// 6-bit codes in blocks of 256.
    #[value(name = "q6_k")]
    Q6K,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scales {
    /// As config.json says.
    Auto,
    /// The value of weight +1.
    Multiplier,
    /// The reciprocal of that.
    Reciprocal,
}

/// What is converted.
enum Given {
    /// The checkpoint in the directory that was named.
    Checkpoint,
    /// A file, or the embedded model.
    Gguf(Gguf),
}

impl Common {
    /// Opens the source, once source and target are known to be different things that can be used.
    fn open(&self) -> Result<Given, Failure> {
        let (source, target) = (&self.source, &self.target);
        let exists = source.exists();
        if !exists && source != Path::new(EMBEDDED) {
            return Err(Failure::new(format!("there is no {}", source.display()))
                .hint("give the directory of a checkpoint, or a GGUF file"));
        }
        output::check_file(target)?;
        if same_file(source, target) {
            return Err(Failure::usage("source and target are the same file"));
        }
        if is_part(source, target) {
            let what = format!("{} is a file of the source", target.display());
            return Err(Failure::usage(what).hint("choose a name that ends in .gguf"));
        }
        Ok(match exists {
            true if source.is_dir() => Given::Checkpoint,
            true => Given::Gguf(Source::File(source.clone()).open()?),
            false => Given::Gguf(Source::Embedded.open()?),
        })
    }

    fn options(&self, given: &Given) -> Result<Options, Failure> {
        let layouts = match given {
            Given::Checkpoint => {
                self.layouts.refuse("the source is a checkpoint, not a GGUF file")?;
                TernaryLayouts::default()
            }
            Given::Gguf(gguf) => self.layouts.read(gguf)?,
        };
        Ok(Options {
            codec: match self.codec {
                CodecName::I2S => Codec::I2s(I2sLayout::X86),
                CodecName::Tq2_0 => Codec::Tq2_0,
                CodecName::Tq1_0 => Codec::Tq1_0,
            },
            head: self.head.map(|head| match head {
                HeadType::F32 => TensorKind::F32,
                HeadType::F16 => TensorKind::F16,
                HeadType::Q8_0 => TensorKind::Q8_0,
                HeadType::Q6K => TensorKind::Q6K,
            }),
            verify: self.verify,
            pre: self.pre.clone(),
            layouts,
            ..Options::default()
        })
    }
}

pub(crate) fn convert(args: &Args) -> Result<(), Failure> {
    let scales = match args.scales {
        Scales::Auto => ScaleMeaning::Auto,
        Scales::Multiplier => ScaleMeaning::Multiplier,
        Scales::Reciprocal => ScaleMeaning::Reciprocal,
    };
    let given = args.common.open()?;
    let options = Options { scales, ..args.common.options(&given)? };
    let report = go(given, &args.common, &options)?;
    if args.tensors {
        outln!("{}", table(&report.tensors).plain().trim_end());
    }
    Ok(())
}

pub(crate) fn quantize(args: &QuantizeArgs) -> Result<(), Failure> {
    let given = args.common.open()?;
    let options = Options { ternarise: true, ..args.common.options(&given)? };
    say!(
        "warning: a model that was not trained to be ternary does not keep its quality: expect nonsense. \
         Use this to measure speed and memory, or as a start for training."
    );
    let report = go(given, &args.common, &options)?;
    outln!("{}", table(&report.tensors).plain().trim_end());
    let errors: Vec<f64> = report.tensors.iter().filter_map(|tensor| tensor.error).collect();
    if let Some(worst) = errors.iter().copied().reduce(f64::max) {
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        say!(
            "relative error of the weights: {:.1} % on average, {:.1} % at worst",
            mean * 100.0,
            worst * 100.0
        );
    }
    Ok(())
}

/// Converts with a bar, and says what was done.
fn go(given: Given, common: &Common, options: &Options) -> Result<Report, Failure> {
    let target = &common.target;
    interrupt::heed_termination();
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg:9} [{bar:24}] {percent:>3}%  left {eta}");
    bar.set_style(style.expect("the template is well-formed").progress_chars("=> "));
    let began = std::time::Instant::now();
    let mut last = None;
    let mut progress = |step: Step, done, total| {
        if last.replace(step) != Some(step) {
            bar.reset();
            bar.set_message(match step {
                Step::Plan => "reading",
                Step::Write => "writing",
                Step::Verify => "comparing",
            });
        }
        bar.set_length(total);
        bar.set_position(done);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let converted = match given {
        Given::Checkpoint => convert::convert(&common.source, target, options, &mut progress),
        Given::Gguf(gguf) => convert::convert_gguf(gguf, target, options, &mut progress),
    };
    bar.finish_and_clear();
    let report = match converted {
        Err(ConvertError::Cancelled) => return Err(Failure::interrupted()),
        Err(error @ ConvertError::Idle { .. }) => return Err(Failure::from(error).into_usage()),
        Err(error @ ConvertError::Differs { .. }) => return Err(Failure::from(error).into_check()),
        converted => converted?,
    };
    report.notes.iter().for_each(|note| say!("note: {note}"));
    let bytes = std::fs::metadata(target).map_or(0, |facts| facts.len());
    say!(
        "wrote {}: {}, {}, {} of them ternary ({}), {:.1} MB in {:.1} s{}",
        target.display(),
        report.architecture,
        count(report.count, "tensor"),
        report.tensors.len(),
        options.codec.name(),
        bytes as f64 / 1e6,
        began.elapsed().as_secs_f64(),
        if options.verify { "; every tensor was compared" } else { "" },
    );
    Ok(report)
}

fn same_file(source: &Path, target: &Path) -> bool {
    matches!((source.canonicalize(), target.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Whether the target is a file of a checkpoint, which may hold models that were made of it before.
fn is_part(source: &Path, target: &Path) -> bool {
    let (Ok(source), Ok(target)) = (source.canonicalize(), target.canonicalize()) else {
        return false;
    };
    target.starts_with(source) && target.extension().is_none_or(|end| end != "gguf")
}

fn table(tensors: &[TensorReport]) -> Table {
    let mut table = Table::new(&["tensor", "size", "scale", "zeros", "error"], 1);
    for TensorReport { name, m, k, scale, zeros, error } in tensors {
        table.row([
            name.clone(),
            format!("{m}x{k}"),
            format!("{scale:.6}"),
            format!("{:.1} %", zeros * 100.0),
            error.map_or("none".to_owned(), |error| format!("{:.1} %", error * 100.0)),
        ]);
    }
    table
}
