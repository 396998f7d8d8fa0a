//! How kernels read the stored copy of a format: a row of facts for each.

use crate::emit::ident;
use proc_macro2::{Literal, TokenStream};
use quote::quote;
use trilut_presets::Format;

/// What kernels have to know of a stored copy.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The variant of `trilut_kernels::Layout`.
    layout: &'static str,
    /// The variants of `trilut_kernels::Activation` that go with it: for vectors of 64 bytes, and for others.
    activations: [&'static str; 2],
    /// Bytes of packed weights streamed per weight.
    bytes_per_weight: f64,
    /// The line of a kernel's documentation.
    pub(crate) rows: &'static str,
}

impl Stored {
    /// The facts of a format.
    pub(crate) const fn of(format: Format) -> Self {
        match format {
            Format::I2S => Self {
                layout: "I2s",
                activations: ["WideI2s", "Plain"],
                bytes_per_weight: 0.25,
                rows: "rows of 128-weight blocks, 32 bytes each, four planes of 2-bit codes t + 1",
            },
            Format::Tl1 => Self {
                layout: "Tl1",
                activations: ["PairTables"; 2],
                bytes_per_weight: 0.25,
                rows: "groups of 32 rows, a byte per row and 4 weights: two pair indices",
            },
            Format::Tl2 => Self {
                layout: "Tl2",
                activations: ["TripleTables"; 2],
                bytes_per_weight: 40.0 / (32.0 * 6.0),
                rows: "groups of 32 rows, a byte per row and 6 weights: two triple indices; a sign bit per \
                       triple; a tail of pairs",
            },
            Format::Base3 => Self {
                layout: "Base3",
                activations: ["WideBase3", "Plain"],
                bytes_per_weight: 0.2,
                rows: "rows of 160-weight blocks, 32 bytes each, five planes of base-3 digits t + 1",
            },
        }
    }

    /// The layout and the activations that kernels with vectors of `width` bytes read, as expressions.
    pub(crate) fn forms(&self, width: usize) -> [TokenStream; 2] {
        let [wide, others] = self.activations;
        let layout = ident(self.layout);
        let activation = ident(if width == 64 { wide } else { others });
        [
            quote!(::trilut_kernels::Layout::#layout),
            quote!(::trilut_kernels::Activation::#activation),
        ]
    }

    /// A kernel's analytic cost, as an expression.
    pub(crate) fn cost(&self, instructions: f64) -> TokenStream {
        let instructions = Literal::f64_unsuffixed(instructions);
        let bytes = Literal::f64_unsuffixed(self.bytes_per_weight);
        quote! {
            ::trilut_kernels::Cost {
                instructions_per_weight: #instructions,
                bytes_per_weight: #bytes,
            }
        }
    }
}
