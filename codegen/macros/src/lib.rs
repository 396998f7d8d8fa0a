//! `kernels!`: generates kernels for given shapes in the caller's crate, which depends on
//! `trilut-kernels` (or on `trilut`, whose own `kernels!` passes its path).
//!
//! ```
//! mod kernels {
//!     trilut_macros::kernels! {
//!         formats = [i2_s, tl2];
//!         shapes = [64 x 256, 256x640: r2u1];
//!     }
//! }
//!
//! use trilut_kernels::{Activations, Layout, Packed, Shape};
//!
//! let shape = Shape::new(64, 256)?;
//! let weights = Packed::pack(Layout::I2s, shape, &vec![1; 64 * 256])?;
//! let mut x = Activations::new();
//! x.set(&vec![3; 256]);
//! let mut sums = [0; 64];
//! kernels::gemv_i2s_64x256(weights.view(), &mut x, &mut sums)?;
//! assert_eq!(sums, [3 * 256; 64]);
//! assert!(kernels::REGISTRY.find("gemv_tl2_lut_r2u1_scalar_k640").is_some());
//! assert!(!kernels::check_all()?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | setting | value | without it |
//! |---|---|---|
//! | `shapes` | `[M x K, M x K: rNuN, ...]`, layers as outputs x inputs, with tiles of their own | |
//! | `model` | `"NAME"` of a known model, or `"FILE.toml"`: all its layers | |
//! | `formats` | `[i2_s, tl1, tl2, base3]` or some of them | all |
//! | `isas` | `[scalar, avx2, ...]` | all |
//! | `tile` | `rNuN`, rows per pass and unroll of the layers' kernels | what does well untuned |
//! | `preset` | `"FILE.toml"` of `trilut tune`: also its winners for layers with as many inputs, made for these | |
//! | `kernels` | `[gemm_dot_r8t32_avx512, ...]`: kernels by their whole names | |
//!
//! Kernels are made for a number of inputs: layers with as many share them, and a tile with them.
//!
//! Files are looked for from the directory of `Cargo.toml`, and a change of one rebuilds the crate. The
//! same words are arguments of `trilut codegen` and methods of `trilut_build`, whose build script leaves
//! out other architectures where a macro, which cannot see the target, emits everything under
//! `cfg(target_arch)`.
//!
//! What the macro leaves in the module:
//!
//! * for each shape and format a safe function `gemv_<format>_<M>x<K>` that checks lengths and picks the most
//!   capable ISA of this CPU once;
//! * `REGISTRY`, all kernels, which `trilut_runtime::Engine` and the tuner take, and its parts `KERNELS`,
//!   `GEMM_KERNELS` and `BATCH_KERNELS`;
//! * `check_all`, which runs all that this CPU can run against the scalar reference.

mod input;

use input::Input;
use proc_macro2::TokenStream;
use quote::quote;
use trilut_codegen::SetModule;

/// Generates kernels; see the crate's documentation.
///
/// ```text
/// kernels! { formats = [FORMAT, ...]; isas = [ISA, ...]; shapes = [M x K, ...]; }
/// ```
#[proc_macro]
pub fn kernels(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let expanded = syn::parse(input).and_then(|input| expand(&input));
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

fn expand(input: &Input) -> syn::Result<TokenStream> {
    let module = SetModule::new(&input.set, None).map_err(|error| input.place(error))?;
    let items = module.items(&input.library);
    let files = input.files.iter().filter_map(|path| path.to_str());
    Ok(quote! {
        #items

        // The compiler rebuilds what includes a file that changed.
        #(const _: &[u8] = include_bytes!(#files);)*
    })
}
