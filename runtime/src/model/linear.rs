//! A ternary linear layer: packed weights, their scale, and the kernels and tiles that were chosen.

use super::batch::BatchChoice;
use super::groups::Groups;
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

    /// The default kernel for the groups of `inputs` inputs that a layer of `shape` has scales for.
    pub(crate) fn of_groups(
        shape: Shape,
        inputs: usize,
        format: Option<Format>,
        threads: usize,
        cpu: &Cpu,
    ) -> Self {
        let part = Shape { m: shape.m, k: inputs };
        let reason = format!("default, for each {inputs} inputs with a scale of their own");
        Self { shape, reason, ..Self::make(part, format, threads, None, cpu) }
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

/// The weights of a linear layer and what they are multiplied with.
#[derive(Debug)]
enum Weights {
    /// With one scale, or one for each row.
    Whole(Packed, Scales),
    /// With one for each group of inputs.
    Groups(Groups),
}

/// One linear layer, ready to run.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    kernel: Runnable,
    tile: Tile,
    batch: BatchChoice,
}

impl Linear {
    /// `weights` must be in the layout of the chosen kernel, `scales` one or one for each row.
    pub(crate) fn new(weights: Packed, scales: Scales, choice: &Choice) -> Self {
        Self::of(Weights::Whole(weights, scales), choice)
    }

    /// A layer with a scale for each group of inputs.
    pub(crate) fn of_groups(groups: Groups) -> Self {
        let choice = groups.choice().clone();
        Self::of(Weights::Groups(groups), &choice)
    }

    fn of(weights: Weights, choice: &Choice) -> Self {
        let Choice { kernel, tile, batch, .. } = choice.clone();
        Self { weights, kernel, tile, batch }
    }

    fn shape(&self) -> Shape {
        match &self.weights {
            Weights::Whole(weights, _) => weights.shape(),
            Weights::Groups(groups) => groups.shape(),
        }
    }

    /// Moves the weights near to the threads that read them.
    pub(crate) fn settle(&mut self, pool: &Pool) {
        match &mut self.weights {
            Weights::Whole(weights, _) => weights.settle(pool, self.tile.rows_per_task),
            Weights::Groups(groups) => groups.settle(pool, self.tile.rows_per_task),
        }
    }

    /// Outputs of the layer.
    pub(crate) fn m(&self) -> usize {
        self.shape().m
    }

    /// Inputs of the layer.
    pub(crate) fn k(&self) -> usize {
        self.shape().k
    }

    /// The groups of inputs with scales of their own, if the layer has such.
    pub(crate) fn groups(&self) -> Option<&Groups> {
        match &self.weights {
            Weights::Whole(..) => None,
            Weights::Groups(groups) => Some(groups),
        }
    }

    /// The weights as kernels take them: all of them, or those of a group.
    pub(crate) fn weights(&self, group: usize) -> PackedView<'_> {
        match &self.weights {
            Weights::Whole(weights, _) => weights.view(),
            Weights::Groups(groups) => groups.weights(group),
        }
    }

    /// The scales of some rows from `first` on; not of a layer of groups.
    pub(crate) fn write_scales(&self, first: usize, out: &mut [f32]) {
        match &self.weights {
            Weights::Whole(_, Scales::One(scale)) => out.fill(*scale),
            Weights::Whole(_, Scales::Rows(scales)) => {
                out.copy_from_slice(&scales[first..first + out.len()]);
            }
            Weights::Whole(_, Scales::Groups { .. }) | Weights::Groups(_) => {
                unreachable!("groups have totals")
            }
        }
    }

    /// Run-time loop bounds of what runs `n` tokens.
    pub(crate) fn tile(&self, n: usize) -> Tile {
        if n > 1 { self.batch.tile } else { self.tile }
    }

    /// Bytes that one pass over the weights reads.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Whole(weights, _) => weights.view().bytes().len(),
            Weights::Groups(groups) => groups.bytes(),
        }
    }

    /// Makes the form of a token's activations that is read when `n` tokens run at once.
    pub(crate) fn prepare(&self, input: &mut Input, n: usize) {
        let form = match self.batch.kernel {
            Some(kernel) if n > 1 => kernel.activation(),
            _ => self.kernel.activation(),
        };
        match self.groups() {
            None => input.activations.prepare(form),
            Some(_) => input.parts.iter_mut().for_each(|part| part.prepare(form)),
        }
    }

    /// What [`Linear::floats`] makes outputs of, for some rows and all tokens, token by token: the exact sums,
    /// or, of a layer of groups, the bits of their totals. `sums` holds as many values as that takes;
    /// `group_sums` is room to work in.
    ///
    /// # Panics
    /// When the activations are not prepared or of another length, or the rows do not fit.
    pub(crate) fn sums(
        &self,
        inputs: &[Input],
        rows: Range<usize>,
        sums: &mut [i32],
        group_sums: &mut Vec<i32>,
    ) {
        let groups = match &self.weights {
            Weights::Whole(weights, _) => {
                let tokens = inputs.iter().map(|input| &input.activations);
                return self.part_sums(weights.view(), tokens, rows, sums);
            }
            Weights::Groups(groups) => groups,
        };
        let totals: &mut [f32] = bytemuck::cast_slice_mut(sums);
        totals.fill(0.0);
        group_sums.resize(totals.len(), 0);
        for group in 0..groups.count() {
            let tokens = inputs.iter().map(|input| &input.parts[group]);
            self.part_sums(groups.weights(group), tokens, rows.clone(), group_sums);
            groups.add_tokens(group, rows.clone(), group_sums, totals);
        }
    }

    /// The exact sums of some rows of a matrix for all tokens, token by token: at once for a small batch,
    /// else one after the other.
    fn part_sums<'a>(
        &self,
        view: PackedView<'_>,
        tokens: impl ExactSizeIterator<Item = &'a Activations> + Clone,
        rows: Range<usize>,
        sums: &mut [i32],
    ) {
        if tokens.len() > 1 && self.batch.sums(view, tokens.clone(), rows.clone(), sums) {
            return;
        }
        for (activations, sums) in tokens.zip(sums.chunks_exact_mut(rows.len())) {
            let done = self.kernel.gemv(view, activations, rows.clone(), self.tile, sums);
            if let Err(error) = done {
                unreachable!("the kernel was chosen for these weights: {error}");
            }
        }
    }

    /// `y` of some rows of a token from what [`Linear::sums`] left.
    pub(crate) fn floats(&self, rows: Range<usize>, sums: &[i32], amax: f32, out: &mut [f32]) {
        if self.groups().is_some() {
            let totals: &[f32] = bytemuck::cast_slice(sums);
            for (out, &total) in out.iter_mut().zip(totals) {
                *out = reference::dequantise_total(total, amax);
            }
            return;
        }
        self.write_scales(rows.start, out);
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out = reference::dequantise(sum, *out, amax);
        }
    }
}
