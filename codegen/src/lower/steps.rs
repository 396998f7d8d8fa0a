//! The loop over the steps of a row or group, with int16 banks widened in time.

use crate::op::{Builder, Lane, Op, Var};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

/// A bank of the loop: its variables and the interval after which they are widened.
pub(super) struct Level {
    /// Steps between two widenings.
    pub(super) steps: u32,
    /// Name of its variables.
    pub(super) hint: &'static str,
    /// Element type of its variables: int16, or int32 that are merged in time.
    pub(super) lane: Lane,
    /// Number of its variables.
    pub(super) count: usize,
}

/// How a loop fills its banks.
pub(super) trait Steps {
    /// Adds a bank of level `level` to the int32 sums.
    fn widen(&self, b: &mut Builder, level: usize, bank: &[Var]);

    /// One step at `step + offset`; `banks` are in the order of the levels.
    fn step(&self, b: &mut Builder, banks: &[Vec<Var>], offset: usize);
}

/// Emits `while step < limit` loops, one nested in the other, longest interval outermost. Each zeroes
/// its bank, runs the inner ones for its interval and then widens. The innermost runs the step itself,
/// `unroll` at a time, then one at a time.
pub(super) fn emit(
    b: &mut Builder,
    levels: &[Level],
    limit: TokenStream,
    unroll: usize,
    steps: &dyn Steps,
) {
    let mut order: Vec<usize> = (0..levels.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(levels[i].steps));
    let mut nest = Nest { levels, unroll, steps, banks: vec![Vec::new(); levels.len()] };
    nest.emit(b, &order, limit);
}

/// The state of the recursion: the banks of the loops that are open.
struct Nest<'a> {
    levels: &'a [Level],
    unroll: usize,
    steps: &'a dyn Steps,
    banks: Vec<Vec<Var>>,
}

impl Nest<'_> {
    fn emit(&mut self, b: &mut Builder, order: &[usize], limit: TokenStream) {
        let Some((&level, inner)) = order.split_first() else {
            let Self { unroll, steps, banks, .. } = self;
            if *unroll > 1 {
                b.repeat(quote!(step + #unroll <= #limit), |b| {
                    (0..*unroll).for_each(|offset| steps.step(b, banks, offset));
                    b.scalar(quote!(step += #unroll;));
                });
            }
            b.repeat(quote!(step < #limit), |b| {
                steps.step(b, banks, 0);
                b.scalar(quote!(step += 1;));
            });
            return;
        };
        let Level { steps, hint, lane, count } = self.levels[level];
        let steps = steps as usize;
        let end = format_ident!("{}_end", hint.trim_end_matches('_'));
        b.repeat(quote!(step < #limit), |b| {
            b.scalar(quote!(let #end = usize::min(step + #steps, #limit);));
            self.banks[level] = b.sums(hint, lane, count);
            self.emit(b, inner, quote!(#end));
            self.steps.widen(b, level, &self.banks[level]);
        });
    }
}

/// Adds `sum` into a bank of int16 lanes.
pub(super) fn accumulate(b: &mut Builder, bank: &Var, sum: Var) {
    b.set(bank, Op::Add { lane: Lane::I16, a: bank.clone(), b: sum });
}
