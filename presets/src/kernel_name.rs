//! The grammar of the names of gemv kernels, which multiply one token.
//!
//! ```text
//! name      = "gemv" "_" format "_" algorithm "_" micro "_" isa [ "_" fixed ]
//! format    = "i2s" | "tl1" | "tl2" | "b3"
//! algorithm = "madd" | "maddx4" | "dot" | "lut"
//! micro     = "r" ROWS "u" UNROLL [ "w" WIDTH ]     rows per call, blocks per step, vector bytes
//! isa       = "scalar" | "emulated" | "avx2" | ...
//! fixed     = [ "m" M ] "k" K                        a kernel for one K, or one M and K
//! ```
//!
//! `w` is written only for ISAs whose vector width is not given by their name (`emulated`).
//! Examples: `gemv_i2s_maddx4_r4u2_avx2`, `gemv_tl2_lut_r1u1_avx2_k6912`.

use crate::{Format, Isa, ParseError, Shape};

/// How a micro-kernel computes its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// Unsigned codes times signed activations, pairs added to int16, widened in time.
    Madd,
    /// As `madd`, two of the four bit planes left in place (values x4): one shift instead of three.
    MaddX4,
    /// Groups of four products added straight to int32; no plane is shifted, no base-3 digit extracted.
    Dot,
    /// Weight indices looked up in tables of signed activation sums; for base 3, bytes looked up in tables
    /// of their digits.
    Lut,
    /// 2 x 2 products of two rows with two tokens, eight inputs each, added to int32: small batches alone.
    Mmla,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: &[Self] = &[Self::Madd, Self::MaddX4, Self::Dot, Self::Lut, Self::Mmla];

    /// The word in kernel names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Madd => "madd",
            Self::MaddX4 => "maddx4",
            Self::Dot => "dot",
            Self::Lut => "lut",
            Self::Mmla => "mmla",
        }
    }
}

crate::named!(Algorithm, "algorithm");

/// Algorithm, rows and unroll of the kernel that a format gets where nothing was tuned: fastest, or near
/// it, on every x86-64 machine measured so far (`trilut tune --shape 6912x2560`). One row at a time keeps
/// one stream per thread for the formats that store row after row; four groups share each table load of
/// the lookup formats.
pub const fn default_point(format: Format, isa: Isa) -> (Algorithm, usize, usize) {
    match (format, isa) {
        // Array vectors gain nothing from a wider tile.
        (Format::I2S, Isa::Scalar) => (Algorithm::Dot, 1, 1),
        (_, Isa::Scalar) => (Algorithm::Lut, 1, 1),
        (Format::Base3, Isa::Avx512Vbmi) => (Algorithm::Lut, 1, 2),
        (Format::I2S | Format::Base3, Isa::AvxVnni | Isa::Avx512 | Isa::Dotprod | Isa::I8mm) => {
            (Algorithm::Dot, 1, 2)
        }
        (Format::I2S, _) => (Algorithm::MaddX4, 1, 2),
        (Format::Base3, _) => (Algorithm::Madd, 1, 2),
        // Four would leave no registers for indices.
        (Format::Tl1 | Format::Tl2, Isa::Neon | Isa::Dotprod | Isa::I8mm) => (Algorithm::Lut, 2, 2),
        (Format::Tl1 | Format::Tl2, _) => (Algorithm::Lut, 4, 2),
    }
}

/// The loop structure that is compiled into a micro-kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MicroTile {
    /// Rows (for lookup formats: groups of 32 rows) that share one pass over the activations.
    pub rows: usize,
    /// Steps per iteration of the inner loop.
    pub unroll: usize,
    /// Vector width in bytes, where the ISA leaves it open.
    pub width: Option<usize>,
}

impl std::fmt::Display for MicroTile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}u{}", self.rows, self.unroll)?;
        self.width.map_or(Ok(()), |w| write!(f, "w{w}"))
    }
}

impl std::str::FromStr for MicroTile {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut rest = text;
        let micro = (|| {
            let rows = number(&mut rest, 'r')?;
            let unroll = number(&mut rest, 'u')?;
            let width = number(&mut rest, 'w');
            rest.is_empty().then_some(Self { rows, unroll, width })
        })();
        let rule = "the micro tile must read r<ROWS>u<UNROLL>[w<BYTES>], such as r4u2";
        micro.ok_or_else(|| ParseError::new("micro tile", text, rule))
    }
}

