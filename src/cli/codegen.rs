//! `trilut codegen`: prints the kernels that would be generated for a shape or a model.

mod machine_code;

use super::failure::Failure;
use super::output::{out, say};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use trilut_codegen::{Library, Named, Set, SetModule, lattice};
use trilut_presets::models::{self, ModelSpec};
use trilut_presets::{Format, Isa, MicroTile, ParseError, Preset, Shape, nearest};

/// Print the generated kernels for shapes or a model, their plans or their machine code.
///
/// Layers get kernels of one token (gemv), made for their number of inputs, and a safe function each. Kernels
/// of prompts (gemm: rows by tokens) and of small batches serve layers of any size: they are asked for by
/// --kernel, or come from --preset. In a crate of your own, the macro `kernels!` and build scripts with
/// trilut-build take the same words.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of a layer, outputs x inputs (the tokens of a prompt are no part of it), and a tile if it shall
    /// have one of its own; repeatable.
    #[arg(long, value_name = "MxK[:rNuN]", allow_hyphen_values = true)]
    shape: Vec<Layer>,
    /// Every ternary layer of a model: a known name or a .toml file, as in presets/models.
    #[arg(long, value_name = "NAME|FILE.toml")]
    model: Option<String>,
    /// Weight format of the layers: i2_s, tl1, tl2, base3. Without it what --preset names, else i2_s.
    /// Repeatable.
    #[arg(long)]
    format: Vec<Format>,
    /// Instruction set of the layers' kernels. Without it what --preset names, else avx2. Repeatable.
    #[arg(long)]
    isa: Vec<Isa>,
    /// Rows per pass and unroll, such as r4u2, in place of what does well untuned.
    #[arg(long, value_name = "rNuN")]
    tile: Option<MicroTile>,
    /// Preset file: also the kernels that won there for layers with as many inputs.
    #[arg(long, value_name = "FILE")]
    preset: Option<PathBuf>,
    /// A kernel of any kind by its whole name; repeatable.
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// What to print.
    #[arg(long, value_enum, default_value = "rust")]
    emit: Emit,
    /// Path of the kernels crate in the crate that the text is for: ::trilut::kernels where that depends on
    /// trilut alone. ::trilut_kernels without it.
    #[arg(long, value_name = "PATH")]
    library: Option<Library>,
    /// Compare with a file instead of printing: exit code 3 and the first differing line if it differs.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// A layer, and the tile of its kernels if it has one of its own.
#[derive(Debug, Clone, Copy)]
struct Layer {
    shape: Shape,
    tile: Option<MicroTile>,
}

