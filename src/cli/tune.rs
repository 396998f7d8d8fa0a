//! `trilut tune`: finds the fastest exact kernels for this CPU and writes a preset.

use super::failure::Failure;
use super::model::{self, Source};
use super::output::{self, count, out, outln};
use super::planning::{self, Here};
use super::progress::Bar;
use super::table::Table;
use super::{environment, interrupt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Effort, Record};
use trilut_presets::{Format, Phase, Preset, Shape, models};
use trilut_runtime::Config;
use trilut_tuning::{BATCH_TOKENS, Outcome, PROMPT_TOKENS, Request, ShapeUse, Stopped, space};

/// Find the fastest exact kernels for a model's layers on this CPU, and remember them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file, or the name of a known model; the embedded model without -m and --shape.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Layer size in place of a model, outputs x inputs; repeatable.
    #[arg(long, value_name = "MxK")]
    shape: Vec<Shape>,
    /// What to tune for: one token at a time, a few at once, prompts, or all in equal parts of the time.
    #[arg(long, value_enum, default_value = "all")]
    phase: Phases,
    /// Weight format: i2_s, tl1, tl2, base3; all are raced without it. Repeatable; prompts read the first.
    #[arg(long)]
    format: Vec<Format>,
    /// How much to do: estimate (seconds) or measure.
    #[arg(long, default_value = "measure")]
    effort: Effort,
    /// When to stop; what is finished is kept.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    time_limit: Duration,
    /// Number of threads; every core without it.
    #[arg(short, long)]
    threads: Option<usize>,
    /// Preset file to write or add to, in place of the user's cache.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tune even what has been tuned already.
    #[arg(long)]
    force: bool,
    /// Print what is searched, and do nothing else.
    #[arg(long)]
    list_space: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Phases {
    /// One token at a time.
    Decode,
    /// A few tokens at once, as of several chats, by what decoding reads.
    Batch,
    /// Prompts.
    Prefill,
    /// All of them.
    All,
}

impl Phases {
    fn list(self) -> &'static [Phase] {
        match self {
            Self::Decode => &[Phase::Decode],
            Self::Batch => &[Phase::SmallBatch],
            Self::Prefill => &[Phase::Prefill],
            Self::All => Phase::ALL,
        }
    }
}

pub(crate) fn tune(args: Args) -> Result<(), Failure> {
    if args.list_space {
        return list_space();
    }
    let threads = environment::threads(args.threads)?;
    let (shapes, bytes) = shapes(&args)?;
    let formats = if args.format.is_empty() { Format::ALL.to_vec() } else { args.format };
    let here = Here::find(None)?;
    let path = match args.output {
        Some(path) => path,
        None => here.cache_file().ok_or_else(|| {
            Failure::new("this user has no cache directory")
                .hint("name a file: trilut tune -o FILE")
        })?,
    };
    output::check_file(&path)?;
    let request = here.request(shapes, bytes, formats, threads, args.effort, args.time_limit);
    let tuned = tuned(&request, Some(&path), args.force)?;
    out!("{}", tuned.table(&request).plain());
    match tuned.outcome {
        None => {
            eprintln!("nothing to do: {} is up to date (--force tunes again)", path.display());
            Ok(())
        }
        Some(outcome) => {
            if !outcome.preset.records().is_empty() {
                planning::save(outcome.preset.clone(), &path)?;
                eprintln!("saved to {}", path.display());
            }
            finish(&outcome)
        }
    }
}

/// Every knob with its values.
fn list_space() -> Result<(), Failure> {
    let mut table = Table::new(&["phase", "knob", "values", "meaning"], 4);
    let kernels = "those that are exact and accept the shape";
    for &phase in Phases::All.list() {
        let meaning = match phase {
            Phase::Prefill => "gemm kernels, for layers that share an input; named likewise",
            Phase::SmallBatch => {
                "small-batch kernels of the format that decoding reads, or a token at a time"
            }
            Phase::Decode => "gemv kernels; `trilut codegen --isa ISA --emit list` names them",
        };
        table.row([phase.name(), "kernel", kernels, meaning]);
        for knob in space::KNOBS.iter().filter(|knob| knob.phases.contains(&phase)) {
            let values: Vec<String> = knob.values.iter().map(usize::to_string).collect();
            table.row([phase.name(), knob.name, &values.join(" "), knob.help]);
        }
    }
    out!("{}", table.plain());
    outln!("batch is timed with {BATCH_TOKENS} tokens, prefill with prompts of {PROMPT_TOKENS}");
    Ok(())
}

/// The shapes to tune, and the bytes of the weights of their model.
fn shapes(args: &Args) -> Result<(Vec<ShapeUse>, u64), Failure> {
    let phases = args.phase.list();
    if args.shape.is_empty() {
        let config = config(args.model.clone())?;
        return Ok((model::shapes(&config, phases), model::bytes(&config)));
    }
    let mut uses: Vec<ShapeUse> = Vec::new();
    for (&phase, &shape) in phases.iter().flat_map(|p| args.shape.iter().map(move |s| (p, s))) {
        let used = ShapeUse { phase, shape, count_per_token: 1 };
        if !uses.contains(&used) {
            uses.push(used);
        }
    }
    // A shape by itself is taken for a layer of a model that is larger than the caches.
    Ok((uses, u64::MAX))
}

