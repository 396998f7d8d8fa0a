//! What can be wrong with a ternary matrix of a file.

use super::Tile;
use trilut_presets::Shape;

/// A ternary matrix that cannot be read or written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The codec has no form for matrices of this size.
    #[error("{codec} cannot store {shape}: {rule}")]
    Size {
        /// The codec's name.
        codec: &'static str,
        /// The matrix's size.
        shape: Shape,
        /// What a size must fulfil.
        rule: &'static str,
    },
    /// Bytes are missing.
    #[error("{codec} stores {shape} in {wants} bytes, but there are {given}")]
    Length {
        /// The codec's name.
        codec: &'static str,
        /// The matrix's size.
        shape: Shape,
        /// The bytes that are needed.
        wants: usize,
        /// The bytes that are there.
        given: usize,
    },
    /// A code stands for no weight.
    #[error("row {row} has the code {code}, which is no {codec} code of a ternary weight")]
    Code {
        /// The codec's name.
        codec: &'static str,
        /// The row.
        row: usize,
        /// The code found.
        code: u8,
    },
    /// A scale is not a positive number.
    #[error("the scale of row {row} is {scale}, not a positive number")]
    Scale {
        /// The first row that has it.
        row: usize,
        /// The value found.
        scale: f32,
    },
    /// The codec has no scale for each group of weights of a row.
    #[error("{codec} cannot store a scale for each {inputs} weights of a row")]
    Groups {
        /// The codec's name.
        codec: &'static str,
        /// Weights of a group.
        inputs: usize,
    },
    /// The codec has one scale, the rows have different ones.
    #[error("{codec} has one scale for a matrix, but its rows have different ones")]
    OneScale {
        /// The codec's name.
        codec: &'static str,
    },
    /// Other counts than the shape asks for.
    #[error("{shape} has {wants} {what}, {given} were given")]
    Count {
        /// The matrix's size.
        shape: Shape,
        /// What is counted.
        what: &'static str,
        /// The count that is needed.
        wants: usize,
        /// The count that was given.
        given: usize,
    },
    /// A weight is not -1, 0 or 1.
    #[error("row {row} has the weight {value}; ternary weights are -1, 0 and 1")]
    NotTernary {
        /// The row.
        row: usize,
        /// The value found.
        value: i8,
    },
    /// A tile does not fit the matrix.
    #[error(
        "{codec} cannot store {shape} in tiles of BM = {}, BK = {}, bm = {}: {rule}",
        tile.outputs, tile.inputs, tile.step
    )]
    Tile {
        /// The codec's name.
        codec: &'static str,
        /// The matrix's size.
        shape: Shape,
        /// The tile.
        tile: Box<Tile>,
        /// What a tile must fulfil.
        rule: &'static str,
    },
}
