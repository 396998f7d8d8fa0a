//! What a legal spec amounts to: vector width, and int16 banks that are proven not to wrap.

use crate::{Error, Spec};
use trilut_presets::{Algorithm, Format, Isa};

/// A set of int16 accumulators that are widened to int32 together, in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bank {
    /// What it sums, in words.
    pub what: &'static str,
    /// The largest magnitude that one add contributes to a lane, for any int8 activations.
    pub magnitude: u32,
    /// Adds to each lane in one step of the inner loop.
    pub adds_per_step: u32,
    /// Steps between two widenings.
    pub steps: u32,
    /// Whether the interval is bounded by int16; if not, the format ends sooner by itself.
    pub tight: bool,
}

impl Bank {
    /// A bank with the longest legal interval.
    ///
    /// Sums of at most `adds` values of at most `magnitude` reach `adds * magnitude`; int16 holds
    /// -32768..=32767. Where the magnitude comes from q = -128 the extreme of that sum is either
    /// negative, and -32768 still fits, or stays below +32768 because q = +127 is the other extreme.
    /// `exact` says that the positive extreme can reach `magnitude` too, so that +32768 must be avoided.
    pub(crate) fn longest(
        what: &'static str,
        magnitude: u32,
        exact: bool,
        adds_per_step: u32,
    ) -> Self {
        let limit = if exact { 32767 } else { 32768 };
        let adds = limit / magnitude;
        Self { what, magnitude, adds_per_step, steps: adds / adds_per_step, tight: true }
    }

    /// Adds between two widenings.
    pub const fn adds(self) -> u32 {
        self.adds_per_step * self.steps
    }

    /// The bound in words, a line of a report for each bank; a line for none.
    pub(crate) fn report(banks: &[Self]) -> Vec<String> {
        if banks.is_empty() {
            return vec!["int16      none: products go straight to int32".to_owned()];
        }
        let line = |bank: &Self| {
            let Self { what, magnitude, steps, .. } = bank;
            let adds = bank.adds();
            let reach = match adds * magnitude {
                32768 => "-32768, the lowest that int16 holds".to_owned(),
                sum => format!("{sum} in magnitude"),
            };
            let steps = if *steps == 1 { "step".to_owned() } else { format!("{steps} steps") };
            format!(
                "int16      {what}: {adds} adds of at most {magnitude} reach {reach}; widened every {steps}"
            )
        };
        banks.iter().map(line).collect()
    }
}

/// A spec that is legal, with everything that lowering needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is generated.
    pub spec: Spec,
    /// Vector width in bytes.
    pub width: usize,
    /// The int16 banks of the inner loop, in the order in which they are listed in [`Plan::report`].
    /// Empty when products go straight to int32.
    pub banks: Vec<Bank>,
    /// Base 3 by `dot` alone: steps after which its int32 sums of fractions are merged. What must fit
    /// int32 is `256 sum(digit q)` of one lane; the sums themselves may wrap.
    pub merge_steps: Option<u32>,
    /// Whether the ISA's product of four takes signed codes, which must then be below 128.
    pub signed: bool,
}

impl Plan {
    /// Checks a spec and works out its plan.
    ///
    /// # Errors
    /// When the spec is illegal; see [`Error`].
    pub fn new(spec: &Spec) -> Result<Self, Error> {
        let name = spec.name;
        if !algorithms(name.format).contains(&name.algorithm) {
            return Err(Error::Algorithm {
                algorithm: name.algorithm,
                format: name.format,
                legal: words(algorithms(name.format)),
            });
        }
        let spelled = spells(name.isa, name.format);
        if !spelled.contains(&name.algorithm) {
            return Err(Error::Spelling {
                isa: name.isa,
                algorithm: name.algorithm,
                legal: if spelled.is_empty() {
                    "none for this format, CPUs with it run the kernels of a lesser isa".to_owned()
                } else {
                    words(&spelled)
                },
            });
        }
        let width = width(spec)?;
        check_micro(spec, width)?;
        if let (Some(m), Some(k)) = (name.fixed.m.or(Some(1)), name.fixed.k) {
            trilut_presets::Shape::new(m, k)?;
        }
        // 32 bytes of packed weights are one step; a narrower vector adds to its lanes more than once.
        let loads = if width < 32 { 32 / width as u32 } else { 1 };
        let banks = match (name.format, name.algorithm) {
            (Format::I2S, Algorithm::Madd) => {
                vec![Bank::longest("pairs of codes 0..2 times q", 2 * 2 * 128, false, 4 * loads)]
            }
            (Format::I2S, Algorithm::MaddX4) => vec![
                Bank::longest("pairs of codes 0..2 times q", 2 * 2 * 128, false, 2 * loads),
                Bank::longest(
                    "pairs of codes 0..2, in place x4, times q",
                    2 * 8 * 128,
                    false,
                    2 * loads,
                ),
            ],
            // Lookup lanes are rows, so the width does not change the number of adds.
            (Format::Tl1, _) => vec![Bank::longest("pair sums", 2 * 128, true, 2)],
            // A negated entry is stored as its complement, -v - 1.
            (Format::Tl2, _) => vec![
                Bank::longest("triple sums or their complements", 3 * 128 + 1, true, 2),
                // Fewer than 6 weights are left over for pairs: two steps of 4.
                Bank {
                    what: "pair sums of the tail",
                    magnitude: 2 * 128,
                    adds_per_step: 2,
                    steps: 2,
                    tight: false,
                },
            ],
            (Format::Base3, Algorithm::Madd) => {
                vec![Bank::longest("pairs of digits 0..2 times q", 2 * 2 * 128, false, 5 * loads)]
            }
            (Format::I2S | Format::Base3, _) => vec![],
        };
        // A lane adds four products of each of the five planes per load, each at most 256 * 2 * 128.
        let fractions = name.format == Format::Base3 && name.algorithm == Algorithm::Dot;
        let merge_steps = fractions.then(|| ((1 << 31) - 1) / (256 * 2 * 128) / (4 * 5 * loads));
        let signed = name.isa == Isa::Dotprod;
        Ok(Self { spec: *spec, width, banks, merge_steps, signed })
    }

