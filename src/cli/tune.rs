//! `trilut tune`: finds the fastest exact kernels for this CPU and writes a preset.

pub(crate) mod gate;
mod log;
mod recording;
mod report;

use super::failure::Failure;
use super::layouts::Layouts;
use super::model::{self, Source};
use super::output::{self, count, out, outln, say};
use super::planning::{self, Here};
use super::progress::Bar;
use super::table::Table;
use super::{environment, interrupt};
use log::{Log, Task, part};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trilut_kernels::pool::Pool;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Effort, Record};
use trilut_presets::{Format, Phase, Preset, Shape, models};
use trilut_runtime::Config;
use trilut_runtime::gguf::{Gguf, TernaryLayouts};
use trilut_tuning::{
    BATCH_TOKENS, Journal, Logged, Observer, Outcome, PROMPT_TOKENS, Prior, Request, ShapeUse,
    Stopped, bandwidth, effort, end_to_end, space,
};

/// Find the fastest exact kernels for a model's layers on this CPU, and remember them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file, or the name of a known model; the embedded model without -m and --shape.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Layer size in place of a model, outputs x inputs; repeatable.
    #[arg(long, value_name = "MxK", allow_hyphen_values = true)]
    shape: Vec<Shape>,
    /// What to tune for: one token at a time, a few at once, prompts, or all in equal parts of the time.
    #[arg(long, value_enum, default_value = "all")]
    phase: Phases,
    /// Weight format: i2_s, tl1, tl2, base3; all are raced without it. Repeatable; prompts read the first.
    #[arg(long)]
    format: Vec<Format>,
    /// How much to do: estimate (seconds), measure (a minute), patient (with a second opinion) or
    /// exhaustive (every kernel with every value of every knob).
    #[arg(long, default_value = "measure")]
    effort: Effort,
    /// When to stop; what is finished is kept, and the next run goes on from there. By the effort without
    /// it: a minute, ten, an hour.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time_limit: Option<Duration>,
    /// Numbers of threads, separated by commas; every fast core without it. All candidates are raced with
    /// the first, only the finalists with the others.
    #[arg(short, long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Preset file to write or add to, in place of the user's cache.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tune even what has been tuned already.
    #[arg(long)]
    force: bool,
    /// Measure every candidate of each shape and write the times to a directory, a table for each shape:
    /// what the tests of the search are run on. Nothing is tuned.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Samples of each candidate with --record; the nine least are kept.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(3..1000))]
    rounds: u32,
    /// Write a page of what was found, with pictures, to DIR/index.html.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Tokens of prompts and tokens generated in use: what counts where one phase gains and the other loses.
    #[arg(long, value_name = "P:G", default_value = "1:1")]
    mix: end_to_end::Mix,
    /// Do not check at the end whether the model as a whole is faster than by default.
    #[arg(long)]
    no_gate: bool,
    /// Print what is searched, and do nothing else.
    #[arg(long)]
    list_space: bool,
    #[command(flatten)]
    layouts: Layouts,
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
    let threads = match &args.threads[..] {
        [] => vec![environment::threads(None)?],
        given => given.iter().map(|&n| environment::threads(Some(n))).collect::<Result<_, _>>()?,
    };
    let Work { shapes, bytes, gguf, layouts } = work(&args)?;
    let formats = if args.format.is_empty() { Format::ALL.to_vec() } else { args.format };
    let here = Here::find(None)?;
    if let Some(directory) = &args.record {
        let request =
            here.request(shapes, bytes, formats, threads[0], Effort::Exhaustive, Duration::MAX);
        return recording::record(&request, directory, args.rounds as usize);
    }
    let path = match args.output {
        Some(path) => path,
        None => here.cache_file().ok_or_else(|| {
            Failure::new("this user has no cache directory")
                .hint("name a file: trilut tune -o FILE")
        })?,
    };
    output::check_file(&path)?;
    let limit = args.time_limit.unwrap_or(match args.effort {
        Effort::Estimate | Effort::Measure => Duration::from_secs(60),
        Effort::Patient => Duration::from_secs(600),
        Effort::Exhaustive => Duration::from_secs(3600),
    });
    // Part of the time is for the model as a whole.
    let gguf = gguf.filter(|_| args.effort > Effort::Estimate && !args.no_gate);
    let for_gate = gguf.as_ref().map_or(Duration::ZERO, |_| end_to_end::share_of(limit));
    let search = limit.saturating_sub(for_gate);
    let base = here.request(shapes, bytes, formats, threads[0], args.effort, search);
    let task = Task {
        request: &base,
        threads: &threads,
        has_gate: gguf.is_some(),
        forgoes_gate: args.no_gate,
        force: args.force,
    };
    let mut log = Log::open(&path, &task)?;
    let mut is_done = true;
    for (index, &threads) in threads.iter().enumerate() {
        let begin = Instant::now();
        let prior = Prior { finalists_only: index > 0, ..log.prior(threads) };
        let is_resumed = prior.incumbents.is_some();
        let request = Request { threads, prior, ..base.clone() };
        let mut bar = Bar::new();
        let mut recorder = report::Recorder::new(&mut bar);
        let tuned =
            tuned_with(&mut recorder, &request, Some(&path), args.force, log.journal.as_mut())?;
        let moments = std::mem::take(&mut recorder.moments);
        drop(bar);
        out!("{}", tuned.table(&request).plain());
        let Tuned { preset, outcome } = tuned;
        if outcome.is_none() && !is_resumed {
            continue;
        }
        is_done = false;
        let is_new = is_resumed || outcome.as_ref().is_some_and(|o| !o.preset.records().is_empty());
        let is_whole = outcome.as_ref().is_none_or(|outcome| outcome.unfinished.is_empty());
        let gguf = gguf.as_ref().filter(|_| is_whole);
        // What is in the log waits for the gate: should that be interrupted, the next run repeats it.
        if is_new && (gguf.is_none() || log.journal.is_none()) {
            planning::save(preset.clone(), &path)?;
            say!("saved to {}", path.display());
            log.saved();
        }
        if let Some(outcome) = &outcome {
            // Of the run that searched everything.
            if let Some(directory) = args.report.as_ref().filter(|_| index == 0) {
                let bandwidth = {
                    let bytes = bandwidth::sensible_bytes(&request.machine);
                    bandwidth::measure(&Pool::new(threads), bytes, 5)
                };
                let page = report::write(directory, &request, outcome, &moments, bandwidth)?;
                say!("report: {}", page.display());
            }
            finish(outcome)?;
        }
        if let Some(gguf) = gguf {
            // A search that ended early leaves the gate no more than its share.
            let end = Instant::now() + for_gate;
            let deadline = begin.checked_add(limit).map_or(end, |limit| limit.min(end));
            let layers = &base.shapes;
            let gate = gate::Gate {
                here: &here,
                gguf,
                layouts: &layouts,
                layers,
                threads,
                deadline,
                mix: args.mix,
            };
            let checked = gate.check(&preset, &path)?;
            if is_new || checked != preset {
                save_checked(&preset, checked, &path)?;
                say!("saved to {}", path.display());
                log.saved();
            }
        }
    }
    if is_done {
        say!("nothing to do: {} is up to date (--force tunes again)", path.display());
    }
    if threads.len() > 1 {
        compare_threads(&Preset::load(&path)?, &base.shapes, &threads)?;
    }
    Ok(())
}

