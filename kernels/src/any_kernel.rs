//! A kernel of either op, where both are told apart only now and then.

use crate::{GemmRunnable, Layout, Runnable};
use trilut_presets::{Format, Isa, Phase};

/// A kernel of either op.
#[derive(Debug, Clone, Copy)]
pub enum AnyKernel {
    /// Multiplies one token: decode.
    Gemv(Runnable),
    /// Multiplies panels of rows with tiles of tokens: prefill.
    Gemm(GemmRunnable),
}

impl AnyKernel {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gemv(kernel) => kernel.kernel().text,
            Self::Gemm(kernel) => kernel.kernel().text,
        }
    }

    /// The hash of its emitted text.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Gemv(kernel) => kernel.kernel().hash,
            Self::Gemm(kernel) => kernel.kernel().hash,
        }
    }

    /// The instruction set it is spelled for.
    pub fn isa(&self) -> Isa {
        match self {
            Self::Gemv(kernel) => kernel.kernel().name.isa,
            Self::Gemm(kernel) => kernel.kernel().name.isa,
        }
    }

    /// The part of inference it is for.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Gemv(_) => Phase::Decode,
            Self::Gemm(_) => Phase::Prefill,
        }
    }

    /// The codec that it reads; `None` for gemm kernels, whose panels are filled from any.
    pub fn format(&self) -> Option<Format> {
        match self {
            Self::Gemv(kernel) => Some(kernel.kernel().name.format),
            Self::Gemm(_) => None,
        }
    }

    /// How weights must be packed for it; `stored` for gemm kernels, whose panels are filled from any.
    pub fn layout(&self, stored: Layout) -> Layout {
        match self {
            Self::Gemv(kernel) => kernel.layout(),
            Self::Gemm(_) => stored,
        }
    }

    /// Vector instructions per weight and token.
    pub fn instructions(&self) -> f64 {
        match self {
            Self::Gemv(kernel) => kernel.kernel().cost.instructions_per_weight,
            Self::Gemm(kernel) => kernel.kernel().instructions,
        }
    }
}