    /// The same plan with bank `index` widened one step too late. It is wrong on purpose: tests show
    /// that each bound is needed.
    #[must_use]
    pub fn raised(mut self, index: usize) -> Self {
        self.banks[index].steps += 1;
        self
    }

    /// The plan in words, one fact per line.
    pub fn report(&self) -> String {
        let name = self.spec.name;
        let mut lines = vec![
            format!("kernel     {name}"),
            format!("width      {} bytes", self.width),
            format!(
                "tile       {} {}",
                name.micro.rows,
                if matches!(name.format, Format::I2S | Format::Base3) {
                    "rows per pass"
                } else {
                    "groups of 32 rows per pass"
                }
            ),
            format!("unroll     {}", name.micro.unroll),
        ];
        let fixed = |side: Option<usize>| side.map_or("any".to_owned(), |n| n.to_string());
        lines.push(format!("m, k       {}, {}", fixed(name.fixed.m), fixed(name.fixed.k)));
        lines.extend(Bank::report(&self.banks));
        if let Some(steps) = self.merge_steps {
            lines.push(format!(
                "int32      sums of fractions: merged to sums of digits every {steps} steps"
            ));
        }
        lines.push(format!(
            "cost       {:.4} vector instructions per weight",
            crate::emit_gemv::cost(self)
        ));
        lines.join("\n") + "\n"
    }
}

/// The algorithms that read a format.
const fn algorithms(format: Format) -> &'static [Algorithm] {
    match format {
        Format::I2S => &[Algorithm::Madd, Algorithm::MaddX4, Algorithm::Dot],
        Format::Tl1 | Format::Tl2 => &[Algorithm::Lut],
        Format::Base3 => &[Algorithm::Madd, Algorithm::Dot, Algorithm::Lut],
    }
}

/// The algorithms that an ISA's table spells for a format; none where it has no table. An ISA that adds
/// instructions to another spells only what those are good for: its CPUs run the other's kernels too.
pub(crate) fn spells(isa: Isa, format: Format) -> Vec<Algorithm> {
    let spelled: &[Algorithm] = match isa {
        Isa::Scalar | Isa::Emulated => Algorithm::ALL,
        Isa::Avx2 if format == Format::Base3 => &[Algorithm::Madd],
        Isa::Avx2 => &[Algorithm::Madd, Algorithm::MaddX4, Algorithm::Lut],
        Isa::Avx512Vbmi if format == Format::Base3 => &[Algorithm::Lut],
        Isa::Avx512Vbmi => &[],
        Isa::Neon if format == Format::Base3 => &[Algorithm::Madd],
        Isa::Neon => &[Algorithm::Madd, Algorithm::MaddX4, Algorithm::Lut],
        Isa::AvxVnni | Isa::Avx512 | Isa::Dotprod | Isa::I8mm if format == Format::Base3 => {
            &[Algorithm::Dot]
        }
        Isa::AvxVnni | Isa::Avx512 | Isa::Dotprod | Isa::I8mm => &[Algorithm::Dot, Algorithm::Lut],
    };
    algorithms(format).iter().copied().filter(|a| spelled.contains(a)).collect()
}

pub(crate) fn words(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|a| a.name()).collect::<Vec<_>>().join(", ")
}

