//! A small-batch kernel is a value, like a gemv kernel: it multiplies rows of the stored copy with a few
//! tokens at once, so that weights are read and unpacked once for all of them.

use crate::{Activation, Activations, KernelInfo, Layout, PackedView, Supported};
use std::ops::Range;
use trilut_presets::{BatchName, Shape, Tile};

/// The most tokens of a call.
pub const MOST_BATCH_TOKENS: usize = 16;

/// The most tokens that are a small batch, in several calls for the same rows: more are a prompt, whatever was
/// measured.
pub const MOST_SMALL_BATCH: usize = 3 * MOST_BATCH_TOKENS;

/// The arguments of a generated small-batch function: some tokens, some rows.
///
/// The function checks them against each other before its first load, so a wrong caller panics and
/// never reads outside the slices.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The whole packed matrix, in the kernel's [`Layout`].
    pub weights: &'a [u8],
    /// The prepared activations of each token, in the kernel's [`Activation`] form.
    pub tokens: &'a [&'a [u8]],
    /// The sum of each token's activations, subtracted once because codes are `t + 1`.
    pub token_sums: &'a [i32],
    /// The matrix's size.
    pub shape: Shape,
    /// The rows to compute.
    pub rows: Range<usize>,
    /// Prefetch distance in bytes.
    pub prefetch: usize,
    /// One exact int32 sum per token and row of `rows`, token by token.
    pub out: &'a mut [i32],
}

impl<'a> Batch<'a> {
    /// Checks that all parts fit together, and lends weights and activations for the call.
    ///
    /// # Panics
    /// When a slice is shorter than the shape needs in these forms, or rows, tokens and output do not match.
    pub fn check(&self, layout: Layout, activation: Activation) -> (&'a [u8], &'a [&'a [u8]]) {
        let Self { weights, tokens, token_sums, shape, rows, out, .. } = self;
        assert!((1..=Shape::MAX_M).contains(&shape.m) && (1..=Shape::MAX_K).contains(&shape.k));
        assert!(weights.len() >= layout.bytes(*shape), "weights are too short");
        let bytes = activation.bytes(shape.k);
        assert!(tokens.iter().all(|token| token.len() >= bytes), "activations are too short");
        assert!(rows.start <= rows.end && rows.end <= shape.m, "rows are outside the matrix");
        assert_eq!(rows.len() * tokens.len(), out.len(), "one output per token and row");
        assert_eq!(tokens.len(), token_sums.len(), "one sum per token");
        (weights, tokens)
    }
}

/// The generated function of a small-batch kernel.
///
/// # Safety
/// The CPU must support the kernel's ISA.
pub type BatchFn = for<'a, 'b> unsafe fn(&'a mut Batch<'b>);

/// What there is to know of a small-batch kernel.
pub type BatchInfo = KernelInfo<BatchName>;

/// One generated small-batch kernel: a function, reached through [`BatchRunnable`], and what there is to
/// know of it.
#[derive(Debug)]
pub struct BatchKernel {
    info: BatchInfo,
    run: BatchFn,
}

impl BatchKernel {
    /// Joins a function with its description, which cannot be changed afterwards.
    ///
    /// # Safety
    /// `run` must need no more of the CPU than `info.name.isa` stands for.
    pub const unsafe fn new(info: BatchInfo, run: BatchFn) -> Self {
        Self { info, run }
    }

    /// Where its machine code begins, for tools that show it.
    pub fn code(&self) -> *const u8 {
        self.run as *const u8
    }
}

impl std::ops::Deref for BatchKernel {
    type Target = BatchInfo;

