//! `trilut tune`: finds the fastest exact kernels for this CPU and writes a preset.

pub(crate) mod gate;
mod log;
mod recording;
mod report;
mod shown;
mod space;

use super::failure::Failure;
use super::layouts::Layouts;
use super::model::{self, EMBEDDED, Source};
use super::output::{self, count, out, say};
use super::planning::{self, Here};
use super::progress::Bar;
use super::table::Table;
use super::{environment, interrupt};
use log::{Log, Task};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trilut_kernels::pool::Pool;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::Effort;
use trilut_presets::{Format, Phase, Preset, Shape, models};
use trilut_runtime::Config;
use trilut_runtime::gguf::{Gguf, TernaryLayouts};
use trilut_tuning::{
    Journal, Logged, Observer, Outcome, Prior, Request, ShapeUse, Stopped, bandwidth, end_to_end,
};

/// Find the fastest exact kernels for a model's layers on this CPU, and remember them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file, or the name of a known model, for which there need be no file; the embedded model
    /// without it and --shape.
    #[arg(value_name = "MODEL", conflicts_with_all = ["model", "shape"])]
    positional: Option<PathBuf>,
    /// The same, as other commands have it.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Layer size in place of a model, outputs x inputs; repeatable.
    #[arg(long, value_name = "MxK", allow_hyphen_values = true)]
    shape: Vec<Shape>,
    /// What to tune for: one token at a time, a few at once, prompts, or all, of which small batches have half the time of the others.
    #[arg(long, value_enum, default_value = "all")]
    phase: Phases,
    /// Weight format: i2_s, tl1, tl2, base3; all are raced without it. Repeatable; prompts read the first.
    #[arg(long)]
    format: Vec<Format>,
    /// How much to do: estimate (seconds), measure (a minute), patient (with a second opinion) or
    /// exhaustive (every kernel with values of every knob, 400 points in all).
    #[arg(long, default_value = "measure")]
    effort: Effort,
    /// When to stop, such as 90s or 5m; what is finished is kept, and the next run goes on from there. Two fifths
    /// of it, half a minute at most, are for the check of the model as a whole, which takes as long as a few
    /// texts and answers take, however little that is. For each number of threads; by the effort without it: a
    /// minute, ten, an hour.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    time_limit: Option<Duration>,
    /// Numbers of threads, separated by commas; every fast core without it. All candidates are raced with
    /// the first, only the finalists with the others.
    #[arg(short, long, value_delimiter = ',', value_parser = environment::number_of_threads)]
    threads: Vec<usize>,
    /// Preset file to write or add to, in place of the user's cache.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tune even what has been tuned already.
    #[arg(long)]
    force: bool,
    /// Measure every candidate of each shape and write the times to a directory, a table for each shape:
    /// what the tests of the search are run on. Nothing is tuned.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "report", "force"])]
    record: Option<PathBuf>,
    /// Samples of each candidate with --record; the nine least are kept.
    #[arg(long, value_name = "N", default_value_t = 9, requires = "record",
          value_parser = clap::value_parser!(u32).range(3..1000))]
    rounds: u32,
    /// Write a page of what is known of the layers to DIR/index.html, with pictures of the races of this run.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Tokens of prompts and tokens generated in use: what counts where one phase gains and the other loses.
    #[arg(long, value_name = "P:G", default_value = "1:1")]
    mix: end_to_end::Mix,
    /// Do not check at the end whether the model as a whole is faster than by default.
    #[arg(long)]
    no_gate: bool,
    /// Print what is searched for the layers and phases that are asked for, and do nothing else.
    #[arg(long)]
    list_space: bool,
    #[command(flatten)]
    layouts: Layouts,
}

