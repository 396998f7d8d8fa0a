//! A kernel of any kind, where they are told apart only now and then.

use crate::{Activation, BatchRunnable, GemmRunnable, Layout, Runnable};
use trilut_presets::{Format, Isa, Phase};

/// A kernel of any kind.
#[derive(Debug, Clone, Copy)]
pub enum AnyKernel {
    /// Multiplies one token: decode.
    Gemv(Runnable),
    /// Multiplies a few tokens: small batches.
    Batch(BatchRunnable),
    /// Multiplies panels of rows with tiles of tokens: prefill.
    Gemm(GemmRunnable),
}

impl AnyKernel {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gemv(kernel) => kernel.kernel().text,
            Self::Batch(kernel) => kernel.kernel().text,
            Self::Gemm(kernel) => kernel.kernel().text,
        }
    }

    /// The hash of its emitted text.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Gemv(kernel) => kernel.kernel().hash,
            Self::Batch(kernel) => kernel.kernel().hash,
            Self::Gemm(kernel) => kernel.kernel().hash,
        }
    }

    /// The instruction set it is spelled for.
    pub fn isa(&self) -> Isa {
        match self {
            Self::Gemv(kernel) => kernel.kernel().name.isa,
            Self::Batch(kernel) => kernel.kernel().name.isa,
            Self::Gemm(kernel) => kernel.kernel().name.isa,
        }
    }

    /// The part of inference it is for.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Gemv(_) => Phase::Decode,
            Self::Batch(_) => Phase::SmallBatch,
            Self::Gemm(_) => Phase::Prefill,
        }
    }

    /// The codec that it reads; `None` for gemm kernels, whose panels are filled from any.
    pub fn format(&self) -> Option<Format> {
        match self {
            Self::Gemv(kernel) => Some(kernel.kernel().name.format),
            Self::Batch(kernel) => Some(kernel.kernel().name.format),
            Self::Gemm(_) => None,
        }
    }

    /// How weights must be packed for it; `stored` for gemm kernels, whose panels are filled from any.
    pub fn layout(&self, stored: Layout) -> Layout {
        match self {
            Self::Gemv(kernel) => kernel.layout(),
            Self::Batch(kernel) => kernel.layout(),
            Self::Gemm(_) => stored,
        }
    }

    /// How activations must be prepared for it; `None` for gemm kernels, whose tiles are arranged.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Self::Gemv(kernel) => Some(kernel.activation()),
            Self::Batch(kernel) => Some(kernel.activation()),
            Self::Gemm(_) => None,
        }
    }

    /// Whether it reads the prefetch distance.
    pub fn prefetches(&self) -> bool {
        match self {
            Self::Gemv(kernel) => kernel.kernel().prefetches,
            Self::Batch(kernel) => kernel.kernel().prefetches,
            Self::Gemm(_) => false,
        }
    }

    /// Vector instructions per weight and token.
    pub fn instructions(&self) -> f64 {
        match self {
            Self::Gemv(kernel) => kernel.kernel().cost.instructions_per_weight,
            Self::Batch(kernel) => kernel.kernel().cost.instructions_per_weight,
            Self::Gemm(kernel) => kernel.kernel().instructions,
        }
    }
}
