//! A ternary linear layer: packed weights, their scale, and the kernel and tile that were chosen.

use std::ops::Range;
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
            Self { shape, kernel, tile: Tile::default(), reason }
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
        if name.op != trilut_kernels::Op::Gemv || !name.fixed.accepts(shape) {
            return refused("is for another operation or shape");
        }
        if !pick.tile.is_legal() {
            return refused(&format!("has an illegal tile ({})", pick.tile));
        }
        Self { shape, kernel, tile: pick.tile, reason: pick.reason.clone() }
    }
}

/// One linear layer, ready to run.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Packed,
    scale: f32,
    kernel: Runnable,
    tile: Tile,
}

impl Linear {
    /// `weights` must be in the layout of the chosen kernel.
    pub(crate) fn new(weights: Packed, scale: f32, choice: &Choice) -> Self {
        Self { weights, scale, kernel: choice.kernel, tile: choice.tile }
    }

    /// Outputs of the layer.
    pub(crate) fn m(&self) -> usize {
        self.weights.shape().m
    }

    /// The weights as kernels take them.
    pub(crate) fn weights(&self) -> PackedView<'_> {
        self.weights.view()
    }

    /// What the sums are multiplied with, besides the activations' scale.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// Run-time loop bounds of its kernel.
    pub(crate) fn tile(&self) -> Tile {
        self.tile
    }

    /// Bytes that one pass over the weights reads.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.view().bytes().len()
    }

    /// Makes the form of one token's activations that the kernel reads.
    pub(crate) fn prepare(&self, activations: &mut Activations) {
        activations.prepare(self.kernel.activation());
    }

    /// `out[i] = y[rows.start + i]` for one token: the exact sums, then [`reference::dequantise`].
    /// `sums` is scratch space for as many values.
    ///
    /// # Panics
    /// When the activations are not prepared or of another length, or the rows do not fit.
    pub(crate) fn rows(
        &self,
        activations: &Activations,
        amax: f32,
        rows: Range<usize>,
        sums: &mut [i32],
        out: &mut [f32],
    ) {
        let view = self.weights.view();
        if let Err(error) = self.kernel.gemv(view, activations, rows, self.tile, sums) {
            unreachable!("the kernel was chosen for these weights: {error}");
        }
        for (out, &sum) in out.iter_mut().zip(&*sums) {
            *out = reference::dequantise(sum, self.scale, amax);
        }
    }
}