impl FromStr for Layer {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(match text.split_once(':') {
            None => Self { shape: text.parse()?, tile: None },
            Some((shape, tile)) => Self { shape: shape.parse()?, tile: Some(tile.parse()?) },
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Emit {
    /// A module, as `kernels!` and build scripts make it: kernels, a safe function for each layer and format,
    /// the registry for the engine, the check of all. Of one --kernel alone its function.
    Rust,
    /// The machine code, as it is compiled into this program.
    Asm,
    /// Widths, bounds and cost in words.
    Plan,
    /// Kernel names. Without shape, model or kernel those of the lattice, which is what programs have
    /// compiled in: all, or those that read --format for --isa.
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
    refuse_idle(args)?;
    if !has_layers(args) && args.kernel.is_empty() {
        return lattice_names(args);
    }
    let set = set(args)?;
    let members = set.members(None).map_err(|error| match &args.preset {
        Some(file) if matches!(error, trilut_codegen::Error::Preset { .. }) => Failure::from(error)
            .context(format!("{} names no kernel for these layers", file.display()))
            .hint(format!("trilut presets show {}", file.display())),
        _ => Failure::from(error),
    })?;
    let library = args.library.clone().unwrap_or_default();
    Ok(match args.emit {
        Emit::List => members.iter().map(|member| format!("{member}\n")).collect(),
        Emit::Plan => blocks(members.iter().map(Named::report)),
        Emit::Asm => machine_code::listings(&members)?,
        Emit::Rust => match members.as_slice() {
            [one] if !has_layers(args) => library.relocate(&one.emit().text),
            _ => SetModule::new(&set, None)?.text(&library),
        },
    })
}

/// Texts with an empty line between two.
fn blocks(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n")
}

/// Whether kernels for layers are asked for.
fn has_layers(args: &Args) -> bool {
    !args.shape.is_empty() || args.model.is_some()
}

/// Refuses arguments that would change nothing.
fn refuse_idle(args: &Args) -> Result<(), Failure> {
    let layers = has_layers(args);
    let lattice = !layers && args.kernel.is_empty();
    if lattice && args.emit != Emit::List {
        return Err(Failure::usage("--shape, --model or --kernel is needed")
            .hint("trilut codegen --shape 2560x6912 --emit plan"));
    }
    if args.library.is_some() && args.emit != Emit::Rust {
        return Err(Failure::usage("--library is for --emit rust")
            .hint("trilut codegen --shape 2560x6912 --library ::trilut::kernels"));
    }
    let idle = [
        ("--tile", "r4u2", args.tile.is_some()),
        ("--preset", "FILE", args.preset.is_some()),
        ("--format", "i2_s", !args.format.is_empty() && !lattice),
        ("--isa", "avx2", !args.isa.is_empty() && !lattice),
    ];
    match idle.iter().find(|(_, _, given)| *given && !layers) {
        None => Ok(()),
        Some((name, value, _)) => {
            let what =
                if lattice { "the list of the lattice" } else { "a kernel by its whole name" };
            Err(Failure::usage(format!("{name} changes nothing about {what}"))
                .because(format!("{name} is for the layers of --shape and --model"))
                .hint(format!("trilut codegen --shape 2560x6912 {name} {value}")))
        }
    }
}

/// The names of the lattice for the ISAs and formats that are asked for, one to a line. Kernels of prompts
/// read no format.
fn lattice_names(args: &Args) -> Result<String, Failure> {
    let all = Isa::ALL.iter().copied().filter(|&isa| isa != Isa::Emulated);
    let isas = if args.isa.is_empty() { all.collect() } else { args.isa.clone() };
    let mut names = String::new();
    for isa in isas {
        for member in lattice::members(isa, models::all())? {
            let reads = |format: &Format| member.format() == Some(*format);
            if args.format.is_empty() || args.format.iter().any(reads) {
                names += &format!("{member}\n");
            }
        }
    }
    match names.is_empty() {
        true => Err(Failure::new("the lattice has no kernels for these formats and isas")
            .because("CPUs with them run the kernels of a lesser isa")
            .hint("trilut codegen --isa avx2 --emit list")),
        false => Ok(names),
    }
}

/// What the arguments describe.
fn set(args: &Args) -> Result<Set, Failure> {
    let mut set = Set::default();
    for layer in &args.shape {
        set.shape(layer.shape)?;
        if let Some(tile) = layer.tile {
            set.tile_of(layer.shape, tile)?;
        }
    }
    if let Some(model) = &args.model {
        match models::find(model) {
            Some(model) => set.model(model),
            None => set.model(&model_file(model)?),
        }
    }
    args.format.iter().try_for_each(|&format| set.format(format))?;
    args.isa.iter().try_for_each(|&isa| set.isa(isa))?;
    let (mut formats, mut isas) = (Vec::new(), Vec::new());
    if let Some(file) = &args.preset {
        let preset = Preset::load(file)?;
        (formats, isas) = set.known_to(&preset)?;
        set.preset(preset);
    }
    let (has_formats, has_isas) = (!args.format.is_empty(), !args.isa.is_empty());
    if let Some(file) = &args.preset {
        let mut taken = Vec::new();
        if !has_formats && !formats.is_empty() {
            let names: Vec<&str> = formats.iter().map(|format| format.name()).collect();
            taken.push(format!("format {}", names.join(", ")));
        }
        if !has_isas && !isas.is_empty() {
            let names: Vec<&str> = isas.iter().map(|isa| isa.name()).collect();
            taken.push(format!("isa {}", names.join(", ")));
        }
        if !taken.is_empty() {
            say!("note: from {}: {}", file.display(), taken.join("; "));
        }
    }
    if !has_formats {
        let formats = if formats.is_empty() { vec![Format::I2S] } else { formats };
        formats.into_iter().try_for_each(|format| set.format(format))?;
    }
    if !has_isas {
        let isas = if isas.is_empty() { vec![Isa::Avx2] } else { isas };
        isas.into_iter().try_for_each(|isa| set.isa(isa))?;
    }
    if let Some(tile) = args.tile {
        set.tile(tile);
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
    let text = std::fs::read_to_string(name).map_err(|error| {
        Failure::of(&error)
            .context(format!("cannot read {name}"))
            .hint("trilut codegen --model bitnet-2b-4t --emit list")
    })?;
    ModelSpec::from_toml(&text).map_err(|error| {
        Failure::of(&error)
            .context(format!("{name} is not usable"))
            .hint("trilut codegen --model bitnet-2b-4t --emit list")
    })
}

/// Fails when the file does not hold exactly `text`, naming the first line that differs.
fn check(path: &Path, text: &str) -> Result<(), Failure> {
    let file = std::fs::read_to_string(path).map_err(|error| {
        Failure::of(&error)
            .context(format!("cannot read {}", path.display()))
            .hint("the same command without --check generates what it is compared with")
    })?;
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
