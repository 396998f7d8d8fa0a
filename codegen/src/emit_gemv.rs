//! From a gemv plan to Rust text: the documented function and its record.

use crate::emit::{self, Facts, Kind, Member, ident};
use crate::stored::Stored;
use crate::{Plan, lower, spelling};
use proc_macro2::TokenStream;
use quote::quote;
use trilut_presets::{Fixed, KernelName, MicroTile};

/// Spells, documents and formats a plan.
pub(crate) fn emit_gemv(plan: &Plan) -> Member {
    let name = plan.spec.name;
    let stored = Stored::of(name.format);
    let ([layout, activation], cost) = (stored.forms(plan.width), stored.cost(cost(plan)));
    let prefetches = name.micro.unroll >= 2 && name.isa.target_arch().is_some();
    let facts = Facts {
        name: parts(name),
        reads: quote!(layout: #layout, activation: #activation,),
        costs: quote!(cost: #cost, prefetches: #prefetches,),
    };
    Member::new(Kind::Gemv, name.to_string(), name.isa, function(plan), &plan.banks, facts)
}

/// Vector instructions per weight of the inner loop.
pub(crate) fn cost(plan: &Plan) -> f64 {
    let (stmts, weights) = lower::inner_step(plan);
    emit::instructions(&*spelling::of(plan), &stmts) / weights as f64
}

fn function(plan: &Plan) -> TokenStream {
    let name = plan.spec.name;
    let function = ident(&name.to_string());
    let spelling = spelling::of(plan);
    let docs = docs(plan);
    let features = emit::target_feature(name.isa);
    let [layout, activation] = Stored::of(name.format).forms(plan.width);
    let check_m = name.fixed.m.map(|m| quote!(assert_eq!(call.shape.m, #m);));
    let k = match name.fixed.k {
        Some(k) => quote! {
            assert_eq!(call.shape.k, #k);
            let k = #k;
        },
        None => quote!(let k = call.shape.k;),
    };
    let prelude = spelling.prelude();
    let body = spelling.stmts(&lower::body(plan));
    quote! {
        #(#[doc = #docs])*
        #features
        #[allow(
            clippy::all,
            clippy::undocumented_unsafe_blocks,
            reason = "generated; the safety of every load is argued once, in the documentation"
        )]
        fn #function(call: &mut ::trilut_kernels::Gemv<'_>) {
            #prelude
            let (weights, q) = call.check(#layout, #activation);
            #check_m
            #k
            #body
        }
    }
}

/// The documentation of a kernel: what it computes, how it reads, why it cannot wrap or read outside.
fn docs(plan: &Plan) -> Vec<String> {
    let name = plan.spec.name;
    let side = |fixed: Option<usize>, any: &str| fixed.map_or(any.to_owned(), |n| n.to_string());
    let mut lines = vec![
        format!(
            " Exact `out = T q` for {} x {}, format `{}`, isa `{}`.",
            side(name.fixed.m, "M"),
            side(name.fixed.k, "K"),
            name.format,
            name.isa
        ),
        String::new(),
        format!(" Weights: {}.", Stored::of(name.format).rows),
        String::new(),
    ];
    lines.extend(emit::bound_docs(&plan.banks));
    if let Some(steps) = plan.merge_steps {
        lines.push(format!(
            " int32 bound: 256 times the sum of digits times activations fits for {steps} steps, after which \
             the sums of fractions are merged to that."
        ));
    }
    lines.push(String::new());
    lines.push(
        " Memory: `Gemv::check` compares both slices with the shape; every offset below is inside the \
         layout of that shape."
            .to_owned(),
    );
    lines
}

/// A `KernelName` as an expression.
fn parts(name: KernelName) -> TokenStream {
    let KernelName { format, algorithm, micro, isa, fixed } = name;
    let MicroTile { rows, unroll, width } = micro;
    let Fixed { m, k } = fixed;
    let format = emit::variant("Format", format);
    let algorithm = emit::variant("Algorithm", algorithm);
    let isa = emit::variant("Isa", isa);
    let (width, m, k) = (emit::option(width), emit::option(m), emit::option(k));
    quote! {
        ::trilut_kernels::KernelName {
            format: #format,
            algorithm: #algorithm,
            micro: ::trilut_kernels::MicroTile { rows: #rows, unroll: #unroll, width: #width },
            isa: #isa,
            fixed: ::trilut_kernels::Fixed { m: #m, k: #k },
        }
    }
}
