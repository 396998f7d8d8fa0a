//! How ternary weights are stored.

/// The stored codec of a ternary weight matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Two bits per weight, codes `t + 1`, in 128-weight blocks of 32 bytes; canonical in GGUF files.
    I2S,
    /// A 4-bit index per pair of weights, looked up in a table of 9 pair sums.
    Tl1,
    /// A 4-bit index and a sign bit per triple of weights (1.67 bits per weight), pair tail as TL1.
    Tl2,
    /// Five weights per byte (1.6 bits per weight): their base-3 number as a fraction of 243, in 160-weight
    /// blocks of 32 bytes.
    Base3,
}

impl Format {
    /// Every format, in order of declaration.
    pub const ALL: &[Self] = &[Self::I2S, Self::Tl1, Self::Tl2, Self::Base3];

    /// The name in files and on the command line: `i2_s`, `tl1`, `tl2`, `base3`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I2S => "i2_s",
            Self::Tl1 => "tl1",
            Self::Tl2 => "tl2",
            Self::Base3 => "base3",
        }
    }

    /// The word in kernel names, where `_` separates the parts: `i2s`, `tl1`, `tl2`, `b3`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::I2S => "i2s",
            Self::Tl1 => "tl1",
            Self::Tl2 => "tl2",
            Self::Base3 => "b3",
        }
    }
}

crate::named!(Format, "format");
