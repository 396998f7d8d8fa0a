//! Algorithms as ops, written once for every ISA.
//!
//! Names that the lowered code may use, defined by [`crate::emit_gemv`]: `call` (the arguments), `weights`
//! and `q` (slices), `k` and, inside a row loop, `row` and `end`.

mod base3;
mod batch;
mod lut;
mod madd;
mod mix;
mod mmla;
mod pairs;
mod rows;
mod steps;
mod tile;
mod vlut;

use crate::Plan;
use crate::batch::BatchPlan;
use crate::gemm::GemmPlan;
use crate::op::{Builder, Stmt};
use trilut_presets::{Format, GemmAlgorithm};

/// The body of a kernel: all loops over its rows.
pub(crate) fn body(plan: &Plan) -> Vec<Stmt> {
    let mut b = Builder::new();
    match plan.spec.name.format {
        Format::I2S => rows::emit(plan, &madd::I2s(plan), &mut b),
        Format::Base3 => rows::emit(plan, &base3::Base3(plan), &mut b),
        Format::Tl1 | Format::Tl2 => lut::groups(plan, &mut b),
    }
    b.finish()
}

/// The body of a gemm kernel. Names that it may use: `weights` and `q` (the panel and the token tile),
/// `scratch`, `sums` and `token_sums`, `rows`, and `groups`, the groups of inputs of a row.
pub(crate) fn gemm(plan: &GemmPlan) -> Vec<Stmt> {
    let mut b = Builder::new();
    match plan.name.algorithm {
        GemmAlgorithm::Vlut { group, tables } => vlut::rows(plan, group, tables, &mut b),
        GemmAlgorithm::Dot { rows } | GemmAlgorithm::Madd { rows } => {
            tile::rows(plan, rows, &mut b);
        }
        GemmAlgorithm::Mmla { rows } => mmla::rows(plan, rows, &mut b),
        GemmAlgorithm::Mix { tables, steps, rows } => {
            mix::rows(plan, tables, steps, rows, &mut b);
        }
    }
    b.finish()
}

/// The body of a small-batch kernel. Names that it may use: `weights`, `tokens` (their activations) and
/// `token_sums`, `k`, `prefetch`, and `out`, which has `width` rows of each token from row `start` on.
pub(crate) fn batch(plan: &BatchPlan) -> Vec<Stmt> {
    let mut b = Builder::new();
    batch::rows(plan, &mut b);
    b.finish()
}

/// One step of a small-batch kernel's inner loop alone, and the products it covers.
pub(crate) fn batch_step(plan: &BatchPlan) -> (Vec<Stmt>, usize) {
    let mut b = Builder::new();
    let products = batch::counted_step(plan, &mut b);
    (b.finish(), products)
}

/// One step of the inner loop alone, from which the cost is counted, and the number of weights it covers.
pub(crate) fn inner_step(plan: &Plan) -> (Vec<Stmt>, usize) {
    let mut b = Builder::new();
    let weights = match plan.spec.name.format {
        Format::I2S => rows::counted_step(plan, &madd::I2s(plan), &mut b),
        Format::Base3 => rows::counted_step(plan, &base3::Base3(plan), &mut b),
        Format::Tl1 | Format::Tl2 => lut::counted_step(plan, &mut b),
    };
    (b.finish(), weights)
}
