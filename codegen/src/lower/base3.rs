//! Base 3, five weights to a byte: `madd` and `dot`.
//!
//! A byte `x0 = ceil(256 v / 243)` holds the number `v` of five base-3 digits `t + 1` as a fraction.
//! Each digit comes out on top: `digit = 3 x / 256`, and what stays is `3 x mod 256`, the next `x`.
//!
//! `madd` computes the digits. `dot` does without them: from `256 digit = 3 x - next` follows
//! `256 sum(digit q) = 3 sum(x q) - sum(next q)`, two sums of bytes times activations, whatever the byte.

use super::rows::Codec;
use super::steps::{self, Level};
use crate::Plan;
use crate::op::{Builder, Lane, Op, Var};
use trilut_presets::Algorithm;

/// Weights of a byte.
const DIGITS: usize = 5;

/// Base 3 by the algorithm of a plan.
pub(super) struct Base3<'a>(pub(super) &'a Plan);

impl Base3<'_> {
    fn is_dot(&self) -> bool {
        self.0.spec.name.algorithm == Algorithm::Dot
    }

    /// Pairs of int32 sums (of `x q` and of `next q`) per row: as many as registers allow, so that no
    /// sum waits for the one before it.
    fn pairs(&self) -> usize {
        let registers = if self.0.width == 64 { 20 } else { 10 };
        (registers / 2 / self.0.spec.name.micro.rows).clamp(1, DIGITS)
    }

    /// Steps after which a pair of int32 sums must be merged: `256 sum(digit q)` of one lane, which is at
    /// most `256 * 2 * 128` for each of its products, stays within int32. (The sums themselves may wrap.)
    fn merge_steps(&self) -> u32 {
        let loads = 32usize.div_ceil(self.0.width) as u32;
        (1 << 31) / (256 * 2 * 128) / (4 * DIGITS as u32 * loads) - 1
    }
}

impl Codec for Base3<'_> {
    fn planes(&self) -> usize {
        DIGITS
    }

    fn sums(&self) -> usize {
        1
    }

    fn levels(&self, rows: usize) -> Vec<Level> {
        let level = match self.0.banks.first() {
            Some(bank) => Level { steps: bank.steps, hint: "bank", lane: Lane::I16, count: rows },
            None => Level {
                steps: self.merge_steps(),
                hint: "bank",
                lane: Lane::I32,
                count: rows * self.pairs() * 2,
            },
        };
        vec![level]
    }

    fn multiply(&self, b: &mut Builder, codes: Var, q: &[Var], banks: &[&[Var]], _: &[Var]) {
        let bank = banks[0];
        let mut x = codes;
        if !self.is_dot() {
            x = b.bind("x", Op::Flip { a: x });
        }
        for (plane, q) in q.iter().enumerate() {
            if self.is_dot() {
                let next = b.bind("x", Op::Triple { a: x.clone() });
                let pair = plane % self.pairs() * 2;
                for (acc, codes) in bank[pair..].iter().zip([x, next.clone()]) {
                    b.set(acc, Op::Dot { acc: acc.clone(), codes, q: q.clone() });
                }
                x = next;
            } else {
                let codes = b.bind("digit", Op::Digit { a: x.clone() });
                let pairs = b.bind("pairs", Op::MulAddPairs { codes, q: q.clone() });
                steps::accumulate(b, &bank[0], pairs);
                if plane + 1 < DIGITS {
                    // The flip of the top bit survives: 3 * 128 = 128 mod 256.
                    x = b.bind("x", Op::Triple { a: x });
                }
            }
        }
    }

    fn widen(&self, b: &mut Builder, _: usize, bank: &[Var], sums: &[Var]) {
        let acc = &sums[0];
        if !self.is_dot() {
            b.set(acc, Op::WidenPairs { acc: acc.clone(), a: bank[0].clone() });
            return;
        }
        let mut add = |a: Var, c: Var| b.bind("merged", Op::Add { lane: Lane::I32, a, b: c });
        let total = |from: usize, add: &mut dyn FnMut(Var, Var) -> Var| {
            let sums = bank[from..].iter().step_by(2).cloned();
            sums.reduce(add).expect("there is a pair")
        };
        let (x, next) = (total(0, &mut add), total(1, &mut add));
        let twice = add(x.clone(), x.clone());
        let triple = add(twice, x);
        let merged = b.bind("merged", Op::Sub { a: triple, b: next });
        let exact = b.bind("exact", Op::ShiftRight { a: merged, bits: 8 });
        b.add(Lane::I32, acc, exact);
    }

    fn total(&self, _: &mut Builder, sums: &[Var]) -> Var {
        sums[0].clone()
    }
}
