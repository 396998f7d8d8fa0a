//! Vectors in the form in which the rows of a matrix are multiplied with them.

use super::blocks::q6_k;
use super::stored::store_i16;

/// The vectors that one matrix is multiplied with.
#[derive(Debug)]
pub enum Vectors<'a> {
    /// As they are.
    Floats(Vec<&'a [f32]>),
    /// In sixteen bits.
    Integers(Vec<Integers>),
}

/// A vector as integers, each of which stands for the scale of its block times it.
#[derive(Debug, Clone)]
pub struct Integers {
    /// Block by block, each in the order of [`q6_k`].
    pub(super) codes: Vec<Block>,
    /// Of each block.
    pub(super) scales: Vec<f32>,
}

/// The integers of a block: vectors of them that lie on lines of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Block(pub(super) [i16; q6_k::BLOCK]);

impl Integers {
    /// Rounds a vector, see [`store_i16`]: a block that is not finite has a scale that is not.
    ///
    /// # Panics
    /// When it is not whole blocks of [`q6_k::BLOCK`].
    pub fn of(isa: crate::Supported, x: &[f32]) -> Self {
        let (blocks, rest) = x.as_chunks::<{ q6_k::BLOCK }>();
        assert!(rest.is_empty(), "whole blocks");
        let mut scales = vec![0.0; blocks.len()];
        let codes = blocks.iter().zip(&mut scales).map(|(block, scale)| {
            let mut codes = [0; q6_k::BLOCK];
            store_i16(isa, block, q6_k::BLOCK, &mut codes, std::slice::from_mut(scale));
            Block(q6_k::arranged(&codes))
        });
        Self { codes: codes.collect(), scales }
    }

    /// Blocks of the vector.
    pub(super) fn blocks(&self) -> usize {
        self.codes.len()
    }
}
