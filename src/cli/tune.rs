//! `trilut tune`: finds the fastest exact kernels for this CPU and writes a preset.

use super::failure::Failure;
use super::model::{self, Source};
use super::output::{self, count, out};
use super::planning::{self, Here};
use super::progress::Bar;
use super::table::Table;
use super::{environment, interrupt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Effort, Record};
use trilut_presets::{Format, Phase, Preset, Shape};
use trilut_runtime::Config;
use trilut_tuning::{Outcome, Request, ShapeUse, Stopped, space};

/// Find the fastest exact kernels for a model's layers on this CPU, and remember them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without -m and --shape.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Layer size in place of a model, outputs x inputs; repeatable.
    #[arg(long, value_name = "MxK")]
    shape: Vec<Shape>,
    /// Weight format: i2_s, tl1, tl2, base3; all are raced without it. Repeatable.
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

pub(crate) fn tune(args: Args) -> Result<(), Failure> {
    if args.list_space {
        return list_space();
    }
    let threads = environment::threads(args.threads)?;
    let shapes = shapes(&args)?;
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
    // A shape by itself is taken for a layer of a model that is larger than the caches.
    let bytes = if args.shape.is_empty() { model::bytes(&shapes) } else { u64::MAX };
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
    let mut table = Table::new(&["knob", "values", "meaning"], 3);
    let kernels = "those that are exact and accept the shape";
    table.row(["kernel", kernels, "`trilut codegen --isa ISA --emit list` names them"]);
    for knob in space::KNOBS {
        let values: Vec<String> = knob.values.iter().map(usize::to_string).collect();
        table.row([knob.name, &values.join(" "), knob.help]);
    }
    out!("{}", table.plain());
    Ok(())
}

fn shapes(args: &Args) -> Result<Vec<ShapeUse>, Failure> {
    if args.shape.is_empty() {
        let gguf = Source::new(args.model.clone()).open()?;
        return Ok(model::shapes(&Config::from_gguf(&gguf)?));
    }
    let mut uses: Vec<ShapeUse> = Vec::new();
    for &shape in &args.shape {
        if uses.iter().all(|used| used.shape != shape) {
            uses.push(ShapeUse { shape, count_per_token: 1 });
        }
    }
    Ok(uses)
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
            let outcome = run(&Request { shapes: needed, ..request.clone() })?;
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
        let headings =
            ["shape", "format", "kernel", "tile", "time", "GB/s", "x default", "x scalar"];
        let mut table = Table::new(&headings, 4);
        let find = |used: &ShapeUse| self.preset.record(used.shape, Phase::Decode, request.threads);
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
    let (tuned, default) = outcome.token_ns();
    eprintln!(
        "ternary layers of one token: {:.3} ms tuned, {:.3} ms by default",
        tuned / 1e6,
        default / 1e6,
    );
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
fn row(record: &Record) -> [String; 8] {
    let ns = record.median_ns.max(1) as f64;
    let layout = trilut_kernels::find(&record.kernel).map(|kernel| kernel.layout);
    let bytes = layout.map_or(0, |layout| layout.bytes(record.shape)) as f64;
    [
        record.shape.to_string(),
        record.format.to_string(),
        record.kernel.clone(),
        record.tile.to_string(),
        format!("{:.1} us", ns / 1e3),
        format!("{:.1}", bytes / ns),
        format!("{:.2}", record.default_ns as f64 / ns),
        record.scalar_ns.map_or("-".to_owned(), |scalar| format!("{:.1}", scalar as f64 / ns)),
    ]
}
