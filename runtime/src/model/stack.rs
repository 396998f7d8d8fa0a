//! Stacks: the linear layers that share one input, multiplied for many tokens at once by a gemm kernel.
//!
//! Rows of the stack are split over the workers. A worker takes them a panel at a time, filled once from
//! the stored copy, and lets every tile of tokens pass over it.

use super::batch::BatchChoice;
use super::linear::{Choice, Linear};
use std::ops::Range;
use trilut_kernels::{
    Cpu, GemmRunnable, GemmScratch, Isa, MOST_BATCH_TOKENS, Panel, Phase, Segment, Shape, Tiling,
    TokenTile, reference,
};
use trilut_presets::{Plan, Tile};

/// Fewer tokens than this are multiplied one by one where layers have no small-batch kernel.
const LEAST_TOKENS: usize = 8;

/// Tokens from which on a batch is run as a prompt where nothing was measured: more than a call of a
/// small-batch kernel takes, where all layers have one.
pub(crate) fn least_prompt(choices: &[Choice]) -> usize {
    match choices.iter().all(|choice| choice.batch.kernel.is_some()) {
        true => MOST_BATCH_TOKENS + 1,
        false => LEAST_TOKENS,
    }
}

/// Rows whose sums of one token tile are turned into floats while they are in the nearest cache.
const CHUNK_ROWS: usize = 64;

/// The gemm kernel for one stack, and why.
#[derive(Debug, Clone)]
pub struct PrefillChoice {
    /// The stack's size: the outputs of all its layers.
    pub shape: Shape,
    /// The kernel.
    pub kernel: GemmRunnable,
    /// Rows of a panel, at most.
    pub rows: usize,
    /// Tokens from which on a batch is run by it; fewer are a small batch. It changes no result.
    pub from: usize,
    /// In words for a person; for a pick that could not be used, what was wrong with it.
    pub reason: String,
    /// With the kernels for the end of a prompt.
    tiling: Tiling,
}

impl PrefillChoice {
    /// Takes the plan's pick for a stack if it can be used on `cpu`, else the default kernel. Never
    /// fails: a foreign plan costs speed, not correctness. `from` is the number of tokens from which on a
    /// batch is a prompt where the plan does not say.
    pub(crate) fn make(
        shape: Shape,
        threads: usize,
        plan: Option<&Plan>,
        cpu: &Cpu,
        from: usize,
    ) -> Self {
        let (kernel, rows, known, reason) = Self::pick(shape, threads, plan, cpu);
        // A single token is no prompt, and a small batch has its limits.
        let from = known.unwrap_or(from).clamp(2, BatchChoice::MOST_TOKENS + 1);
        Self { shape, kernel, rows, from, reason, tiling: Tiling::new(kernel, cpu) }
    }

    fn pick(
        shape: Shape,
        threads: usize,
        plan: Option<&Plan>,
        cpu: &Cpu,
    ) -> (GemmRunnable, usize, Option<usize>, String) {
        let fallback = |why: &str| {
            let kernel = cpu.default_gemm();
            let reason = match cpu.gemm_origin(kernel.kernel()) {
                Some(registry) => format!("of {}, {why}", registry.name()),
                None => format!("default, {why}"),
            };
            (kernel, kernel.panel_rows(Tile::default_for(Phase::Prefill)), None, reason)
        };
        let Some(plan) = plan else { return fallback("no plan was given") };
        let Some(pick) = plan.find(shape, Phase::Prefill, threads) else {
            return fallback("the plan has no pick for this stack");
        };
        let refused = |why: &str| fallback(&format!("the plan's pick `{}` {why}", pick.kernel));
        let Some(kernel) = cpu.find_gemm(&pick.kernel) else {
            return refused("is not compiled in");
        };
        if kernel.name.isa == Isa::Emulated {
            return refused("is for tests alone");
        }
        let Some(kernel) = cpu.gemm_runnable(kernel) else {
            return refused("cannot run on this CPU or is above the ISA cap");
        };
        if !pick.tile.is_legal() {
            return refused(&format!("has an illegal tile ({})", pick.tile));
        }
        (kernel, kernel.panel_rows(pick.tile), pick.from, pick.reason.clone())
    }

    /// The tiles that `n` tokens are cut into, each with the kernel that multiplies it.
    pub(crate) fn tiles(&self, n: usize) -> impl Iterator<Item = (Range<usize>, GemmRunnable)> {
        self.tiling.tiles(n)
    }
}