/// The vector width, given by the ISA or by the name.
fn width(spec: &Spec) -> Result<usize, Error> {
    let name = spec.name;
    let (legal, text): (&[(Option<usize>, usize)], &str) = match (name.isa, name.algorithm) {
        (Isa::Scalar, _) => (&[(None, 16)], "none (it is 16)"),
        (Isa::Avx2 | Isa::AvxVnni, _) => (&[(None, 32)], "none (it is 32)"),
        (Isa::Avx512, _) => (&[(None, 64), (Some(32), 32)], "none (it is 64), w32"),
        (Isa::Avx512Vbmi, _) => (&[(None, 64)], "none (it is 64)"),
        (Isa::Neon | Isa::Dotprod | Isa::I8mm, _) => (&[(None, 16)], "none (it is 16)"),
        (Isa::Emulated, Algorithm::Lut) if name.format == Format::Base3 => {
            (&[(Some(64), 64)], "w64")
        }
        (Isa::Emulated, Algorithm::Dot | Algorithm::Lut) => {
            (&[(Some(16), 16), (Some(64), 64)], "w16, w64")
        }
        (Isa::Emulated, _) => (&[(Some(16), 16)], "w16"),
    };
    let found = legal.iter().find(|(given, _)| *given == name.micro.width);
    found.map(|&(_, width)| width).ok_or_else(|| Error::Width {
        isa: name.isa,
        algorithm: name.algorithm,
        given: name.micro.width,
        legal: text.to_owned(),
    })
}

/// Rows and unroll must be among the values whose code stays small.
fn check_micro(spec: &Spec, width: usize) -> Result<(), Error> {
    let name = spec.name;
    let (rows, legal): (&[usize], _) = match name.format {
        // A vector of 64 bytes is two groups.
        Format::Tl1 | Format::Tl2 if width == 64 => (&[2, 4], "2, 4 (groups of 32)"),
        Format::Tl1 | Format::Tl2 => (&[1, 2, 4], "1, 2, 4 (groups of 32)"),
        _ => (&[1, 2, 4, 8], "1, 2, 4, 8"),
    };
    let nearest = |legal: &[usize], n: usize| {
        *legal.iter().min_by_key(|l| l.abs_diff(n)).expect("there is a legal value")
    };
    let micro = name.micro;
    if !rows.contains(&micro.rows) {
        return Err(Error::Rows {
            algorithm: name.algorithm,
            given: micro.rows,
            legal,
            nearest: nearest(rows, micro.rows),
        });
    }
    if ![1, 2, 4].contains(&micro.unroll) {
        return Err(Error::Unroll {
            given: micro.unroll,
            nearest: nearest(&[1, 2, 4], micro.unroll),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Result<Plan, Error> {
        Plan::new(&name.parse()?)
    }

    /// The table of bounds in words and numbers: each is the longest that fits int16.
    #[test]
    fn bounds_are_the_longest_that_fit() {
        for (name, index, adds) in [
            ("gemv_i2s_madd_r1u1_avx2", 0, 64),
            ("gemv_i2s_maddx4_r1u1_avx2", 0, 64),
            ("gemv_i2s_maddx4_r1u1_avx2", 1, 16),
            ("gemv_i2s_madd_r1u1w16_emulated", 0, 64),
            ("gemv_i2s_maddx4_r1u1w16_emulated", 1, 16),
            ("gemv_b3_madd_r1u1_avx2", 0, 60),
            ("gemv_b3_madd_r1u1w16_emulated", 0, 60),
            ("gemv_tl1_lut_r1u1_avx2", 0, 126),
            ("gemv_tl2_lut_r1u1_avx2", 0, 84),
            ("gemv_tl2_lut_r2u1_avx512", 0, 84),
            ("gemv_i2s_madd_r1u1_neon", 0, 64),
            ("gemv_i2s_maddx4_r1u1_neon", 1, 16),
        ] {
            let bank = plan(name).unwrap().banks[index];
            assert_eq!(bank.adds(), adds, "{name}");
            assert!(bank.adds() * bank.magnitude <= 32768, "{name}");
            assert!((bank.adds() + bank.adds_per_step) * bank.magnitude >= 32768, "{name}");
        }
    }

    #[test]
    fn illegal_specs_name_the_rule_and_the_nearest_value() {
        for (name, words) in [
            ("gemm_i2s_madd_r1u1_avx2", "begin with gemv"),
            ("gemv_i2s_lut_r1u1_avx2", "madd, maddx4, dot"),
            ("gemv_tl1_madd_r1u1_avx2", "legal for it: lut"),
            ("gemv_i2s_madd_r5u1_avx2", "nearest: 4"),
            ("gemv_i2s_madd_r1u3_avx2", "nearest: 2"),
            ("gemv_tl2_lut_r8u1_avx2", "nearest: 4"),
            ("gemv_i2s_madd_r1u1w16_avx2", "none (it is 32)"),
            ("gemv_i2s_madd_r1u1_emulated", "w16"),
            ("gemv_i2s_dot_r1u1_emulated", "w16, w64"),
            ("gemv_i2s_dot_r1u1_avx2", "madd, maddx4"),
            ("gemv_i2s_madd_r1u1_avx512", "legal: dot"),
            ("gemv_tl2_lut_r1u1_avx512vbmi", "a lesser isa"),
            ("gemv_tl2_lut_r1u1_avx512", "nearest: 2"),
            ("gemv_i2s_dot_r1u1w16_avx512", "w32"),
            ("gemv_i2s_dot_r1u1_neon", "madd, maddx4"),
            ("gemv_i2s_madd_r1u1_i8mm", "legal: dot"),
        ] {
            let error = plan(name).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
