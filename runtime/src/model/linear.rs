//! A ternary linear layer: packed weights, their scale, and the kernels and tiles that were chosen.

use super::batch::BatchChoice;
use super::scratch::Input;
use crate::ternary::Scales;
use std::ops::Range;
use trilut_kernels::pool::Pool;
use trilut_kernels::{
    Activations, Cpu, Format, Isa, Packed, PackedView, Phase, Runnable, Shape, Tile, reference,
};
use trilut_presets::Plan;

/// The kernel and tile for one shape, and why.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The linear layer's size.
    pub shape: Shape,
    /// The kernel.
    pub kernel: Runnable,
    /// Its run-time loop bounds.
    pub tile: Tile,
    /// In words for a person; for a pick that could not be used, what was wrong with it.
    pub reason: String,
    /// What runs several tokens at once.
    pub batch: BatchChoice,
}

impl Choice {
    /// Takes the plan's pick for `shape` if it can be used on `cpu` (and has the forced format, if one
    /// is forced), else the default kernel. Never fails: a foreign plan costs speed, not correctness.
    pub(crate) fn make(
        shape: Shape,
        format: Option<Format>,
        threads: usize,
        plan: Option<&Plan>,
        cpu: &Cpu,
    ) -> Self {
        let (kernel, tile, reason) = Self::pick(shape, format, threads, plan, cpu);
        let batch = BatchChoice::make(shape, &kernel, threads, plan, cpu);
        Self { shape, kernel, tile, reason, batch }
    }

    fn pick(
        shape: Shape,
        format: Option<Format>,
        threads: usize,
        plan: Option<&Plan>,
        cpu: &Cpu,
    ) -> (Runnable, Tile, String) {
        let fallback = |why: &str| {
            let kernel = match format {
                Some(format) => cpu.default_kernel(format, shape),
                None => {
                    let added = cpu.added_kernel(shape);
                    added.unwrap_or_else(|| cpu.default_kernel(Format::I2S, shape))
                }
            };
            let origin = cpu.origin(kernel.kernel());
            let reason = match origin {
                Some(registry) => format!("of {}, {why}", registry.name()),
                None => format!("default, {why}"),
            };
            (kernel, Tile::default(), reason)
        };
        let Some(plan) = plan else { return fallback("no plan was given") };
        let Some(pick) = plan.find(shape, Phase::Decode, threads) else {
            return fallback("the plan has no pick for this shape");
        };
        let refused = |why: &str| fallback(&format!("the plan's pick `{}` {why}", pick.kernel));
        let Some(kernel) = cpu.find(&pick.kernel) else { return refused("is not compiled in") };
        if kernel.name.isa == Isa::Emulated {
            return refused("is for tests alone");
        }
        let Some(kernel) = cpu.runnable(kernel) else {
            return refused("cannot run on this CPU or is above the ISA cap");
        };
        let name = kernel.kernel().name;
        if let Some(format) = format
            && format != name.format
        {
            return refused(&format!("is not for the format {format}, which was asked for"));
        }
        if pick.format != name.format {
            return refused(&format!("contradicts its format {}", pick.format));
        }
        if !name.fixed.accepts(shape) {
            return refused("is for another shape");
        }
        if !pick.tile.is_legal() {
            return refused(&format!("has an illegal tile ({})", pick.tile));
        }
        (kernel, pick.tile, pick.reason.clone())
    }
}

/// One linear layer, ready to run.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Packed,
    scales: Scales,
    kernel: Runnable,
    tile: Tile,
    batch: BatchChoice,
}

impl Linear {
    /// `weights` must be in the layout of the chosen kernel.
    pub(crate) fn new(weights: Packed, scales: Scales, choice: &Choice) -> Self {
        Self {
            weights,
            scales,
            kernel: choice.kernel,
            tile: choice.tile,
            batch: choice.batch.clone(),
        }
    }

    /// Moves the weights near to the threads that read them.
    pub(crate) fn settle(&mut self, pool: &Pool) {
        self.weights.settle(pool, self.tile.rows_per_task);
    }

    /// Outputs of the layer.
    pub(crate) fn m(&self) -> usize {
        self.weights.shape().m
    }

    /// Inputs of the layer.
    pub(crate) fn k(&self) -> usize {
        self.weights.shape().k
    }

    /// The weights as kernels take them.
    pub(crate) fn weights(&self) -> PackedView<'_> {
        self.weights.view()
    }

    /// What a row's sum is multiplied with, besides the activations' scale.
    pub(crate) fn scale(&self, row: usize) -> f32 {
        self.scales.row(row)
    }

    /// Run-time loop bounds of what runs `n` tokens.
    pub(crate) fn tile(&self, n: usize) -> Tile {
        if n > 1 { self.batch.tile } else { self.tile }
    }

    /// Bytes that one pass over the weights reads.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.view().bytes().len()
    }

    /// Makes the form of a token's activations that is read when `n` tokens run at once.
    pub(crate) fn prepare(&self, activations: &mut Activations, n: usize) {
        match self.batch.kernel {
            Some(kernel) if n > 1 => activations.prepare(kernel.activation()),
            _ => activations.prepare(self.kernel.activation()),
        }
    }

    /// The exact sums of some rows for all tokens, token by token: at once for a small batch, else one after
    /// the other. `sums` holds as many values as that takes.
    ///
    /// # Panics
    /// When the activations are not prepared or of another length, or the rows do not fit.
    pub(crate) fn sums(&self, inputs: &[Input], rows: Range<usize>, sums: &mut [i32]) {
        let view = self.weights.view();
        let tokens = inputs.iter().map(|input| &input.activations);
        if inputs.len() > 1 && self.batch.sums(view, tokens, rows.clone(), sums) {
            return;
        }
        for (input, sums) in inputs.iter().zip(sums.chunks_exact_mut(rows.len())) {
            let done = self.kernel.gemv(view, &input.activations, rows.clone(), self.tile, sums);
            if let Err(error) = done {
                unreachable!("the kernel was chosen for these weights: {error}");
            }
        }
    }

    /// `y` of some rows of a token from their sums: [`reference::dequantise`].
    pub(crate) fn floats(&self, rows: Range<usize>, sums: &[i32], amax: f32, out: &mut [f32]) {
        for ((out, &sum), row) in out.iter_mut().zip(sums).zip(rows) {
            *out = reference::dequantise(sum, self.scale(row), amax);
        }
    }
}
