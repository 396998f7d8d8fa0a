//! What a kernel computes, and when.

/// The operation of a micro-kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// Matrix times one token's activations.
    Gemv,
    /// Matrix times many tokens' activations.
    Gemm,
}

impl Op {
    /// Every operation.
    pub const ALL: &[Self] = &[Self::Gemv, Self::Gemm];

    /// The first word of kernel names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gemv => "gemv",
            Self::Gemm => "gemm",
        }
    }
}

crate::named!(Op, "op");

/// The part of inference that a pick is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// One token at a time: weights are streamed from memory.
    Decode,
    /// A few tokens at once (several chats, speculation).
    SmallBatch,
    /// A prompt: many tokens at once.
    Prefill,
}

impl Phase {
    /// Every phase.
    pub const ALL: &[Self] = &[Self::Decode, Self::SmallBatch, Self::Prefill];

    /// The name in preset files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::SmallBatch => "batch",
            Self::Prefill => "prefill",
        }
    }
}

crate::named!(Phase, "phase");
