//! `trilut codegen`: prints the kernels that would be generated for a shape or a model.

use super::assembly;
use super::failure::Failure;
use super::output::out;
use std::path::{Path, PathBuf};
use trilut_codegen::{LIBRARY, Named, Set, SetModule, lattice};
use trilut_presets::models::{self, ModelSpec};
use trilut_presets::{Format, Isa, KernelName, MicroTile, Preset, Shape, nearest};

/// Print the generated kernels for shapes or a model, their plans or their machine code.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of a layer, outputs x inputs; repeatable.
    #[arg(long, value_name = "MxK")]
    shape: Vec<Shape>,
    /// Every layer of a model: a known name or a .toml file, as in presets/models.
    #[arg(long, value_name = "FILE.toml")]
    model: Option<String>,
    /// Weight format: i2_s, tl1, tl2, base3; i2_s without it. Repeatable.
    #[arg(long)]
    format: Vec<Format>,
    /// Instruction set, avx2 without it; `--emit list` without shapes names the lattice of one. Repeatable.
    #[arg(long)]
    isa: Vec<Isa>,
    /// Rows per pass and unroll, such as r4u2, in place of what does well untuned.
    #[arg(long, value_name = "rNuN")]
    tile: Option<MicroTile>,
    /// Preset file: also the kernels that won there for layers with as many inputs.
    #[arg(long, value_name = "FILE")]
    preset: Option<PathBuf>,
    /// A kernel by its whole name; repeatable.
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// What to print.
    #[arg(long, value_enum, default_value = "rust")]
    emit: Emit,
    /// Compare with a file instead of printing: exit code 3 and the first differing line if it differs.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Emit {
    /// The function; of several kernels the whole module, as build scripts write it.
    Rust,
    /// The machine code, as it is compiled into this program.
    Asm,
    /// Widths, bounds and cost in words.
    Plan,
    /// Kernel names; without shape, model or kernel those of the lattice for an isa.
    List,
}

pub(crate) fn codegen(args: &Args) -> Result<(), Failure> {
    let text = text(args)?;
    match &args.check {
        None => {
            out!("{text}");
            Ok(())
        }
        Some(path) => check(path, &text),
    }
}

fn text(args: &Args) -> Result<String, Failure> {
    let set = set(args)?;
    if set.is_empty() {
        return match args.emit {
            Emit::List => isas(args).into_iter().map(lattice_names).collect(),
            _ => Err(Failure::usage("--shape, --model or --kernel is needed")
                .hint("trilut codegen --shape 2560x6912 --emit plan")),
        };
    }
    let members = set.members(None)?;
    Ok(match args.emit {
        Emit::List => members.iter().map(|member| format!("{member}\n")).collect(),
        Emit::Plan => blocks(members.iter().map(Named::report)),
        Emit::Asm => {
            let listings = members.iter().map(listing).collect::<Result<Vec<_>, _>>()?;
            blocks(listings.into_iter())
        }
        Emit::Rust => match members.as_slice() {
            [one] => one.emit().text,
            _ => SetModule::new(&set, None)?.text(LIBRARY),
        },
    })
}

/// Texts with an empty line between two.
fn blocks(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n")
}

fn isas(args: &Args) -> Vec<Isa> {
    if args.isa.is_empty() { vec![Isa::Avx2] } else { args.isa.clone() }
}

/// Every kernel of the lattice for an ISA, one to a line.
fn lattice_names(isa: Isa) -> Result<String, Failure> {
    let specs = lattice::specs(isa, models::all()).into_iter().map(|spec| spec.name.to_string());
    let gemms = lattice::gemms(isa).into_iter().map(|name| name.to_string());
    let batches = lattice::batches(isa).into_iter().map(|name| name.to_string());
    let names: String = specs.chain(batches).chain(gemms).map(|name| name + "\n").collect();
    match names.is_empty() {
        true => Err(Failure::new(format!("there are no kernels for isa `{isa}`"))
            .hint("trilut codegen --isa avx2 --emit list")),
        false => Ok(names),
    }
}

/// What the arguments describe.
fn set(args: &Args) -> Result<Set, Failure> {
    let mut set = Set::default();
    args.shape.iter().try_for_each(|&shape| set.shape(shape))?;
    if let Some(model) = &args.model {
        match models::find(model) {
            Some(model) => set.model(model),
            None => set.model(&model_file(model)?),
        }
    }
    match args.format.as_slice() {
        [] => set.format(Format::I2S)?,
        formats => formats.iter().try_for_each(|&format| set.format(format))?,
    }
    isas(args).into_iter().try_for_each(|isa| set.isa(isa))?;
    if let Some(tile) = args.tile {
        set.tile(tile);
    }
    if let Some(preset) = &args.preset {
        set.preset(Preset::load(preset)?);
    }
    args.kernel.iter().try_for_each(|name| set.kernel(name))?;
    Ok(set)
}

fn model_file(name: &str) -> Result<ModelSpec, Failure> {
    if Path::new(name).extension().is_none_or(|end| end != "toml") {
        let names = || models::all().iter().map(|model| model.name.as_str());
        let near = nearest(name, names()).unwrap_or("bitnet-2b-4t");
        return Err(Failure::usage(format!("no model is named `{name}`"))
            .because(format!("legal: a .toml file, {}", names().collect::<Vec<_>>().join(", ")))
            .hint(format!("trilut codegen --model {near} --emit list")));
    }
    let text = std::fs::read_to_string(name)
        .map_err(|error| Failure::of(&error).context(format!("cannot read {name}")))?;
    ModelSpec::from_toml(&text).map_err(|error| Failure::of(&error).context(name).into_usage())
}

/// The machine code of a kernel of this program; of one made for a number of inputs, if that is not
/// compiled in, of the one for any number.
fn listing(member: &Named) -> Result<String, Failure> {
    let name = member.to_string();
    let find = |name: &str| {
        let gemv = trilut_kernels::find(name).map(|kernel| kernel.code());
        let gemm = || trilut_kernels::find_gemm(name).map(|kernel| kernel.code());
        let batch = || trilut_kernels::find_batch(name).map(|kernel| kernel.code());
        gemv.or_else(gemm).or_else(batch)
    };
    if let Some(code) = find(&name) {
        return assembly::listing(&name, code);
    }
    if let Named::Gemv(plan) = member {
        let any = KernelName { fixed: Default::default(), ..plan.spec.name }.to_string();
        if let Some(code) = find(&any) {
            eprintln!("note: {name} is not compiled into this program; shown is {any}");
            return assembly::listing(&any, code);
        }
    }
    let isa = member.isa();
    Err(Failure::new(format!("{name} is not compiled into this program"))
        .hint(format!("trilut codegen --isa {isa} --emit list")))
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
