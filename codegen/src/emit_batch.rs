//! From a small-batch plan to Rust text: the documented function and its registry entry.

use crate::batch::BatchPlan;
use crate::emit::{bound, bound_doc, bytes_per_weight, ident, target_feature};
use crate::op::Stmt;
use crate::{lower, spelling};
use proc_macro2::{Ident, Literal, TokenStream};
use quote::quote;
use trilut_presets::{BatchName, Format, hash};

/// One generated small-batch kernel.
#[derive(Debug, Clone)]
pub struct GeneratedBatch {
    /// Its name.
    pub name: BatchName,
    /// The function as formatted text, from which [`GeneratedBatch::hash`] is taken.
    pub text: String,
    /// Hash of the text; presets store it.
    pub hash: u64,
    /// A `trilut_kernels::BatchKernel` value, as an expression.
    pub entry: TokenStream,
}

/// Spells, documents and formats a small-batch plan.
pub fn emit_batch(plan: &BatchPlan) -> GeneratedBatch {
    let file = syn::parse2(function(plan)).expect("spelling tables emit well-formed Rust");
    let text = prettyplease::unparse(&file);
    let hash = hash(text.bytes());
    GeneratedBatch { name: plan.name, entry: entry(plan, hash), text, hash }
}

/// Vector instructions per weight and token of the inner loop of a full tile.
pub(crate) fn cost(plan: &BatchPlan) -> f64 {
    let spelling = spelling::table(plan.name.isa, plan.width).expect("the plan checked it");
    let (stmts, products) = lower::batch_step(plan);
    let count: f64 = stmts
        .iter()
        .map(|stmt| match stmt {
            Stmt::Let { op, .. } | Stmt::Set { op, .. } => spelling.instructions(op),
            Stmt::Prefetch { .. } => 1.0,
            _ => 0.0,
        })
        .sum();
    count / products as f64
}

fn function(plan: &BatchPlan) -> TokenStream {
    let name = plan.name;
    let function = ident(&name.to_string());
    let spelling = spelling::table(name.isa, plan.width).expect("the plan checked it");
    let docs = docs(plan);
    let features = target_feature(name.isa);
    let (layout, activation) = forms(plan);
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
            let (weights, tokens) = call.check(
                ::trilut_kernels::Layout::#layout,
                ::trilut_kernels::Activation::#activation,
            );
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
    let layout = match format {
        Format::Base3 => {
            "rows of 160-weight blocks, 32 bytes each, five planes of base-3 digits t + 1"
        }
        _ => "rows of 128-weight blocks, 32 bytes each, four planes of 2-bit codes t + 1",
    };
    let mut lines = vec![
        format!(
            " Exact `out = T q` for some tokens, format `{format}`, isa `{isa}`, in tiles of {rows} rows and up \
             to {tokens} tokens."
        ),
        String::new(),
        format!(" Weights: {layout}."),
        String::new(),
    ];
    lines.extend(plan.banks.iter().map(bound_doc));
    if plan.banks.is_empty() {
        lines.push(" No int16 sums: products go straight to int32.".to_owned());
    }
    lines.push(String::new());
    lines.push(
        " Memory: `Batch::check` compares all slices with the shape, the rows and the number of tokens; every \
         offset below is inside the layout of that shape."
            .to_owned(),
    );
    lines
}

/// The `Layout` and `Activation` variants that a kernel reads.
fn forms(plan: &BatchPlan) -> (Ident, Ident) {
    let (layout, activation) = match (plan.name.format, plan.width) {
        (Format::Base3, 64) => ("Base3", "WideBase3"),
        (Format::Base3, _) => ("Base3", "Plain"),
        (_, 64) => ("I2s", "WideI2s"),
        _ => ("I2s", "Plain"),
    };
    (ident(layout), ident(activation))
}

fn entry(plan: &BatchPlan, hash: u64) -> TokenStream {
    let name = plan.name;
    let text = name.to_string();
    let function = ident(&text);
    let (layout, activation) = forms(plan);
    let bounds = plan.banks.iter().map(bound);
    let instructions = Literal::f64_unsuffixed(cost(plan));
    let bytes = Literal::f64_unsuffixed(bytes_per_weight(name.format));
    let parts = parts(name);
    let prefetches = name.isa.target_arch().is_some();
    // SAFETY of the generated block: the function is compiled for the features of the ISA in its name.
    quote! {
        unsafe { ::trilut_kernels::BatchKernel::new(::trilut_kernels::BatchInfo {
            text: #text,
            name: #parts,
            layout: ::trilut_kernels::Layout::#layout,
            activation: ::trilut_kernels::Activation::#activation,
            bounds: &[#(#bounds),*],
            cost: ::trilut_kernels::Cost {
                instructions_per_weight: #instructions,
                bytes_per_weight: #bytes,
            },
            prefetches: #prefetches,
            hash: #hash,
        }, #function) }
    }
}

/// A `BatchName` as an expression.
fn parts(name: BatchName) -> TokenStream {
    let BatchName { format, algorithm, rows, tokens, width, isa } = name;
    let [format, algorithm, isa] =
        [format!("{format:?}"), format!("{algorithm:?}"), format!("{isa:?}")]
            .map(|text| ident(&text));
    let width = match width {
        Some(width) => quote!(Some(#width)),
        None => quote!(None),
    };
    quote! {
        ::trilut_kernels::BatchName {
            format: ::trilut_kernels::Format::#format,
            algorithm: ::trilut_kernels::Algorithm::#algorithm,
            rows: #rows,
            tokens: #tokens,
            width: #width,
            isa: ::trilut_kernels::Isa::#isa,
        }
    }
}