/// Saves what is left of a preset after the gate; what that dropped goes from the file as well.
fn save_checked(before: &Preset, checked: Preset, path: &Path) -> Result<(), Failure> {
    let is_in = |preset: &Preset, record: &Record| {
        preset.record(record.shape, record.phase, record.threads).is_some()
    };
    let is_left = |record: &Record| !is_in(before, record) || is_in(&checked, record);
    planning::save(checked.clone(), path)?;
    let saved = Preset::load(path)?;
    if !saved.records().iter().all(is_left) {
        part(&saved, is_left).save(path)?;
    }
    Ok(())
}

/// One row for each number of threads: what a token costs in the tuned layers.
fn compare_threads(preset: &Preset, shapes: &[ShapeUse], threads: &[usize]) -> Result<(), Failure> {
    let mut table = Table::new(&["threads", "decode ms/token", "prefill ms/token"], 0);
    let mut best: Option<(f64, usize)> = None;
    for &n in threads {
        let sum = |phase: Phase| -> Option<f64> {
            let uses = shapes.iter().filter(|used| used.phase == phase);
            let times: Option<Vec<f64>> = uses
                .map(|used| {
                    let record = preset.record(used.shape, phase, n)?;
                    let runs = used.count_per_token as f64 / record.tokens as f64;
                    Some(runs * record.median_ns as f64 / 1e6)
                })
                .collect();
            times.filter(|times| !times.is_empty()).map(|times| times.iter().sum())
        };
        let (decode, prefill) = (sum(Phase::Decode), sum(Phase::Prefill));
        let text = |time: Option<f64>| time.map_or("-".to_owned(), |ms| format!("{ms:.3}"));
        table.row([n.to_string(), text(decode), text(prefill)]);
        if let Some(time) = decode.or(prefill)
            && best.is_none_or(|(least, _)| time < least)
        {
            best = Some((time, n));
        }
    }
    outln!("\n{}", table.plain().trim_end());
    if let Some((_, n)) = best {
        outln!("fastest with {}", count(n, "thread"));
    }
    Ok(())
}

