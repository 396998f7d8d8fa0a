//! One tuning run from beginning to end.

use crate::bench::{Lab, Stage};
use crate::cold;
use crate::confirm::{Confirmation, confirm};
use crate::estimate::{self, Bound};
use crate::exactness::Gate;
use crate::hardware::Hardware;
use crate::noise::Noise;
use crate::observer::{Event, Observer};
use crate::race::{End, Lane, Limits, Turn, race};
use crate::record::{Outcome, Refused, ShapeReport, Stopped, Timed};
use crate::request::{Request, ShapeUse, TuneError};
use crate::space;
use crate::statistics::{median, spread};
use crate::{AnyKernel, Candidate};
use std::collections::BTreeSet;
use std::time::Duration;
use trilut_kernels::{Format, Isa, Layout, Phase};
use trilut_presets::Preset;
use trilut_presets::preset::{Effort, Provenance, Record, rfc3339};

/// Kernels that are timed at most, best estimates first.
const fn most_kernels(effort: Effort) -> usize {
    match effort {
        Effort::Estimate => 3,
        Effort::Measure => 24,
    }
}

/// A kernel whose lower bound is this many times the best bound is not timed. Generous, because the
/// estimate knows neither latencies nor the memory system; more so for prompts, where it weighs lookups
/// against multiplications, in which CPUs differ.
const fn prune(phase: Phase) -> f64 {
    match phase {
        Phase::Prefill => 4.0,
        Phase::Decode | Phase::SmallBatch => 2.5,
    }
}

/// Kernels whose tiles are varied, best first.
const FINALISTS: usize = 4;

/// Samples per candidate in a race.
const fn samples(effort: Effort) -> usize {
    match effort {
        Effort::Estimate => 3,
        Effort::Measure => 9,
    }
}

/// Pairs in the check of the winner.
const PAIRS: usize = 21;

/// Tunes on this machine.
///
/// # Errors
/// When the request cannot be carried out at all. A run that is cancelled or out of time returns what
/// it has finished.
pub fn tune(request: &Request, observer: &mut dyn Observer) -> Result<Outcome, TuneError> {
    request.check()?;
    tune_in(&mut Hardware::new(request), request, observer)
}

