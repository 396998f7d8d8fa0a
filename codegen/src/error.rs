//! Why a spec is illegal.

use trilut_presets::{Algorithm, Format, Isa, MicroTile, ParseError, Shape};

/// A spec that no kernel can be generated for. Each names the rule and the nearest legal values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
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
    #[error("isa `{isa}` does not spell gemm algorithm `{algorithm}`; legal: {legal}")]
    GemmSpelling {
        /// The ISA asked for.
        isa: Isa,
        /// The algorithm asked for.
        algorithm: &'static str,
        /// The algorithms that its table spells.
        legal: String,
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
    /// A set of kernels without a shape, model or kernel.
    #[error("no kernel is asked for: name a shape, a model or a kernel")]
    Empty,
    /// The same thing was asked for twice.
    #[error("{what} `{given}` is listed twice")]
    Twice {
        /// What it is.
        what: &'static str,
        /// The thing.
        given: String,
    },
    /// A tile for a layer that is not asked for.
    #[error("layer {shape} is not of this set, so it cannot have the tile {tile}; legal: {legal}")]
    Layer {
        /// The layer.
        shape: Shape,
        /// Its tile.
        tile: MicroTile,
        /// The layers of the set.
        legal: String,
    },
    /// Two tiles for layers that share their kernels.
    #[error(
        "layers {first} and {second} have as many inputs, so they share their kernels and cannot have the \
         tiles {} and {}", tiles[0], tiles[1]
    )]
    Tiles {
        /// A layer.
        first: Shape,
        /// Another with as many inputs.
        second: Shape,
        /// Their tiles.
        tiles: [MicroTile; 2],
    },
    /// None of the ISAs asked for has kernels for a format.
    #[error("no isa of this set reads format `{format}`; legal: {legal}")]
    Unread {
        /// The format.
        format: Format,
        /// The ISAs that read it.
        legal: String,
    },
    /// The path of the kernels crate is no path.
    #[error(
        "`{given}` is no path of a crate or module, such as ::trilut_kernels or ::trilut::kernels"
    )]
    Library {
        /// The text that was given.
        given: String,
    },
    /// A preset knows nothing of the layers, formats and ISAs asked for.
    #[error("no record of this preset is for a layer, format and isa of this set")]
    Preset {
        /// Which of the presets, in the order in which they were given.
        index: usize,
    },
    /// A word of the spec that could not be read.
    #[error(transparent)]
    Word(#[from] ParseError),
}
