//! The grammar of the names of small-batch kernels.
//!
//! ```text
//! name      = "batch" "_" format "_" algorithm "_" micro "_" isa
//! format    = "i2s" | "b3"
//! algorithm = "madd" | "dot" | "lut" | "mmla"
//! micro     = "r" ROWS "t" TOKENS [ "w" WIDTH ]      register tile: rows by tokens, vector bytes
//! ```
//!
//! A small-batch kernel multiplies the stored copy that decoding reads with a few tokens at once: weights
//! are unpacked once for a tile of tokens. `w` is written only for ISAs whose vector width is not given by
//! their name (`emulated`). Examples: `batch_i2s_dot_r4t4_avx512`, `batch_b3_lut_r2t8_avx512vbmi`.

use crate::kernel_name::number;
use crate::{Algorithm, Format, Isa, ParseError};

/// The parts of a small-batch kernel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchName {
    /// The stored codec it reads.
    pub format: Format,
    /// How it computes: as a gemv kernel does, but that every code and digit is brought to the bottom of
    /// its byte, so that a row needs one sum per token.
    pub algorithm: Algorithm,
    /// Rows of the register tile.
    pub rows: usize,
    /// Tokens of the register tile, at most.
    pub tokens: usize,
    /// Vector width in bytes, where the ISA leaves it open.
    pub width: Option<usize>,
    /// The instruction set it is spelled for.
    pub isa: Isa,
}

impl std::fmt::Display for BatchName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { format, algorithm, rows, tokens, width, isa } = self;
        write!(f, "batch_{}_{algorithm}_r{rows}t{tokens}", format.word())?;
        if let Some(width) = width {
            write!(f, "w{width}")?;
        }
        write!(f, "_{isa}")
    }
}

impl std::str::FromStr for BatchName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |rule: &str| ParseError::new("small-batch kernel name", text, rule);
        let parts: Vec<&str> = text.split('_').collect();
        let &["batch", format, algorithm, mut rest, isa] = parts.as_slice() else {
            return Err(bad("batch_format_algorithm_micro_isa"));
        };
        let format = Format::ALL.iter().copied().find(|f| f.word() == format);
        let tile = number(&mut rest, 'r').zip(number(&mut rest, 't'));
        let width = number(&mut rest, 'w');
        let (rows, tokens) = tile
            .filter(|_| rest.is_empty())
            .ok_or_else(|| bad("the micro tile must read r<N>t<N>[w<N>]"))?;
        Ok(Self {
            format: format.ok_or_else(|| bad("the format must be i2s, tl1, tl2 or b3"))?,
            algorithm: algorithm.parse()?,
            rows,
            tokens,
            width,
            isa: isa.parse()?,
        })
    }
}

/// Algorithm, rows and tokens of the small-batch kernel that a format gets where nothing was tuned; `None`
/// for formats that have none: lanes of the lookup formats are rows, so nothing that is unpacked would
/// serve two tokens.
pub const fn default_batch_point(format: Format, isa: Isa) -> Option<(Algorithm, usize, usize)> {
    match (format, isa) {
        (Format::Tl1 | Format::Tl2, _) => None,
        (Format::Base3, Isa::Avx512Vbmi) => Some((Algorithm::Lut, 4, 4)),
        (_, Isa::Avx512 | Isa::Avx512Vbmi) => Some((Algorithm::Dot, 4, 4)),
        (_, Isa::AvxVnni) => Some((Algorithm::Dot, 2, 4)),
        // More rows at a time leave too few registers for codes and products.
        (_, Isa::Avx2) => Some((Algorithm::Madd, 1, 8)),
        (_, Isa::Neon) => Some((Algorithm::Madd, 2, 4)),
        (_, Isa::Dotprod) => Some((Algorithm::Dot, 4, 4)),
        // By its multiply-adds per instruction; not measured.
        (_, Isa::I8mm) => Some((Algorithm::Mmla, 8, 8)),
        (_, _) => Some((Algorithm::Dot, 1, 4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_survives_the_round_trip() {
        for text in [
            "batch_i2s_dot_r4t4_avx512",
            "batch_b3_lut_r2t8_avx512vbmi",
            "batch_i2s_madd_r2t4_avx2",
            "batch_b3_dot_r1t3w64_emulated",
            "batch_i2s_mmla_r8t8_i8mm",
        ] {
            let name: BatchName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "",
            "batch",
            "gemv_i2s_dot_r4t4_avx512",
            "batch_i2_s_dot_r4t4_avx512",
            "batch_i2s_dot_r4_avx512",
            "batch_i2s_dot_t4r4_avx512",
            "batch_i2s_dot_r04t4_avx512",
            "batch_i2s_dot_r4t4u2_avx512",
            "batch_i2s_vlut_r4t4_avx512",
            "batch_i2s_dot_r4t4_sse9",
            "batch_i2s_dot_r4t4_avx512_k2560",
        ] {
            assert!(text.parse::<BatchName>().is_err(), "{text}");
        }
    }
}