    fn deref(&self) -> &BatchInfo {
        &self.info
    }
}

/// A small-batch kernel together with the proof that this CPU supports its ISA.
#[derive(Debug, Clone, Copy)]
pub struct BatchRunnable {
    kernel: &'static BatchKernel,
    _proof: Supported,
}

/// A call that a small-batch kernel refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The weights are packed for another layout.
    #[error("kernel {kernel} reads layout {wants:?}, the weights are packed as {given:?}")]
    Layout {
        /// The kernel's name.
        kernel: &'static str,
        /// The layout it reads.
        wants: Layout,
        /// The layout of the weights.
        given: Layout,
    },
    /// A token was not prepared in the kernel's form, or has another length.
    #[error("kernel {kernel} needs {wants:?} activations of length {k}")]
    Activations {
        /// The kernel's name.
        kernel: &'static str,
        /// The form it reads.
        wants: Activation,
        /// The length it needs.
        k: usize,
    },
    /// There are more tokens than a call takes.
    #[error("kernel {kernel} takes at most {MOST_BATCH_TOKENS} tokens, not {given}")]
    Tokens {
        /// The kernel's name.
        kernel: &'static str,
        /// The tokens that were given.
        given: usize,
    },
    /// The rows are outside the matrix or do not match the output's length.
    #[error("rows {rows:?} of {m} for {tokens} tokens do not fit {out} outputs")]
    Rows {
        /// The rows that were asked for.
        rows: Range<usize>,
        /// The number of rows of the matrix.
        m: usize,
        /// The number of tokens.
        tokens: usize,
        /// The length of the output.
        out: usize,
    },
}

impl BatchRunnable {
    /// Pairs a kernel with the proof for its ISA; `None` when the proof is for another ISA.
    pub fn new(kernel: &'static BatchKernel, proof: Supported) -> Option<Self> {
        (proof.isa() == kernel.name.isa).then_some(Self { kernel, _proof: proof })
    }

    /// The kernel.
    pub fn kernel(&self) -> &'static BatchKernel {
        self.kernel
    }

    /// How weights must be packed for it.
    pub fn layout(&self) -> Layout {
        self.kernel.layout
    }

    /// How activations must be prepared for it.
    pub fn activation(&self) -> Activation {
        self.kernel.activation
    }

    /// Computes `out[t * rows.len() + i] = sum_k w[rows.start + i][k] * q[t][k]` for every token `t`, exactly.
    ///
    /// # Errors
    /// When layout, activations, rows, tokens or output do not fit together; nothing is written then.
    pub fn run<'t>(
        &self,
        weights: PackedView<'_>,
        tokens: impl ExactSizeIterator<Item = &'t Activations>,
        rows: Range<usize>,
        tile: Tile,
        out: &mut [i32],
    ) -> Result<(), BatchError> {
        let kernel = self.kernel;
        let shape = weights.shape();
        if weights.layout() != kernel.layout {
            return Err(BatchError::Layout {
                kernel: kernel.text,
                wants: kernel.layout,
                given: weights.layout(),
            });
        }
        let count = tokens.len();
        if count > MOST_BATCH_TOKENS {
            return Err(BatchError::Tokens { kernel: kernel.text, given: count });
        }
        if rows.start > rows.end || rows.end > shape.m || rows.len() * count != out.len() {
            return Err(BatchError::Rows { rows, m: shape.m, tokens: count, out: out.len() });
        }
        let mut prepared: [&[u8]; MOST_BATCH_TOKENS] = [&[]; MOST_BATCH_TOKENS];
        let mut sums = [0; MOST_BATCH_TOKENS];
        for ((token, prepared), sum) in tokens.zip(&mut prepared).zip(&mut sums) {
            *prepared = token.get(kernel.activation, shape.k).ok_or(BatchError::Activations {
                kernel: kernel.text,
                wants: kernel.activation,
                k: shape.k,
            })?;
            *sum = token.sum();
        }
        let mut call = Batch {
            weights: weights.bytes(),
            tokens: &prepared[..count],
            token_sums: &sums[..count],
            shape,
            rows,
            prefetch: tile.prefetch,
            out,
        };
        // SAFETY: `_proof` was made by detection for the kernel's ISA, so the CPU supports it, and
        // whoever made the kernel vouched that the function needs no more than that.
        unsafe { (kernel.run)(&mut call) };
        Ok(())
    }
}
