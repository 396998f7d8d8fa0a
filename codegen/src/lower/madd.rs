//! I2_S by multiply-add: `madd`, `maddx4` and `dot`.
//!
//! A byte of a 128-weight block holds four 2-bit codes `t + 1`, one per plane. `madd` shifts every plane
//! down. `maddx4` leaves two planes in place, so that their codes count four times: one shift instead of
//! three. `dot` shifts none (x1, x4, x16, x64), or where codes are signed only the top plane.

use super::rows::Codec;
use super::steps::{self, Level};
use crate::Plan;
use crate::op::{Builder, Lane, Op, Var};
use trilut_presets::Algorithm;

/// One plane: where its codes are in the byte, and the bank it is summed in.
struct Plane {
    shift: u32,
    mask: u8,
    bank: usize,
}

/// The planes of a block, from the high bits down, for an algorithm.
fn planes(algorithm: Algorithm, signed: bool) -> [Plane; 4] {
    let plane = |(shift, mask, bank)| Plane { shift, mask, bank };
    match algorithm {
        Algorithm::Madd => [(6, 3, 0), (4, 3, 0), (2, 3, 0), (0, 3, 0)],
        Algorithm::MaddX4 => [(4, 12, 1), (4, 3, 0), (0, 12, 1), (0, 3, 0)],
        Algorithm::Dot if signed => [(6, 3, 0), (0, 48, 2), (0, 12, 1), (0, 3, 0)],
        Algorithm::Dot => [(0, 192, 3), (0, 48, 2), (0, 12, 1), (0, 3, 0)],
        Algorithm::Lut | Algorithm::Mmla => {
            unreachable!("the plan allows neither for I2_S and one token")
        }
    }
    .map(plane)
}

/// Factor, as a power of two, by which each int32 sum is too large.
fn excess(algorithm: Algorithm, signed: bool) -> &'static [u32] {
    match algorithm {
        Algorithm::Madd => &[0],
        Algorithm::MaddX4 => &[0, 2],
        _ if signed => &[0, 2, 4],
        _ => &[0, 2, 4, 6],
    }
}

/// I2_S by the algorithm of a plan.
pub(super) struct I2s<'a>(pub(super) &'a Plan);

impl I2s<'_> {
    fn algorithm(&self) -> Algorithm {
        self.0.spec.name.algorithm
    }
}

impl Codec for I2s<'_> {
    fn planes(&self) -> usize {
        4
    }

    fn sums(&self) -> usize {
        excess(self.algorithm(), self.0.signed).len()
    }

    fn levels(&self, rows: usize) -> Vec<Level> {
        let level = |(bank, hint): (&crate::Bank, _)| Level {
            steps: bank.steps,
            hint,
            lane: Lane::I16,
            count: rows,
        };
        self.0.banks.iter().zip(["bank", "bank_x4_"]).map(level).collect()
    }

    fn multiply(&self, b: &mut Builder, codes: Var, q: &[Var], banks: &[&[Var]], sums: &[Var]) {
        for (q, plane) in q.iter().zip(planes(self.algorithm(), self.0.signed)) {
            let Plane { shift, mask, bank } = plane;
            let field = b.bind("field", Op::Field { a: codes.clone(), shift, mask });
            let (codes, q) = (field, q.clone());
            if self.algorithm() == Algorithm::Dot {
                let acc = &sums[bank];
                b.set(acc, Op::Dot { acc: acc.clone(), codes, q });
            } else {
                let pairs = b.bind("pairs", Op::MulAddAny { codes, q });
                steps::accumulate(b, &banks[bank][0], pairs);
            }
        }
    }

    fn widen(&self, b: &mut Builder, level: usize, bank: &[Var], sums: &[Var]) {
        let acc = &sums[level];
        b.set(acc, Op::WidenPairs { acc: acc.clone(), a: bank[0].clone() });
    }

    fn total(&self, b: &mut Builder, sums: &[Var]) -> Var {
        let mut total = sums[0].clone();
        for (sum, &bits) in sums.iter().zip(excess(self.algorithm(), self.0.signed)).skip(1) {
            let exact = b.bind("exact", Op::ShiftRight { a: sum.clone(), bits });
            total = b.bind("total", Op::Add { lane: Lane::I32, a: total, b: exact });
        }
        total
    }
}
