//! Why a spec is illegal.

use trilut_presets::{Algorithm, Format, Isa, Op, ParseError};

/// A spec that no kernel can be generated for. Each names the rule and the nearest legal values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This generator has no lowering for the operation.
    #[error("no kernel computes {0}; legal: gemv")]
    Op(Op),
    /// The algorithm does not read the format.
    #[error("algorithm `{algorithm}` does not read format `{format}`; legal for it: {legal}")]
    Algorithm {
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// The format asked for.
        format: Format,
        /// The algorithms that read it.
        legal: String,
    },
    /// No small-batch kernel reads the format with the algorithm.
    #[error(
        "no small-batch kernel reads format `{format}` by algorithm `{algorithm}`; legal for it: {}",
        if legal.is_empty() { "none, it runs a token at a time" } else { legal.as_str() }
    )]
    Batch {
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// The format asked for.
        format: Format,
        /// The algorithms that read it for several tokens.
        legal: String,
    },
    /// There is no spelling table for the ISA.
    #[error(
        "no spelling for isa `{0}` yet; legal: scalar, emulated, avx2, avxvnni, avx512, avx512vbmi"
    )]
    Isa(Isa),
    /// The ISA has no instruction for the algorithm.
    #[error("isa `{isa}` does not spell algorithm `{algorithm}`; legal: {legal}")]
    Spelling {
        /// The ISA asked for.
        isa: Isa,
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// The algorithms that it spells for the format.
        legal: String,
    },
    /// The vector width is not one that the ISA and algorithm have.
    #[error("vector width {} bytes is not legal for isa `{isa}`, algorithm `{algorithm}`; legal: {legal}",
        given.map_or("(none)".to_owned(), |w| w.to_string()))]
    Width {
        /// The ISA asked for.
        isa: Isa,
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// The width asked for, if any.
        given: Option<usize>,
        /// The legal widths in words.
        legal: String,
    },
    /// Rows per pass outside the legal values.
    #[error(
        "{given} rows per pass are not legal for `{algorithm}`; legal: {legal}; nearest: {nearest}"
    )]
    Rows {
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// The value asked for.
        given: usize,
        /// The legal values in words.
        legal: &'static str,
        /// The nearest legal value.
        nearest: usize,
    },
    /// An unroll factor outside the legal values.
    #[error("unroll {given} is not legal; legal: 1, 2, 4; nearest: {nearest}")]
    Unroll {
        /// The value asked for.
        given: usize,
        /// The nearest legal value.
        nearest: usize,
    },
    /// A number of a gemm or small-batch kernel's micro tile outside the legal values.
    #[error("{given} {what} are not legal for a kernel of this kind and width; legal: {legal}")]
    Micro {
        /// What is counted.
        what: &'static str,
        /// The value asked for.
        given: usize,
        /// The legal values.
        legal: String,
    },
    /// The ISA has no instruction for the gemm algorithm.
    #[error("isa `{isa}` does not spell gemm algorithm `{algorithm}`; legal: vlut, madd")]
    GemmSpelling {
        /// The ISA asked for.
        isa: Isa,
        /// The algorithm asked for.
        algorithm: &'static str,
    },
    /// The vector width of a gemm kernel is not one that the ISA has.
    #[error("vector width {} bytes is not legal for isa `{isa}`; legal: {legal}",
        given.map_or("(none)".to_owned(), |w| w.to_string()))]
    GemmWidth {
        /// The ISA asked for.
        isa: Isa,
        /// The width asked for, if any.
        given: Option<usize>,
        /// The legal widths in words.
        legal: String,
    },
    /// A word of the spec that could not be read.
    #[error(transparent)]
    Word(#[from] ParseError),
}
