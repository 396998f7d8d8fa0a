//! One tuning run from beginning to end.

mod again;
mod crossing;
mod entrants;
mod layer;
mod looks;
mod prevailing;
mod standings;
mod verdict;

use crate::bench::Lab;
use crate::hardware::Hardware;
use crate::needed::better_known;
use crate::observer::{Event, Observer};
use crate::race::Turn;
use crate::record::{Outcome, Refused, ShapeReport, Stopped};
use crate::request::{Request, ShapeUse, Shortage, TuneError};
use crate::space;
use crate::statistics::median;
use again::again;
use crossing::crossing;
use layer::tune_layer;
use std::collections::BTreeSet;
use std::time::Duration;
use trilut_kernels::{Format, Phase};
use trilut_presets::preset::{Effort, Evidence, Provenance, rfc3339};
use trilut_presets::{Pace, Preset};

/// What a layer has at least of the time that it would have if all had the same.
const LEAST_PART: f64 = 0.75;

/// The part of a prompt's time that is left for finding out where small batches hand over to it.
const CROSSING: f64 = 0.15;

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

    // Phases have parts of the time of their own, whatever the work of one of their runs.
    let work_in = |phase: Phase| -> f64 {
        request.shapes.iter().filter(|l| l.phase == phase).map(ShapeUse::work).sum()
    };
    let work = |layer: &ShapeUse| part_of(layer.phase) * layer.work() / work_in(layer.phase);
    let total: f64 = request.shapes.iter().map(work).sum();
    let mut left = total;
    let mut found = Found::default();
    let mut stopped = None;
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
        // By work, but a small layer has as many candidates; what is left over goes to the others.
        let part = (work(layer) / left).max(LEAST_PART / (shapes - index) as f64).min(1.0);
        let fraction = (1.0 - left / total, work(layer) / total);
        left = (left - work(layer)).max(0.0);
        let has_crossing = layer.phase == Phase::Prefill && request.effort > Effort::Estimate;
        let share = Share::of(part, deadline, has_crossing);
        let mut watch = Watch::new(observer, share, fraction);
        let tuned = tune_layer(lab, request, index, *layer, &mut watch, &mut found.notes);
        match tuned {
            Ok(Some(report)) if found.passes_over(lab, request, &report) => {
                let text = format!("{layer}: the earlier record, of more effort, stays");
                note(observer, &mut found.notes, text);
            }
            Ok(Some(mut report)) => {
                let mut from = None;
                if has_crossing {
                    from = crossing(lab, request, &found.reports, &report, &mut watch);
                }
                let known = || crossing::known(request, &found.reports, &report);
                report.record.from = from.or_else(known);
                observer.event(&Event::Done(&report));
                let read = report.winner.candidate.kernel.format();
                if let Some(format) = read.filter(|_| layer.phase == Phase::Decode) {
                    request.decoded.push((layer.shape, format));
                }
                found.reports.push(report);
            }
            Ok(None) => {}
            // Other shapes may be smaller.
            Err(TuneError::Memory(short)) => found.too_large.push((*layer, short)),
            Err(error) => return Err(error),
        }
        observer.event(&Event::Progress(1.0 - left / total));
    }
    again(lab, request, &mut found, deadline, observer)?;
    let warned = found.reports.iter();
    let warned = warned.filter_map(|r| Some(format!("{}: {}", r.layer, r.noise.warning()?)));
    for text in warned.collect::<Vec<_>>() {
        note(observer, &mut found.notes, text);
    }
    let paces = found.reports.iter().filter_map(|report| report.noise.memory);
    let paces = paces.map(|pace| Pace::at(pace.middle()));
    if let Some(pace) = Pace::of(paces).filter(|pace| !pace.is_steady()) {
        let text = format!(
            "memory changed its speed during the run, {pace}: what is fastest for tokens may change with it"
        );
        note(observer, &mut found.notes, text);
    }
    let Found { reports, stayed, too_large, notes } = found;
    let shapes = request.shapes.iter().copied();
    let is_in = |layer: &ShapeUse| {
        let is_too_large = too_large.iter().any(|(own, _)| own == layer);
        let is_reported = reports.iter().any(|report| report.layer == *layer);
        is_reported || stayed.contains(layer) || is_too_large
    };
    let unfinished: Vec<ShapeUse> = shapes.clone().filter(|layer| !is_in(layer)).collect();
    let claims_less = |report: &ShapeReport| report.record.effort < request.effort;
    let short: BTreeSet<ShapeUse> =
        reports.iter().filter(|r| claims_less(r)).map(|r| r.layer).chain(stayed).collect();
    if stopped.is_none() && !(unfinished.is_empty() && short.is_empty()) {
        let is_cancelled = observer.should_stop();
        stopped = Some(if is_cancelled { Stopped::Cancelled } else { Stopped::TimeLimit });
    }
    // Whatever the time would have allowed.
    if let Some((_, short)) = too_large.first()
        && reports.is_empty()
        && stopped != Some(Stopped::Cancelled)
    {
        return Err(TuneError::Memory(*short));
    }

    let records = reports.iter().map(|report| report.record.clone()).collect();
    let spreads: Vec<f64> = reports.iter().filter_map(|r| r.noise.spread).collect();
    let effort = reports.iter().map(|report| report.record.effort).min();
    let provenance = Provenance {
        trilut: env!("CARGO_PKG_VERSION").to_owned(),
        date: rfc3339(lab.date()),
        isa: request.isa(),
        effort: effort.unwrap_or(request.effort),
        threads: request.threads,
        noise: (!spreads.is_empty()).then(|| Evidence::rounded(median(&spreads))),
    };
    Ok(Outcome {
        preset: Preset::new(provenance, request.machine.clone(), records),
        unfinished,
        cut_short: shapes.filter(|layer| short.contains(layer)).collect(),
        too_large,
        shapes: reports,
        stopped,
        notes,
        took: lab.now().saturating_sub(begin),
    })
}

