//! Run-time loop bounds of a micro-kernel.

use crate::{Phase, Shape};
use serde::{Deserialize, Serialize};

/// The loop bounds that a micro-kernel is called with. They change speed, never results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tile {
    /// Rows that one thread takes at a time; a multiple of [`Tile::ROW_QUANTUM`] up to
    /// [`Shape::MAX_M`], or 0 for an even split of all rows over the threads. In prefill the rows of a
    /// panel, at most; 0 for what the kernel takes by itself.
    pub rows_per_task: usize,
    /// How many bytes ahead of the load the weights are prefetched; 0 for none, as always in prefill.
    pub prefetch: usize,
}

impl Tile {
    /// Tasks begin at multiples of this many rows, the row group of the lookup formats.
    pub const ROW_QUANTUM: usize = 32;
    /// The farthest prefetch that is accepted, in bytes.
    pub const MAX_PREFETCH: usize = 1 << 16;

    /// The bounds where nothing was tuned.
    pub fn default_for(phase: Phase) -> Self {
        match phase {
            Phase::Prefill => Self { rows_per_task: 0, prefetch: 0 },
            Phase::Decode | Phase::SmallBatch => Self::default(),
        }
    }

    /// The bounds in words for a person.
    pub fn in_words(self, phase: Phase) -> String {
        match (phase, self.rows_per_task) {
            (Phase::Prefill, 0) => "panels as the kernel likes".to_owned(),
            (Phase::Prefill, rows) => format!("panels of {rows}"),
            _ => self.to_string(),
        }
    }

    /// Whether the bounds are legal.
    pub const fn is_legal(self) -> bool {
        self.rows_per_task.is_multiple_of(Self::ROW_QUANTUM)
            && self.rows_per_task <= Shape::MAX_M
            && self.prefetch <= Self::MAX_PREFETCH
    }
}

impl Default for Tile {
    /// An even split, and a prefetch of 4 KiB, which is a page: the hardware's own prefetcher stops there.
    fn default() -> Self {
        Self { rows_per_task: 0, prefetch: 4096 }
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows = match self.rows_per_task {
            0 => "even".to_owned(),
            n => n.to_string(),
        };
        f.pad(&format!("rows {rows}, prefetch {}", self.prefetch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_limits() {
        let rows = |rows_per_task| Tile { rows_per_task, prefetch: 0 }.is_legal();
        assert!(Tile::default().is_legal() && rows(32) && rows(Shape::MAX_M));
        assert!(!rows(33) && !rows(Shape::MAX_M + 32) && !rows(1 << 62));
        assert!(!Tile { rows_per_task: 0, prefetch: Tile::MAX_PREFETCH + 1 }.is_legal());
        assert!(Phase::ALL.iter().all(|&phase| Tile::default_for(phase).is_legal()));
    }

    #[test]
    fn words_are_of_the_phase() {
        let tile = Tile { rows_per_task: 480, prefetch: 0 };
        assert_eq!(tile.in_words(Phase::Prefill), "panels of 480");
        assert_eq!(tile.in_words(Phase::Decode), "rows 480, prefetch 0");
    }
}
