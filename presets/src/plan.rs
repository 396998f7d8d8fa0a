//! The choice of a kernel and tile for every linear layer of a model.

use crate::{Format, Phase, Shape, Tile};
use serde::{Deserialize, Serialize};

/// The candidate chosen for one shape, phase and thread count, with the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pick {
    /// The linear layer's size.
    pub shape: Shape,
    /// The part of inference it is for.
    pub phase: Phase,
    /// The number of threads it was chosen for.
    pub threads: usize,
    /// The stored codec, which must be that of the kernel.
    pub format: Format,
    /// The micro-kernel's name.
    pub kernel: String,
    /// Its run-time loop bounds.
    pub tile: Tile,
    /// Of a prompt's kernel: the tokens from which on it runs a batch, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
    /// Why it was chosen, in words for a person: "tuned here, 1.21x of default", "analytic estimate".
    pub reason: String,
}

/// One pick per (shape, phase, threads); what the runtime executes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The picks, in no particular order.
    pub picks: Vec<Pick>,
}

impl Plan {
    /// Takes these picks in place of those for the same layers and phases; others stay.
    pub fn prefer(&mut self, picks: Self) {
        let same = |a: &Pick, b: &Pick| (a.shape, a.phase) == (b.shape, b.phase);
        self.picks.retain(|old| picks.picks.iter().all(|new| !same(new, old)));
        self.picks.extend(picks.picks);
    }

    /// The pick for a shape and phase whose thread count is nearest to `threads` (ties: fewer).
    pub fn find(&self, shape: Shape, phase: Phase, threads: usize) -> Option<&Pick> {
        self.picks
            .iter()
            .filter(|p| p.shape == shape && p.phase == phase)
            .min_by_key(|p| (p.threads.abs_diff(threads), p.threads))
    }
}