/// The part of the time that a phase has beside the others: small batches have the fewest candidates.
fn part_of(phase: Phase) -> f64 {
    match phase {
        Phase::Decode | Phase::Prefill => 2.0,
        Phase::SmallBatch => 1.0,
    }
}

/// What a run has found so far.
#[derive(Default)]
struct Found {
    reports: Vec<ShapeReport>,
    /// Layers whose earlier records stay, because they know more than a search that was cut short.
    stayed: BTreeSet<ShapeUse>,
    too_large: Vec<(ShapeUse, Shortage)>,
    notes: Vec<String>,
}

impl Found {
    /// Whether an earlier record knows more of a layer than a search that was cut short; its layer is then one
    /// that stays.
    fn passes_over(&mut self, lab: &dyn Lab, request: &Request, report: &ShapeReport) -> bool {
        let (layer, effort) = (&report.layer, report.record.effort);
        let kernels = space::kernels(lab, layer, Format::ALL);
        let is_known = better_known(request, layer, effort, &kernels).is_some();
        let claims_less = report.is_cut_short || effort < request.effort;
        let is_passed_over = claims_less && is_known;
        if is_passed_over {
            self.stayed.insert(*layer);
        }
        is_passed_over
    }
}

/// A layer's share of what is left of the run once its weights are there: filling the memory takes the first layer
/// seconds on machines with large caches, and is nobody's fault.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// The part of what is left.
    part: f64,
    /// When the run ends.
    deadline: Duration,
    /// The part of the share that the races have.
    races: f64,
}

impl Share {
    /// A part of what is left until the run ends; of a prompt's, some is left for [what comes after](CROSSING).
    fn of(part: f64, deadline: Duration, has_crossing: bool) -> Self {
        Self { part, deadline, races: if has_crossing { 1.0 - CROSSING } else { 1.0 } }
    }

    /// The time of the races that begin now.
    fn from(self, now: Duration) -> Time {
        let left = self.deadline.saturating_sub(now);
        Time { begin: now, budget: left.mul_f64(self.part * self.races) }
    }
}

/// When the races of a layer begin, and how long they may take.
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
    share: Share,
    time: Time,
    /// Where the layer's share of the progress begins, and how large it is.
    fraction: (f64, f64),
    best: f64,
    cancelled: bool,
}

impl<'a> Watch<'a> {
    fn new(observer: &'a mut dyn Observer, share: Share, fraction: (f64, f64)) -> Self {
        let time = Time { begin: Duration::ZERO, budget: Duration::ZERO };
        Self { observer, share, time, fraction, best: f64::INFINITY, cancelled: false }
    }

    /// The races begin: the layer's time is what is its share from now on.
    fn begin(&mut self, now: Duration) -> Time {
        self.time = self.share.from(now);
        self.time
    }

    /// When what comes after the races ends.
    fn end(&self) -> Duration {
        self.time.at(1.0 / self.share.races)
    }

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

#[cfg(test)]
mod tests;
