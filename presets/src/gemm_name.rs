//! The grammar of the names of gemm kernels.
//!
//! ```text
//! name      = "gemm" "_" algorithm "_" micro "_" isa
//! algorithm = "vlut" | "dot" | "madd" | "mmla" | "mix"
//! micro     = vlut: "g" GROUP "p" TABLES "t" TOKENS [ "w" WIDTH ]
//!             dot, madd, mmla: "r" ROWS "t" TOKENS [ "w" WIDTH ]
//!             mix: "p" TABLES "s" STEPS "r" ROWS "t" TOKENS [ "w" WIDTH ]
//! ```
//!
//! A gemm kernel reads a panel of some rows (indices or codes), which is filled from the stored copy of
//! any format, so no format is part of its name. `w` is written only for ISAs whose vector width is not
//! given by their name (`emulated`). Examples: `gemm_vlut_g4p8t32_avx512`, `gemm_dot_r8t32_avx512`.

use crate::kernel_name::number;
use crate::{Isa, ParseError};

/// How a gemm kernel computes its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GemmAlgorithm {
    /// Vector lookup: for every group of inputs a table of all signed sums, one vector of tokens per
    /// entry; a group of weights is an index, and costs one addition.
    Vlut {
        /// Inputs per group: 3, 4 or 5.
        group: usize,
        /// Tables that are live in one pass over the rows.
        tables: usize,
    },
    /// A register tile of rows by tokens; groups of four products straight to int32.
    Dot {
        /// Rows of the register tile.
        rows: usize,
    },
    /// A register tile of rows by tokens; pairs of products to int16, widened in time.
    Madd {
        /// Rows of the register tile.
        rows: usize,
    },
    /// A register tile of rows by tokens; 2 x 2 products of rows of eight, added to int32.
    Mmla {
        /// Rows of the register tile.
        rows: usize,
    },
    /// Lookup and a register tile of `dot` in one pass over K: lookups are bound by loads and products
    /// by the multipliers, so that together they exceed the peak of either.
    Mix {
        /// Tables of 4 inputs in a pass.
        tables: usize,
        /// Steps of 4 inputs that are multiplied in a pass.
        steps: usize,
        /// Rows of the register tile.
        rows: usize,
    },
}

impl GemmAlgorithm {
    /// The word in kernel names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vlut { .. } => "vlut",
            Self::Dot { .. } => "dot",
            Self::Madd { .. } => "madd",
            Self::Mmla { .. } => "mmla",
            Self::Mix { .. } => "mix",
        }
    }
}

/// The algorithm of the gemm kernel that an ISA gets where nothing was tuned: what does well on every
/// machine measured so far, also beside other programs (`trilut tune --phase prefill`).
pub const fn default_gemm_point(isa: Isa) -> GemmAlgorithm {
    match isa {
        Isa::AvxVnni => GemmAlgorithm::Mix { tables: 8, steps: 8, rows: 4 },
        Isa::Avx512 => GemmAlgorithm::Dot { rows: 6 },
        // By their multiply-adds per instruction; not measured.
        Isa::Dotprod => GemmAlgorithm::Dot { rows: 4 },
        Isa::I8mm => GemmAlgorithm::Mmla { rows: 8 },
        _ => GemmAlgorithm::Vlut { group: 4, tables: 8 },
    }
}

/// The parts of a gemm kernel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GemmName {
    /// How it computes.
    pub algorithm: GemmAlgorithm,
    /// Tokens of one tile.
    pub tokens: usize,
    /// Vector width in bytes, where the ISA leaves it open.
    pub width: Option<usize>,
    /// The instruction set it is spelled for.
    pub isa: Isa,
}

impl std::fmt::Display for GemmName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { algorithm, tokens, width, isa } = self;
        write!(f, "gemm_{}_", algorithm.name())?;
        match algorithm {
            GemmAlgorithm::Vlut { group, tables } => write!(f, "g{group}p{tables}")?,
            GemmAlgorithm::Dot { rows }
            | GemmAlgorithm::Madd { rows }
            | GemmAlgorithm::Mmla { rows } => write!(f, "r{rows}")?,
            GemmAlgorithm::Mix { tables, steps, rows } => {
                write!(f, "p{tables}s{steps}r{rows}")?;
            }
        }
        write!(f, "t{tokens}")?;
        if let Some(width) = width {
            write!(f, "w{width}")?;
        }
        write!(f, "_{isa}")
    }
}

impl std::str::FromStr for GemmName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |rule: &str| ParseError::new("gemm kernel name", text, rule);
        let parts: Vec<&str> = text.split('_').collect();
        let &["gemm", algorithm, mut rest, isa] = parts.as_slice() else {
            return Err(bad("gemm_algorithm_micro_isa"));
        };
        let algorithm = match algorithm {
            "vlut" => (|| {
                let group = number(&mut rest, 'g')?;
                Some(GemmAlgorithm::Vlut { group, tables: number(&mut rest, 'p')? })
            })(),
            "dot" => number(&mut rest, 'r').map(|rows| GemmAlgorithm::Dot { rows }),
            "madd" => number(&mut rest, 'r').map(|rows| GemmAlgorithm::Madd { rows }),
            "mmla" => number(&mut rest, 'r').map(|rows| GemmAlgorithm::Mmla { rows }),
            "mix" => (|| {
                let (tables, steps) = (number(&mut rest, 'p')?, number(&mut rest, 's')?);
                Some(GemmAlgorithm::Mix { tables, steps, rows: number(&mut rest, 'r')? })
            })(),
            _ => return Err(bad("the algorithm must be vlut, dot, madd, mmla or mix")),
        };
        let (algorithm, tokens) = algorithm.zip(number(&mut rest, 't')).ok_or_else(|| {
            bad("the micro tile must read g<N>p<N>t<N> (vlut), r<N>t<N> or p<N>s<N>r<N>t<N> (mix)")
        })?;
        let width = number(&mut rest, 'w');
        if !rest.is_empty() {
            return Err(bad("the micro tile must end with t<N> or w<N>"));
        }
        Ok(Self { algorithm, tokens, width, isa: isa.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_survives_the_round_trip() {
        for text in [
            "gemm_vlut_g4p8t32_avx512",
            "gemm_vlut_g3p16t8w16_emulated",
            "gemm_dot_r8t32_avx512",
            "gemm_madd_r4t16_avx2",
            "gemm_mmla_r8t8_i8mm",
            "gemm_mix_p8s16r8t32_avx512",
        ] {
            let name: GemmName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "",
            "gemm",
            "gemv_vlut_g4p8t32_avx512",
            "gemm_lut_g4p8t32_avx512",
            "gemm_vlut_p8g4t32_avx512",
            "gemm_vlut_g4p8_avx512",
            "gemm_vlut_g04p8t32_avx512",
            "gemm_dot_g4p8t32_avx512",
            "gemm_dot_r8t32x_avx512",
            "gemm_dot_r8t32_sse9",
            "gemm_dot_r8t32_avx512_k2560",
            "gemm_mix_p8r8t32_avx512",
        ] {
            assert!(text.parse::<GemmName>().is_err(), "{text}");
        }
    }
}
