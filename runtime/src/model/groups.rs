//! Weights whose scale differs from one group of inputs to the next: each group is a matrix of its own,
//! run by the kernels that run any matrix, and its exact sums are multiplied with their scales and added in
//! the order of the groups ([`reference::dequantise_groups`]). So results are the same on every kernel,
//! thread count and ISA here too; they cost more, because a kernel has little to do in so short a row.

use super::linear::Choice;
use crate::ternary::Scales;
use rayon::prelude::*;
use std::ops::Range;
use trilut_kernels::pool::Pool;
use trilut_kernels::{PackError, Packed, PackedView, Shape, reference};

/// The groups of a matrix.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Inputs of a group.
    inputs: usize,
    /// m x inputs each, in the order of the inputs.
    parts: Vec<Packed>,
    /// groups x m
    scales: Vec<f32>,
    /// What runs each of them.
    choice: Choice,
}

impl Groups {
    /// Cuts a matrix of `shape`, row-major, into groups of `inputs`, of which a row is a whole number.
    ///
    /// # Errors
    /// When a weight is not ternary.
    pub(super) fn new(
        shape: Shape,
        inputs: usize,
        weights: &[i8],
        scales: &Scales,
        choice: Choice,
    ) -> Result<Self, PackError> {
        let Shape { m, k } = shape;
        let part = |group: usize| {
            let read = |row: usize, out: &mut [i8]| {
                out.copy_from_slice(&weights[row * k + group * inputs..][..inputs]);
            };
            Packed::from_rows(choice.kernel.layout(), Shape { m, k: inputs }, &read)
        };
        let parts = (0..k / inputs).into_par_iter().map(part).collect::<Result<_, _>>()?;
        let each =
            (0..k / inputs).flat_map(|group| (0..m).map(move |row| row * k + group * inputs));
        let scales = each.map(|index| scales.at(index, k)).collect();
        Ok(Self { inputs, parts, scales, choice })
    }

    /// As [`Packed::settle`].
    pub(super) fn settle(&mut self, pool: &Pool, rows_per_task: usize) {
        self.parts.iter_mut().for_each(|part| part.settle(pool, rows_per_task));
    }

    /// Inputs of a group.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// The number of groups.
    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }

    /// Outputs and inputs of all groups together.
    pub(super) fn shape(&self) -> Shape {
        Shape { m: self.parts[0].shape().m, k: self.inputs * self.parts.len() }
    }

    /// The kernels and tiles that run a group.
    pub(super) fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The weights of a group.
    pub(super) fn weights(&self, group: usize) -> PackedView<'_> {
        self.parts[group].view()
    }

    /// The scales of some rows in a group.
    fn scales(&self, group: usize, rows: Range<usize>) -> &[f32] {
        &self.scales[group * self.shape().m..][rows]
    }

    /// Adds the sums of a group, `stride` for each of some rows, to their totals.
    pub(super) fn add_rows(
        &self,
        group: usize,
        rows: Range<usize>,
        stride: usize,
        sums: &[i32],
        totals: &mut [f32],
    ) {
        let each = totals.chunks_exact_mut(stride).zip(sums.chunks_exact(stride));
        for ((totals, sums), &scale) in each.zip(self.scales(group, rows)) {
            for (total, &sum) in totals.iter_mut().zip(sums) {
                *total = reference::add_group(*total, sum, scale);
            }
        }
    }

    /// Adds the sums of a group, those of some rows for one token after the other, to their totals.
    pub(super) fn add_tokens(
        &self,
        group: usize,
        rows: Range<usize>,
        sums: &[i32],
        totals: &mut [f32],
    ) {
        let scales = self.scales(group, rows);
        let each = totals.chunks_exact_mut(scales.len()).zip(sums.chunks_exact(scales.len()));
        for (totals, sums) in each {
            for ((total, &sum), &scale) in totals.iter_mut().zip(sums).zip(scales) {
                *total = reference::add_group(*total, sum, scale);
            }
        }
    }

    /// Bytes that one pass reads.
    pub(super) fn bytes(&self) -> usize {
        let weights: usize = self.parts.iter().map(|part| part.view().bytes().len()).sum();
        weights + size_of_val(&self.scales[..])
    }
}
