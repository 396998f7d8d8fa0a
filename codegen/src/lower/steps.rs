//! The loop over the steps of a row or group, with int16 banks widened in time.

use crate::op::{Builder, Lane, Op, Var};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

/// An int16 bank of the loop: its variables and the interval after which they are widened.
pub(super) struct Level {
    /// Steps between two widenings.
    pub(super) steps: u32,
    /// Name of its variables.
    pub(super) hint: &'static str,
    /// Number of its variables.
    pub(super) count: usize,
}

/// Emits `while step < limit` loops, one nested in the other, longest interval outermost. Each zeroes
/// its bank, runs the inner ones for its interval and then widens. The innermost runs the step itself,
/// `unroll` at a time, then one at a time.
///
/// `widen(b, level, bank)` adds a bank to the int32 sums. `body(b, banks, offset)` is one step at
/// `step + offset`; `banks` are in the order of `levels`.
pub(super) fn emit(
    b: &mut Builder,
    levels: &[Level],
    limit: TokenStream,
    unroll: usize,
    widen: &dyn Fn(&mut Builder, usize, &[Var]),
    body: &dyn Fn(&mut Builder, &[Vec<Var>], usize),
) {
    let mut order: Vec<usize> = (0..levels.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(levels[i].steps));
    let mut banks = vec![Vec::new(); levels.len()];
    nest(b, levels, &order, &mut banks, limit, unroll, widen, body);
}

#[expect(clippy::too_many_arguments, reason = "the recursion of `emit`, which carries its state")]
fn nest(
    b: &mut Builder,
    levels: &[Level],
    order: &[usize],
    banks: &mut Vec<Vec<Var>>,
    limit: TokenStream,
    unroll: usize,
    widen: &dyn Fn(&mut Builder, usize, &[Var]),
    body: &dyn Fn(&mut Builder, &[Vec<Var>], usize),
) {
    let Some((&level, inner)) = order.split_first() else {
        if unroll > 1 {
            b.repeat(quote!(step + #unroll <= #limit), |b| {
                (0..unroll).for_each(|offset| body(b, banks, offset));
                b.scalar(quote!(step += #unroll;));
            });
        }
        b.repeat(quote!(step < #limit), |b| {
            body(b, banks, 0);
            b.scalar(quote!(step += 1;));
        });
        return;
    };
    let Level { steps, hint, count } = levels[level];
    let steps = steps as usize;
    let end = format_ident!("{}_end", hint.trim_end_matches('_'));
    b.repeat(quote!(step < #limit), |b| {
        b.scalar(quote!(let #end = usize::min(step + #steps, #limit);));
        banks[level] = b.sums(hint, Lane::I16, count);
        nest(b, levels, inner, banks, quote!(#end), unroll, widen, body);
        widen(b, level, &banks[level]);
    });
}

/// Adds `sum` into a bank of int16 lanes.
pub(super) fn accumulate(b: &mut Builder, bank: &Var, sum: Var) {
    b.set(bank, Op::Add { lane: Lane::I16, a: bank.clone(), b: sum });
}
