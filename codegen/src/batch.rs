//! From the name of a small-batch kernel to its plan: legal register tiles, and int16 sums that cannot wrap.

use crate::plan::Bank;
use crate::{Error, plan};
use trilut_presets::{Algorithm, BatchName, Format, Isa};

/// A small-batch kernel that is legal, with everything that lowering needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// What is generated.
    pub name: BatchName,
    /// Vector width in bytes.
    pub width: usize,
    /// The int16 banks of the inner loop; none when products go straight to int32.
    pub banks: Vec<Bank>,
}

impl BatchPlan {
    /// Checks a name and works out its plan.
    ///
    /// # Errors
    /// When the kernel is illegal; the error names the rule and legal values.
    pub fn new(name: &BatchName) -> Result<Self, Error> {
        let BatchName { format, algorithm, rows, tokens, isa, .. } = *name;
        let legal = algorithms(format);
        if !legal.contains(&algorithm) {
            return Err(Error::Batch { algorithm, format, legal: plan::words(legal) });
        }
        let spelled = spells(isa, format);
        if !spelled.contains(&algorithm) {
            let legal = match spelled.as_slice() {
                [] => {
                    "none for this format, CPUs with it run the kernels of a lesser isa".to_owned()
                }
                some => plan::words(some),
            };
            return Err(Error::Spelling { isa, algorithm, legal });
        }
        let width = width(name)?;
        let (legal_rows, legal_tokens): (&[usize], &[usize]) = match algorithm {
            // Both come in pairs.
            Algorithm::Mmla => (&[2, 4, 8], &[2, 4, 6, 8]),
            _ => (&[1, 2, 4, 8], &[1, 2, 3, 4, 6, 8]),
        };
        for (what, given, legal) in [("rows", rows, legal_rows), ("tokens", tokens, legal_tokens)] {
            if !legal.contains(&given) {
                let legal = legal.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                return Err(Error::Micro { what, given, legal });
            }
        }
        // 32 bytes of packed weights are one step; a narrower vector adds to its lanes more than once.
        let loads = if width < 32 { 32 / width as u32 } else { 1 };
        let banks = match (algorithm, format) {
            (Algorithm::Madd, Format::Base3) => {
                vec![Bank::longest("pairs of digits 0..2 times q", 2 * 2 * 128, false, 5 * loads)]
            }
            (Algorithm::Madd, _) => {
                vec![Bank::longest("pairs of codes 0..2 times q", 2 * 2 * 128, false, 4 * loads)]
            }
            _ => vec![],
        };
        Ok(Self { name: *name, width, banks })
    }

    /// The same plan with its first int16 bank widened one step too late. It is wrong on purpose: tests
    /// show that the bound is needed. `None` without such a bank.
    #[must_use]
    pub fn raised(mut self) -> Option<Self> {
        self.banks.first_mut()?.steps += 1;
        Some(self)
    }

    /// The plan in words, one fact per line.
    pub fn report(&self) -> String {
        let BatchName { rows, tokens, .. } = self.name;
        let mut lines = vec![
            format!("kernel     {}", self.name),
            format!("width      {} bytes", self.width),
            format!("tile       {rows} rows by up to {tokens} tokens"),
        ];
        lines.extend(Bank::report(&self.banks));
        lines.push(format!(
            "cost       {:.4} vector instructions per weight and token of a full tile",
            crate::emit_batch::cost(self)
        ));
        lines.join("\n") + "\n"
    }
}

/// The algorithms that read a format for several tokens: those that keep one sum per row and token. (The
/// lookup formats have rows as lanes, and tables of one token.)
const fn algorithms(format: Format) -> &'static [Algorithm] {
    match format {
        Format::I2S => &[Algorithm::Madd, Algorithm::Dot, Algorithm::Mmla],
        Format::Base3 => &[Algorithm::Madd, Algorithm::Dot, Algorithm::Lut, Algorithm::Mmla],
        Format::Tl1 | Format::Tl2 => &[],
    }
}