/// Tunes in a lab of the caller's choice.
///
/// # Errors
/// As [`tune`].
pub fn tune_in(
    lab: &mut dyn Lab,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<Outcome, TuneError> {
    request.check()?;
    let request = &mut request.clone();
    let begin = lab.now();
    let limit = request.limit();
    let deadline = begin.saturating_add(limit);
    let shapes = request.shapes.len();
    observer.event(&Event::Begin { shapes, threads: request.threads, limit });

    // Phases have equal parts of the time, whatever the work of one of their runs.
    let work_in = |phase: Phase| -> f64 {
        request.shapes.iter().filter(|l| l.phase == phase).map(ShapeUse::work).sum()
    };
    let work = |layer: &ShapeUse| layer.work() / work_in(layer.phase);
    let total: f64 = request.shapes.iter().map(work).sum();
    let mut left = total;
    let (mut reports, mut notes) = (Vec::new(), Vec::new());
    let (mut stopped, mut too_large) = (None, None);
    for (index, layer) in request.shapes.clone().iter().enumerate() {
        let now = lab.now();
        if observer.should_stop() {
            stopped = Some(Stopped::Cancelled);
        } else if now >= deadline {
            stopped = Some(Stopped::TimeLimit);
        }
        if stopped.is_some() {
            break;
        }
        // By work, but a small layer needs some time as well; what is left over goes to the others.
        let part = (work(layer) / left).max(0.5 / (shapes - index) as f64);
        let time = Time { begin: now, budget: deadline.saturating_sub(now).mul_f64(part) };
        let fraction = (1.0 - left / total, work(layer) / total);
        left = (left - work(layer)).max(0.0);
        let mut watch = Watch { observer, time, fraction, best: f64::INFINITY, cancelled: false };
        match tune_layer(lab, request, index, *layer, &mut watch, &mut notes) {
            Ok(Some(report)) => {
                observer.event(&Event::Done(&report));
                let read = report.winner.candidate.kernel.format();
                if let Some(format) = read.filter(|_| layer.phase == Phase::Decode) {
                    request.decoded.push((layer.shape, format));
                }
                reports.push(report);
            }
            Ok(None) => {}
            // Other shapes may be smaller.
            Err(error @ TuneError::Memory { .. }) => {
                note(observer, &mut notes, error.to_string());
                too_large = Some(error);
            }
            Err(error) => return Err(error),
        }
        observer.event(&Event::Progress(1.0 - left / total));
    }
    if stopped.is_none() && observer.should_stop() && reports.len() < shapes {
        stopped = Some(Stopped::Cancelled);
    }

    // A busy moment may be over: what it disturbed is measured once more, in the time that is left, and
    // the calmer race is believed.
    let disturbed = |report: &&mut ShapeReport| {
        request.effort > Effort::Estimate && report.noise.warning().is_some()
    };
    let mut again: Vec<&mut ShapeReport> = reports.iter_mut().filter(disturbed).collect();
    while let Some(report) = again.pop() {
        let now = lab.now();
        if now >= deadline || observer.should_stop() {
            break;
        }
        let budget = (deadline - now) / (again.len() + 1) as u32;
        let (time, fraction) = (Time { begin: now, budget }, (1.0, 0.0));
        let mut watch = Watch { observer, time, fraction, best: f64::INFINITY, cancelled: false };
        let index = request.shapes.iter().position(|l| *l == report.layer).unwrap_or(0);
        let retried = tune_layer(lab, request, index, report.layer, &mut watch, &mut notes)?;
        if let Some(retried) = retried.filter(|r| r.noise.is_calmer_than(&report.noise)) {
            *report = retried;
        }
    }

    if let Some(error) = too_large.filter(|_| reports.is_empty() && stopped.is_none()) {
        return Err(error);
    }

    let records = reports.iter().map(|report| record(report, request)).collect();
    let spreads: Vec<f64> = reports.iter().filter_map(|r| r.noise.spread).collect();
    let provenance = Provenance {
        trilut: env!("CARGO_PKG_VERSION").to_owned(),
        date: rfc3339(lab.date()),
        isa: request.isa(),
        effort: request.effort,
        threads: request.threads,
        noise: median(&spreads),
    };
    let finished: BTreeSet<ShapeUse> = reports.iter().map(|r| r.layer).collect();
    let shapes = request.shapes.iter().copied();
    Ok(Outcome {
        preset: Preset::new(provenance, request.machine.clone(), records),
        unfinished: shapes.filter(|layer| !finished.contains(layer)).collect(),
        shapes: reports,
        stopped,
        notes,
        took: lab.now().saturating_sub(begin),
    })
}

/// A layer's share of the run.
#[derive(Debug, Clone, Copy)]
struct Time {
    begin: Duration,
    budget: Duration,
}

impl Time {
    /// The moment at which this part of the budget is used up.
    fn at(self, part: f64) -> Duration {
        self.begin.saturating_add(self.budget.mul_f64(part))
    }
}

/// Passes a race's turns on to the observer.
struct Watch<'a> {
    observer: &'a mut dyn Observer,
    time: Time,
    /// Where the layer's share of the progress begins, and how large it is.
    fraction: (f64, f64),
    best: f64,
    cancelled: bool,
}

impl Watch<'_> {
    fn turn(&mut self, turn: Turn<'_>) -> bool {
        match turn {
            Turn::Sample(now) => {
                let spent = now.saturating_sub(self.time.begin).as_secs_f64();
                let budget = self.time.budget.as_secs_f64().max(1e-9);
                let (begin, part) = self.fraction;
                let progress = begin + part * (spent / budget).min(1.0);
                self.observer.event(&Event::Progress(progress));
            }
            Turn::Leader(candidate, ns) if ns < self.best => {
                self.best = ns;
                self.observer.event(&Event::Best { candidate: &candidate.to_string(), ns });
            }
            Turn::Leader(..) => {}
            Turn::Left(candidate, behind) => {
                let candidate = &candidate.to_string();
                self.observer.event(&Event::Dropped { candidate, behind });
            }
        }
        self.cancelled |= self.observer.should_stop();
        self.cancelled
    }

    fn refuse(&mut self, refused: &mut Vec<Refused>, kernel: &str, reason: String) {
        let entry = Refused { kernel: kernel.to_owned(), reason };
        self.observer.event(&Event::Refused(&entry));
        refused.push(entry);
    }
}

