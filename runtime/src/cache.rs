//! The key/value cache: what attention remembers of every position, as f16.

use crate::Error;
use crate::model::Config;
use half::f16;
use std::ops::Range;
use std::sync::OnceLock;
use trilut_presets::Machine;

/// Keys and values of some sequences, each of up to `context` positions.
///
/// One head's positions lie next to each other (sequence, layer, kv head, position, dimension), so that
/// attention reads them as one stream. Memory is committed by the system as positions are first used.
#[derive(Debug)]
pub struct Cache {
    /// Bits of f16: a vector of integer zeros comes from the system as untouched zero pages.
    keys: Vec<u16>,
    values: Vec<u16>,
    lengths: Vec<usize>,
    layout: Layout,
}

/// Where a head's positions lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    layers: usize,
    kv_heads: usize,
    context: usize,
    head_dim: usize,
}

impl Layout {
    /// The elements of `positions` of one head.
    pub(crate) fn range(
        &self,
        sequence: usize,
        layer: usize,
        kv_head: usize,
        positions: Range<usize>,
    ) -> Range<usize> {
        let head = (sequence * self.layers + layer) * self.kv_heads + kv_head;
        let start = head * self.context + positions.start;
        start * self.head_dim..(start + positions.len()) * self.head_dim
    }
}

impl Cache {
    /// An empty cache for `sequences` sequences of up to `context` positions.
    ///
    /// # Errors
    /// When it is larger than the machine's memory, or the system refuses that much.
    pub fn new(config: &Config, sequences: usize, context: usize) -> Result<Self, Error> {
        let elements = Self::check(config, sequences, context)?;
        let layout = Layout {
            layers: config.layers,
            kv_heads: config.kv_heads,
            context,
            head_dim: config.head_dim,
        };
        let too_large = |()| Error::CacheSize { sequences, context };
        let zeros = || bytemuck::try_zeroed_vec(elements).map_err(too_large);
        Ok(Self { keys: zeros()?, values: zeros()?, lengths: vec![0; sequences], layout })
    }

    /// The elements of the keys, or of the values, if the machine's memory holds both.
    pub(crate) fn check(config: &Config, sequences: usize, context: usize) -> Result<usize, Error> {
        static MEMORY: OnceLock<u64> = OnceLock::new();
        // 0 where it cannot be found out; then only the address space is a limit.
        let memory = match *MEMORY.get_or_init(|| Machine::detect().memory_bytes) {
            0 => isize::MAX as u64,
            bytes => bytes,
        };
        let sizes = [sequences, config.layers, config.kv_heads, context, config.head_dim];
        let elements = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let fits = |n: &usize| (*n as u64).checked_mul(4).is_some_and(|bytes| bytes <= memory);
        elements.filter(fits).ok_or(Error::CacheSize { sequences, context })
    }

    /// The number of sequences.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// The most positions of a sequence.
    pub fn context(&self) -> usize {
        self.layout.context
    }

    /// The number of positions that a sequence holds; 0 for one that does not exist.
    pub fn len(&self, sequence: usize) -> usize {
        self.lengths.get(sequence).copied().unwrap_or(0)
    }

    /// Whether a sequence holds no position.
    pub fn is_empty(&self, sequence: usize) -> bool {
        self.len(sequence) == 0
    }

    /// Forgets the positions of a sequence from `len` on.
    pub fn truncate(&mut self, sequence: usize, len: usize) {
        if let Some(length) = self.lengths.get_mut(sequence) {
            *length = len.min(*length);
        }
    }

    /// Lets a sequence begin as another one does: its positions are replaced by copies of the first `len`
    /// positions of `from`, or of all that it holds. Nothing happens when one of them does not exist.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        if from.max(to) >= self.sequences() || from == to {
            return;
        }
        let (layout, len) = (self.layout, len.min(self.lengths[from]));
        for layer in 0..layout.layers {
            for head in 0..layout.kv_heads {
                let source = layout.range(from, layer, head, 0..len);
                let target = layout.range(to, layer, head, 0..len).start;
                self.keys.copy_within(source.clone(), target);
                self.values.copy_within(source, target);
            }
        }
        self.lengths[to] = len;
    }

    /// Records that a sequence holds `len` positions.
    pub(crate) fn set_len(&mut self, sequence: usize, len: usize) {
        self.lengths[sequence] = len;
    }

    /// The layout, all keys and all values.
    pub(crate) fn parts(&mut self) -> (Layout, &mut [f16], &mut [f16]) {
        let Self { keys, values, layout, .. } = self;
        (*layout, bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values))
    }
}
