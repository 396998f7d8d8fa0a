//! How a tensor's elements are stored, and what the numbers of types mean.

use trilut_kernels::float::blocks::BlockFormat;

/// The stored type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// 4-bit codes with an f16 scale for each 32.
    Q4_0,
    /// 4-bit codes with an f16 scale and an f16 offset for each 32.
    Q4_1,
    /// 5-bit codes with an f16 scale for each 32.
    Q5_0,
    /// 8-bit codes with an f16 scale for each 32.
    Q8_0,
    /// 4-bit codes in blocks of 256, with a scale and an offset for each 32 and two f16 for all of them.
    Q4K,
    /// 6-bit codes in blocks of 256, with a scale for each 16 and an f16 for all of them.
    Q6K,
    /// Ternary weights, see [`crate::ternary`].
    I2S,
    /// Ternary weights, see [`crate::ternary`].
    Tl1,
    /// Ternary weights, see [`crate::ternary`].
    Tl2,
    /// Ternary weights, see [`crate::ternary`].
    Tq1_0,
    /// Ternary weights, see [`crate::ternary`].
    Tq2_0,
    /// Ternary weights, see [`crate::ternary`].
    Q2_0,
    /// Ternary weights, see [`crate::ternary`].
    Iq1Bn,
    /// Ternary weights, see [`crate::ternary`].
    Iq2Bn,
    /// Ternary weights, see [`crate::ternary`].
    Iq2BnR4,
    /// A type that can be listed but not used, by its number in the file.
    Other(u32),
}

/// The kinds and their numbers. Number 42 is also what bitnet.cpp of 2026 writes for TL2.
const IDS: &[(TensorKind, u32)] = &[
    (TensorKind::F32, 0),
    (TensorKind::F16, 1),
    (TensorKind::Q4_0, 2),
    (TensorKind::Q4_1, 3),
    (TensorKind::Q5_0, 6),
    (TensorKind::Q8_0, 8),
    (TensorKind::Q4K, 12),
    (TensorKind::Q6K, 14),
    (TensorKind::BF16, 30),
    (TensorKind::Tq1_0, 34),
    (TensorKind::Tq2_0, 35),
    (TensorKind::I2S, 36),
    (TensorKind::Tl1, 38),
    (TensorKind::Tl2, 39),
    (TensorKind::Q2_0, 42),
    (TensorKind::Iq1Bn, 134),
    (TensorKind::Iq2Bn, 135),
    (TensorKind::Iq2BnR4, 335),
];

impl TensorKind {
    /// The kind of a number in a file. bitnet.cpp's TL2 has the numbers 39 and, since 2026, 42, which
    /// llama.cpp gave to MXFP4 and Q2_0: `bitnet` says whether the rest of the file points to bitnet.cpp.
    pub fn from_id(id: u32, bitnet: bool) -> Self {
        match id {
            39 | 42 if bitnet => Self::Tl2,
            39 => Self::Other(39),
            _ => IDS.iter().find(|(_, n)| *n == id).map_or(Self::Other(id), |(kind, _)| *kind),
        }
    }

    /// The number in a file.
    pub fn id(self) -> u32 {
        match self {
            Self::Other(id) => id,
            kind => IDS.iter().find(|(k, _)| *k == kind).map_or(0, |(_, id)| *id),
        }
    }

    /// The name in ggml, such as `Q6_K`, or `unknown`.
    pub fn name(self) -> &'static str {
        TypeFacts::of(self.id(), self == Self::Tl2).name
    }

    /// Bytes that a tensor of these dimensions (inputs first) takes when written, or `None` for `Other`,
    /// whose size depends on the program that wrote it, and where the count is too large. I2_S, TL1 and
    /// TL2 end with the scale and 28 bytes of padding; Q2_0 has blocks of 64.
    pub fn bytes(self, dims: &[u64]) -> Option<u64> {
        let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
        let row = *dims.first().filter(|row| **row > 0)?;
        match self {
            Self::Other(_) => None,
            Self::I2S | Self::Tl1 => elements.div_ceil(4).checked_add(32),
            Self::Tl2 => {
                // The converter's own formula, each step rounded down.
                let outputs = elements / row;
                let triples = row.checked_sub(256)?.checked_mul(outputs)? / 3 * 5 / 8;
                (triples + 256 * outputs / 2 * 4 / 8).next_multiple_of(32).checked_add(32)
            }
            Self::Q2_0 => elements.div_ceil(64).checked_mul(18),
            kind => TypeFacts::of(kind.id(), false).bytes(row, elements),
        }
    }

    /// The format of blocks that embeddings and heads are stored in.
    pub const fn block_format(self) -> Option<BlockFormat> {
        match self {
            Self::Q4_0 => Some(BlockFormat::Q4_0),
            Self::Q4_1 => Some(BlockFormat::Q4_1),
            Self::Q5_0 => Some(BlockFormat::Q5_0),
            Self::Q8_0 => Some(BlockFormat::Q8_0),
            Self::Q4K => Some(BlockFormat::Q4K),
            Self::Q6K => Some(BlockFormat::Q6K),
            _ => None,
        }
    }

    /// Whether its weights are ternary, to be read by [`crate::ternary`].
    pub const fn is_ternary(self) -> bool {
        matches!(
            self,
            Self::I2S
                | Self::Tl1
                | Self::Tl2
                | Self::Tq1_0
                | Self::Tq2_0
                | Self::Q2_0
                | Self::Iq1Bn
                | Self::Iq2Bn
                | Self::Iq2BnR4
        )
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
    (42, "Q2_0", LLAMA, 0, 0),
    (134, "IQ1_BN", IK, 64, 13),
    (135, "IQ2_BN", IK, 64, 16),
    (335, "IQ2_BN_R4", IK, 64, 16),
];

impl TypeFacts {
    /// What number `id` means; `bitnet` as for [`TensorKind::from_id`].
    pub(super) fn of(id: u32, bitnet: bool) -> Self {
        match TYPES.iter().find(|entry| entry.0 == id) {
            _ if bitnet && id == 39 => Self { name: "TL2", writer: BITNET, block: None },
            _ if bitnet && id == 42 => {
                Self { name: "TL2", writer: "the bitnet.cpp converters since 2026", block: None }
            }
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
        let (block, bytes) = match self.block {
            _ if matches!(self.name, "I2_S" | "TL1") => {
                return elements.div_ceil(4).checked_add(4);
            }
            block => block?,
        };
        // A row's scale, besides the blocks.
        let scale = match self.name {
            "IQ1_BN" => 2,
            "IQ2_BN" | "IQ2_BN_R4" => 4,
            _ => 0,
        };
        let of_row = row.div_ceil(block).checked_mul(bytes)?.checked_add(scale)?;
        (elements / row).checked_mul(of_row)
    }
}