/// The sizes of a model file, or of a known model for which there need be no file.
fn config(model: Option<PathBuf>) -> Result<Config, Failure> {
    let known = model.as_deref().filter(|path| !path.exists()).and_then(Path::to_str);
    match known.and_then(models::find) {
        Some(spec) => Ok(Config::from_spec(spec)?),
        None => Ok(Config::from_gguf(&Source::new(model).open()?)?),
    }
}

/// What is known of a request's shapes, measured now or earlier.
pub(crate) struct Tuned {
    /// Records of earlier runs, with those of this run in place of older ones.
    pub(crate) preset: Preset,
    /// This run, whose records are still to be saved; `None` if there was nothing to do.
    pub(crate) outcome: Option<Outcome>,
}

/// Tunes the shapes that have no current record in the file. With nothing to do, nothing is run.
pub(crate) fn tuned(request: &Request, path: Option<&Path>, force: bool) -> Result<Tuned, Failure> {
    let earlier = path.filter(|path| path.exists()).and_then(|path| match Preset::load(path) {
        Ok(preset) => Some(preset),
        // Saving sets an unreadable file aside; the run goes on.
        Err(error) => {
            eprintln!("note: {}", Failure::from(error).summary());
            None
        }
    });
    // What was made elsewhere is neither current nor to be mixed with what is made here.
    let earlier = earlier
        .filter(|earlier| earlier.likeness(&request.machine, request.isa()) == Likeness::SameCpu);
    let needed = match &earlier {
        Some(preset) if !force => trilut_tuning::needed(preset, request),
        _ => request.shapes.clone(),
    };
    match earlier {
        Some(preset) if needed.is_empty() => Ok(Tuned { preset, outcome: None }),
        earlier => {
            let known = earlier.as_ref().map_or(request.clone(), |preset| request.knowing(preset));
            let outcome = run(&Request { shapes: needed, ..known })?;
            let mut preset = outcome.preset.clone();
            if let Some(mut earlier) = earlier {
                earlier.merge(preset);
                preset = earlier;
            }
            Ok(Tuned { preset, outcome: Some(outcome) })
        }
    }
}

impl Tuned {
    /// One row per shape of the request that has a record.
    pub(crate) fn table(&self, request: &Request) -> Table {
        let headings = [
            "phase",
            "shape",
            "format",
            "kernel",
            "tile",
            "time",
            "GB/s",
            "GMAC/s",
            "x default",
            "x scalar",
        ];
        let mut table = Table::new(&headings, 5);
        let find = |used: &ShapeUse| self.preset.record(used.shape, used.phase, request.threads);
        request.shapes.iter().filter_map(find).for_each(|record| table.row(row(record)));
        table
    }
}

/// Runs the tuner under a progress bar, and tells what it says about the run as a whole.
fn run(request: &Request) -> Result<Outcome, Failure> {
    eprintln!(
        "tuning {} for {} on {} ({}), at most {}",
        count(request.shapes.len(), "shape"),
        count(request.threads, "thread"),
        request.machine.brand.trim(),
        request.isa(),
        humantime::format_duration(request.limit()),
    );
    let mut bar = Bar::new();
    let outcome = trilut_tuning::tune(request, &mut bar)?;
    drop(bar);
    outcome.notes.iter().for_each(|note| eprintln!("note: {note}"));
    for (phase, what) in [
        (Phase::Decode, "decoded token"),
        (Phase::SmallBatch, "token in a small batch"),
        (Phase::Prefill, "prompt token"),
    ] {
        if let Some((tuned, default)) = outcome.token_ns(phase) {
            eprintln!(
                "ternary layers of one {what}: {:.3} ms tuned, {:.3} ms by default",
                tuned / 1e6,
                default / 1e6,
            );
        }
    }
    Ok(outcome)
}

/// Says what is unfinished; an interrupted run ends here.
fn finish(outcome: &Outcome) -> Result<(), Failure> {
    let left = outcome.unfinished.len();
    match outcome.stopped {
        Some(Stopped::Cancelled) => {
            eprintln!("interrupted: {} shapes are finished and kept", outcome.shapes.len());
            Err(Failure::interrupted())
        }
        _ if interrupt::asked() => Err(Failure::interrupted()),
        Some(Stopped::TimeLimit) if left > 0 => {
            eprintln!(
                "the time limit left {left} shapes untuned: run again, or raise --time-limit"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A record in words and numbers.
fn row(record: &Record) -> [String; 10] {
    let ns = record.median_ns.max(1) as f64;
    // Prompts are bound by their products, not by their weights.
    let gemv = trilut_kernels::find(&record.kernel).map(|kernel| kernel.layout);
    let batch = trilut_kernels::find_batch(&record.kernel).map(|kernel| kernel.layout);
    let layout = gemv.or(batch);
    let streamed = layout.map(|layout| layout.bytes(record.shape) as f64 / ns);
    let phase = match record.tokens {
        1 => record.phase.to_string(),
        tokens => format!("{} of {tokens}", record.phase),
    };
    let products = (record.shape.weights() * record.tokens) as f64;
    let decimal = |value: f64| format!("{value:.1}");
    [
        phase,
        record.shape.to_string(),
        record.format.to_string(),
        record.kernel.clone(),
        record.tile.in_words(record.phase),
        format!("{:.1} us", ns / 1e3),
        streamed.map_or("-".to_owned(), decimal),
        decimal(products / ns),
        format!("{:.2}", record.default_ns as f64 / ns),
        record.scalar_ns.map_or("-".to_owned(), |scalar| decimal(scalar as f64 / ns)),
    ]
}