/// The sizes that a micro-kernel is specialised for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Fixed {
    /// The one number of rows it accepts, if fixed.
    pub m: Option<usize>,
    /// The one number of inputs it accepts, if fixed. An `m` is never fixed alone.
    pub k: Option<usize>,
}

impl Fixed {
    /// Whether a kernel fixed like this can run `shape`.
    pub fn accepts(self, shape: Shape) -> bool {
        self.m.is_none_or(|m| m == shape.m) && self.k.is_none_or(|k| k == shape.k)
    }
}

/// The parts of a kernel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelName {
    /// The stored codec it reads.
    pub format: Format,
    /// How it computes.
    pub algorithm: Algorithm,
    /// Its compiled-in loop structure.
    pub micro: MicroTile,
    /// The instruction set it is spelled for.
    pub isa: Isa,
    /// The sizes it is specialised for.
    pub fixed: Fixed,
}

impl std::fmt::Display for KernelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { format, algorithm, micro, isa, fixed } = self;
        write!(f, "gemv_{}_{algorithm}_{micro}_{isa}", format.word())?;
        if let Some(k) = fixed.k {
            f.write_str("_")?;
            if let Some(m) = fixed.m {
                write!(f, "m{m}")?;
            }
            write!(f, "k{k}")?;
        }
        Ok(())
    }
}

/// Reads `<letter><digits>` from the front of `text`; the rest stays in `text`.
pub(crate) fn number(text: &mut &str, letter: char) -> Option<usize> {
    let rest = text.strip_prefix(letter)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    // Leading zeros would give one kernel two names.
    if digits.starts_with('0') {
        return None;
    }
    let value = digits.parse().ok()?;
    *text = tail;
    Some(value)
}

impl std::str::FromStr for KernelName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |rule: &str| ParseError::new("kernel name", text, rule);
        let parts: Vec<&str> = text.split('_').collect();
        let (head, fixed) = match parts.as_slice() {
            [head @ .., fixed] if parts.len() == 6 => (head, Some(*fixed)),
            head if parts.len() == 5 => (head, None),
            _ => return Err(bad("gemv_format_algorithm_micro_isa[_fixed]")),
        };
        if head[0] != "gemv" {
            return Err(bad("it must begin with gemv"));
        }
        let format = Format::ALL.iter().copied().find(|f| f.word() == head[1]);
        let fixed = match fixed {
            None => Fixed::default(),
            Some(mut rest) => {
                let m = number(&mut rest, 'm');
                let k = number(&mut rest, 'k');
                if k.is_none() || !rest.is_empty() {
                    return Err(bad("the last part must read k<K> or m<M>k<K>"));
                }
                Fixed { m, k }
            }
        };
        Ok(Self {
            format: format.ok_or_else(|| bad("the format must be i2s, tl1, tl2 or b3"))?,
            algorithm: head[2].parse()?,
            micro: head[3].parse().map_err(|error: ParseError| bad(&error.rule))?,
            isa: head[4].parse()?,
            fixed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_survives_the_round_trip() {
        for text in [
            "gemv_i2s_maddx4_r4u2_avx2",
            "gemv_i2s_dot_r1u1w64_emulated",
            "gemv_tl2_lut_r1u1_avx2_k6912",
            "gemv_b3_dot_r2u4_avx512",
            "gemv_i2s_madd_r4u2_avx2_m6912k2560",
        ] {
            let name: KernelName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "",
            "gemv_i2s_madd_r4u2",
            "gemv_i2_s_madd_r4u2_avx2",
            "gemv_i2s_madd_r4_avx2",
            "gemv_i2s_madd_r04u2_avx2",
            "gemv_i2s_madd_r4u2_sse9",
            "gemv_i2s_madd_r4u2_avx2_m6912",
            "gemv_i2s_madd_r4u2_avx2_k",
            "gemv_i2s_madd_r4u2_avx2_k1_k2",
            "gemm_i2s_madd_r4u2_avx2",
        ] {
            assert!(text.parse::<KernelName>().is_err(), "{text}");
        }
    }
}