/// Every knob with its values.
fn list_space() -> Result<(), Failure> {
    let cpu = trilut_kernels::Cpu::detect();
    let mut table = Table::new(&["phase", "knob", "values", "meaning", "reason"], 5);
    // Of any shape: kernels for one size alone are not counted.
    let shape = Shape { m: 1, k: 1 };
    let gemv = Format::ALL.iter().map(|&format| cpu.candidates(format, shape).count()).sum();
    let gemm = cpu.gemm_candidates().count();
    let batch: usize = Format::ALL.iter().map(|&f| cpu.batch_candidates(f).count()).sum();
    for &phase in Phases::All.list() {
        let meaning = match phase {
            Phase::Prefill => "gemm kernels, for layers that share an input; named likewise",
            Phase::SmallBatch => {
                "small-batch kernels of the format that decoding reads, or a token at a time"
            }
            Phase::Decode => "gemv kernels; `trilut codegen --isa ISA --emit list` names them",
        };
        let kernels = match phase {
            Phase::Prefill => gemm,
            Phase::SmallBatch => batch,
            Phase::Decode => gemv,
        };
        let (kernels, reason) = (
            format!("{kernels} here"),
            "all that this CPU runs and that accept the shape; only exact ones are timed",
        );
        table.row([phase.name(), "kernel", &kernels, meaning, reason]);
        for knob in space::KNOBS.iter().filter(|knob| knob.phases.contains(&phase)) {
            let values: Vec<String> = knob.values.iter().map(usize::to_string).collect();
            let values = values.join(" ");
            table.row([phase.name(), knob.name, &values, knob.help, knob.reason]);
        }
    }
    out!("{}", table.plain());
    outln!("batch is timed with {BATCH_TOKENS} tokens, prefill with prompts of {PROMPT_TOKENS}");
    outln!(
        "formats ({}) and threads (-t N,N) are chosen as well; exhaustive tries {} points at most",
        Format::ALL.iter().map(|f| f.name()).collect::<Vec<_>>().join(", "),
        effort::GRID,
    );
    Ok(())
}

/// What there is to tune.
struct Work {
    shapes: Vec<ShapeUse>,
    /// Bytes of the weights of the model that they are of.
    bytes: u64,
    /// That model, if there is more of it than its sizes.
    gguf: Option<Gguf>,
    /// How its file arranges ternary weights.
    layouts: TernaryLayouts,
}

fn work(args: &Args) -> Result<Work, Failure> {
    let phases = args.phase.list();
    if args.shape.is_empty() {
        let known = args.model.as_deref().filter(|path| !path.exists()).and_then(Path::to_str);
        let (config, gguf, layouts) = match known.and_then(models::find) {
            // A known model, for which there need be no file.
            Some(spec) => {
                args.layouts.refuse("a known model is tuned without its file")?;
                (Config::from_spec(spec)?, None, TernaryLayouts::default())
            }
            None => {
                let gguf = Source::new(args.model.clone()).open()?;
                let layouts = args.layouts.read(&gguf)?;
                (Config::from_gguf(&gguf)?, Some(gguf), layouts)
            }
        };
        let shapes = model::shapes(&config, phases);
        return Ok(Work { shapes, bytes: model::bytes(&config), gguf, layouts });
    }
    args.layouts.refuse("sizes are tuned without a file")?;
    let mut uses: Vec<ShapeUse> = Vec::new();
    for (&phase, &shape) in phases.iter().flat_map(|p| args.shape.iter().map(move |s| (p, s))) {
        let used = ShapeUse { phase, shape, count_per_token: 1 };
        if !uses.contains(&used) {
            uses.push(used);
        }
    }
    // A shape by itself is taken for a layer of a model that is larger than the caches.
    let layouts = TernaryLayouts::default();
    Ok(Work { shapes: uses, bytes: u64::MAX, gguf: None, layouts })
}

