//! `kernels!`: generates kernels for given shapes in the caller's crate, which depends on
//! `trilut-kernels`.
//!
//! ```
//! use trilut_kernels::{Activations, Cpu, Layout, Packed, Shape};
//!
//! trilut_macros::kernels! {
//!     format = i2_s;
//!     shapes = [64 x 256, 256x640];
//! }
//!
//! let shape = Shape::new(64, 256)?;
//! let weights = Packed::pack(Layout::I2s, shape, &vec![1; 64 * 256])?;
//! let mut x = Activations::new();
//! x.set(&vec![3; 256]);
//! let mut sums = [0; 64];
//! gemv_64x256(weights.view(), &mut x, &mut sums)?;
//! assert_eq!(sums, [3 * 256; 64]);
//! assert!(KERNELS.iter().any(|k| k.text == "gemv_i2s_maddx4_r1u1_scalar_k640"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A proc-macro cannot see the target, so every ISA that has a spelling is emitted under
//! `cfg(target_arch)`. For each shape there is a safe function `gemv_<M>x<K>` that picks the most
//! capable ISA of this CPU; `KERNELS` lists everything that was generated.

mod input;

use input::Input;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use trilut_codegen::{Spec, generate, lattice};
use trilut_presets::{Format, Isa, Shape};

/// Generates kernels; see the crate's documentation.
///
/// ```text
/// kernels! { format = FORMAT; shapes = [M x K, ...]; }
/// ```
#[proc_macro]
pub fn kernels(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let expanded = syn::parse(input).and_then(|input| expand(&input));
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

fn expand(input: &Input) -> syn::Result<TokenStream> {
    let mut items = TokenStream::new();
    let mut entries = TokenStream::new();
    // Shapes with the same K share a kernel.
    let mut ks = std::collections::BTreeSet::new();
    for (shape, span) in &input.shapes {
        if ks.insert(shape.k) {
            // The emulated ISA is for tests of the generator itself.
            for isa in lattice::spelled_for(input.format).filter(|isa| *isa != Isa::Emulated) {
                let generated = Spec::representative(*shape, input.format, isa)
                    .and_then(|spec| generate(&spec))
                    .map_err(|error| syn::Error::new(*span, error))?;
                let cfg = isa.target_arch().map(|arch| quote!(#[cfg(target_arch = #arch)]));
                let (function, entry) = (&generated.function, &generated.entry);
                items.extend(quote!(#cfg #function));
                entries.extend(quote!(#cfg #entry,));
            }
        }
        items.extend(entry_point(*shape, input.format));
    }
    Ok(quote! {
        #items

        /// Every kernel that this invocation of `kernels!` generated. Each function is compiled for the
        /// ISA in its name.
        #[allow(clippy::undocumented_unsafe_blocks, reason = "argued above, once for all")]
        pub static KERNELS: &[::trilut_kernels::Kernel] = &[#entries];

        /// These kernels as a set, for `trilut_runtime::Engine` and the tuner.
        pub static REGISTRY: ::trilut_kernels::Registry =
            ::trilut_kernels::Registry::new(::core::module_path!(), KERNELS, &[]);
    })
}

/// The safe function for one shape.
fn entry_point(shape: Shape, format: Format) -> TokenStream {
    let Shape { m, k } = shape;
    let name = format_ident!("gemv_{m}x{k}");
    let variant = format_ident!("{format:?}");
    let doc = format!(
        " `out = T q` for a {m} x {k} matrix in format `{format}`, on the most capable ISA of this CPU.\n\n \
         The activations are prepared in the form that its kernel reads, unless they are so already.\n\n \
         # Errors\n When weights, activations or output have other sizes; nothing is written then."
    );
    quote! {
        #[doc = #doc]
        pub fn #name(
            weights: ::trilut_kernels::PackedView<'_>,
            x: &mut ::trilut_kernels::Activations,
            out: &mut [i32],
        ) -> ::core::result::Result<(), ::trilut_kernels::GemvError> {
            static PICK: ::std::sync::LazyLock<::trilut_kernels::Runnable> =
                ::std::sync::LazyLock::new(|| {
                    let shape = ::trilut_kernels::Shape { m: #m, k: #k };
                    REGISTRY
                        .most_capable(
                            &::trilut_kernels::Cpu::detect(),
                            ::trilut_kernels::Format::#variant,
                            shape,
                        )
                        .expect("a scalar kernel is always generated")
                });
            x.prepare(PICK.activation());
            PICK.gemv(weights, x, 0..#m, ::core::default::Default::default(), out)
        }
    }
}