impl Args {
    /// The model that was named, in either way.
    fn model(&self) -> Option<&PathBuf> {
        self.positional.as_ref().or(self.model.as_ref())
    }
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

/// A time limit.
fn time(text: &str) -> Result<Duration, String> {
    let is_negative = text
        .trim_start()
        .strip_prefix('-')
        .is_some_and(|rest| rest.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    if is_negative {
        return Err("a time cannot be negative".to_owned());
    }
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("in no time nothing is tuned".to_owned()),
        Ok(limit) => Ok(limit),
        Err(error) => Err(error.to_string()),
    }
}

/// The numbers of threads that are asked for, each once, in their order.
fn numbers_of_threads(args: &Args) -> Result<Vec<usize>, Failure> {
    if args.threads.is_empty() {
        return Ok(vec![environment::threads(None)?]);
    }
    let mut numbers = Vec::new();
    for &given in &args.threads {
        if !numbers.contains(&given) {
            numbers.push(given);
        }
    }
    Ok(numbers)
}

/// Refuses a file that never was a preset: what is broken of one is moved aside, other files are not touched.
fn refuse_other_files(path: &Path) -> Result<(), Failure> {
    let mut begin = Vec::new();
    if path.is_file() {
        let file = std::fs::File::open(path)?;
        file.take(Preset::HEADING.len() as u64).read_to_end(&mut begin)?;
    }
    if begin.is_empty() {
        return Ok(());
    }
    let Err(error) = Preset::load(path) else { return Ok(()) };
    if begin == Preset::HEADING.as_bytes() {
        say!("note: passed over: {}", Failure::from(error).summary());
        return Ok(());
    }
    Err(Failure::new(format!("{} is there already, and is no preset", path.display()))
        .hint("name another file"))
}

pub(crate) fn tune(args: Args) -> Result<(), Failure> {
    if args.list_space {
        return space::list(&args);
    }
    let threads = numbers_of_threads(&args)?;
    let Work { shapes, bytes, gguf, layouts } = work(&args)?;
    let formats = if args.format.is_empty() { Format::ALL.to_vec() } else { args.format };
    let here = Here::find(None)?;
    if let Some(directory) = &args.record {
        let request =
            here.request(shapes, bytes, formats, threads[0], Effort::Exhaustive, Duration::MAX);
        return recording::record(&request, directory, args.rounds as usize);
    }
    let path = match args.output {
        Some(path) => {
            refuse_other_files(&path)?;
            path
        }
        None => here.cache_file().ok_or_else(|| {
            Failure::new("this user has no cache directory")
                .hint("name a file: trilut tune -o FILE")
        })?,
    };
    output::check_file(&path)?;
    if let Some(directory) = &args.report {
        output::check_file(&report::file(directory))?;
    }
    let limit = args.time_limit.unwrap_or(match args.effort {
        Effort::Estimate | Effort::Measure => Duration::from_secs(60),
        Effort::Patient => Duration::from_secs(600),
        Effort::Exhaustive => Duration::from_secs(3600),
    });
    // Part of the time is for the model as a whole.
    let gguf = gguf.filter(|_| args.effort > Effort::Estimate && !args.no_gate);
    let for_gate = gguf.as_ref().map_or(Duration::ZERO, |_| end_to_end::share_of(limit));
    let search = limit.saturating_sub(for_gate);
    let has_gate = gguf.is_some();
    let base = here.request(shapes, bytes, formats, threads[0], args.effort, search);
    let task = Task {
        request: &base,
        threads: &threads,
        has_gate,
        forgoes_gate: args.no_gate,
        force: args.force,
    };
    let mut log = Log::open(&path, &task)?;
    let cpus = here.machine.logical_cpus;
    if let Some(most) = threads.iter().max().filter(|most| **most > cpus) {
        say!("note: {most} threads take turns on {}", count(cpus, "logical CPU"));
    }
    let mut is_done = true;
    let mut too_large = BTreeMap::new();
    for (index, &threads) in threads.iter().enumerate() {
        let begin = Instant::now();
        let prior = Prior { finalists_only: index > 0, ..log.prior(threads) };
        let is_resumed = prior.incumbents.is_some();
        let request = Request { threads, prior, ..base.clone() };
        let mut bar = Bar::new();
        let mut recorder = report::Recorder::new(&mut bar);
        let tuned =
            tuned_with(&mut recorder, &request, Some(&path), args.force, log.journal.as_mut())?;
        let moments = recorder.moments;
        drop(bar);
        let Tuned { mut preset, outcome, is_logged } = tuned;
        is_done &= outcome.is_none() && !is_resumed;
        let is_new = is_resumed || outcome.as_ref().is_some_and(|o| !o.preset.records().is_empty());
        let is_whole =
            outcome.as_ref().is_none_or(|o| o.unfinished.is_empty() && o.too_large.is_empty());
        let gguf = gguf.as_ref().filter(|_| is_new && is_whole);
        // What is in the log waits for the gate: should that be interrupted, the next run repeats it. A log
        // that broke has not all of it.
        let waits = gguf.is_some() && log.journal.is_some() && is_logged;
        // Should it not be saved, it is at least seen.
        let show = |preset: &Preset| -> Result<(), Failure> {
            out!("{}", shown::table(preset, &request).plain());
            Ok(())
        };
        if is_new && !waits {
            planning::save(preset.clone(), &path).inspect_err(|_| drop(show(&preset)))?;
            say!("saved to {}", path.display());
            log.saved();
            if is_new && !is_whole && has_gate {
                say!(
                    "note: the model as a whole is not checked before all its layers are tuned: run again, with \
                     more time"
                );
            }
        }
        let mut told = Vec::new();
        if let Some(gguf) = gguf {
            // Its share of the time, and all that the search has left of its own.
            let end = Instant::now() + for_gate;
            let deadline = begin.checked_add(limit).map_or(end, |limit| limit.max(end));
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
            let checked = match interrupt::asked() {
                true => Err(Failure::interrupted()),
                false => gate.check(&preset, &path),
            };
            let checked = checked.map_err(|failure| unchecked(failure, waits, &log, &path))?;
            planning::save_left(checked.preset.clone(), &preset, &path)
                .inspect_err(|_| drop(show(&checked.preset)))?;
            say!("saved to {}", path.display());
            log.saved();
            (preset, told) = (checked.preset, checked.told);
        }
        // After the gate: what is shown is what is saved.
        show(&preset)?;
        // Of the run that searched everything.
        if let Some(directory) = args.report.as_ref().filter(|_| index == 0) {
            let bandwidth = {
                let bytes = bandwidth::sensible_bytes(&request.machine);
                bandwidth::measure(&Pool::new(threads), bytes, 5)
            };
            let page = report::Page {
                request: &request,
                preset: &preset,
                outcome: outcome.as_ref(),
                moments: &moments,
                told: &told,
                bandwidth,
            };
            say!("report: {}", page.write(directory)?.display());
        }
        if let Some(outcome) = &outcome {
            finish(outcome)?;
            let short = outcome.too_large.iter();
            too_large.extend(short.map(|(layer, short)| (layer.shape, short.to_string())));
        }
    }
    if is_done {
        say!("nothing to do: {} is up to date (--force tunes again)", path.display());
    }
    if threads.len() > 1 && path.exists() {
        shown::compare_threads(&Preset::load(&path)?, &base.shapes, &threads)?;
    }
    if too_large.is_empty() {
        return Ok(());
    }
    let what = format!("{} could not be tuned for want of memory", count(too_large.len(), "shape"));
    let failure = too_large.into_values().fold(Failure::new(what), Failure::because);
    Err(failure.hint("close other programs, or tune a smaller model"))
}

/// Why the model was not checked, and what becomes of what was found for it.
fn unchecked(failure: Failure, waits: bool, log: &Log, path: &Path) -> Failure {
    let kept = match log.journal.as_ref().filter(|_| waits) {
        Some(journal) => format!(
            "what was found is kept in {}, and the same command again goes on with the check (or without it: \
             --no-gate)",
            journal.path().display()
        ),
        None => format!("what was found is in {} without the check", path.display()),
    };
    let begin = if interrupt::asked() { "interrupted" } else { "note" };
    say!("{begin}: the model as a whole was not checked: {kept}");
    failure
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
        let is_embedded = |name: &&str| *name == EMBEDDED;
        let known = args.model().filter(|path| !path.exists()).and_then(|path| path.to_str());
        // What the program carries has a file, which can be checked as a whole.
        let known = known.filter(|name| !is_embedded(name));
        let (config, gguf, layouts) = match known.and_then(models::find) {
            // A known model, for which there need be no file.
            Some(spec) => {
                args.layouts.refuse("a known model is tuned without its file")?;
                (Config::from_spec(spec)?, None, TernaryLayouts::default())
            }
            None => {
                let gguf = Source::new(args.model().cloned()).open()?;
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
    /// Whether the log, if there is one, has all that is still to be saved.
    is_logged: bool,
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
    // That a file cannot be read has been said; saving sets it aside.
    let earlier = path.filter(|path| path.exists()).and_then(|path| Preset::load(path).ok());
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
        Some(preset) if needed.is_empty() => Ok(Tuned { preset, outcome: None, is_logged: true }),
        earlier => {
            let prior = Prior { incumbents: earlier.clone(), ..request.prior.clone() };
            let known = earlier.as_ref().map_or(request.clone(), |preset| request.knowing(preset));
            let rest = Request { shapes: needed, prior, ..known };
            let (outcome, is_logged) = run(observer, &rest, journal, &request.shapes)?;
            let mut preset = outcome.preset.clone();
            if let Some(mut earlier) = earlier {
                tell_lesser(&earlier, &preset);
                earlier.merge(preset);
                preset = earlier;
            }
            Ok(Tuned { preset, outcome: Some(outcome), is_logged })
        }
    }
}

impl Tuned {
    /// One row per shape of the request that has a record.
    pub(crate) fn table(&self, request: &Request) -> Table {
        shown::table(&self.preset, request)
    }
}

/// Says which records take the place of some that were made with a greater effort: those are stale, of other formats,
/// or tuned again by `--force`.
fn tell_lesser(earlier: &Preset, found: &Preset) {
    for record in found.records() {
        let known = earlier.record(record.shape, record.phase, record.threads);
        if let Some(known) = known.filter(|known| known.effort > record.effort) {
            let (phase, shape) = (record.phase, record.shape);
            say!(
                "note: {phase} {shape}: a record of effort {} takes the place of one of effort {}",
                record.effort,
                known.effort,
            );
        }
    }
}

/// Runs the tuner, and tells what it says about the run as a whole, of `all` layers or some of them. Says as well
/// whether the log went on to the end.
fn run(
    observer: &mut dyn Observer,
    request: &Request,
    journal: Option<&mut Journal>,
    all: &[ShapeUse],
) -> Result<(Outcome, bool), Failure> {
    say!(
        "tuning {} for {} on {} ({}), at most {}",
        count(request.shapes.len(), "shape"),
        count(request.threads, "thread"),
        request.machine.brand.trim(),
        request.isa(),
        humantime::format_duration(request.limit()),
    );
    let mut is_logged = true;
    let outcome = match journal {
        Some(journal) => {
            let path = journal.path().display().to_string();
            let mut logged = Logged::new(observer, journal, request);
            let outcome = trilut_tuning::tune(request, &mut logged)?;
            if let Some(why) = logged.failure() {
                say!("note: the trial log {path} ended before the run did: {why}");
                is_logged = false;
            }
            outcome
        }
        None => trilut_tuning::tune(request, observer)?,
    };
    outcome.notes.iter().for_each(|note| say!("note: {note}"));
    outcome
        .too_large
        .iter()
        .for_each(|(layer, short)| say!("note: {layer} is passed over: {short}"));
    for (phase, what) in [
        (Phase::Decode, "decoded token"),
        (Phase::SmallBatch, "token in a small batch"),
        (Phase::Prefill, "prompt token"),
    ] {
        if let Some((tuned, default)) = outcome.token_ns(phase) {
            let now = outcome.shapes.iter().filter(|report| report.layer.phase == phase).count();
            let of_all = all.iter().filter(|layer| layer.phase == phase).count();
            let which = match now == of_all {
                true => "ternary layers".to_owned(),
                false => format!("what was tuned now, {now} of {of_all} shapes,"),
            };
            say!(
                "{which} of one {what}: {:.3} ms tuned, {:.3} ms by default",
                tuned / 1e6,
                default / 1e6,
            );
        }
    }
    Ok((outcome, is_logged))
}

/// Says what is unfinished; an interrupted run ends here.
fn finish(outcome: &Outcome) -> Result<(), Failure> {
    if outcome.stopped == Some(Stopped::Cancelled) {
        say!("interrupted: {} finished and kept", count(outcome.shapes.len(), "shape"));
    }
    if outcome.stopped == Some(Stopped::Cancelled) || interrupt::asked() {
        return Err(Failure::interrupted());
    }
    let (left, short) = (outcome.unfinished.len(), outcome.cut_short.len());
    if left > 0 {
        let left = count(left, "shape");
        say!("the time limit left {left} untuned: run again, or raise --time-limit");
    }
    if short > 0 {
        let short = count(short, "shape");
        say!(
            "the time limit cut the search of {short} short, and the next run takes up again what has no record of \
             more effort: a greater --time-limit lets it finish"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_cannot_be_is_told_from_one_that_cannot_be_read() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("18446744073709551615s"), Ok(Duration::from_secs(u64::MAX)));
        for negative in ["-5s", "- 5s", "-1h 3m"] {
            assert!(time(negative).unwrap_err().contains("negative"), "{negative}");
        }
        assert!(time("0s").unwrap_err().contains("in no time"));
        for unreadable in ["--force", "-", "soon", ""] {
            assert!(!time(unreadable).unwrap_err().contains("negative"), "{unreadable}");
        }
    }
}
