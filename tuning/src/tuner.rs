//! One tuning run from beginning to end.

mod crossing;
mod layer;
mod verdict;

use crate::bench::Lab;
use crate::hardware::Hardware;
use crate::observer::{Event, Observer};
use crate::race::Turn;
use crate::record::{Outcome, Refused, ShapeReport, Stopped};
use crate::request::{Request, ShapeUse, TuneError};
use crate::statistics::median;
use crossing::crossing;
use layer::tune_layer;
use std::collections::BTreeSet;
use std::time::Duration;
use trilut_kernels::Phase;
use trilut_presets::Preset;
use trilut_presets::preset::{Effort, Provenance, rfc3339};

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
        let end = time.at(1.0);
        let has_crossing = layer.phase == Phase::Prefill && request.effort > Effort::Estimate;
        let part = if has_crossing { 1.0 - CROSSING } else { 1.0 };
        let time = Time { budget: time.budget.mul_f64(part), ..time };
        let mut watch = Watch { observer, time, fraction, best: f64::INFINITY, cancelled: false };
        let tuned = tune_layer(lab, request, index, *layer, &mut watch, &mut notes);
        match tuned {
            Ok(Some(mut report)) => {
                if has_crossing {
                    let from = crossing(lab, request, &reports, &report, end, &mut watch);
                    report.record.from = from;
                }
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
    again(lab, request, &mut reports, deadline, observer, &mut notes)?;
    if stopped.is_none() && reports.len() < shapes && too_large.is_none() {
        let is_cancelled = observer.should_stop();
        stopped = Some(if is_cancelled { Stopped::Cancelled } else { Stopped::TimeLimit });
    }

    if let Some(error) = too_large.filter(|_| reports.is_empty() && stopped.is_none()) {
        return Err(error);
    }

    let records = reports.iter().map(|report| report.record.clone()).collect();
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

/// A busy moment may be over: what it disturbed is measured once more, in the time that is left, and the calmer
/// race is believed. Where decoding then reads another format, the small batches that were tuned for the earlier
/// one are tuned anew, or left out; where they hand over to prompts is then not known any more.
fn again(
    lab: &mut dyn Lab,
    request: &mut Request,
    reports: &mut Vec<ShapeReport>,
    deadline: Duration,
    observer: &mut dyn Observer,
    notes: &mut Vec<String>,
) -> Result<(), TuneError> {
    let place = |request: &Request, layer| request.shapes.iter().position(|l| *l == layer);
    let is_disturbed = |report: &&ShapeReport| {
        request.effort > Effort::Estimate && report.noise.warning().is_some()
    };
    // The first one, which others depend on, is at the end.
    let mut left: Vec<ShapeUse> =
        reports.iter().filter(is_disturbed).map(|report| report.layer).rev().collect();
    while let Some(layer) = left.pop() {
        let now = lab.now();
        if now >= deadline || observer.should_stop() {
            break;
        }
        // Decoding may bring its small batches in.
        let batches = ShapeUse { phase: Phase::SmallBatch, ..layer };
        let more = u32::from(layer.phase == Phase::Decode && request.shapes.contains(&batches));
        let budget = (deadline - now) / (left.len() as u32 + 1 + more);
        let (time, fraction) = (Time { begin: now, budget }, (1.0, 0.0));
        let mut watch = Watch { observer, time, fraction, best: f64::INFINITY, cancelled: false };
        let index = place(request, layer).unwrap_or(0);
        let mut report = match tune_layer(lab, request, index, layer, &mut watch, notes) {
            Ok(Some(report)) => report,
            Ok(None) => continue,
            // What there is stays.
            Err(error @ TuneError::Memory { .. }) => {
                note(observer, notes, error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(at) = reports.iter().position(|earlier| earlier.layer == layer) {
            if !report.noise.is_calmer_than(&reports[at].noise) {
                continue;
            }
            report.record.from = reports.remove(at).record.from;
        }
        observer.event(&Event::Done(&report));
        let read = report.winner.candidate.kernel.format();
        reports.push(report);
        let Some(format) = read.filter(|_| layer.phase == Phase::Decode) else { continue };
        request.decoded.push((layer.shape, format));
        let is_stale = |report: &ShapeReport| {
            let own = report.layer;
            (own.phase, own.shape) == (Phase::SmallBatch, layer.shape)
                && report.record.format != format
        };
        if let Some(at) = reports.iter().position(is_stale) {
            let stale = reports.remove(at).layer;
            left.retain(|layer| *layer != stale);
            left.push(stale);
            let is_stack = |own: &ShapeUse| {
                own.phase == Phase::Prefill
                    && own.shape.k == layer.shape.k
                    && own.shape.m >= layer.shape.m
            };
            reports.iter_mut().filter(|r| is_stack(&r.layer)).for_each(|r| r.record.from = None);
        }
    }
    reports.sort_by_key(|report| place(request, report.layer));
    Ok(())
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

#[cfg(test)]
mod tests;