/// What is known of a request's shapes, measured now or earlier.
pub(crate) struct Tuned {
    /// Records of earlier runs, with those of this run in place of older ones.
    pub(crate) preset: Preset,
    /// This run, whose records are still to be saved; `None` if there was nothing to do.
    pub(crate) outcome: Option<Outcome>,
}

/// Tunes the shapes that have no current record in the file or among the request's incumbents, which are
/// newer. With nothing to do, nothing is run.
/// Earlier picks are raced with the others and stay unless something is faster beyond the noise.
pub(crate) fn tuned(request: &Request, path: Option<&Path>) -> Result<Tuned, Failure> {
    tuned_with(&mut Bar::new(), request, path, false, None)
}

/// The same under an observer, with a log, and again what is current already.
fn tuned_with(
    observer: &mut dyn Observer,
    request: &Request,
    path: Option<&Path>,
    force: bool,
    journal: Option<&mut Journal>,
) -> Result<Tuned, Failure> {
    let earlier = path.filter(|path| path.exists()).and_then(|path| match Preset::load(path) {
        Ok(preset) => Some(preset),
        // Saving sets an unreadable file aside; the run goes on.
        Err(error) => {
            say!("note: {}", Failure::from(error).summary());
            None
        }
    });
    // What was made elsewhere is neither current nor to be mixed with what is made here.
    let earlier = earlier
        .filter(|earlier| earlier.likeness(&request.machine, request.isa()) == Likeness::SameCpu);
    let earlier = match (earlier, request.prior.incumbents.clone()) {
        (Some(mut earlier), Some(newer)) => {
            earlier.merge(newer);
            Some(earlier)
        }
        (earlier, newer) => earlier.or(newer),
    };
    let needed = match &earlier {
        Some(preset) if !force => trilut_tuning::needed(preset, request),
        _ => request.shapes.clone(),
    };
    match earlier {
        Some(preset) if needed.is_empty() => Ok(Tuned { preset, outcome: None }),
        earlier => {
            let prior = Prior { incumbents: earlier.clone(), ..request.prior.clone() };
            let known = earlier.as_ref().map_or(request.clone(), |preset| request.knowing(preset));
            let request = Request { shapes: needed, prior, ..known };
            let outcome = run(observer, &request, journal)?;
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

/// Runs the tuner, and tells what it says about the run as a whole.
fn run(
    observer: &mut dyn Observer,
    request: &Request,
    journal: Option<&mut Journal>,
) -> Result<Outcome, Failure> {
    say!(
        "tuning {} for {} on {} ({}), at most {}",
        count(request.shapes.len(), "shape"),
        count(request.threads, "thread"),
        request.machine.brand.trim(),
        request.isa(),
        humantime::format_duration(request.limit()),
    );
    let outcome = match journal {
        Some(journal) => {
            let path = journal.path().display().to_string();
            let mut logged = Logged::new(observer, journal, request);
            let outcome = trilut_tuning::tune(request, &mut logged)?;
            if let Some(why) = logged.failure() {
                say!("note: the trial log {path} ended before the run did: {why}");
            }
            outcome
        }
        None => trilut_tuning::tune(request, observer)?,
    };
    outcome.notes.iter().for_each(|note| say!("note: {note}"));
    for (phase, what) in [
        (Phase::Decode, "decoded token"),
        (Phase::SmallBatch, "token in a small batch"),
        (Phase::Prefill, "prompt token"),
    ] {
        if let Some((tuned, default)) = outcome.token_ns(phase) {
            say!(
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
            say!("interrupted: {} shapes are finished and kept", outcome.shapes.len());
            Err(Failure::interrupted())
        }
        _ if interrupt::asked() => Err(Failure::interrupted()),
        Some(Stopped::TimeLimit) if left > 0 => {
            say!("the time limit left {left} shapes untuned: run again, or raise --time-limit");
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
        match record.from {
            Some(from) => format!("{}, from {from} tokens", record.tile.in_words(record.phase)),
            None => record.tile.in_words(record.phase),
        },
        format!("{:.1} us", ns / 1e3),
        streamed.map_or("-".to_owned(), decimal),
        decimal(products / ns),
        format!("{:.2}", record.default_ns as f64 / ns),
        record.scalar_ns.map_or("-".to_owned(), |scalar| decimal(scalar as f64 / ns)),
    ]
}
