//! `trilut codegen`: prints the kernel that would be generated for a shape.

use super::failure::Failure;
use super::output::out;
use std::path::{Path, PathBuf};
use trilut_codegen::{BatchPlan, GemmPlan, Plan, Spec, emit_batch, emit_gemm, generate, lattice};
use trilut_presets::{BatchName, Format, GemmName, Isa, Shape, models};

/// Print the generated kernel for a shape, or its plan.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the layer, outputs x inputs.
    #[arg(long, value_name = "MxK", required_unless_present_any = ["kernel", "emit"])]
    shape: Option<Shape>,
    /// Weight format: i2_s, tl1, tl2, base3.
    #[arg(long, default_value = "i2_s")]
    format: Format,
    /// Instruction set: scalar, emulated, avx2, avxvnni, avx512, avx512vbmi.
    #[arg(long, default_value = "avx2")]
    isa: Isa,
    /// A gemv, small-batch or gemm kernel by its whole name, in place of shape, format and isa.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["shape", "format", "isa"])]
    kernel: Option<String>,
    /// What to print; `list` names every kernel of the lattice for the isa.
    #[arg(long, value_enum, default_value = "rust")]
    emit: Emit,
    /// Compare with a file instead of printing: exit code 3 and the first differing line if it differs.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Emit {
    /// The function.
    Rust,
    /// Widths, bounds and cost in words.
    Plan,
    /// Kernel names.
    List,
}

pub(crate) fn codegen(args: &Args) -> Result<(), Failure> {
    let text = match args.emit {
        Emit::List if args.shape.is_some() || args.kernel.is_some() => {
            return Err(Failure::usage("--emit list names every kernel of an isa, not of a shape")
                .hint("trilut codegen --isa avx2 --emit list"));
        }
        Emit::List if lattice::spelled().all(|isa| isa != args.isa) => {
            return Err(trilut_codegen::Error::Isa(args.isa).into());
        }
        Emit::List => {
            let specs = lattice::specs(args.isa, models::all()).into_iter();
            let gemms = lattice::gemms(args.isa).into_iter();
            let batches = lattice::batches(args.isa).into_iter();
            specs
                .map(|spec| format!("{}\n", spec.name))
                .chain(batches.map(|name| format!("{name}\n")))
                .chain(gemms.map(|name| format!("{name}\n")))
                .collect()
        }
        Emit::Plan | Emit::Rust => match wanted(args)? {
            Wanted::Batch(plan) if matches!(args.emit, Emit::Plan) => plan.report(),
            Wanted::Batch(plan) => emit_batch(&plan).text,
            Wanted::Gemm(plan) if matches!(args.emit, Emit::Plan) => plan.report(),
            Wanted::Gemm(plan) => emit_gemm(&plan).text,
            Wanted::Gemv(spec) if matches!(args.emit, Emit::Plan) => Plan::new(&spec)?.report(),
            Wanted::Gemv(spec) => generate(&spec)?.text,
        },
    };
    match &args.check {
        None => {
            out!("{text}");
            Ok(())
        }
        Some(path) => check(path, &text),
    }
}

/// The kernel that is asked for.
enum Wanted {
    Gemv(Spec),
    Batch(BatchPlan),
    Gemm(GemmPlan),
}

fn wanted(args: &Args) -> Result<Wanted, Failure> {
    match (&args.kernel, args.shape) {
        (Some(name), _) if name.starts_with("gemm_") => {
            let name: GemmName = name.parse().map_err(trilut_codegen::Error::Word)?;
            Ok(Wanted::Gemm(GemmPlan::new(&name)?))
        }
        (Some(name), _) if name.starts_with("batch_") => {
            let name: BatchName = name.parse().map_err(trilut_codegen::Error::Word)?;
            Ok(Wanted::Batch(BatchPlan::new(&name)?))
        }
        (Some(name), _) => Ok(Wanted::Gemv(name.parse()?)),
        (None, Some(shape)) => {
            Ok(Wanted::Gemv(Spec::representative(shape, args.format, args.isa)?))
        }
        (None, None) => Err(Failure::usage("--shape or --kernel is needed")
            .hint("trilut codegen --shape 2560x6912 --emit plan")),
    }
}

/// Fails when the file does not hold exactly `text`, naming the first line that differs.
fn check(path: &Path, text: &str) -> Result<(), Failure> {
    let file = std::fs::read_to_string(path)
        .map_err(|error| Failure::of(&error).context(format!("cannot read {}", path.display())))?;
    if file == text {
        return Ok(());
    }
    let (mut old, mut new) = (file.lines(), text.lines());
    let mut line = 0;
    loop {
        line += 1;
        let (old, new) = (old.next(), new.next());
        if old != new || old.is_none() {
            if old.is_none() && new.is_none() {
                let what = format!("{} differs in line ends only", path.display());
                return Err(Failure::check(what));
            }
            let show = |text: Option<&str>| text.map_or("(end)".to_owned(), |t| format!("`{t}`"));
            return Err(Failure::check(format!(
                "{} differs from what is generated, first in line {line}",
                path.display()
            ))
            .because(format!("the file has {}", show(old)))
            .because(format!("generated is {}", show(new))));
        }
    }
}