/// The algorithms that an ISA's table spells for a format; none where it has no table.
fn spells(isa: Isa, format: Format) -> Vec<Algorithm> {
    let spelled: &[Algorithm] = match isa {
        Isa::Scalar | Isa::Emulated => Algorithm::ALL,
        Isa::Avx2 | Isa::Neon => &[Algorithm::Madd],
        Isa::AvxVnni | Isa::Avx512 | Isa::Dotprod => &[Algorithm::Dot],
        Isa::I8mm => &[Algorithm::Dot, Algorithm::Mmla],
        Isa::Avx512Vbmi if format == Format::Base3 => &[Algorithm::Lut],
        Isa::Avx512Vbmi => &[],
    };
    algorithms(format).iter().copied().filter(|a| spelled.contains(a)).collect()
}

/// The vector width, given by the ISA or by the name.
fn width(name: &BatchName) -> Result<usize, Error> {
    let (legal, text): (&[(Option<usize>, usize)], &str) = match (name.isa, name.algorithm) {
        (Isa::Scalar, _) => (&[(None, 16)], "none (it is 16)"),
        (Isa::Avx2 | Isa::AvxVnni, _) => (&[(None, 32)], "none (it is 32)"),
        (Isa::Avx512, _) => (&[(None, 64), (Some(32), 32)], "none (it is 64), w32"),
        (Isa::Avx512Vbmi, _) => (&[(None, 64)], "none (it is 64)"),
        (Isa::Emulated, Algorithm::Lut) => (&[(Some(64), 64)], "w64"),
        (Isa::Emulated, Algorithm::Dot) => (&[(Some(16), 16), (Some(64), 64)], "w16, w64"),
        (Isa::Emulated, _) => (&[(Some(16), 16)], "w16"),
        (Isa::Neon | Isa::Dotprod | Isa::I8mm, _) => (&[(None, 16)], "none (it is 16)"),
    };
    let found = legal.iter().find(|(given, _)| *given == name.width).map(|&(_, width)| width);
    found.ok_or_else(|| Error::Width {
        isa: name.isa,
        algorithm: name.algorithm,
        given: name.width,
        legal: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Result<BatchPlan, Error> {
        BatchPlan::new(&name.parse()?)
    }

    #[test]
    fn bounds_are_the_longest_that_fit() {
        for (name, adds) in [
            ("batch_i2s_madd_r2t4_avx2", 64),
            ("batch_i2s_madd_r2t4_neon", 64),
            ("batch_i2s_madd_r2t2w16_emulated", 64),
            ("batch_b3_madd_r2t4_avx2", 60),
            ("batch_b3_madd_r1t2w16_emulated", 60),
        ] {
            let bank = plan(name).unwrap().banks[0];
            assert_eq!((bank.adds(), bank.magnitude), (adds, 512), "{name}");
            assert!((bank.adds() + bank.adds_per_step) * bank.magnitude > 32768, "{name}");
        }
        assert_eq!(plan("batch_i2s_dot_r4t4_avx512").unwrap().banks, []);
    }

    #[test]
    fn illegal_kernels_name_the_rule_and_legal_values() {
        for (name, words) in [
            ("batch_tl1_lut_r1t4_avx2", "no small-batch kernel"),
            ("batch_i2s_maddx4_r1t4_avx2", "madd, dot, mmla"),
            ("batch_i2s_mmla_r4t4_dotprod", "legal: dot"),
            ("batch_i2s_mmla_r4t3_i8mm", "2, 4, 6, 8"),
            ("batch_i2s_mmla_r1t4_i8mm", "2, 4, 8"),
            ("batch_i2s_mmla_r4t4w64_emulated", "w16"),
            ("batch_i2s_dot_r1t4_avx2", "legal: madd"),
            ("batch_i2s_dot_r1t4_avx512vbmi", "a lesser isa"),
            ("batch_b3_lut_r1t4_avx512", "legal: dot"),
            ("batch_i2s_madd_r3t4_avx2", "1, 2, 4, 8"),
            ("batch_i2s_madd_r1t9_avx2", "3, 4, 6, 8"),
            ("batch_i2s_madd_r1t4w16_avx2", "none (it is 32)"),
            ("batch_i2s_dot_r1t4_emulated", "w16, w64"),
            ("batch_i2s_dot_r1t4_neon", "legal: madd"),
        ] {
            let error = plan(name).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
