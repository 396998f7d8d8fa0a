//! What is measured once more when time is left: layers that something disturbed, and those whose search was
//! cut short.

use super::layer::tune_layer;
use super::prevailing::Prevailing;
use super::{Found, Share, Watch, crossing, note};
use crate::bench::Lab;
use crate::observer::{Event, Observer};
use crate::record::ShapeReport;
use crate::request::{Request, ShapeUse, TuneError};
use std::time::Duration;
use trilut_kernels::Phase;
use trilut_presets::Preset;
use trilut_presets::preset::{Effort, Provenance};

/// How often what is disturbed is measured once more.
const ROUNDS: usize = 3;

/// A busy moment may be over: what it disturbed is measured once more, in the time that is left, and once more where
/// that was disturbed too. The earlier pick is in the race and meets the new one in pairs; which of the two searches
/// counts, [`Prevailing::favours`] says. A search that was cut short is begun anew where time is left for a usual one,
/// once. Where decoding then reads another format, the small batches that were tuned for the earlier one are tuned
/// anew, or left out. Where they hand over to prompts is asked at the end, of those of which it is not known or not any
/// more.
pub(super) fn again(
    lab: &mut dyn Lab,
    request: &mut Request,
    found: &mut Found,
    deadline: Duration,
    observer: &mut dyn Observer,
) -> Result<(), TuneError> {
    if request.effort > Effort::Estimate {
        for round in 0..ROUNDS {
            once_more(lab, request, found, round == 0, deadline, observer)?;
        }
        cross(lab, request, found, deadline, observer);
        let place = |layer| request.shapes.iter().position(|l| *l == layer);
        found.reports.sort_by_key(|report| place(report.layer));
    }
    Ok(())
}

