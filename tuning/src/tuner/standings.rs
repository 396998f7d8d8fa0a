//! What the races of a layer have shown so far: who leads, and who races next.

use super::entrants::{Entrants, SECOND_CHANCE};
use crate::confirm::WORTH;
use crate::effort::{self, Vary};
use crate::race::{End, Lane};
use crate::record::Trial;
use crate::statistics::LEAST_SPREAD;
use crate::{AnyKernel, Candidate};
use std::collections::BTreeSet;
use trilut_kernels::Tile;
use trilut_presets::preset::Effort;

/// Who is this close behind the leader races once more.
const CLOSE: f64 = 1.05;

/// The state of a search between two races.
pub(super) struct Standings {
    effort: Effort,
    default: Candidate,
    /// The names of the kernels, the best estimate first: the order among equals.
    ranks: Vec<&'static str>,
    /// The lanes of the last race that counts, the fastest first.
    pub(super) lanes: Vec<Lane>,
    /// The best candidate of each of the best kernels, before those who lead raced once more.
    pub(super) finalists: Vec<Candidate>,
    /// Kernels with a [second chance](SECOND_CHANCE).
    outsiders: Vec<Candidate>,
    /// The default's samples of all races: a slow change may be too little to see in the last one.
    pub(super) defaults: Vec<f64>,
    /// The names of all candidates that were timed.
    pub(super) tried: BTreeSet<String>,
    /// How they fared, race by race.
    pub(super) trials: Vec<Trial>,
    /// Whether time ended a race before it was as thorough as the effort demands.
    pub(super) is_cut_short: bool,
}

impl Standings {
    /// Before the first race.
    pub(super) fn before(entrants: &Entrants, effort: Effort) -> Self {
        Self {
            effort,
            default: entrants.default,
            ranks: entrants.kernels.iter().map(AnyKernel::name).collect(),
            lanes: Vec::new(),
            finalists: entrants.kernels.iter().copied().map(Candidate::untuned).collect(),
            outsiders: Vec::new(),
            defaults: Vec::new(),
            tried: BTreeSet::new(),
            trials: Vec::new(),
            is_cut_short: false,
        }
    }

    /// Those whom a stage begins with, and the outsiders beside them; `None` where there is nothing to tell apart.
    pub(super) fn entrants(&self, stage: Vary) -> Option<(Vec<Candidate>, &[Candidate])> {
        let finalists = match stage {
            Vary::Nothing => leaders(&self.lanes, &self.ranks, effort::leaders(self.effort)),
            _ => self.finalists.clone(),
        };
        let is_idle = stage == Vary::Nothing && finalists.len() < 2;
        (!is_idle).then_some((finalists, &self.outsiders))
    }

    /// There was no time left for a stage. A last look at the leaders is no part of the search.
    pub(super) fn skip(&mut self, stage: Vary) {
        self.is_cut_short |= stage != Vary::Nothing;
    }

    /// Takes a race in, unless it knows less than the one before it; whether it did.
    pub(super) fn take(&mut self, stage: Vary, mut raced: Vec<Lane>, end: End) -> bool {
        let is_last = stage == Vary::Nothing;
        let enough = effort::enough(self.effort);
        let is_short = |lane: &Lane| lane.is_live() && lane.samples.len() < enough;
        let is_cut_off = end == End::Deadline;
        self.is_cut_short |= !is_last && is_cut_off && raced.iter().any(is_short);

        raced.retain(|lane| lane.failed.is_none() && !lane.samples.is_empty());
        // A race that was cut off after a sample or two knows less than the one before it; so does one of the same
        // candidates with fewer samples.
        let most = |lanes: &[Lane]| lanes.iter().map(|lane| lane.samples.len()).max().unwrap_or(0);
        let least = if is_last { most(&self.lanes) } else { LEAST_SPREAD };
        let is_less = is_cut_off && most(&raced) < least;
        let own = raced.iter().find(|lane| lane.candidate.is(&self.default));
        if !self.lanes.is_empty() && (is_less || own.is_none()) {
            return false;
        }
        self.defaults.extend(own.iter().flat_map(|lane| &lane.samples));
        self.lanes = raced;
        if !is_last {
            self.finalists = best_kernels(&self.lanes, effort::finalists(self.effort));
        }
        if stage == Vary::Kernels && self.effort > Effort::Estimate {
            self.outsiders = near(&self.lanes, &self.finalists);
        }
        true
    }

    /// The lane of the default, if it was.
    pub(super) fn base(&self) -> Option<&Lane> {
        self.lane(&self.default)
    }

    /// The lane of a candidate, if it was timed in the last race that counts.
    pub(super) fn lane(&self, candidate: &Candidate) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.candidate.is(candidate))
    }

    /// The best median of the last race.
    pub(super) fn best_ns(&self) -> f64 {
        self.lanes.first().map_or(f64::INFINITY, Lane::median)
    }

    /// Who meets the default in pairs: the first of the leader's equals; where the leader is no better than the
    /// default by what is worth a change, the default itself, or the incumbent, which does not fall for a race alone.
    pub(super) fn challenger(&self, base: &Lane, incumbent: Option<Candidate>) -> Lane {
        if self.best_ns() < base.median() * (1.0 - WORTH) {
            return first_of_equals(&self.lanes, &self.ranks);
        }
        let earlier = incumbent.filter(|_| self.effort > Effort::Estimate);
        earlier.and_then(|own| self.lane(&own)).unwrap_or(base).clone()
    }
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
