//! From a small-batch plan to Rust text: the documented function and its record.

use crate::batch::BatchPlan;
use crate::emit::{self, Facts, Kind, Member, ident};
use crate::stored::Stored;
use crate::{lower, spelling};
use proc_macro2::TokenStream;
use quote::quote;
use trilut_presets::BatchName;

/// Spells, documents and formats a small-batch plan.
pub(crate) fn emit_batch(plan: &BatchPlan) -> Member {
    let name = plan.name;
    let stored = Stored::of(name.format);
    let ([layout, activation], cost) = (stored.forms(plan.width), stored.cost(cost(plan)));
    let prefetches = name.isa.target_arch().is_some();
    let facts = Facts {
        name: parts(name),
        reads: quote!(layout: #layout, activation: #activation,),
        costs: quote!(cost: #cost, prefetches: #prefetches,),
    };
    Member::new(Kind::Batch, name.to_string(), name.isa, function(plan), &plan.banks, facts)
}

/// Vector instructions per weight and token of the inner loop of a full tile.
pub(crate) fn cost(plan: &BatchPlan) -> f64 {
    let (stmts, products) = lower::batch_step(plan);
    emit::instructions(&*spelling::table(plan.name.isa, plan.width), &stmts) / products as f64
}

fn function(plan: &BatchPlan) -> TokenStream {
    let name = plan.name;
    let function = ident(&name.to_string());
    let spelling = spelling::table(name.isa, plan.width);
    let docs = docs(plan);
    let features = emit::target_feature(name.isa);
    let [layout, activation] = Stored::of(name.format).forms(plan.width);
    let prelude = spelling.prelude();
    let body = spelling.stmts(&lower::batch(plan));
    quote! {
        #(#[doc = #docs])*
        #features
        #[allow(
            clippy::all,
            clippy::undocumented_unsafe_blocks,
            unused_variables,
            reason = "generated; the safety of every load is argued once, in the documentation"
        )]
        fn #function(call: &mut ::trilut_kernels::Batch<'_>) {
            #prelude
            let (weights, tokens) = call.check(#layout, #activation);
            let (k, prefetch, token_sums) = (call.shape.k, call.prefetch, call.token_sums);
            let (start, width) = (call.rows.start, call.rows.len());
            // Borrowed once: through `call` every store would have the compiler load the pointers anew.
            let out = &mut *call.out;
            #body
        }
    }
}

/// The documentation of a kernel: what it computes, how it reads, why it cannot wrap or read outside.
fn docs(plan: &BatchPlan) -> Vec<String> {
    let BatchName { format, rows, tokens, isa, .. } = plan.name;
    let mut lines = vec![
        format!(
            " Exact `out = T q` for some tokens, format `{format}`, isa `{isa}`, in tiles of {rows} rows and up \
             to {tokens} tokens."
        ),
        String::new(),
        format!(" Weights: {}.", Stored::of(format).rows),
        String::new(),
    ];
    lines.extend(emit::bound_docs(&plan.banks));
    lines.push(String::new());
    lines.push(
        " Memory: `Batch::check` compares all slices with the shape, the rows and the number of tokens; every \
         offset below is inside the layout of that shape."
            .to_owned(),
    );
    lines
}

/// A `BatchName` as an expression.
fn parts(name: BatchName) -> TokenStream {
    let BatchName { format, algorithm, rows, tokens, width, isa } = name;
    let format = emit::variant("Format", format);
    let algorithm = emit::variant("Algorithm", algorithm);
    let (isa, width) = (emit::variant("Isa", isa), emit::option(width));
    quote! {
        ::trilut_kernels::BatchName {
            format: #format,
            algorithm: #algorithm,
            rows: #rows,
            tokens: #tokens,
            width: #width,
            isa: #isa,
        }
    }
}
