//! Stacks: the linear layers that share one input, multiplied for many tokens at once by a gemm kernel.
//!
//! Rows of the stack are split over the workers. A worker takes them a panel at a time, filled once from
//! the stored copy, and lets every tile of tokens pass over it.

use super::groups::Groups;
use super::linear::{Choice, Linear};
use std::ops::Range;
use trilut_kernels::float::dequantise::{dequantise, dequantise_totals};
use trilut_kernels::{
    Cpu, GemmRunnable, GemmScratch, Isa, MOST_BATCH_TOKENS, MOST_SMALL_BATCH, Panel, Phase,
    Segment, Shape, Supported, Tiling, TokenTile,
};
use trilut_presets::{Plan, Tile};

/// Fewer tokens than this are multiplied one by one where layers have no small-batch kernel.
const LEAST_TOKENS: usize = 8;

/// Tokens from which on a batch is run as a prompt where nothing was measured, and all layers have small-batch
/// kernels: with AVX-512 `trilut tune` found these faster up to 48 tokens, the most that it tries, with AVX2 up to 13
/// (base 3) or 25 (I2_S), with AVX-VNNI up to 27 or 45.
pub(crate) fn least_prompt(choices: &[Choice]) -> usize {
    let is_avx512 = |choice: &Choice| {
        let kernel = choice.batch.kernel.map(|kernel| kernel.kernel().name.isa);
        matches!(kernel, Some(Isa::Avx512 | Isa::Avx512Vbmi))
    };
    match choices.iter().all(|choice| choice.batch.kernel.is_some()) {
        true if choices.iter().all(is_avx512) => MOST_SMALL_BATCH + 1,
        true => 2 * MOST_BATCH_TOKENS + 1,
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
        let from = known.unwrap_or(from).clamp(2, MOST_SMALL_BATCH + 1);
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
    /// One, or one for each group of inputs.
    panels: Vec<Panel>,
    gemm: GemmScratch,
    /// The floats of a chunk of rows, token by token.
    floats: Vec<f32>,
    /// Of groups, what is added up so far: rows x tokens of a tile.
    totals: Vec<f32>,
}

impl Stack<'_> {
    /// Inputs of the groups that have scales of their own, in all layers or in none.
    pub(crate) fn group_inputs(&self) -> Option<usize> {
        self.linears[0].groups().map(Groups::inputs)
    }

    /// Matrices that each layer is run as.
    pub(crate) fn groups(&self) -> usize {
        self.linears[0].groups().map_or(1, Groups::count)
    }

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
    /// each. Tiles are those of all tokens, of one group of inputs after the other. Outputs are handed over
    /// in no particular order, but those of layers side by side layer by layer for the same rows and token.
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
        let (count, groups) = (self.choice.tiles(amax.len()).count(), self.groups());
        let StackScratch { panels, gemm, totals, floats } = scratch;
        panels.resize_with(panels.len().max(groups), Panel::default);
        let panels = &mut panels[..groups];
        for start in share.clone().step_by(size) {
            let parts = self.parts(&(start..share.end.min(start + size)));
            for (group, panel) in panels.iter_mut().enumerate() {
                let segment = |(layer, rows): &(usize, Range<usize>)| Segment {
                    weights: self.linears[*layer].weights(group),
                    rows: rows.clone(),
                };
                let segments: Vec<Segment<'_>> = parts.iter().map(segment).collect();
                self.choice.kernel.fill(panel, &segments);
            }
            for (index, (tokens, kernel)) in self.choice.tiles(amax.len()).enumerate() {
                let (width, amax) = (kernel.tokens(), &amax[tokens.clone()]);
                // Each layer with its rows, and where their sums are.
                let each = parts.iter().scan(0, |first, (layer, rows)| {
                    let place = *first * width..(*first + rows.len()) * width;
                    *first += rows.len();
                    Some((*layer, rows, place))
                });
                let tile = |group: usize| &tiles[group * count + index];
                if self.group_inputs().is_none() {
                    let sums = product(kernel, &panels[0], tile(0), gemm);
                    for (layer, rows, place) in each {
                        let turn = |within: Range<usize>, out: &mut [f32]| {
                            let mut scales = [0.0; CHUNK_ROWS];
                            let scales = &mut scales[..within.len()];
                            self.linears[layer].write_scales(rows.start + within.start, scales);
                            let sums = &sums[place.clone()][lines(&within, width)];
                            dequantise(isa, sums, width, scales, amax, out);
                        };
                        hand_over(layer, rows, &tokens, floats, turn, &mut store);
                    }
                    continue;
                }
                totals.clear();
                totals.resize(panels[0].rows() * width, 0.0);
                for (group, panel) in panels.iter().enumerate() {
                    let sums = product(kernel, panel, tile(group), gemm);
                    for (layer, rows, place) in each.clone() {
                        let groups = self.linears[layer].groups().expect("all layers have groups");
                        let (sums, totals) = (&sums[place.clone()], &mut totals[place]);
                        groups.add_rows(group, rows.clone(), width, sums, totals);
                    }
                }
                for (layer, rows, place) in each {
                    let turn = |within: Range<usize>, out: &mut [f32]| {
                        let totals = &totals[place.clone()][lines(&within, width)];
                        dequantise_totals(isa, totals, width, amax, out);
                    };
                    hand_over(layer, rows, &tokens, floats, turn, &mut store);
                }
            }
        }
    }
}

/// The sums of a panel's rows and a tile's tokens.
fn product<'s>(
    kernel: GemmRunnable,
    panel: &Panel,
    tile: &TokenTile,
    scratch: &'s mut GemmScratch,
) -> &'s [i32] {
    match kernel.run(panel, tile, scratch) {
        Ok(sums) => sums,
        Err(error) => unreachable!("tile and panel were made for the kernel: {error}"),
    }
}

/// The `width` sums each of some rows.
fn lines(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// Hands over the rows of a layer chunk by chunk: `turn` writes some of them, counted from the first, to
/// floats by token.
fn hand_over(
    layer: usize,
    rows: &Range<usize>,
    tokens: &Range<usize>,
    floats: &mut Vec<f32>,
    turn: impl Fn(Range<usize>, &mut [f32]),
    store: &mut impl FnMut(Outputs<'_>),
) {
    for start in (0..rows.len()).step_by(CHUNK_ROWS) {
        let within = start..rows.len().min(start + CHUNK_ROWS);
        let rows = rows.start + within.start..rows.start + within.end;
        floats.resize(rows.len() * tokens.len(), 0.0);
        turn(within, floats);
        for (token, values) in tokens.clone().zip(floats.chunks_exact(rows.len())) {
            store(Outputs { layer, rows: rows.clone(), token, values });
        }
    }
}
