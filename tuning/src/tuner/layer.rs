//! The tuning of one layer: exactness gate, races by stages, the last of those who lead, paired check.

use super::verdict::{self, Verdict};
use super::{Watch, note};
use crate::bench::{Lab, Runner, Stage};
use crate::cold;
use crate::confirm::{WORTH, confirm};
use crate::effort::{self, PAIRS, Vary, stages};
use crate::estimate::{self, Bound};
use crate::exactness::Gate;
use crate::noise::Noise;
use crate::observer::Event;
use crate::race::{End, Lane, Limits, Turn, race};
use crate::record::{ShapeReport, Trial};
use crate::request::{Request, ShapeUse, TuneError};
use crate::second_opinion::{self, Opinion};
use crate::statistics::LEAST_SPREAD;
use crate::{AnyKernel, Candidate};
use crate::{runoff, space};
use std::collections::BTreeSet;
use std::time::Duration;
use trilut_kernels::{Format, Isa, Layout, Tile};
use trilut_presets::preset::Effort;

/// Who is this close behind the leader races once more.
const CLOSE: f64 = 1.05;

/// Who was behind by no more than this with the usual distance of prefetching meets the finalists
/// [without it and with the shortest](space::short_prefetches): kernels that read several rows at once may gain as much.
const SECOND_CHANCE: f64 = 2.0;

/// What a layer's candidates are raced in, and who they are.
struct Field<'a> {
    request: &'a Request,
    layer: ShapeUse,
    space: u64,
    default: Candidate,
    incumbent: Option<Candidate>,
}

impl Field<'_> {
    /// The candidates of a stage, the default first, then the incumbent; without those that an interrupted
    /// run has seen fall behind.
    fn of(
        &self,
        stage: Vary,
        finalists: &[Candidate],
        outsiders: &[Candidate],
    ) -> (Vec<Candidate>, usize) {
        let (shape, threads) = (self.layer.shape, self.request.threads);
        let (varied, left_out) = match stage {
            Vary::Kernels | Vary::Nothing => (finalists.to_vec(), 0),
            Vary::Prefetch => {
                let all = finalists.iter().flat_map(|c| space::prefetch_variants(*c));
                let short = outsiders.iter().flat_map(|c| space::short_prefetches(*c));
                (all.chain(short).collect(), 0)
            }
            Vary::Split => {
                let first = finalists.iter().take(2);
                (first.flat_map(|c| space::split_variants(*c, shape, threads)).collect(), 0)
            }
            Vary::Panels => {
                let each = finalists.iter();
                (each.flat_map(|c| space::panel_variants(*c, shape, threads)).collect(), 0)
            }
            Vary::Grid => space::grid(finalists, shape, threads, effort::GRID),
        };
        let mut field = vec![self.default];
        field.extend(self.incumbent.filter(|c| !c.is(&self.default)));
        let (request, layer) = (self.request, &self.layer);
        let own = (self.space, request.threads);
        for candidate in varied {
            let is_known = field.iter().any(|c| c.is(&candidate));
            if !is_known && !request.prior.is_out(layer, own, &candidate.to_string()) {
                field.push(candidate);
            }
        }
        (field, left_out)
    }
}

