//! The verdict on a layer, and the record that is made of it.

use crate::candidate::Candidate;
use crate::confirm::Confirmation;
use crate::noise::Noise;
use crate::race::Lane;
use crate::record::Timed;
use crate::request::{Request, ShapeUse};
use crate::second_opinion::Opinion;
use crate::statistics::{LEAST_SPREAD, spread, win_share};
use std::time::SystemTime;
use trilut_presets::preset::{Effort, Evidence, Record, Weights, rfc3339};

/// Samples that a record keeps at most: enough to see their spread, few enough to read.
const KEPT_SAMPLES: usize = 32;

/// Finalists that a record names.
const KEPT_FINALISTS: usize = 4;

pub(super) struct Verdict {
    pub(super) winner: Lane,
    pub(super) default: Lane,
    pub(super) reason: String,
}

/// Lets the fastest candidate replace the default only when its gain is outside the noise and worth it.
pub(super) fn decide(
    mut fastest: Lane,
    mut default: Lane,
    confirmation: Option<&Confirmation>,
    opinion: Option<&Opinion>,
) -> Verdict {
    if fastest.candidate.is(&default.candidate) {
        let reason = "nothing was faster than the default by a percent".to_owned();
        let default = default.unpaced();
        return Verdict { winner: default.clone(), default, reason };
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let (gains, reason) = match confirmation {
        Some(check) => {
            // Taken in turn, these are the samples to compare.
            fastest = fastest.with_samples(check.winner.clone());
            default = default.with_samples(check.default.clone());
            let range = format!(
                "{:.3} of the default's time (95 %: {:.3} to {:.3}, {} pairs)",
                check.ratio,
                check.low,
                check.high,
                check.winner.len()
            );
            match (check.is_worth(), opinion.is_some_and(Opinion::contradicts)) {
                (true, false) => (true, format!("{} took {range}", fastest.candidate)),
                (true, true) => (
                    false,
                    format!(
                        "the default stays: {} took {range}, and the second opinion denies it",
                        fastest.candidate
                    ),
                ),
                (false, _) => {
                    let why = match check.is_gain() {
                        true => "too little",
                        false if check.low > 1.0 => "slower",
                        false => "inside the noise",
                    };
                    (false, format!("the default stays: {} took {range}, {why}", fastest.candidate))
                }
            }
        }
        None => {
            let noise = spread(&fastest.samples).zip(spread(&default.samples));
            let gain = 1.0 - fastest.median() / default.median();
            let saved = format!("{} saved {}", fastest.candidate, percent(gain));
            // Three samples understate the noise; a gain must also exceed a plain floor.
            match noise.map(|(own, other)| own.max(other).max(0.02)) {
                Some(floor) if gain > floor => (true, saved),
                Some(floor) => (
                    false,
                    format!("the default stays: {saved}, inside the noise of {}", percent(floor)),
                ),
                None => (
                    false,
                    format!("the default stays: {saved}, in too few samples to show their noise"),
                ),
            }
        }
    };
    // One that stays is compared with nothing.
    let default = if gains { default } else { default.unpaced() };
    let winner = if gains { fastest } else { default.clone() };
    Verdict { winner, default, reason }
}

pub(super) fn timed(lane: Lane) -> Timed {
    let samples = lane.paced_samples();
    Timed { candidate: lane.candidate, median_ns: lane.median(), samples }
}

/// What a record says beside its picks.
pub(super) struct Found<'a> {
    pub(super) layer: ShapeUse,
    pub(super) space: u64,
    pub(super) weights: Weights,
    pub(super) scalar_ns: Option<f64>,
    pub(super) noise: Noise,
    pub(super) confirmation: Option<&'a Confirmation>,
    /// The lanes of the last race, the fastest first.
    pub(super) lanes: &'a [Lane],
    /// The best kernels before those who lead raced once more.
    pub(super) finalists: &'a [Candidate],
    /// The best median of that race.
    pub(super) best_ns: f64,
    pub(super) date: SystemTime,
    /// What the search was worth, which is less than was asked for when the time cut it short.
    pub(super) effort: Effort,
}

pub(super) fn record(
    winner: &Lane,
    default: &Lane,
    found: &Found<'_>,
    request: &Request,
) -> Record {
    // Records are whole nanoseconds, and none of them is 0.
    let ns = |ns: f64| (ns.round() as u64).max(1);
    let Candidate { kernel, tile } = winner.candidate;
    let formats = request.formats_of(&found.layer);
    let samples = winner.paced_samples();
    // A check that the challenger did not pass says nothing of the default.
    let is_default = winner.candidate.is(&default.candidate);
    let check = found.confirmation.filter(|_| !is_default);
    let every = samples.len().div_ceil(KEPT_SAMPLES).max(1);
    Record {
        shape: found.layer.shape,
        phase: found.layer.phase,
        tokens: found.layer.tokens(),
        threads: request.threads,
        format: kernel.format().unwrap_or(formats[0]),
        formats: formats.to_vec(),
        space: found.space,
        kernel: kernel.name().to_owned(),
        hash: kernel.hash(),
        tile,
        effort: found.effort,
        from: None,
        weights: found.weights,
        median_ns: ns(winner.median()),
        samples: samples.iter().step_by(every).map(|s| ns(*s)).collect(),
        default_kernel: default.candidate.name().to_owned(),
        default_ns: ns(default.median()),
        scalar_ns: found.scalar_ns.map(ns),
        confidence: check.map(|c| Evidence::rounded(c.half_width())),
        evidence: Some(evidence(winner, check, found, request)),
    }
}

fn evidence(
    winner: &Lane,
    check: Option<&Confirmation>,
    found: &Found<'_>,
    request: &Request,
) -> Evidence {
    // The samples of one race are comparable; those of the paired check only with each other.
    let in_race = found.lanes.iter().find(|lane| lane.candidate.is(&winner.candidate));
    let own = in_race.map_or(&winner.samples, |lane| &lane.samples);
    let rivals: Vec<&[f64]> = found
        .lanes
        .iter()
        .filter(|lane| lane.is_live() && !lane.candidate.is(&winner.candidate))
        .map(|lane| &lane.samples[..])
        .collect();
    let median = in_race.map_or_else(|| winner.median(), Lane::median);
    let finalists = found.finalists.iter().map(|own| own.name().to_owned());
    let interval = check.filter(|check| check.low > 0.0);
    let wins = (own.len() >= LEAST_SPREAD).then(|| win_share(own, &rivals));
    Evidence {
        date: rfc3339(found.date),
        trilut: env!("CARGO_PKG_VERSION").to_owned(),
        compiler: env!("TRILUT_COMPILER").to_owned(),
        microcode: request.machine.microcode.clone(),
        cores: request.machine.physical_cores,
        noise: found.noise.spread.map(Evidence::rounded),
        memory: found.noise.memory.filter(|p| p.is_steady()).map(|p| Evidence::rounded(p.middle())),
        interval: interval.map(|c| [c.low, c.high].map(Evidence::rounded)),
        // Known once the model has run.
        model: None,
        wins: wins.map(Evidence::rounded),
        regret: Some(Evidence::rounded((median / found.best_ns - 1.0).max(0.0))),
        finalists: finalists.take(KEPT_FINALISTS).collect(),
    }
}
