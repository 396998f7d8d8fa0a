//! Lookup and register tile in one pass over K, for gemm.
//!
//! A lookup needs the load ports, a product the multipliers; each alone leaves the other idle. A pass
//! takes some groups of four inputs by lookup and some by multiplication, the rows of the register tile
//! one after the other through the tables while all of them go through the products, so that the
//! instructions of both are near enough to each other to run side by side.
//!
//! The panel holds, per pass and row, the index bytes and then the code bytes.

use super::vlut::{self, Row, Sizes};
use crate::gemm::GemmPlan;
use crate::op::{Buffer, Builder, Op, Source, Var};
use quote::quote;

/// What a pass over the rows is made of.
struct Mix<'a> {
    plan: &'a GemmPlan,
    sizes: Sizes,
    /// Steps of four inputs that are multiplied.
    steps: usize,
}

pub(super) fn rows(plan: &GemmPlan, tables: usize, steps: usize, tile: usize, b: &mut Builder) {
    let sizes = Sizes::new(plan, 4, tables, 4 * steps);
    let (tokens, first_sum) = (sizes.tokens, sizes.first_sum());
    let interval = plan.banks[0].steps as usize;
    let stride = tables + 4 * steps;
    let mix = Mix { plan, sizes, steps };
    b.scalar(quote! {
        let partial = #first_sum;
        scratch[partial..][..rows * #tokens].fill(0);
        // Codes are t + 1.
        for sums in sums[..rows * #tokens].chunks_exact_mut(#tokens) {
            for (sum, extra) in sums.iter_mut().zip(token_sums.iter()) {
                *sum = -extra;
            }
        }
        let passes = groups;
        let mut since = 0;
    });
    b.each(quote!(pass in 0..passes), |b| {
        vlut::build(&mix.sizes, b);
        let inputs = mix.sizes.group * tables;
        let pass_inputs = inputs + mix.sizes.multiplied;
        b.scalar(quote! {
            let multiplied = (pass * #pass_inputs + #inputs) * #tokens;
            let mut row = 0;
        });
        let block = |rows: usize, b: &mut Builder| {
            b.repeat(quote!(row + #rows <= rows), |b| {
                b.scalar(quote!(let panel = (pass * rows + row) * #stride;));
                mix.block(rows, stride, b);
                b.scalar(quote!(row += #rows;));
            });
        };
        block(tile, b);
        if tile > 1 {
            block(1, b);
        }
        b.scalar(quote!(since += 1;));
        b.when(quote!(since == #interval || pass + 1 == passes), |b| {
            vlut::widen(&mix.sizes, b);
            b.scalar(quote!(since = 0;));
        });
    });
}

impl Mix<'_> {
    /// One pass of `rows` rows from `row` on.
    fn block(&self, rows: usize, stride: usize, b: &mut Builder) {
        let (tokens, lanes) = (self.sizes.tokens, self.plan.width / 4);
        let vectors = tokens / lanes;
        let place = |index: usize| {
            let (row, part) = (index / vectors, index % vectors * lanes);
            quote!((row + #row) * #tokens + #part)
        };
        let sums: Vec<Var> = (0..rows * vectors)
            .map(|index| b.bind_mut("sum", Op::LoadLanes { from: Buffer::Sums, at: place(index) }))
            .collect();
        // An array, so that no place in it is checked: a branch between the steps would have the
        // compiler gather their loads before it and their products after the last one.
        let length = rows * stride;
        b.scalar(
            quote!(let bytes: &[u8; #length] = weights[panel..][..#length].try_into().unwrap();),
        );
        let mut looked_up = 0;
        for step in 0..self.steps {
            self.multiply(step, rows, stride, &sums, b);
            // Spread evenly over the steps.
            while looked_up < rows * (step + 1) / self.steps {
                self.look_up(looked_up, stride, b);
                looked_up += 1;
            }
        }
        for (index, sum) in sums.into_iter().enumerate() {
            vlut::keep(b, Buffer::Sums, place(index), sum);
        }
    }

    /// Four inputs of all rows and tokens.
    fn multiply(&self, step: usize, rows: usize, stride: usize, sums: &[Var], b: &mut Builder) {
        let width = self.plan.width;
        let vectors = sums.len() / rows;
        let q: Vec<Var> = (0..vectors)
            .map(|vector| {
                let at = step * self.sizes.tokens * 4 + vector * width;
                b.bind("q", Op::Load { from: Source::Activations, at: quote!(multiplied + #at) })
            })
            .collect();
        for row in 0..rows {
            let at = row * stride + self.sizes.tables + 4 * step;
            let codes = b.bind("codes", Op::Broadcast { at: quote!(panel + #at) });
            for (sum, q) in sums[row * vectors..].iter().zip(&q) {
                let (codes, q) = (codes.clone(), q.clone());
                b.set(sum, Op::Dot { acc: sum.clone(), codes, q });
            }
        }
    }

    /// All groups of one row that are looked up.
    fn look_up(&self, index: usize, stride: usize, b: &mut Builder) {
        let (at, tables) = (index * stride, self.sizes.tables);
        let word = match tables {
            8 => quote!(u64),
            _ => quote!(u32),
        };
        let end = at + tables;
        b.scalar(quote! {
            let word = #word::from_le_bytes(bytes[#at..#end].try_into().unwrap()) as u64;
        });
        let row = Row::load(&self.sizes, quote!((row + #index)), b);
        row.add_entries(&self.sizes, 0, tables, b);
        row.keep(&self.sizes, b);
    }
}