/// Tunes one layer; `None` when it was cancelled or no time was left.
pub(super) fn tune_layer(
    lab: &mut dyn Lab,
    request: &Request,
    index: usize,
    layer: ShapeUse,
    watch: &mut Watch<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<ShapeReport>, TuneError> {
    let shape = layer.shape;
    let formats = request.formats_of(&layer);
    let stored = lab.layout(formats[0], shape);
    let mut refused = Vec::new();
    let mut gate = Gate::new(shape, stored);

    let default = Candidate::untuned(lab.default_kernel(&layer, formats[0]));
    lab.check_memory(shape, &[stored])?;
    gate.check(&default.kernel).map_err(|source| TuneError::DefaultInexact { layer, source })?;
    let all = space::kernels(lab, &layer, formats);
    let space = space::fingerprint(&all);
    let scalar = scalar_kernel(&all, formats[0]).filter(|k| gate.check(k).is_ok());
    let incumbent = incumbent(&all, request, &layer).filter(|c| gate.check(&c.kernel).is_ok());
    let kernels = choose(all, &default, &layer, request, |kernel| {
        let verdict = gate.check(kernel);
        if let Err(why) = &verdict {
            watch.refuse(&mut refused, kernel.name(), why.to_string());
        }
        verdict.is_ok()
    });
    watch.observer.event(&Event::Shape { index, layer, kernels: kernels.len() + 1, space });

    let own = [Some(default.kernel), scalar, incumbent.map(|c| c.kernel)].into_iter().flatten();
    let mut layouts: Vec<Layout> =
        kernels.iter().copied().chain(own).map(|k| k.layout(stored)).collect();
    layouts.sort_unstable();
    layouts.dedup();
    let before = lab.cpu_times();
    let (machine_before, is_real) = (lab.disturbance(), lab.is_real());
    let Stage { mut runner, weights, notes: said } = lab.open(&layer, &layouts)?;
    for text in said {
        note(watch.observer, notes, text);
    }
    // An estimate has no time to look.
    let is_watched = request.effort > Effort::Estimate;
    let is_streamed = layer.is_streamed() && is_watched;
    let pace = |runner: &mut dyn Runner| is_streamed.then(|| runner.memory()).flatten();
    let rate = |runner: &mut dyn Runner| is_watched.then(|| runner.cores()).flatten();
    let mut paces: Vec<f64> = pace(&mut *runner).into_iter().collect();
    let mut rates: Vec<f64> = rate(&mut *runner).into_iter().collect();
    let time = watch.begin(runner.now());

    let field = Field { request, layer, space, default, incumbent };
    let mut tried = BTreeSet::new();
    let mut trials: Vec<Trial> = Vec::new();
    let mut lanes: Vec<Lane> = Vec::new();
    let ranks: Vec<&str> = kernels.iter().map(AnyKernel::name).collect();
    let mut finalists: Vec<Candidate> = kernels.into_iter().map(Candidate::untuned).collect();
    let mut outsiders: Vec<Candidate> = Vec::new();
    // The default's samples of all races: a slow change may be too little to see in the last one.
    let mut defaults: Vec<f64> = Vec::new();
    let mut is_cut_short = false;
    for (stage, end) in stages(request, &layer) {
        // What a late stage cannot do in its time, it leaves out; a last look at the leaders is no part of the search.
        let is_last = stage == Vary::Nothing;
        if !lanes.is_empty() && runner.now() >= time.at(end) {
            is_cut_short |= !is_last;
            continue;
        }
        let again = match is_last {
            true => leaders(&lanes, &ranks, effort::leaders(request.effort)),
            false => Vec::new(),
        };
        if is_last && again.len() < 2 {
            continue;
        }
        let entrants = if is_last { &again } else { &finalists };
        let (candidates, left_out) = field.of(stage, entrants, &outsiders);
        if left_out > 0 {
            let text = format!("{layer}: points beyond {} are left out: {left_out}", effort::GRID);
            note(watch.observer, notes, text);
        }
        tried.extend(candidates.iter().map(ToString::to_string));
        let limits = Limits {
            samples: effort::samples(request.effort, stage),
            patience: effort::patience(request.effort),
            deadline: time.at(end),
        };
        let (mut raced, end) =
            race(&mut *runner, &candidates, limits, &mut |turn| watch.turn(turn));
        if watch.cancelled {
            return Ok(None);
        }
        let enough = effort::enough(request.effort);
        let is_short = |lane: &Lane| lane.is_live() && lane.samples.len() < enough;
        is_cut_short |= !is_last && end == End::Deadline && raced.iter().any(is_short);
        for lane in &raced {
            if let Some(why) = &lane.failed {
                watch.refuse(&mut refused, &lane.candidate.to_string(), why.clone());
            }
        }
        raced.retain(|lane| lane.failed.is_none() && !lane.samples.is_empty());
        for trial in raced.iter().map(|lane| Trial::of(lane, runner.now())) {
            watch.observer.event(&Event::Trial { layer, trial: &trial });
            trials.push(trial);
        }
        // A race that was cut off after a sample or two knows less than the one before it; so does one of the same
        // candidates with fewer samples.
        let most = |lanes: &[Lane]| lanes.iter().map(|lane| lane.samples.len()).max().unwrap_or(0);
        let least = if is_last { most(&lanes) } else { LEAST_SPREAD };
        let is_less = end == End::Deadline && most(&raced) < least;
        let has_default = raced.iter().any(|lane| lane.candidate.is(&default));
        if !lanes.is_empty() && (is_less || !has_default) {
            continue;
        }
        let own = raced.iter().find(|lane| lane.candidate.is(&default));
        defaults.extend(own.iter().flat_map(|lane| &lane.samples));
        lanes = raced;
        if !is_last {
            finalists = best_kernels(&lanes, effort::finalists(request.effort));
            if request.effort > Effort::Estimate {
                outsiders = near(&lanes, &finalists);
            }
        }
        paces.extend(pace(&mut *runner));
        rates.extend(rate(&mut *runner));
    }

    let Some(base) = lanes.iter().find(|l| l.candidate.is(&default)).cloned() else {
        return Ok(None);
    };
    let best_ns = lanes[0].median();
    let mut fastest = first_of_equals(&lanes, &ranks);
    if best_ns >= base.median() * (1.0 - WORTH) {
        // An earlier pick does not fall for a race alone: it meets the default in pairs.
        let earlier = incumbent.filter(|_| request.effort > Effort::Estimate);
        let holder = lanes.iter().find(|l| earlier.is_some_and(|e| e.is(&l.candidate)));
        fastest = holder.unwrap_or(&base).clone();
    }
    let mut defended = None;
    if !fastest.candidate.is(&default) {
        let holder = incumbent.filter(|c| !c.is(&fastest.candidate) && !c.is(&default));
        if let Some(holder) = lanes.iter().find(|l| holder.is_some_and(|h| h.is(&l.candidate))) {
            let check = runoff::pairs(
                &mut *runner,
                &fastest.candidate,
                &holder.candidate,
                PAIRS,
                time.at(0.95),
                &mut || watch.turn(Turn::Sample(time.at(0.95))),
            );
            if check.is_some_and(|check| !check.is_worth()) {
                defended = Some(format!("{} is not faster enough", fastest.candidate));
                fastest = holder.clone();
            }
        }
    }
    let confirmation = match request.effort > Effort::Estimate && !fastest.candidate.is(&default) {
        true => {
            confirm(&mut *runner, &fastest.candidate, &default, PAIRS, time.at(1.0), &mut || {
                watch.turn(Turn::Sample(time.at(1.0)))
            })
        }
        false => None,
    };
    // The default that stays for want of pairs may be far behind.
    is_cut_short |= confirmation.as_ref().is_some_and(|check| check.is_open(PAIRS));
    let is_asked = is_real && request.effort >= Effort::Patient;
    let left = time.at(1.0).saturating_sub(runner.now());
    let is_unheard = left < second_opinion::LEAST;
    let (opinion, effort) = match &confirmation {
        Some(check) if is_asked && check.is_worth() && is_unheard => (None, Effort::Measure),
        Some(check) if is_asked && check.is_worth() => {
            let opinion = ask_again(&mut *runner, &fastest.candidate, &default, left, watch, notes);
            (opinion, request.effort)
        }
        _ => (None, request.effort),
    };
    let effort = if is_cut_short { Effort::Estimate } else { effort };
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
    paces.extend(pace(&mut *runner));
    rates.extend(rate(&mut *runner));
    drop(runner);

    let disturbance = lab.disturbance().since(machine_before);
    let noise = Noise::of(&base.samples, before, lab.cpu_times());
    let noise = noise.over(&defaults).with(disturbance).at(&paces).computing(&rates);
    let Verdict { winner, default, mut reason } =
        verdict::decide(fastest, base, confirmation.as_ref(), opinion.as_ref());
    if let Some(why) = defended.filter(|_| incumbent.is_some_and(|c| c.is(&winner.candidate))) {
        reason = format!("the earlier pick stays ({why}): {reason}");
    }
    let found = verdict::Found {
        layer,
        space,
        weights,
        scalar_ns,
        noise,
        confirmation: confirmation.as_ref(),
        lanes: &lanes,
        finalists: &finalists,
        best_ns,
        date: lab.date(),
        effort: effort.min(request.prior.most_effort(&layer, request)),
    };
    let record = verdict::record(&winner, &default, &found, request);
    Ok(Some(ShapeReport {
        layer,
        winner: verdict::timed(winner),
        default: verdict::timed(default),
        scalar_ns,
        weights,
        tried: tried.len(),
        trials,
        space,
        refused,
        noise,
        confirmation,
        opinion,
        reason,
        is_cut_short: is_cut_short || effort < request.effort,
        record,
    }))
}

/// Of the candidates that are as good as the leader, the one that comes first in an order which no
/// measurement decides: by the rank of its kernel, those without one last, the usual bounds before others,
/// small ones before large ones.
fn first_of_equals(lanes: &[Lane], ranks: &[&str]) -> Lane {
    let (leader, bound) = (&lanes[0], lanes[0].median() / (1.0 - WORTH));
    let place = |candidate: &Candidate| {
        let usual = Candidate::untuned(candidate.kernel).tile;
        let Tile { prefetch, rows_per_task } = candidate.tile;
        let rank = ranks.iter().position(|name| *name == candidate.name());
        let rank = rank.unwrap_or(ranks.len());
        (rank, candidate.tile != usual, prefetch, rows_per_task, candidate.name())
    };
    // One that left early knows too little of itself.
    let least = leader.samples.len().div_ceil(2);
    let equals = lanes.iter().filter(|l| l.samples.len() >= least && l.median() <= bound);
    equals.min_by_key(|lane| place(&lane.candidate)).unwrap_or(leader).clone()
}

/// The winner and the default once more, by another harness.
fn ask_again(
    runner: &mut dyn Runner,
    winner: &Candidate,
    default: &Candidate,
    left: Duration,
    watch: &mut Watch<'_>,
    notes: &mut Vec<String>,
) -> Option<Opinion> {
    match second_opinion::of(runner, winner, default, left) {
        Ok(opinion) => opinion,
        Err(why) => {
            note(watch.observer, notes, format!("no second opinion: {why}"));
            None
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
    let is_exhaustive = request.effort == Effort::Exhaustive;
    let prune = effort::prune(request.effort, layer.phase);
    ranked
        .into_iter()
        .filter(|(kernel, bound)| {
            // Of the default kernel, too, every tile belongs to the grid.
            bound.ns() <= best * prune && (is_exhaustive || kernel.name() != default.name())
        })
        .map(|(kernel, _)| kernel)
        .filter(|kernel| request.prior.admits(layer, kernel.name()) && is_exact(kernel))
        .take(effort::most_kernels(request.effort, layer.phase))
        .collect()
}

/// The pick of an earlier run, if there still is such a kernel.
fn incumbent(kernels: &[AnyKernel], request: &Request, layer: &ShapeUse) -> Option<Candidate> {
    let record = request.prior.incumbent(layer, request.threads)?;
    let kernel = kernels.iter().find(|kernel| kernel.name() == record.kernel)?;
    Some(Candidate { kernel: *kernel, tile: record.tile })
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

/// The others that are no more than a [second chance](SECOND_CHANCE) behind.
fn near(lanes: &[Lane], finalists: &[Candidate]) -> Vec<Candidate> {
    let bound = lanes.first().map_or(0.0, |leader| leader.median() * SECOND_CHANCE);
    let near = lanes.iter().filter(|lane| lane.median() <= bound).map(|lane| lane.candidate);
    near.filter(|own| finalists.iter().all(|known| known.name() != own.name())).collect()
}

/// Those who are close to the leader, so many of them: the [first](first_of_equals) of its equals, the leader, then
/// the best of each other kernel, then variants, which differ the least.
fn leaders(lanes: &[Lane], ranks: &[&str], most: usize) -> Vec<Candidate> {
    let Some(leader) = lanes.first() else { return Vec::new() };
    let bound = leader.median() * CLOSE;
    let close = lanes.iter().take_while(|lane| lane.median() <= bound);
    let first = first_of_equals(lanes, ranks).candidate;
    let (mut leaders, mut variants) = (vec![first], Vec::new());
    if !leader.candidate.is(&first) {
        leaders.push(leader.candidate);
    }
    let is_in = |own: &Candidate| own.is(&first) || own.is(&leader.candidate);
    for candidate in close.map(|lane| lane.candidate).filter(|own| !is_in(own)) {
        let is_new = leaders.iter().all(|known| known.name() != candidate.name());
        if is_new { &mut leaders } else { &mut variants }.push(candidate);
    }
    leaders.append(&mut variants);
    leaders.truncate(most);
    leaders
}

/// The best candidate of each of the best kernels, in the order of the lanes.
fn best_kernels(lanes: &[Lane], most: usize) -> Vec<Candidate> {
    let mut best: Vec<Candidate> = Vec::new();
    for lane in lanes {
        if best.len() < most && best.iter().all(|c| c.name() != lane.candidate.name()) {
            best.push(lane.candidate);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake;

    #[test]
    fn those_who_lead_race_once_more_the_first_of_equals_among_them() {
        let usual = fake::field();
        let ranks = usual.iter().map(Candidate::name).collect::<Vec<_>>();
        let far = |at: usize| Candidate {
            tile: Tile { prefetch: 1 << (at + 8), ..usual[1].tile },
            ..usual[1]
        };
        let lane = |candidate: Candidate, ns: f64| Lane::of(candidate, vec![ns; 9]);
        // Variants of one kernel, its usual tile the last of the equals, then two other kernels, one far behind.
        let lanes = vec![
            lane(far(0), 100.0),
            lane(far(1), 100.2),
            lane(far(2), 100.4),
            lane(usual[1], 100.9),
            lane(usual[2], 104.0),
            lane(usual[3], 107.0),
        ];
        let of = |most| -> Vec<Candidate> { leaders(&lanes, &ranks, most) };
        let is = |found: Vec<Candidate>, wanted: &[Candidate]| {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| a.is(b))
        };
        assert!(is(of(4), &[usual[1], far(0), usual[2], far(1)]), "{:?}", of(4));
        assert_eq!(of(9).len(), 5);
        assert_eq!(leaders(&lanes[5..], &ranks, 9).len(), 1);
        assert!(leaders(&[], &ranks, 9).is_empty());
    }
}
