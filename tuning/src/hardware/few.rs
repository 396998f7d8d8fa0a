//! Small batches: a few tokens times the rows of a layer, by their own kernels or by gemv kernels in turns.

use super::token::prepare_times;
use super::{Work, lock};
use crate::exactness::Random;
use crate::{AnyKernel, Candidate};
use std::collections::HashMap;
use std::sync::Mutex;
use trilut_kernels::pool::Worker;
use trilut_kernels::{Activation, Activations, Layout, MOST_BATCH_TOKENS, PackedView, Shape, Tile};

/// Rows that stay in the cache while the tokens take turns, as in the runtime.
const BLOCK_ROWS: usize = 4 * Tile::ROW_QUANTUM;

/// Some tokens in every form that the layouts need.
pub(super) struct Few {
    shape: Shape,
    tokens: Vec<Activations>,
    /// How many of them are multiplied.
    count: usize,
    /// What each form of a token costs beyond the plain one, in nanoseconds.
    preparing: HashMap<Activation, f64>,
    /// The sums of a block per worker.
    scratch: Vec<Mutex<Vec<i32>>>,
}

impl Few {
    pub(super) fn new(
        shape: Shape,
        count: usize,
        layouts: &[Layout],
        threads: usize,
        random: &mut Random,
    ) -> Self {
        let mut preparing = HashMap::new();
        let token = |_| {
            let mut activations = Activations::new();
            let times = prepare_times(&mut activations, &random.activations(shape.k), layouts);
            preparing.extend(times);
            activations
        };
        let tokens = (0..count).map(token).collect();
        let scratch = (0..threads).map(|_| Mutex::new(vec![0; count * BLOCK_ROWS])).collect();
        Self { shape, tokens, count, preparing, scratch }
    }
}

impl Work for Few {
    fn ready(&mut self, candidate: &Candidate) -> Result<Option<Layout>, String> {
        match candidate.kernel {
            AnyKernel::Gemv(kernel) => Ok(Some(kernel.layout())),
            AnyKernel::Batch(kernel) => Ok(Some(kernel.layout())),
            AnyKernel::Gemm(_) => Err(format!("{candidate} cannot run a small batch")),
        }
    }

    fn product(
        &self,
        worker: &Worker<'_>,
        candidate: &Candidate,
        weights: PackedView<'_>,
    ) -> Result<(), String> {
        let tile = candidate.tile;
        let mut out = lock(&self.scratch[worker.index]);
        for task in worker.tasks(self.shape.m, tile.rows_per_task, Tile::ROW_QUANTUM) {
            for start in task.clone().step_by(BLOCK_ROWS) {
                let rows = start..task.end.min(start + BLOCK_ROWS);
                let tokens = &self.tokens[..self.count];
                let out = &mut out[..tokens.len() * rows.len()];
                match candidate.kernel {
                    AnyKernel::Batch(kernel) => {
                        // As the runtime does with more than a call takes.
                        let calls = tokens.chunks(MOST_BATCH_TOKENS);
                        for (tokens, out) in
                            calls.zip(out.chunks_mut(MOST_BATCH_TOKENS * rows.len()))
                        {
                            let done = kernel.run(weights, tokens.iter(), rows.clone(), tile, out);
                            done.map_err(|error| error.to_string())?;
                        }
                    }
                    AnyKernel::Gemv(kernel) => {
                        for (token, out) in tokens.iter().zip(out.chunks_exact_mut(rows.len())) {
                            let done = kernel.gemv(weights, token, rows.clone(), tile, out);
                            done.map_err(|error| error.to_string())?;
                        }
                    }
                    AnyKernel::Gemm(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Activations are prepared once per input, tokens dealt out to the workers.
    fn beyond(&self, candidate: &Candidate) -> f64 {
        let form = candidate.kernel.activation();
        let each = form.and_then(|form| self.preparing.get(&form).copied()).unwrap_or(0.0);
        each * self.count.div_ceil(self.scratch.len()) as f64
    }

    fn set_tokens(&mut self, tokens: usize) {
        self.count = tokens.min(self.tokens.len());
    }
}