/// How the rows of several layers follow each other in a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// All rows of the first layer, then all of the second.
    OneByOne,
    /// Equal rows of all layers in the same panel: what is computed from both finds both.
    SideBySide,
}

/// Linear layers with one input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack<'a> {
    pub(crate) linears: &'a [Linear],
    pub(crate) order: Order,
    pub(crate) choice: &'a PrefillChoice,
}

/// Some outputs of one layer for one token.
#[derive(Debug)]
pub(crate) struct Outputs<'a> {
    /// The layer, by its position in the stack.
    pub(crate) layer: usize,
    /// Its rows.
    pub(crate) rows: Range<usize>,
    /// The token.
    pub(crate) token: usize,
    /// `y` of these rows.
    pub(crate) values: &'a [f32],
}

/// What a worker needs to run stacks; kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct StackScratch {
    panel: Panel,
    gemm: GemmScratch,
}

impl Stack<'_> {
    /// Rows that are split over the workers.
    pub(crate) fn rows(&self) -> usize {
        match self.order {
            Order::OneByOne => self.linears.iter().map(Linear::m).sum(),
            Order::SideBySide => self.linears[0].m(),
        }
    }

    /// The rows of each layer that belong to rows of the stack.
    fn parts(&self, rows: &Range<usize>) -> Vec<(usize, Range<usize>)> {
        let mut before = 0;
        let part = |(layer, linear): (usize, &Linear)| {
            if self.order == Order::SideBySide {
                return (layer, rows.clone());
            }
            let (first, m) = (before, linear.m());
            before += m;
            (
                layer,
                rows.start.clamp(first, first + m) - first
                    ..rows.end.clamp(first, first + m) - first,
            )
        };
        let parts = self.linears.iter().enumerate().map(part);
        parts.filter(|(_, rows)| !rows.is_empty()).collect()
    }

    /// Multiplies the worker's share of the rows, `share`, with all tokens; `amax` has one value for
    /// each. Outputs are handed over in no particular order, but those of layers side by side layer by
    /// layer for the same rows and token.
    pub(crate) fn run(
        &self,
        share: Range<usize>,
        tiles: &[TokenTile],
        amax: &[f32],
        scratch: &mut StackScratch,
        mut store: impl FnMut(Outputs<'_>),
    ) {
        let width = if self.order == Order::SideBySide { self.linears.len() } else { 1 };
        let size = Panel::step(share.len(), width, self.choice.rows);
        let StackScratch { panel, gemm } = scratch;
        for start in share.clone().step_by(size) {
            let parts = self.parts(&(start..share.end.min(start + size)));
            let segments: Vec<Segment<'_>> = parts
                .iter()
                .map(|(layer, rows)| Segment {
                    weights: self.linears[*layer].weights(),
                    rows: rows.clone(),
                })
                .collect();
            panel.fill(self.choice.kernel.form(), &segments);
            for ((tokens, kernel), tile) in self.choice.tiles(amax.len()).zip(tiles) {
                let sums = match kernel.run(panel, tile, gemm) {
                    Ok(sums) => sums,
                    Err(error) => unreachable!("tile and panel were made for the kernel: {error}"),
                };
                let mut first = 0;
                for (layer, rows) in &parts {
                    let sums = &sums[first * kernel.tokens()..][..rows.len() * kernel.tokens()];
                    first += rows.len();
                    self.hand_over(*layer, rows, &tokens, amax, sums, &mut store);
                }
            }
        }
    }

    /// Turns sums, rows by tokens, into floats by token.
    fn hand_over(
        &self,
        layer: usize,
        rows: &Range<usize>,
        tokens: &Range<usize>,
        amax: &[f32],
        sums: &[i32],
        store: &mut impl FnMut(Outputs<'_>),
    ) {
        let stride = sums.len() / rows.len();
        let mut values = [0f32; CHUNK_ROWS];
        for (start, sums) in rows.clone().step_by(CHUNK_ROWS).zip(sums.chunks(CHUNK_ROWS * stride))
        {
            let count = sums.len() / stride;
            for (column, token) in tokens.clone().enumerate() {
                let each = values.iter_mut().zip(sums.chunks_exact(stride)).zip(start..);
                for ((value, sums), row) in each {
                    let scale = self.linears[layer].scale(row);
                    *value = reference::dequantise(sums[column], scale, amax[token]);
                }
                let (rows, values) = (start..start + count, &values[..count]);
                store(Outputs { layer, rows, token, values });
            }
        }
    }
}
