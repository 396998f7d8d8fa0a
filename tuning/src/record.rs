//! What a tuning run found.

use crate::candidate::Candidate;
use crate::confirm::Confirmation;
use crate::noise::Noise;
use crate::race::Lane;
use crate::request::{ShapeUse, Shortage};
use crate::second_opinion::Opinion;
use crate::statistics::least;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::time::Duration;
use trilut_kernels::{Phase, Tile};
use trilut_presets::Preset;
use trilut_presets::preset::{Record, Weights};

/// A candidate that was never timed, or whose timing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The kernel's name.
    pub kernel: String,
    /// Why, for a person.
    pub reason: String,
}

/// How one candidate fared in one race.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The kernel's name.
    pub kernel: String,
    /// Its loop bounds.
    pub tile: Tile,
    /// The median of its samples in nanoseconds, at the usual pace of the race.
    pub median_ns: f64,
    /// The least of its samples in nanoseconds, as it was taken.
    pub least_ns: f64,
    /// The number of its samples.
    pub samples: usize,
    /// When the race was over, in seconds of the run's clock.
    pub at: f64,
}

impl Trial {
    pub(crate) fn of(lane: &Lane, now: Duration) -> Self {
        Self {
            kernel: lane.candidate.name().to_owned(),
            tile: lane.candidate.tile,
            median_ns: lane.median(),
            least_ns: least(&lane.samples),
            samples: lane.samples.len(),
            at: now.as_secs_f64(),
        }
    }
}

/// The samples of one candidate, in nanoseconds per product with one token or one prompt.
#[derive(Debug, Clone)]
pub struct Timed {
    /// The candidate.
    pub candidate: Candidate,
    /// Its samples in the order they were taken; where only a race compares winner and default, at its usual pace.
    pub samples: Vec<f64>,
    /// Their median.
    pub median_ns: f64,
}

/// What was found for one shape.
#[derive(Debug, Clone)]
pub struct ShapeReport {
    /// The layer.
    pub layer: ShapeUse,
    /// The candidate to use; the default one if nothing was better beyond the noise.
    pub winner: Timed,
    /// The candidate used without tuning.
    pub default: Timed,
    /// The time of the scalar kernel in nanoseconds, if there was time to take it.
    pub scalar_ns: Option<f64>,
    /// Where the weights were.
    pub weights: Weights,
    /// The number of candidates that were timed.
    pub tried: usize,
    /// How each of them fared, race by race.
    pub trials: Vec<Trial>,
    /// Fingerprint of the kernels that there were to choose from.
    pub space: u64,
    /// Kernels that were not timed, with reasons.
    pub refused: Vec<Refused>,
    /// The noise during the race.
    pub noise: Noise,
    /// The paired check of the fastest candidate against the default, if there was one.
    pub confirmation: Option<Confirmation>,
    /// The second opinion on a winner that passed it, if one was asked for.
    pub opinion: Option<Opinion>,
    /// Why the winner won, for a person.
    pub reason: String,
    /// Whether the time ended the search before it was as thorough as the effort demands; the record then
    /// claims less.
    pub is_cut_short: bool,
    /// What is kept of all this.
    pub record: Record,
}

impl ShapeReport {
    /// How many times as fast as the default the winner is.
    pub fn gain(&self) -> f64 {
        self.default.median_ns / self.winner.median_ns
    }

    /// Whether it knows its pick from the default: no check against it was left undecided.
    pub(crate) fn is_decided(&self) -> bool {
        self.confirmation.as_ref().is_none_or(|check| check.is_worth() || check.low > 1.0)
    }

    /// Whether to believe it rather than an earlier one of the same layer: the more thorough, then the calmer one.
    pub fn is_better_than(&self, earlier: &Self) -> bool {
        // Too few samples to see it are no sign of calm.
        let is_disturbed = |noise: &Noise| noise.spread.is_none() || noise.warning().is_some();
        let faults = |own: &Self| (own.is_cut_short, is_disturbed(&own.noise));
        match faults(self).cmp(&faults(earlier)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.noise.is_calmer_than(&earlier.noise),
        }
    }
}

/// Why a run ended before all shapes were done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The observer asked for it.
    Cancelled,
    /// The time limit was reached.
    TimeLimit,
}

/// What a tuning run found. Shapes that were not finished are left out of the preset.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The records to save, with provenance.
    pub preset: Preset,
    /// One report per finished shape, in the order of the request.
    pub shapes: Vec<ShapeReport>,
    /// The shapes that were not finished, and of which nothing is kept.
    pub unfinished: Vec<ShapeUse>,
    /// The shapes whose search the time limit cut short: their records claim a lesser effort than was asked
    /// for, or an earlier record of a greater one stayed.
    pub cut_short: Vec<ShapeUse>,
    /// The shapes that are too large for the memory that is free.
    pub too_large: Vec<(ShapeUse, Shortage)>,
    /// Why some are unfinished or cut short.
    pub stopped: Option<Stopped>,
    /// Statements about the run as a whole: memory used for cold weights, a busy machine.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Time per token spent in the layers that were finished for a phase, tuned and by default, in
    /// nanoseconds; `None` where there are none.
    pub fn token_ns(&self, phase: Phase) -> Option<(f64, f64)> {
        let times = self.shapes.iter().filter(|s| s.layer.phase == phase).map(|s| {
            let runs = s.layer.count_per_token as f64 / s.layer.tokens() as f64;
            (runs * s.winner.median_ns, runs * s.default.median_ns)
        });
        times.reduce(|all, one| (all.0 + one.0, all.1 + one.1))
    }
}
