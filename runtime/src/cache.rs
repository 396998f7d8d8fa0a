//! The key/value cache: what attention remembers of every position, as f16 or in eight bits.

use crate::Error;
use crate::model::Config;
use half::f16;
use std::ops::Range;
use std::sync::OnceLock;
use trilut_kernels::Supported;
use trilut_kernels::float::{elementwise, stored};
use trilut_kernels::pool::Parts;
use trilut_presets::Machine;

/// What keys and values are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// Two bytes a value.
    #[default]
    F16,
    /// A byte a value, and an f16 scale for each 32 of a head.
    Q8,
}

impl CacheType {
    /// The name that llama.cpp has for it: `f16`, `q8_0`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8 => "q8_0",
        }
    }

    /// Bytes of a row of `width` values.
    const fn bytes(self, width: usize) -> usize {
        match self {
            Self::F16 => 2 * width,
            Self::Q8 => width + 2 * stored::scales_of(width),
        }
    }
}

/// Keys and values of some sequences, each of up to `context` positions.
///
/// One head's positions lie next to each other (sequence, layer, kv head, position, dimension), so that
/// attention reads them as one stream. Memory is committed by the system as positions are first used.
#[derive(Debug)]
pub struct Cache {
    keys: Store,
    values: Store,
    lengths: Vec<usize>,
    layout: Layout,
    of: CacheType,
}

/// All keys or all values. Integers, bits of f16 too: a vector of integer zeros comes from the system as
/// untouched zero pages.
#[derive(Debug)]
enum Store {
    F16(Vec<u16>),
    Q8 { codes: Vec<i8>, scales: Vec<u16> },
}

impl Store {
    /// Zeros for `rows` rows of a head, or nothing when the system refuses that much.
    fn zeros(of: CacheType, rows: usize, width: usize) -> Option<Self> {
        Some(match of {
            CacheType::F16 => Self::F16(bytemuck::try_zeroed_vec(rows * width).ok()?),
            CacheType::Q8 => Self::Q8 {
                codes: bytemuck::try_zeroed_vec(rows * width).ok()?,
                scales: bytemuck::try_zeroed_vec(rows * stored::scales_of(width)).ok()?,
            },
        })
    }

    /// Copies rows to where `to` rows lie before them.
    fn copy(&mut self, from: Range<usize>, to: usize, width: usize) {
        let times = |n: usize| (from.start * n..from.end * n, to * n);
        match self {
            Self::F16(all) => {
                let (from, to) = times(width);
                all.copy_within(from, to);
            }
            Self::Q8 { codes, scales } => {
                let (from, to) = times(width);
                codes.copy_within(from, to);
                let (from, to) = times(stored::scales_of(width));
                scales.copy_within(from, to);
            }
        }
    }

    fn parts(&mut self) -> StoreParts<'_> {
        match self {
            Self::F16(all) => StoreParts::F16(Parts::new(bytemuck::cast_slice_mut(all))),
            Self::Q8 { codes, scales } => StoreParts::Q8 {
                codes: Parts::new(codes),
                scales: Parts::new(bytemuck::cast_slice_mut(scales)),
            },
        }
    }
}

/// A [`Store`], lent to the workers of a region.
pub(crate) enum StoreParts<'a> {
    F16(Parts<'a, f16>),
    Q8 { codes: Parts<'a, i8>, scales: Parts<'a, f16> },
}

impl StoreParts<'_> {
    /// Some rows of `width`.
    ///
    /// # Safety
    /// As [`Parts::get`].
    pub(crate) unsafe fn get(&self, rows: Range<usize>, width: usize) -> Stored<'_> {
        let times = |n: usize| rows.start * n..rows.end * n;
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F16(all) => Stored::F16(all.get(times(width))),
                Self::Q8 { codes, scales } => Stored::Q8 {
                    codes: codes.get(times(width)),
                    scales: scales.get(times(stored::scales_of(width))),
                },
            }
        }
    }

    /// Stores a row.
    ///
    /// # Safety
    /// As [`Parts::get_mut`].
    pub(crate) unsafe fn set(&self, isa: Supported, row: usize, x: &[f32]) {
        let times = |n: usize| row * n..(row + 1) * n;
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F16(all) => elementwise::narrow_f16(isa, x, all.get_mut(times(x.len()))),
                Self::Q8 { codes, scales } => {
                    let scales = scales.get_mut(times(stored::scales_of(x.len())));
                    stored::store_q8(isa, x, x.len(), codes.get_mut(times(x.len())), scales);
                }
            }
        }
    }
}

/// Rows of keys or of values of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    F16(&'a [f16]),
    Q8 { codes: &'a [i8], scales: &'a [f16] },
}

impl<'a> Stored<'a> {
    /// How many rows of `width` there are.
    pub(crate) fn rows(self, width: usize) -> usize {
        match self {
            Self::F16(all) => all.len() / width,
            Self::Q8 { codes, .. } => codes.len() / width,
        }
    }

    /// Some of the rows as f32, which is exact.
    pub(crate) fn widen(self, isa: Supported, rows: Range<usize>, width: usize, out: &mut [f32]) {
        let times = |n: usize| rows.start * n..rows.end * n;
        match self {
            Self::F16(all) => elementwise::widen_f16(isa, &all[times(width)], out),
            Self::Q8 { codes, scales } => {
                let scales = &scales[times(stored::scales_of(width))];
                stored::widen_q8(isa, &codes[times(width)], scales, width, out);
            }
        }
    }
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
    /// When it is larger than the machine's memory, or the system refuses that much.
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
        let zeros = || Store::zeros(of, rows, config.head_dim);
        let too_large = || Error::CacheSize { sequences, context };
        let (keys, values) = (zeros().ok_or_else(too_large)?, zeros().ok_or_else(too_large)?);
        Ok(Self { keys, values, lengths: vec![0; sequences], layout, of })
    }

    /// The rows of the keys, or of the values, if the machine's memory holds both.
    pub(crate) fn check(
        config: &Config,
        sequences: usize,
        context: usize,
        of: CacheType,
    ) -> Result<usize, Error> {
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
                self.keys.copy(source.clone(), target, layout.head_dim);
                self.values.copy(source, target, layout.head_dim);
            }
        }
        self.lengths[to] = len;
    }

    /// Records that a sequence holds `len` positions.
    pub(crate) fn set_len(&mut self, sequence: usize, len: usize) {
        self.lengths[sequence] = len;
    }

    /// The layout, all keys and all values.
    pub(crate) fn parts(&mut self) -> (Layout, StoreParts<'_>, StoreParts<'_>) {
        let Self { keys, values, layout, .. } = self;
        (*layout, keys.parts(), values.parts())
    }
}
