//! The parts of inference, which have kernels of their own.

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
