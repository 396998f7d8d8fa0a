//! Stacks: the linear layers that share one input, multiplied for many tokens at once by a gemm kernel.
//!
//! Rows of the stack are split over the workers. A worker takes them a panel at a time, filled once from
//! the stored copy, and lets every tile of tokens pass over it.

use super::batch::BatchChoice;
use super::linear::{Choice, Linear};
use std::ops::Range;
use trilut_kernels::float::dequantise::dequantise;
use trilut_kernels::{
    Cpu, GemmRunnable, GemmScratch, Isa, Panel, Phase, Segment, Shape, Supported, TokenTile,
};
use trilut_presets::{Plan, Tile};

/// Fewer tokens than this are multiplied one by one where layers have no small-batch kernel.
const LEAST_TOKENS: usize = 8;

/// Tokens from which on a batch is run as a prompt: more than a small batch has where all layers have a
/// kernel for it.
pub(crate) fn least_prompt(choices: &[Choice]) -> usize {
    match choices.iter().all(|choice| choice.batch.kernel.is_some()) {
        true => BatchChoice::MOST_TOKENS + 1,
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
    /// In words for a person; for a pick that could not be used, what was wrong with it.
    pub reason: String,
    /// The kernels that read the same panels with fewer tokens, for the end of a prompt; fewest first,
    /// the chosen kernel last.
    narrower: Vec<GemmRunnable>,
}

impl PrefillChoice {
    /// Takes the plan's pick for a stack if it can be used on `cpu`, else the default kernel. Never
    /// fails: a foreign plan costs speed, not correctness.
    pub(crate) fn make(shape: Shape, threads: usize, plan: Option<&Plan>, cpu: &Cpu) -> Self {
        let (kernel, rows, reason) = Self::pick(shape, threads, plan, cpu);
        // Portable vectors are so slow that a tile with empty places costs less.
        let is_portable = |k: &GemmRunnable| k.kernel().name.isa == Isa::Scalar;
        let fits = |k: &GemmRunnable| {
            k.form() == kernel.form()
                && k.tokens() < kernel.tokens()
                && (!is_portable(k) || is_portable(&kernel))
        };
        let mut narrower: Vec<_> = cpu.gemm_candidates().filter(fits).collect();
        narrower.sort_by_key(|k| (k.tokens(), std::cmp::Reverse(k.kernel().name.isa)));
        narrower.push(kernel);
        Self { shape, kernel, rows, reason, narrower }
    }

    fn pick(
        shape: Shape,
        threads: usize,
        plan: Option<&Plan>,
        cpu: &Cpu,
    ) -> (GemmRunnable, usize, String) {
        let fallback = |why: &str| {
            let kernel = cpu.default_gemm();
            let reason = match cpu.gemm_origin(kernel.kernel()) {
                Some(registry) => format!("of {}, {why}", registry.name()),
                None => format!("default, {why}"),
            };
            (kernel, kernel.panel_rows(Tile::default_for(Phase::Prefill)), reason)
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
        (kernel, kernel.panel_rows(pick.tile), pick.reason.clone())
    }

    /// The tiles that `n` tokens are cut into, each with the kernel that multiplies it.
    pub(crate) fn tiles(&self, n: usize) -> impl Iterator<Item = (Range<usize>, GemmRunnable)> {
        let starts = (0..n).step_by(self.kernel.tokens());
        starts.map(move |start| {
            let count = (n - start).min(self.kernel.tokens());
            let narrowest = self.narrower.iter().find(|kernel| kernel.tokens() >= count);
            (start..start + count, *narrowest.expect("the chosen kernel takes a whole tile"))
        })
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
    /// The floats of a chunk of rows, token by token.
    floats: Vec<f32>,
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
        isa: Supported,
        share: Range<usize>,
        tiles: &[TokenTile],
        amax: &[f32],
        scratch: &mut StackScratch,
        mut store: impl FnMut(Outputs<'_>),
    ) {
        let width = if self.order == Order::SideBySide { self.linears.len() } else { 1 };
        let size = Panel::step(share.len(), width, self.choice.rows);
        let StackScratch { panel, gemm, floats } = scratch;
        for start in share.clone().step_by(size) {
            let parts = self.parts(&(start..share.end.min(start + size)));
            let segments: Vec<Segment<'_>> = parts
                .iter()
                .map(|(layer, rows)| Segment {
                    weights: self.linears[*layer].weights(),
                    rows: rows.clone(),
                })
                .collect();
            self.choice.kernel.fill(panel, &segments);
            for ((tokens, kernel), tile) in self.choice.tiles(amax.len()).zip(tiles) {
                let sums = match kernel.run(panel, tile, gemm) {
                    Ok(sums) => sums,
                    Err(error) => unreachable!("tile and panel were made for the kernel: {error}"),
                };
                let mut first = 0;
                for (layer, rows) in &parts {
                    let sums = &sums[first * kernel.tokens()..][..rows.len() * kernel.tokens()];
                    first += rows.len();
                    let amax = &amax[tokens.clone()];
                    for (rows, sums) in chunks(rows, sums, kernel.tokens()) {
                        let mut scales = [0.0; CHUNK_ROWS];
                        for (scale, row) in scales.iter_mut().zip(rows.clone()) {
                            *scale = self.linears[*layer].scale(row);
                        }
                        let scales = &scales[..rows.len()];
                        floats.resize(scales.len() * amax.len(), 0.0);
                        dequantise(isa, sums, kernel.tokens(), scales, amax, floats);
                        for (token, values) in tokens.clone().zip(floats.chunks_exact(rows.len())) {
                            store(Outputs { layer: *layer, rows: rows.clone(), token, values });
                        }
                    }
                }
            }
        }
    }
}

/// Rows with their sums, `stride` for each, a chunk at a time.
fn chunks<'a>(
    rows: &Range<usize>,
    sums: &'a [i32],
    stride: usize,
) -> impl Iterator<Item = (Range<usize>, &'a [i32])> {
    let starts = rows.clone().step_by(CHUNK_ROWS);
    starts
        .zip(sums.chunks(CHUNK_ROWS * stride))
        .map(move |(start, sums)| (start..start + sums.len() / stride, sums))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_cut_into_tiles_of_the_same_kind() {
        let cpu = Cpu::detect();
        let shape = Shape { m: 960, k: 256 };
        let choice = PrefillChoice::make(shape, 1, None, &cpu);
        let chosen = choice.kernel.kernel().name.isa;
        for n in 1..=200 {
            let mut next = 0;
            for (tokens, kernel) in choice.tiles(n) {
                assert_eq!(tokens.start, next);
                next = tokens.end;
                assert!(!tokens.is_empty() && tokens.len() <= kernel.tokens());
                assert_eq!(kernel.form(), choice.kernel.form());
                let isa = kernel.kernel().name.isa;
                assert!(isa != Isa::Scalar || chosen == Isa::Scalar, "{n} tokens");
            }
            assert_eq!(next, n);
        }
    }
}
