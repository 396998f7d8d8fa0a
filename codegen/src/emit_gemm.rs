//! From a gemm plan to Rust text: the documented function and its record.

use crate::emit::{self, Facts, Kind, Member, ident};
use crate::gemm::GemmPlan;
use crate::{lower, spelling};
use proc_macro2::{Literal, TokenStream};
use quote::quote;
use trilut_presets::{GemmAlgorithm, GemmName};

/// Spells, documents and formats a gemm plan.
pub(crate) fn emit_gemm(plan: &GemmPlan) -> Member {
    let name = plan.name;
    let (form, instructions) = (form(plan), Literal::f64_unsuffixed(plan.instructions()));
    let facts = Facts {
        name: parts(name),
        reads: quote!(form: #form,),
        costs: quote!(instructions: #instructions,),
    };
    Member::new(Kind::Gemm, name.to_string(), name.isa, function(plan), &plan.banks, facts)
}

fn function(plan: &GemmPlan) -> TokenStream {
    let name = plan.name;
    let function = ident(&name.to_string());
    let spelling = spelling::table(name.isa, plan.width);
    let docs = docs(plan);
    let features = emit::target_feature(name.isa);
    let form = form(plan);
    let tokens = name.tokens;
    let prelude = spelling.prelude();
    let body = spelling.stmts(&lower::gemm(plan));
    quote! {
        #(#[doc = #docs])*
        #features
        #[allow(
            clippy::all,
            clippy::undocumented_unsafe_blocks,
            unused_variables,
            reason = "generated; the safety of every load is argued once, in the documentation"
        )]
        fn #function(call: &mut ::trilut_kernels::Gemm<'_>) {
            #prelude
            let (weights, q, groups) = call.check(#form, #tokens);
            let (rows, token_sums) = (call.rows, call.token_sums);
            // Borrowed once: through `call` every store would have the compiler load the pointers anew.
            let (scratch, sums) = (&mut *call.scratch, &mut *call.sums);
            #body
        }
    }
}

/// The documentation of a kernel: what it computes, how it reads, why it cannot wrap or read outside.
fn docs(plan: &GemmPlan) -> Vec<String> {
    let name = plan.name;
    let (panel, tile) = match name.algorithm {
        GemmAlgorithm::Vlut { group, tables } => (
            format!(
                "an index byte per row and {group} inputs, {tables} groups of a row side by side"
            ),
            format!("{group} inputs of a group, {} int8 tokens each", name.tokens),
        ),
        GemmAlgorithm::Mix { tables, steps, .. } => (
            format!(
                "per pass and row {tables} index bytes of 4 inputs, {} code bytes t + 1",
                4 * steps
            ),
            format!(
                "per pass the inputs of {tables} groups and {steps} steps, as for lookup and tile"
            ),
        ),
        GemmAlgorithm::Mmla { .. } => (
            "rows of code bytes t + 1".to_owned(),
            format!("per 8 inputs {} tokens of 8 int8 each", name.tokens),
        ),
        GemmAlgorithm::Dot { .. } | GemmAlgorithm::Madd { .. } => (
            "rows of code bytes t + 1".to_owned(),
            format!("per 4 inputs {} tokens of 4 int8 each", name.tokens),
        ),
    };
    let mut lines = vec![
        format!(
            " Exact `sums = T q` for the rows of a panel and {} tokens, isa `{}`.",
            name.tokens, name.isa
        ),
        String::new(),
        format!(" Panel: {panel}. Token tile: {tile}."),
        String::new(),
    ];
    lines.extend(emit::bound_docs(&plan.banks));
    lines.push(String::new());
    lines.push(
        " Memory: `Gemm::check` compares the slices with the panel's form, its rows and the tile; every \
         offset below is inside what it accepts."
            .to_owned(),
    );
    lines
}

/// The `PanelForm` that a kernel reads, as an expression.
fn form(plan: &GemmPlan) -> TokenStream {
    match plan.name.algorithm {
        GemmAlgorithm::Vlut { group, tables } => {
            quote!(::trilut_kernels::PanelForm::Indices { group: #group, tables: #tables })
        }
        GemmAlgorithm::Mix { tables, steps, .. } => {
            quote!(::trilut_kernels::PanelForm::Mixed { tables: #tables, steps: #steps })
        }
        GemmAlgorithm::Mmla { .. } => quote!(::trilut_kernels::PanelForm::Eights),
        GemmAlgorithm::Dot { .. } | GemmAlgorithm::Madd { .. } => {
            quote!(::trilut_kernels::PanelForm::Codes)
        }
    }
}

/// A `GemmName` as an expression.
fn parts(name: GemmName) -> TokenStream {
    let GemmName { algorithm, tokens, width, isa } = name;
    let algorithm = match algorithm {
        GemmAlgorithm::Vlut { group, tables } => quote!(Vlut { group: #group, tables: #tables }),
        GemmAlgorithm::Dot { rows } => quote!(Dot { rows: #rows }),
        GemmAlgorithm::Madd { rows } => quote!(Madd { rows: #rows }),
        GemmAlgorithm::Mmla { rows } => quote!(Mmla { rows: #rows }),
        GemmAlgorithm::Mix { tables, steps, rows } => {
            quote!(Mix { tables: #tables, steps: #steps, rows: #rows })
        }
    };
    let (isa, width) = (emit::variant("Isa", isa), emit::option(width));
    quote! {
        ::trilut_kernels::GemmName {
            algorithm: ::trilut_kernels::GemmAlgorithm::#algorithm,
            tokens: #tokens,
            width: #width,
            isa: #isa,
        }
    }
}
