//! Prefill: a prompt times the rows of a stack, by gemm kernels.
//!
//! As in the runtime: workers arrange the tiles of tokens, each its part of them, and after a barrier take
//! their share of the rows a panel at a time, filled from the stored copy, with every tile passing over it.
//! What the runtime does with the sums is the same for every kernel and left out.

use super::{Work, lock};
use crate::exactness::Random;
use crate::{AnyKernel, Candidate};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock};
use trilut_kernels::pool::Worker;
use trilut_kernels::{
    Activations, Cpu, GemmRunnable, GemmScratch, Layout, PackedView, Panel, PanelForm, Segment,
    Shape, Tiling, TokenTile,
};

/// The tokens of a prompt, and the buffers that tiles and panels are made in.
pub(super) struct Prompt {
    shape: Shape,
    tokens: Vec<Activations>,
    /// How many of them are multiplied.
    count: usize,
    cpu: Cpu,
    /// Tiles by form and width: kept apart, so that no candidate pays for the memory of its tiles when it
    /// is timed.
    tiles: HashMap<(PanelForm, usize), Vec<RwLock<TokenTile>>>,
    /// How the tokens are cut into tiles, by the kernel's name.
    tilings: HashMap<&'static str, Tiling>,
    /// One panel and scratch per worker.
    own: Vec<Mutex<(Panel, GemmScratch)>>,
}

impl Prompt {
    pub(super) fn new(
        shape: Shape,
        tokens: usize,
        threads: usize,
        cpu: Cpu,
        random: &mut Random,
    ) -> Self {
        let token = |_| {
            let mut activations = Activations::new();
            activations.set(&random.activations(shape.k));
            activations
        };
        Self {
            shape,
            tokens: (0..tokens).map(token).collect(),
            count: tokens,
            cpu,
            tiles: HashMap::new(),
            tilings: HashMap::new(),
            own: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// This worker's part of the tiles.
    fn arrange(
        &self,
        worker: &Worker<'_>,
        cuts: &[(Range<usize>, GemmRunnable)],
        tiles: &[RwLock<TokenTile>],
    ) {
        for index in worker.share(cuts.len(), 1) {
            let (tokens, kernel) = &cuts[index];
            let tokens = self.tokens[tokens.clone()].iter();
            let mut tile = tiles[index].write().unwrap_or_else(PoisonError::into_inner);
            kernel.arrange(&mut tile, tokens);
        }
    }
}

impl Work for Prompt {
    fn ready(&mut self, candidate: &Candidate) -> Result<Option<Layout>, String> {
        let AnyKernel::Gemm(kernel) = candidate.kernel else {
            return Err(format!("{candidate} cannot run a prompt"));
        };
        let tiling = || Tiling::new(kernel, &self.cpu);
        let tiling = self.tilings.entry(kernel.kernel().text).or_insert_with(tiling);
        // Fewer tokens may be cut into more tiles: narrower ones.
        let tiles = (0..=self.tokens.len()).map(|n| tiling.tiles(n).count()).max().unwrap_or(0);
        let all = self.tiles.entry((kernel.form(), kernel.tokens())).or_default();
        all.resize_with(tiles.max(all.len()), RwLock::default);
        // Panels are filled from any layout.
        Ok(None)
    }

    fn product(
        &self,
        worker: &Worker<'_>,
        candidate: &Candidate,
        weights: PackedView<'_>,
    ) -> Result<(), String> {
        let AnyKernel::Gemm(kernel) = candidate.kernel else { return Ok(()) };
        let tiles = &self.tiles[&(kernel.form(), kernel.tokens())];
        let tiling = &self.tilings[kernel.kernel().text];
        let cuts: Vec<_> = tiling.tiles(self.count).collect();
        self.arrange(worker, &cuts, tiles);
        worker.barrier();
        let mut own = lock(&self.own[worker.index]);
        let (panel, scratch) = &mut *own;
        let share = worker.share(self.shape.m, Panel::ROW_QUANTUM);
        let step = Panel::step(share.len(), 1, kernel.panel_rows(candidate.tile));
        for start in share.clone().step_by(step) {
            let rows = start..share.end.min(start + step);
            kernel.fill(panel, &[Segment { weights, rows }]);
            for ((_, kernel), tile) in cuts.iter().zip(tiles) {
                let tile = tile.read().unwrap_or_else(PoisonError::into_inner);
                kernel.run(panel, &tile, scratch).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Arranging the tiles is timed with the product.
    fn beyond(&self, _: &Candidate) -> f64 {
        0.0
    }

    fn set_tokens(&mut self, tokens: usize) {
        self.count = tokens.min(self.tokens.len());
    }
}
