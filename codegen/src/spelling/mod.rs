//! One table per ISA that spells each op as Rust.

mod arrays;
mod avx2;
mod avx512;
mod avxvnni;
mod tokens;

use crate::op::{Buffer, Op, Source, Stmt, Var};
use crate::{Error, Plan};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use trilut_presets::Isa;

/// How an ISA spells the ops. Algorithms never ask which ISA they are spelled for.
pub trait Spelling {
    /// What the function body begins with: imports.
    fn prelude(&self) -> TokenStream;

    /// An op as an expression.
    fn op(&self, op: &Op) -> TokenStream;

    /// The sum of the int32 lanes of a variable, as an expression.
    fn sum(&self, a: &Var) -> TokenStream;

    /// Stores the sums of the int32 lanes of some variables, less a scalar, from position `at` of `out`.
    fn store_sums(&self, at: &TokenStream, sums: &[Var], minus: &TokenStream) -> TokenStream {
        store_each(self, at, sums, minus)
    }

    /// Stores the int32 lanes of a variable to the local array `sums`, as a statement.
    fn store(&self, at: usize, a: &Var) -> TokenStream;

    /// Prefetches the weights' cache line at a byte offset that may lie outside, as a statement.
    fn prefetch(&self, at: &TokenStream) -> TokenStream;

    /// Stores the lanes of a variable from an element of a buffer on, as a statement.
    fn keep(&self, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream;

    /// How many instructions the op takes, for the analytic estimate.
    fn instructions(&self, op: &Op) -> f64;

    /// A statement, with everything below it.
    fn stmt(&self, stmt: &Stmt) -> TokenStream {
        match stmt {
            Stmt::Let { var, mutable, op } => {
                let op = self.op(op);
                let mutable = mutable.then(|| quote!(mut));
                quote!(let #mutable #var = #op;)
            }
            Stmt::Set { var, op } => {
                let op = self.op(op);
                quote!(#var = #op;)
            }
            Stmt::StoreSum { place, a, plus } => {
                let sum = self.sum(a);
                quote!(#place = #sum + (#plus);)
            }
            Stmt::StoreSums { at, sums, minus } => self.store_sums(at, sums, minus),
            Stmt::StoreLanes { at, a } => self.store(*at, a),
            Stmt::Keep { to, at, a } => self.keep(*to, at, a),
            Stmt::Prefetch { at } => self.prefetch(at),
            Stmt::Scalar(tokens) => tokens.clone(),
            Stmt::If { condition, body } => {
                let body = self.stmts(body);
                quote!(if #condition { #body })
            }
            Stmt::For { head, body } => {
                let body = self.stmts(body);
                quote!(for #head { #body })
            }
            Stmt::While { condition, body } => {
                let body = self.stmts(body);
                quote!(while #condition { #body })
            }
        }
    }

    /// Statements in order.
    fn stmts(&self, stmts: &[Stmt]) -> TokenStream {
        stmts.iter().map(|stmt| self.stmt(stmt)).collect()
    }
}

/// [`Spelling::store_sums`] where nothing is gained by adding up several vectors together.
fn store_each<S: Spelling + ?Sized>(
    table: &S,
    at: &TokenStream,
    sums: &[Var],
    minus: &TokenStream,
) -> TokenStream {
    let count = sums.len();
    let sums = sums.iter().map(|a| table.sum(a));
    quote! {
        for (out, sum) in out[#at..][..#count].iter_mut().zip([#(#sums),*]) {
            *out = sum - #minus;
        }
    }
}

/// The spelling table of a legal plan.
///
/// # Errors
/// When no table exists for the ISA.
pub fn of(plan: &Plan) -> Result<Box<dyn Spelling>, Error> {
    table(plan.spec.name.isa, plan.width)
}

/// The spelling table of an ISA for vectors of `width` bytes.
///
/// # Errors
/// When no table exists for the ISA.
pub fn table(isa: Isa, width: usize) -> Result<Box<dyn Spelling>, Error> {
    match isa {
        Isa::Avx2 => Ok(Box::new(avx2::Avx2)),
        Isa::AvxVnni => Ok(Box::new(avxvnni::AvxVnni)),
        Isa::Avx512 | Isa::Avx512Vbmi => Ok(Box::new(avx512::Avx512)),
        Isa::Scalar => Ok(Box::new(arrays::Arrays { module: "portable", width })),
        Isa::Emulated if width == 16 => Ok(Box::new(arrays::Arrays { module: "neon", width })),
        Isa::Emulated => Ok(Box::new(arrays::Arrays { module: "avx512", width })),
        isa => Err(Error::Isa(isa)),
    }
}

/// The name of a buffer in the generated function.
fn buffer(buffer: Buffer) -> TokenStream {
    match buffer {
        Buffer::Scratch => quote!(scratch),
        Buffer::Sums => quote!(sums),
        Buffer::TokenSums => quote!(token_sums),
    }
}

/// The name of a slice in the generated function.
fn slice(source: Source) -> TokenStream {
    match source {
        Source::Weights => quote!(weights),
        Source::Activations => quote!(q),
        Source::Token(token) => {
            let token = Ident::new(&format!("token{token}"), Span::call_site());
            quote!(#token)
        }
    }
}

/// A table that bytes are mapped through.
fn map_table(name: &str) -> TokenStream {
    let name = Ident::new(name, Span::call_site());
    quote!(::trilut_kernels::lanes::base3::#name)
}
