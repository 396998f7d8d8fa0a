//! Base 3, five weights to a byte: `madd`, `dot` and `lut`.
//!
//! A byte `x0 = ceil(256 v / 243)` holds the number `v` of five base-3 digits `t + 1` as a fraction.
//! Each digit comes out on top: `digit = 3 x / 256`, and what stays is `3 x mod 256`, the next `x`.
//!
//! `madd` computes the digits. `dot` does without them: from `256 digit = 3 x - next` follows
//! `256 sum(digit q) = 3 sum(x q) - sum(next q)`, two sums of bytes times activations, whatever the byte.
//! Where codes are signed the bytes are flipped, `x - 128`, which survives the triple; then the same sums give
//! `256 sum((digit - 1) q)`, from which nothing is left to subtract.
//! `lut` maps the byte to four 2-bit codes and to the fifth digit; the codes stay in place, as in `dot` of I2_S.

use super::rows::Codec;
use super::steps::{self, Level};
use crate::Plan;
use crate::op::{Builder, Lane, Op, Var};
use proc_macro2::TokenStream;
use quote::quote;
use trilut_presets::Algorithm;

/// Weights of a byte.
const DIGITS: usize = 5;

/// Base 3 by the algorithm of a plan.
pub(super) struct Base3<'a>(pub(super) &'a Plan);

impl Base3<'_> {
    fn algorithm(&self) -> Algorithm {
        self.0.spec.name.algorithm
    }

    /// Pairs of int32 sums (of `x q` and of `next q`) per row: as many as registers allow, so that no
    /// sum waits for the one before it.
    fn pairs(&self) -> usize {
        let registers = if self.0.width == 32 { 10 } else { 20 };
        (registers / 2 / self.0.spec.name.micro.rows).clamp(1, DIGITS)
    }
}

impl Codec for Base3<'_> {
    fn planes(&self) -> usize {
        DIGITS
    }

    fn sums(&self) -> usize {
        if self.algorithm() == Algorithm::Lut { DIGITS } else { 1 }
    }

    fn levels(&self, rows: usize) -> Vec<Level> {
        let level = |steps, lane, count| Level { steps, hint: "bank", lane, count: rows * count };
        match self.algorithm() {
            Algorithm::Lut => vec![],
            Algorithm::Dot => {
                let steps = self.0.merge_steps.expect("the plan bounds fractions");
                vec![level(steps, Lane::I32, self.pairs() * 2)]
            }
            _ => vec![level(self.0.banks[0].steps, Lane::I16, 1)],
        }
    }

    fn multiply(&self, b: &mut Builder, codes: Var, q: &[Var], banks: &[&[Var]], sums: &[Var]) {
        match self.algorithm() {
            Algorithm::Lut => multiply_mapped(b, codes, q, sums),
            Algorithm::Dot if self.0.signed => {
                let codes = b.bind("x", Op::Flip { a: codes });
                multiply_fractions(b, codes, q, banks[0]);
            }
            Algorithm::Dot => multiply_fractions(b, codes, q, banks[0]),
            _ => multiply_digits(b, codes, q, &banks[0][0]),
        }
    }

    fn widen(&self, b: &mut Builder, _: usize, bank: &[Var], sums: &[Var]) {
        let acc = &sums[0];
        if self.algorithm() == Algorithm::Dot {
            let exact = merge(b, bank);
            b.add(Lane::I32, acc, exact);
        } else {
            b.set(acc, Op::WidenPairs { acc: acc.clone(), a: bank[0].clone() });
        }
    }

    fn offset(&self) -> TokenStream {
        match self.algorithm() {
            Algorithm::Dot if self.0.signed => quote!(0),
            _ => quote!(-call.sum),
        }
    }

    fn total(&self, b: &mut Builder, sums: &[Var]) -> Var {
        let mut total = sums[0].clone();
        for (plane, sum) in sums.iter().enumerate().skip(1) {
            let exact = match plane {
                1..4 => b.bind("exact", Op::ShiftRight { a: sum.clone(), bits: 2 * plane as u32 }),
                _ => sum.clone(),
            };
            total = b.bind("total", Op::Add { lane: Lane::I32, a: total, b: exact });
        }
        total
    }
}

/// Digits one after the other, each to the int16 bank.
fn multiply_digits(b: &mut Builder, codes: Var, q: &[Var], bank: &Var) {
    // The flip of the top bit survives the triple: 3 * 128 = 128 mod 256.
    let mut x = b.bind("x", Op::Flip { a: codes });
    for (plane, q) in q.iter().enumerate() {
        let codes = b.bind("digit", Op::Digit { a: x.clone() });
        let pairs = b.bind("pairs", Op::MulAddAny { codes, q: q.clone() });
        steps::accumulate(b, bank, pairs);
        if plane + 1 < DIGITS {
            x = b.bind("x", Op::Triple { a: x });
        }
    }
}

/// Fractions before and after each digit, to a pair of int32 sums.
fn multiply_fractions(b: &mut Builder, codes: Var, q: &[Var], bank: &[Var]) {
    let mut x = codes;
    for (plane, q) in q.iter().enumerate() {
        let next = b.bind("x", Op::Triple { a: x.clone() });
        let pair = plane * 2 % bank.len();
        for (acc, codes) in bank[pair..].iter().zip([x, next.clone()]) {
            b.set(acc, Op::Dot { acc: acc.clone(), codes, q: q.clone() });
        }
        x = next;
    }
}

/// `sum(digit q)` from the pairs of sums of fractions.
fn merge(b: &mut Builder, bank: &[Var]) -> Var {
    let mut add = |a, c| b.bind("merged", Op::Add { lane: Lane::I32, a, b: c });
    let mut total = |from: usize| {
        let sums = bank[from..].iter().step_by(2).cloned();
        sums.reduce(&mut add).expect("there is a pair")
    };
    let (x, next) = (total(0), total(1));
    let twice = add(x.clone(), x.clone());
    let triple = add(twice, x);
    let merged = b.bind("merged", Op::Sub { lane: Lane::I32, a: triple, b: next });
    b.bind("exact", Op::ShiftRight { a: merged, bits: 8 })
}

/// Four codes in place and the fifth digit, each to its int32 sum.
fn multiply_mapped(b: &mut Builder, codes: Var, q: &[Var], sums: &[Var]) {
    let four = b.bind("four", Op::Map { a: codes.clone(), table: "FIRST_FOUR" });
    let last = b.bind("last", Op::Map { a: codes, table: "LAST" });
    for (plane, (q, acc)) in q.iter().zip(sums).enumerate() {
        let codes = match plane {
            4 => last.clone(),
            _ => b.bind("field", Op::Field { a: four.clone(), shift: 0, mask: 3 << (2 * plane) }),
        };
        b.set(acc, Op::Dot { acc: acc.clone(), codes, q: q.clone() });
    }
}
