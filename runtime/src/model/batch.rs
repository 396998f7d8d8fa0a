//! What runs a few tokens at once, such as several chats: a kernel that reads the stored copy of decoding.

use std::ops::Range;
use trilut_kernels::{
    Activations, BatchRunnable, Cpu, Isa, MOST_BATCH_TOKENS, PackedView, Phase, Runnable, Shape,
    Tile,
};
use trilut_presets::Plan;

/// The small-batch kernel and tile for one shape, and why.
#[derive(Debug, Clone)]
pub struct BatchChoice {
    /// The kernel; `None` for the kernel of decoding, a token at a time over rows that stay in the cache.
    pub kernel: Option<BatchRunnable>,
    /// Its run-time loop bounds.
    pub tile: Tile,
    /// In words for a person; for a pick that could not be used, what was wrong with it.
    pub reason: String,
}

impl BatchChoice {
    /// Takes the plan's pick for `shape` if it can be used on `cpu` and reads the weights as `decode` does,
    /// else the default kernel for these. Never fails: a foreign plan costs speed, not correctness.
    pub(crate) fn make(
        shape: Shape,
        decode: &Runnable,
        threads: usize,
        plan: Option<&Plan>,
        cpu: &Cpu,
    ) -> Self {
        let format = decode.kernel().name.format;
        let fallback = |reason: String| {
            let kernel = cpu.default_batch(format);
            Self { kernel, tile: Tile::default_for(Phase::SmallBatch), reason }
        };
        let Some(plan) = plan else { return fallback("default, no plan was given".into()) };
        let Some(pick) = plan.find(shape, Phase::SmallBatch, threads) else {
            return fallback("default, the plan has no pick for this shape".into());
        };
        let refused =
            |why: &str| fallback(format!("default, the plan's pick `{}` {why}", pick.kernel));
        if pick.format != format {
            return refused(&format!("does not read {format}, as decoding does"));
        }
        if !pick.tile.is_legal() {
            return refused(&format!("has an illegal tile ({})", pick.tile));
        }
        let (tile, reason) = (pick.tile, pick.reason.clone());
        // Whichever gemv kernel it is, that of decoding is meant.
        if cpu.find(&pick.kernel).is_some() {
            return Self { kernel: None, tile, reason };
        }
        let Some(kernel) = cpu.find_batch(&pick.kernel) else {
            return refused("is not compiled in");
        };
        if kernel.name.isa == Isa::Emulated {
            return refused("is for tests alone");
        }
        let Some(kernel) = cpu.batch_runnable(kernel) else {
            return refused("cannot run on this CPU or is above the ISA cap");
        };
        if kernel.layout() != decode.layout() {
            return refused(&format!("contradicts its format {}", pick.format));
        }
        Self { kernel: Some(kernel), tile, reason }
    }

    /// The sums of some rows for all tokens, token by token, if there is a kernel; whether there is one.
    ///
    /// # Panics
    /// When the activations are not prepared or of another length, or the rows do not fit.
    pub(crate) fn sums<'a>(
        &self,
        weights: PackedView<'_>,
        tokens: impl ExactSizeIterator<Item = &'a Activations> + Clone,
        rows: Range<usize>,
        sums: &mut [i32],
    ) -> bool {
        let Some(kernel) = self.kernel else { return false };
        let calls = sums.chunks_mut((MOST_BATCH_TOKENS * rows.len()).max(1));
        for (call, sums) in calls.enumerate() {
            let tokens = tokens.clone().skip(call * MOST_BATCH_TOKENS).take(MOST_BATCH_TOKENS);
            if let Err(error) = kernel.run(weights, tokens, rows.clone(), self.tile, sums) {
                unreachable!("the kernel was chosen for these weights: {error}");
            }
        }
        true
    }
}