fn note(observer: &mut dyn Observer, notes: &mut Vec<String>, text: String) {
    if !notes.contains(&text) {
        observer.event(&Event::Note(&text));
        notes.push(text);
    }
}

/// Tunes one layer; `None` when it was cancelled or no time was left.
fn tune_layer(
    lab: &mut dyn Lab,
    request: &Request,
    index: usize,
    layer: ShapeUse,
    watch: &mut Watch<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<ShapeReport>, TuneError> {
    let (shape, time) = (layer.shape, watch.time);
    let formats = request.formats_of(&layer);
    let stored = lab.layout(formats[0], shape);
    let mut refused = Vec::new();
    let mut gate = Gate::new(shape, stored);

    let default = Candidate::untuned(lab.default_kernel(&layer, formats[0]));
    gate.check(&default.kernel).map_err(|source| TuneError::DefaultInexact { layer, source })?;
    let all = space::kernels(lab, &layer, formats);
    let space = space::fingerprint(&all);
    let scalar = scalar_kernel(&all, formats[0]).filter(|k| gate.check(k).is_ok());
    let kernels = choose(all, &default, &layer, request, |kernel| {
        let verdict = gate.check(kernel);
        if let Err(why) = &verdict {
            watch.refuse(&mut refused, kernel.name(), why.to_string());
        }
        verdict.is_ok()
    });
    watch.observer.event(&Event::Shape { index, layer, kernels: kernels.len() + 1 });

    let field = kernels.iter().chain([&default.kernel]).chain(&scalar);
    let mut layouts: Vec<Layout> = field.map(|k| k.layout(stored)).collect();
    layouts.sort_unstable();
    layouts.dedup();
    let before = lab.cpu_times();
    let Stage { mut runner, weights, notes: said } = lab.open(&layer, &layouts)?;
    for text in said {
        note(watch.observer, notes, text);
    }

    let mut tried = BTreeSet::new();
    let mut lanes: Vec<Lane> = Vec::new();
    let mut finalists: Vec<Candidate> = kernels.into_iter().map(Candidate::untuned).collect();
    for (stage, end) in stages(request, layer.phase) {
        let varied: Vec<Candidate> = match stage {
            Vary::Kernels => finalists.clone(),
            Vary::Prefetch => finalists.iter().flat_map(|c| space::prefetch_variants(*c)).collect(),
            Vary::Split => finalists
                .iter()
                .take(2)
                .flat_map(|c| space::split_variants(*c, shape, request.threads))
                .collect(),
            Vary::Panels => finalists
                .iter()
                .flat_map(|c| space::panel_variants(*c, shape, request.threads))
                .collect(),
        };
        // What a late stage cannot do in its time, it leaves out.
        if !lanes.is_empty() && runner.now() >= time.at(end) {
            continue;
        }
        let mut field = vec![default];
        field.extend(varied.into_iter().filter(|c| !c.is(&default)));
        tried.extend(field.iter().map(ToString::to_string));
        let limits = Limits {
            samples: samples(request.effort),
            patience: if request.effort == Effort::Estimate { 1 } else { 3 },
            deadline: time.at(end),
        };
        let (mut raced, end) = race(&mut *runner, &field, limits, &mut |turn| watch.turn(turn));
        if watch.cancelled {
            return Ok(None);
        }
        for lane in &raced {
            if let Some(why) = &lane.failed {
                watch.refuse(&mut refused, &lane.candidate.to_string(), why.clone());
            }
        }
        raced.retain(|lane| lane.failed.is_none() && !lane.samples.is_empty());
        // A race that was cut off after a sample or two knows less than the one before it.
        let cut_off = end == End::Deadline && raced.iter().all(|lane| lane.samples.len() < 3);
        if !lanes.is_empty() && cut_off {
            break;
        }
        lanes = raced;
        finalists = best_kernels(&lanes);
    }

    let Some(base) = lanes.iter().find(|l| l.candidate.is(&default)).cloned() else {
        return Ok(None);
    };
    let mut fastest = lanes.swap_remove(0);
    if fastest.median() >= base.median() {
        fastest = base.clone();
    }
    let confirmation = match request.effort {
        Effort::Measure if !fastest.candidate.is(&default) => {
            confirm(&mut *runner, &fastest.candidate, &default, PAIRS, time.at(1.0), &mut || {
                watch.turn(Turn::Sample(time.at(1.0)))
            })
        }
        _ => None,
    };
    let scalar_ns = scalar.and_then(|kernel| {
        // A prompt may take it seconds.
        let bound = |k: &AnyKernel| Bound::of(k, &layer, request.threads, weights).ns();
        let expected = base.median() * bound(&kernel) / bound(&default.kernel);
        let spare = time.at(1.0).saturating_sub(runner.now()).as_nanos() as f64;
        if layer.tokens() > 1 && 2.0 * expected > spare {
            return None;
        }
        let candidate = Candidate::untuned(kernel);
        let first = runner.sample(&candidate).ok()?;
        // The first sample pays for cold pages; a second one is taken where it is affordable.
        let again = (runner.now() < time.at(1.0)).then(|| runner.sample(&candidate).ok());
        Some(again.flatten().unwrap_or(first))
    });
    if watch.cancelled {
        return Ok(None);
    }
    drop(runner);

    let noise = Noise::of(&base.samples, before, lab.cpu_times());
    if let Some(warning) = noise.warning() {
        note(watch.observer, notes, format!("{layer}: {warning}"));
    }
    let Verdict { winner, default, reason } = decide(fastest, base, confirmation.as_ref());
    Ok(Some(ShapeReport {
        layer,
        winner: timed(winner),
        default: timed(default),
        scalar_ns,
        weights,
        tried: tried.len(),
        space,
        refused,
        noise,
        confirmation,
        reason,
    }))
}

/// What a stage varies.
#[derive(Debug, Clone, Copy)]
enum Vary {
    Kernels,
    Prefetch,
    Split,
    Panels,
}

/// The stages of a layer, and the part of its time by which each must end.
fn stages(request: &Request, phase: Phase) -> Vec<(Vary, f64)> {
    match (request.effort, phase, request.threads) {
        (Effort::Estimate, ..) => vec![(Vary::Kernels, 0.8)],
        (Effort::Measure, Phase::Prefill, _) => vec![(Vary::Kernels, 0.5), (Vary::Panels, 0.85)],
        (Effort::Measure, _, 1) => vec![(Vary::Kernels, 0.4), (Vary::Prefetch, 0.8)],
        (Effort::Measure, ..) => {
            vec![(Vary::Kernels, 0.35), (Vary::Prefetch, 0.65), (Vary::Split, 0.85)]
        }
    }
}

/// The exact kernels worth timing, best estimate first, without the default one.
fn choose(
    kernels: Vec<AnyKernel>,
    default: &Candidate,
    layer: &ShapeUse,
    request: &Request,
    mut is_exact: impl FnMut(&AnyKernel) -> bool,
) -> Vec<AnyKernel> {
    let weights = cold::state(request.model_bytes, &request.machine);
    let ranked = estimate::rank(kernels, layer, request.threads, weights);
    let Some(best) = ranked.first().map(|(_, bound)| bound.ns()) else { return Vec::new() };
    ranked
        .into_iter()
        .filter(|(kernel, bound)| {
            bound.ns() <= best * prune(layer.phase) && kernel.name() != default.name()
        })
        .map(|(kernel, _)| kernel)
        .filter(|kernel| is_exact(kernel))
        .take(most_kernels(request.effort))
        .collect()
}

/// The portable kernel of the model's own format with the least work: the yardstick of reports.
fn scalar_kernel(kernels: &[AnyKernel], format: Format) -> Option<AnyKernel> {
    let own = |k: &&AnyKernel| k.format().is_none_or(|own| own == format);
    kernels
        .iter()
        .filter(|k| k.isa() == Isa::Scalar)
        .filter(own)
        .copied()
        .min_by(|a, b| a.instructions().total_cmp(&b.instructions()))
}

/// The best candidate of each of the best kernels, in the order of the lanes.
fn best_kernels(lanes: &[Lane]) -> Vec<Candidate> {
    let mut best: Vec<Candidate> = Vec::new();
    for lane in lanes {
        if best.len() < FINALISTS && best.iter().all(|c| c.name() != lane.candidate.name()) {
            best.push(lane.candidate);
        }
    }
    best
}

struct Verdict {
    winner: Lane,
    default: Lane,
    reason: String,
}

/// Lets the fastest candidate replace the default only when its gain is outside the noise.
fn decide(mut fastest: Lane, mut default: Lane, confirmation: Option<&Confirmation>) -> Verdict {
    if fastest.candidate.is(&default.candidate) {
        let reason = "nothing was faster than the default".to_owned();
        return Verdict { winner: fastest, default, reason };
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let (gains, reason) = match confirmation {
        Some(check) => {
            // Taken in turn, these are the samples to compare.
            fastest.samples.clone_from(&check.winner);
            default.samples.clone_from(&check.default);
            let range = format!(
                "{:.3} of the default's time (95 %: {:.3} to {:.3}, {} pairs)",
                check.ratio,
                check.low,
                check.high,
                check.winner.len()
            );
            match check.is_gain() {
                true => (true, format!("{} took {range}", fastest.candidate)),
                false => (
                    false,
                    format!(
                        "the default stays: {} took {range}, inside the noise",
                        fastest.candidate
                    ),
                ),
            }
        }
        None => {
            let noise = [&fastest, &default].into_iter().filter_map(|lane| spread(&lane.samples));
            // Three samples understate the noise; a gain must also exceed a plain floor.
            let floor = noise.fold(0.02, f64::max);
            let gain = 1.0 - fastest.median() / default.median();
            match gain > floor {
                true => (true, format!("{} saved {}", fastest.candidate, percent(gain))),
                false => (
                    false,
                    format!(
                        "the default stays: {} saved {}, inside the noise of {}",
                        fastest.candidate,
                        percent(gain),
                        percent(floor)
                    ),
                ),
            }
        }
    };
    let winner = if gains { fastest } else { default.clone() };
    Verdict { winner, default, reason }
}

fn timed(lane: Lane) -> Timed {
    Timed { candidate: lane.candidate, median_ns: lane.median(), samples: lane.samples }
}

/// Samples that a record keeps at most: enough to see their spread, few enough to read.
const KEPT_SAMPLES: usize = 32;

fn record(report: &ShapeReport, request: &Request) -> Record {
    // Records are whole nanoseconds, and none of them is 0.
    let ns = |ns: f64| (ns.round() as u64).max(1);
    let Candidate { kernel, tile } = report.winner.candidate;
    let formats = request.formats_of(&report.layer);
    let samples = &report.winner.samples;
    let every = samples.len().div_ceil(KEPT_SAMPLES).max(1);
    Record {
        shape: report.layer.shape,
        phase: report.layer.phase,
        tokens: report.layer.tokens(),
        threads: request.threads,
        format: kernel.format().unwrap_or(formats[0]),
        formats: formats.to_vec(),
        space: report.space,
        kernel: kernel.name().to_owned(),
        hash: kernel.hash(),
        tile,
        effort: request.effort,
        weights: report.weights,
        median_ns: ns(report.winner.median_ns),
        samples: samples.iter().step_by(every).map(|s| ns(*s)).collect(),
        default_kernel: report.default.candidate.name().to_owned(),
        default_ns: ns(report.default.median_ns),
        scalar_ns: report.scalar_ns.map(ns),
        confidence: report.confirmation.as_ref().map(Confirmation::half_width),
    }
}

#[cfg(test)]
mod tests;
