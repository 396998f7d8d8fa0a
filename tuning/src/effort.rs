//! What each effort does: how many candidates, how many samples, in which stages.

use crate::request::{Request, ShapeUse};
use crate::statistics::LEAST_SPREAD;
use trilut_kernels::Phase;
use trilut_presets::preset::Effort;

/// Pairs in the check of the winner.
pub(crate) const PAIRS: usize = 21;

/// The most points of the grid of `exhaustive`.
pub const GRID: usize = 400;

/// What a stage varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vary {
    /// The kernels, each with its usual bounds.
    Kernels,
    /// How far ahead the finalists prefetch.
    Prefetch,
    /// How many rows the finalists take at a time.
    Split,
    /// How many rows the finalists' panels have.
    Panels,
    /// Every kernel with values of every knob, as many as the [grid](GRID) has room for.
    Grid,
    /// Nothing: those who are near the leader once more, with more samples each. The best of many medians is often
    /// not the fastest but the luckiest.
    Nothing,
}

/// Kernels that are timed at most, best estimates first; fewer for prompts, which take longer. Of tokens, kernels that
/// memory holds up are equals to an estimate that counts instructions, so that none of them is left out.
pub(crate) const fn most_kernels(effort: Effort, phase: Phase) -> usize {
    match (effort, phase) {
        (Effort::Estimate, _) => 4,
        (Effort::Measure, Phase::Prefill) => 24,
        (Effort::Measure, _) | (Effort::Patient, _) => 64,
        (Effort::Exhaustive, _) => usize::MAX,
    }
}

/// A kernel whose lower bound is this many times the best bound is not timed. Generous, because the
/// estimate knows neither latencies nor the memory system; more so for prompts, where it weighs lookups
/// against multiplications, in which CPUs differ.
pub(crate) const fn prune(effort: Effort, phase: Phase) -> f64 {
    match (effort, phase) {
        (Effort::Exhaustive, _) => f64::INFINITY,
        (Effort::Patient, Phase::Prefill) => 6.0,
        (Effort::Patient, _) => 4.0,
        (_, Phase::Prefill) => 4.0,
        (_, Phase::Decode | Phase::SmallBatch) => 2.5,
    }
}

/// Kernels whose tiles are varied, best first.
pub(crate) const fn finalists(effort: Effort) -> usize {
    match effort {
        Effort::Estimate => 2,
        Effort::Measure => 4,
        Effort::Patient | Effort::Exhaustive => 6,
    }
}

/// Samples per candidate in a race.
pub(crate) const fn samples(effort: Effort, stage: Vary) -> usize {
    match (effort, stage) {
        (Effort::Estimate, _) => 3,
        (Effort::Patient, Vary::Nothing) => 31,
        (_, Vary::Nothing) => 17,
        (Effort::Measure | Effort::Exhaustive, _) => 9,
        (Effort::Patient, _) => 15,
    }
}

/// The fewest samples of a candidate with which a race that was cut off still counts as one of its effort: those
/// who are far behind have left by then, the others are told apart by the last race, and the noise can be seen.
pub(crate) const fn enough(effort: Effort) -> usize {
    let third = samples(effort, Vary::Kernels) / 3;
    if third < LEAST_SPREAD { LEAST_SPREAD } else { third }
}

/// How many times as many samples a race takes on a noisy machine.
pub(crate) const fn patience(effort: Effort) -> usize {
    match effort {
        Effort::Estimate => 1,
        Effort::Measure | Effort::Exhaustive => 3,
        Effort::Patient => 4,
    }
}

/// Candidates that race once more at the end.
pub(crate) const fn leaders(effort: Effort) -> usize {
    match effort {
        Effort::Estimate => 0,
        Effort::Measure => 6,
        Effort::Patient | Effort::Exhaustive => 10,
    }
}

/// The stages of a layer, and the part of its time by which each must end.
pub(crate) fn stages(request: &Request, layer: &ShapeUse) -> Vec<(Vary, f64)> {
    let is_alone = request.threads == 1;
    match (request.effort, layer.phase) {
        (Effort::Estimate, Phase::Prefill) => vec![(Vary::Kernels, 0.8)],
        (Effort::Estimate, _) => vec![(Vary::Kernels, 0.55), (Vary::Prefetch, 0.8)],
        (Effort::Exhaustive, _) => vec![(Vary::Grid, 0.8), (Vary::Nothing, 0.9)],
        (_, Phase::Prefill) => {
            vec![(Vary::Kernels, 0.45), (Vary::Panels, 0.7), (Vary::Nothing, 0.9)]
        }
        _ if is_alone => vec![(Vary::Kernels, 0.35), (Vary::Prefetch, 0.7), (Vary::Nothing, 0.9)],
        _ => vec![
            (Vary::Kernels, 0.3),
            (Vary::Prefetch, 0.55),
            (Vary::Split, 0.7),
            (Vary::Nothing, 0.9),
        ],
    }
}