/// One round through everything that is disturbed, and in the first also what was cut short.
fn once_more(
    lab: &mut dyn Lab,
    request: &mut Request,
    found: &mut Found,
    is_first: bool,
    deadline: Duration,
    observer: &mut dyn Observer,
) -> Result<(), TuneError> {
    let place = |request: &Request, layer| request.shapes.iter().position(|l| *l == layer);
    let usual = request.limit() / request.shapes.len().max(1) as u32;
    let prevailing = Prevailing::of(&found.reports);
    let is_disturbed =
        |report: &&ShapeReport| report.noise.warning().is_some() || prevailing.is_off(report);
    // What is begun anew whatever the time, and what only where there is enough of it.
    let disturbed: Vec<ShapeUse> =
        found.reports.iter().filter(is_disturbed).map(|report| report.layer).collect();
    let is_short = |report: &&ShapeReport| report.is_cut_short && !is_disturbed(report);
    let short = found.reports.iter().filter(is_short).map(|report| report.layer);
    let mut left: Vec<ShapeUse> = short.chain(found.stayed.iter().copied()).collect();
    if !is_first {
        left.clear();
    }
    left.extend(&disturbed);
    // The first one, which others depend on, is at the end.
    left.sort_by_key(|layer| std::cmp::Reverse(place(request, *layer)));
    while let Some(layer) = left.pop() {
        let now = lab.now();
        if now >= deadline || observer.should_stop() {
            break;
        }
        // Decoding may bring its small batches in.
        let batches = ShapeUse { phase: Phase::SmallBatch, ..layer };
        let more = u32::from(layer.phase == Phase::Decode && request.shapes.contains(&batches));
        let mut budget = (deadline - now) / (left.len() as u32 + 1 + more);
        let at = |found: &Found| found.reports.iter().position(|earlier| earlier.layer == layer);
        let is_known = at(found).is_some() || found.stayed.contains(&layer);
        if is_known && !disturbed.contains(&layer) {
            if deadline - now < usual {
                continue;
            }
            budget = budget.max(usual);
        }
        // A search that would be cut short, or say less than the one before it, is not begun.
        if at(found).is_some() {
            if deadline - now < usual / 2 {
                continue;
            }
            budget = budget.max(usual / 2);
        }
        let part = budget.as_secs_f64() / (deadline - now).as_secs_f64();
        let share = Share::of(part, deadline, layer.phase == Phase::Prefill);
        let mut watch = Watch::new(observer, share, (1.0, 0.0));
        let index = place(request, layer).unwrap_or(0);
        let defended = at(found).map(|at| defended(request, &found.reports[at]));
        let own = defended.as_ref().unwrap_or(request);
        let tuned = tune_layer(lab, own, index, layer, &mut watch, &mut found.notes);
        let mut report = match tuned {
            Ok(Some(report)) => report,
            Ok(None) => continue,
            // What there is stays.
            Err(error @ TuneError::Memory(_)) => {
                note(observer, &mut found.notes, error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        let disturbance = at(found).and_then(|at| found.reports[at].noise.warning());
        if let Some(why) = disturbance.filter(|_| is_first) {
            note(watch.observer, &mut found.notes, format!("{layer}: {why}: measured once more"));
        }
        if at(found).is_none() && found.passes_over(lab, request, &report) {
            continue;
        }
        if let Some(at) = at(found) {
            let earlier = &found.reports[at];
            if !prevailing.favours(&report, earlier) {
                continue;
            }
            let is_same_pick = report.record.is_same_pick(&earlier.record);
            let earlier = found.reports.remove(at).record;
            // Where a prompt's other pick takes over is not where the earlier one did.
            report.record.from = earlier.from.filter(|_| is_same_pick);
            if layer.phase == Phase::SmallBatch && !is_same_pick {
                forget_crossings(found, layer);
            }
        } else {
            report.record.from = crossing::known(request, &found.reports, &report);
        }
        if layer.phase == Phase::Prefill && report.record.from.is_none() {
            let found = &found.reports;
            report.record.from = crossing::crossing(lab, request, found, &report, &mut watch);
        }
        found.stayed.remove(&layer);
        observer.event(&Event::Done(&report));
        let read = report.winner.candidate.kernel.format();
        found.reports.push(report);
        let Some(format) = read.filter(|_| layer.phase == Phase::Decode) else { continue };
        request.decoded.push((layer.shape, format));
        let is_stale = |report: &ShapeReport| {
            let own = report.layer;
            (own.phase, own.shape) == (Phase::SmallBatch, layer.shape)
                && report.record.format != format
        };
        if let Some(at) = found.reports.iter().position(is_stale) {
            let stale = found.reports.remove(at).layer;
            left.retain(|layer| *layer != stale);
            left.push(stale);
            forget_crossings(found, layer);
        }
    }
    Ok(())
}

/// The request in which the pick of a report is the incumbent of its layer.
fn defended(request: &Request, report: &ShapeReport) -> Request {
    let (mut request, isa) = (request.clone(), request.isa());
    let record = report.record.clone();
    match &mut request.prior.incumbents {
        Some(known) => {
            let one = Preset::new(known.provenance.clone(), known.machine.clone(), vec![record]);
            known.merge(one);
        }
        none => {
            let date = record.evidence.as_ref().map_or(String::new(), |own| own.date.clone());
            let provenance = Provenance {
                trilut: env!("CARGO_PKG_VERSION").to_owned(),
                date,
                isa,
                effort: record.effort,
                threads: record.threads,
                noise: None,
            };
            *none = Some(Preset::new(provenance, request.machine.clone(), vec![record]));
        }
    }
    request
}

/// Where small batches hand over to prompts, for those of which it is not known, in the time that is left.
fn cross(
    lab: &mut dyn Lab,
    request: &Request,
    found: &mut Found,
    deadline: Duration,
    observer: &mut dyn Observer,
) {
    let is_unknown =
        |report: &ShapeReport| report.layer.phase == Phase::Prefill && report.record.from.is_none();
    let all = found.reports.iter().enumerate();
    let unknown: Vec<usize> = all.filter(|(_, own)| is_unknown(own)).map(|(at, _)| at).collect();
    for (done, &at) in unknown.iter().enumerate() {
        let now = lab.now();
        if now >= deadline || observer.should_stop() {
            break;
        }
        let share = Share::of(1.0 / (unknown.len() - done) as f64, deadline, true);
        let mut watch = Watch::new(observer, share, (1.0, 0.0));
        watch.begin(now);
        let prompt = &found.reports[at];
        let from = crossing::crossing(lab, request, &found.reports, prompt, &mut watch);
        if from.is_some() {
            found.reports[at].record.from = from;
            observer.event(&Event::Done(&found.reports[at]));
        }
    }
}

/// Small batches of a layer run otherwise: where the stacks with it hand over to prompts is not known any more.
fn forget_crossings(found: &mut Found, layer: ShapeUse) {
    let is_stack = |own: &ShapeUse| {
        own.phase == Phase::Prefill && own.shape.k == layer.shape.k && own.shape.m >= layer.shape.m
    };
    let stacks = found.reports.iter_mut().filter(|report| is_stack(&report.layer));
    stacks.for_each(|report| report.record.from = None);
}
