//! How a tensor's elements are stored, and what the numbers of other types mean.

use trilut_kernels::float::blocks::BlockFormat;

/// The stored type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 8-bit codes with an f16 scale for each 32.
    Q8_0,
    /// 6-bit codes in blocks of 256, with a scale for each 16 and an f16 for all of them.
    Q6K,
    /// Ternary weights at 2 bits in 128-weight blocks, then one f32 scale.
    I2S,
    /// A type that can be listed but not used, by its number in the file.
    Other(u32),
}

impl TensorKind {
    /// The kind of a number in a file.
    pub const fn from_id(id: u32) -> Self {
        match id {
            0 => Self::F32,
            1 => Self::F16,
            8 => Self::Q8_0,
            14 => Self::Q6K,
            36 => Self::I2S,
            other => Self::Other(other),
        }
    }

    /// The number in a file.
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Q6K => 14,
            Self::I2S => 36,
            Self::Other(id) => id,
        }
    }

    /// The name in ggml, such as `Q6_K`, or `unknown`.
    pub fn name(self) -> &'static str {
        TypeFacts::of(self.id(), false).name
    }

    /// Bytes that `elements` of this kind take when written, or `None` for `Other`, whose size depends
    /// on the program that wrote it. I2_S ends with the scale and 28 bytes of padding.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        match self {
            Self::F32 => elements.checked_mul(4),
            Self::F16 => elements.checked_mul(2),
            Self::Q8_0 | Self::Q6K => {
                let format = self.block_format()?;
                elements.div_ceil(format.weights() as u64).checked_mul(format.bytes() as u64)
            }
            Self::I2S => elements.div_ceil(4).checked_add(32),
            Self::Other(_) => None,
        }
    }
}

impl TensorKind {
    /// The format of the blocks of Q8_0 and Q6_K.
    pub const fn block_format(self) -> Option<BlockFormat> {
        match self {
            Self::Q8_0 => Some(BlockFormat::Q8_0),
            Self::Q6K => Some(BlockFormat::Q6K),
            _ => None,
        }
    }
}

/// What is known about the number of a type.
#[derive(Debug, Clone, Copy)]
pub(super) struct TypeFacts {
    /// The name in ggml, or `unknown`.
    pub(super) name: &'static str,
    /// The programs that write it, as the object of "written by".
    pub(super) writer: &'static str,
    /// Elements per block and bytes per block; `None` where sizes are not block-wise.
    block: Option<(u64, u64)>,
}

const LLAMA: &str = "llama.cpp and its converters";
const BITNET: &str = "the bitnet.cpp converters";
const IK: &str = "ik_llama.cpp";

/// Number, name, writer, elements per block, bytes per block (0 = not block-wise).
const TYPES: &[(u32, &str, &str, u64, u64)] = &[
    (0, "F32", LLAMA, 1, 4),
    (1, "F16", LLAMA, 1, 2),
    (2, "Q4_0", LLAMA, 32, 18),
    (3, "Q4_1", LLAMA, 32, 20),
    (6, "Q5_0", LLAMA, 32, 22),
    (7, "Q5_1", LLAMA, 32, 24),
    (8, "Q8_0", LLAMA, 32, 34),
    (9, "Q8_1", LLAMA, 32, 36),
    (10, "Q2_K", LLAMA, 256, 84),
    (11, "Q3_K", LLAMA, 256, 110),
    (12, "Q4_K", LLAMA, 256, 144),
    (13, "Q5_K", LLAMA, 256, 176),
    (14, "Q6_K", LLAMA, 256, 210),
    (15, "Q8_K", LLAMA, 256, 292),
    (16, "IQ2_XXS", LLAMA, 256, 66),
    (17, "IQ2_XS", LLAMA, 256, 74),
    (18, "IQ3_XXS", LLAMA, 256, 98),
    (19, "IQ1_S", LLAMA, 256, 50),
    (20, "IQ4_NL", LLAMA, 32, 18),
    (21, "IQ3_S", LLAMA, 256, 110),
    (22, "IQ2_S", LLAMA, 256, 82),
    (23, "IQ4_XS", LLAMA, 256, 136),
    (24, "I8", LLAMA, 1, 1),
    (25, "I16", LLAMA, 1, 2),
    (26, "I32", LLAMA, 1, 4),
    (27, "I64", LLAMA, 1, 8),
    (28, "F64", LLAMA, 1, 8),
    (29, "IQ1_M", LLAMA, 256, 56),
    (30, "BF16", LLAMA, 1, 2),
    (31, "Q4_0_4_4", "llama.cpp of 2024", 0, 0),
    (32, "Q4_0_4_8", "llama.cpp of 2024", 0, 0),
    (33, "Q4_0_8_8", "llama.cpp of 2024", 0, 0),
    (34, "TQ1_0", LLAMA, 256, 54),
    (35, "TQ2_0", LLAMA, 256, 66),
    (36, "I2_S", BITNET, 0, 0),
    (37, "I8_S", "bitnet.cpp (a type for activations)", 0, 0),
    (38, "TL1", BITNET, 0, 0),
    (39, "MXFP4", LLAMA, 32, 17),
    (40, "NVFP4", LLAMA, 0, 0),
    (41, "Q1_0", LLAMA, 0, 0),
    (42, "TL2", "the bitnet.cpp converters since 2026", 0, 0),
    (134, "IQ1_BN", IK, 0, 0),
    (135, "IQ2_BN", IK, 0, 0),
    (335, "IQ2_BN_R4", IK, 0, 0),
];

impl TypeFacts {
    /// What number `id` means. The bitnet.cpp converters used 39 for TL2 before llama.cpp gave that
    /// number to MXFP4, so `bitnet` says whether the rest of the file points to them.
    pub(super) fn of(id: u32, bitnet: bool) -> Self {
        if id == 39 && bitnet {
            return Self { name: "TL2", writer: BITNET, block: None };
        }
        match TYPES.iter().find(|entry| entry.0 == id) {
            None => Self { name: "unknown", writer: "a program that is not known", block: None },
            Some(&(_, name, writer, elements, bytes)) => {
                Self { name, writer, block: (elements > 0).then_some((elements, bytes)) }
            }
        }
    }

    /// Whether the size in bytes follows from the number of elements.
    pub(super) fn is_sized(&self) -> bool {
        self.block.is_some() || matches!(self.name, "I2_S" | "TL1")
    }

    /// The bytes that are read of a tensor with rows of `row` elements, `elements` in all, where the
    /// type tells. Of I2_S that is the codes and the scale: nothing reads the padding after them, and
    /// a file may end without it.
    pub(super) fn bytes(&self, row: u64, elements: u64) -> Option<u64> {
        match (self.name, self.block) {
            ("I2_S" | "TL1", _) => elements.div_ceil(4).checked_add(4),
            (_, Some((block, bytes))) => {
                (elements / row).checked_mul(row.div_ceil(block))?.checked_mul(bytes)
            }
            _ => None,
        }
    }
}
