//! The key/value cache: what attention remembers of every position, as f16 or as integers.

mod store;

#[cfg(test)]
pub(crate) use store::Codes;
pub(crate) use store::{Fixed, StoreParts, Stored};

use crate::Error;
use crate::model::Config;
use std::ops::Range;
use std::sync::OnceLock;
use store::Store;
use trilut_kernels::float::stored::MOST_WIDTH;
use trilut_presets::Machine;

/// What keys and values are stored as, and what attention computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// Two bytes a value; attention in f32. What most other engines do.
    F16,
    /// Two bytes a value, and a scale for each row of a head; attention in integers: the logits are ten times
    /// nearer to those without any rounding than with f16 (`tools/reference`).
    #[default]
    Q16,
    /// A byte a value, and a scale for each row of a head; attention in integers.
    Q8,
}

impl CacheType {
    /// Its name: `f16`, `q16`, `q8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q16 => "q16",
            Self::Q8 => "q8",
        }
    }

    /// Bytes of a row of `width` values.
    const fn bytes(self, width: usize) -> usize {
        match self {
            Self::F16 => 2 * width,
            Self::Q16 => 2 * width + size_of::<f32>(),
            Self::Q8 => width + size_of::<f32>(),
        }
    }
}

/// Keys and values of some sequences, each of up to `context` positions.
///
/// One head's positions lie next to each other (sequence, layer, kv head, position, dimension), so that
/// attention reads them as one stream. Memory is committed by the system as positions are first used.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    lengths: Vec<usize>,
    layout: Layout,
    of: CacheType,
}

/// Where a head's positions lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    layers: usize,
    kv_heads: usize,
    context: usize,
    pub(crate) head_dim: usize,
}

impl Layout {
    /// The rows of `positions` of one head.
    pub(crate) fn rows(
        &self,
        sequence: usize,
        layer: usize,
        kv_head: usize,
        positions: Range<usize>,
    ) -> Range<usize> {
        let head = (sequence * self.layers + layer) * self.kv_heads + kv_head;
        let start = head * self.context;
        start + positions.start..start + positions.end
    }
}

impl Cache {
    /// An empty cache for `sequences` sequences of up to `context` positions.
    ///
    /// # Errors
    /// When it is larger than the machine's memory, or the system refuses that much; or when heads are too
    /// wide for integers.
    pub fn new(
        config: &Config,
        sequences: usize,
        context: usize,
        of: CacheType,
    ) -> Result<Self, Error> {
        let rows = Self::check(config, sequences, context, of)?;
        let layout = Layout {
            layers: config.layers,
            kv_heads: config.kv_heads,
            context,
            head_dim: config.head_dim,
        };
        let store = Store::zeros(of, rows, config.head_dim)
            .ok_or(Error::CacheSize { sequences, context })?;
        Ok(Self { store, lengths: vec![0; sequences], layout, of })
    }

    /// The rows of the keys, or of the values, if the machine's memory holds both.
    pub(crate) fn check(
        config: &Config,
        sequences: usize,
        context: usize,
        of: CacheType,
    ) -> Result<usize, Error> {
        if of != CacheType::F16 && config.head_dim > MOST_WIDTH {
            return Err(Error::Config {
                key: "attention.key_length",
                value: config.head_dim.to_string(),
                rule: "must be at most 65536 for a cache of integers",
            });
        }
        static MEMORY: OnceLock<u64> = OnceLock::new();
        // 0 where it cannot be found out; then only the address space is a limit.
        let memory = match *MEMORY.get_or_init(|| Machine::detect().memory_bytes) {
            0 => isize::MAX as u64,
            bytes => bytes,
        };
        let sizes = [sequences, config.layers, config.kv_heads, context];
        let rows = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let row = 2 * of.bytes(config.head_dim) as u64;
        let fits = |n: &usize| (*n as u64).checked_mul(row).is_some_and(|bytes| bytes <= memory);
        rows.filter(fits).ok_or(Error::CacheSize { sequences, context })
    }

    /// What it stores.
    pub fn cache_type(&self) -> CacheType {
        self.of
    }

    /// Bytes of a position of one sequence.
    pub fn bytes_per_position(config: &Config, of: CacheType) -> usize {
        2 * config.layers * config.kv_heads * of.bytes(config.head_dim)
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
                let source = layout.rows(from, layer, head, 0..len);
                let target = layout.rows(to, layer, head, 0..len).start;
                self.store.copy(&source, target, layout.head_dim);
            }
        }
        self.lengths[to] = len;
    }

    /// Records that a sequence holds `len` positions.
    pub(crate) fn set_len(&mut self, sequence: usize, len: usize) {
        self.lengths[sequence] = len;
    }

    /// The layout, and all keys and values.
    pub(crate) fn parts(&mut self) -> (Layout, StoreParts<'_>) {
        (self.layout, self.store.parts())
    }
}
