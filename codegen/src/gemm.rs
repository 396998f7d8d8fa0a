//! From the name of a gemm kernel to its plan: legal micro tiles, and int16 sums that cannot wrap.

use crate::Error;
use crate::plan::Bank;
use trilut_presets::{GemmAlgorithm, GemmName, Isa};

/// A gemm kernel that is legal, with everything that lowering needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GemmPlan {
    /// What is generated.
    pub name: GemmName,
    /// Vector width in bytes.
    pub width: usize,
    /// The int16 banks of the inner loop; none when products go straight to int32.
    pub banks: Vec<Bank>,
}

impl GemmPlan {
    /// Checks a name and works out its plan.
    ///
    /// # Errors
    /// When the kernel is illegal; the error names the rule and legal values.
    pub fn new(name: &GemmName) -> Result<Self, Error> {
        let GemmName { algorithm, tokens, isa, width: given } = *name;
        let spelled = spells(isa, given);
        if !spelled.contains(&algorithm.name()) {
            let legal = match spelled {
                [] => "none, CPUs with it run the kernels of a lesser isa".to_owned(),
                some => some.join(", "),
            };
            return Err(Error::GemmSpelling { isa, algorithm: algorithm.name(), legal });
        }
        let width = width(name)?;
        let micro = |what, given, legal: &[usize]| match legal.contains(&given) {
            true => Ok(()),
            false => Err(Error::Micro { what, given, legal: words(legal) }),
        };
        // Lanes of a vector of tokens.
        let lanes = lanes(algorithm, width);
        micro("tokens", tokens, &[1, 2, 4, 8].map(|n| n * lanes))?;
        let lookups = |group: usize, tables| {
            Bank::longest("group sums", 128 * group as u32, true, tables as u32)
        };
        let products = Bank::longest("pairs of codes 0..2 times q", 2 * 2 * 128, false, 1);
        let banks = match algorithm {
            GemmAlgorithm::Vlut { group, tables } => {
                micro("group", group, &[3, 4, 5])?;
                micro("tables", tables, &[1, 2, 4, 8, 16, 32])?;
                vec![lookups(group, tables)]
            }
            GemmAlgorithm::Dot { rows } => {
                micro("rows", rows, &[1, 2, 4, 6, 8])?;
                vec![]
            }
            GemmAlgorithm::Madd { rows } => {
                micro("rows", rows, &[1, 2, 4, 6, 8])?;
                vec![products]
            }
            GemmAlgorithm::Mmla { rows } => {
                micro("rows", rows, &[2, 4, 8])?;
                vec![]
            }
            GemmAlgorithm::Mix { tables, steps, rows } => {
                micro("tables", tables, &[4, 8])?;
                micro("steps", steps, &[4, 8, 12, 16, 20, 24])?;
                micro("rows", rows, &[1, 2, 4, 8])?;
                vec![lookups(4, tables)]
            }
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

    /// Vectors that hold one value of every token of a tile.
    pub fn vectors(&self) -> usize {
        self.name.tokens / lanes(self.name.algorithm, self.width)
    }

    /// The plan in words, one fact per line.
    pub fn report(&self) -> String {
        let mut lines = vec![
            format!("kernel     {}", self.name),
            format!("width      {} bytes", self.width),
            format!("tokens     {} per tile, {} vectors", self.name.tokens, self.vectors()),
        ];
        match self.name.algorithm {
            GemmAlgorithm::Vlut { group, tables } => {
                let bytes = tables * 3usize.pow(group as u32) * self.name.tokens * 2;
                lines.push(format!(
                    "tables     {tables} of {} sums of {group} inputs, {bytes} bytes",
                    3usize.pow(group as u32)
                ));
            }
            GemmAlgorithm::Dot { rows }
            | GemmAlgorithm::Madd { rows }
            | GemmAlgorithm::Mmla { rows } => {
                lines.push(format!("tile       {rows} rows by {} tokens", self.name.tokens));
            }
            GemmAlgorithm::Mix { tables, steps, rows } => lines.push(format!(
                "pass       {tables} tables of 81 sums and {steps} steps of 4 inputs, tiles of {rows} rows"
            )),
        }
        lines.extend(Bank::report(&self.banks));
        lines.push(format!(
            "cost       {:.4} vector instructions per weight and token",
            self.instructions()
        ));
        lines.join("\n") + "\n"
    }

    /// Vector instructions per weight and token of the inner loop.
    pub fn instructions(&self) -> f64 {
        let tokens = self.name.tokens as f64;
        let vectors = self.vectors() as f64;
        // An add per index; a load and a store of the partial sum per pass.
        let lookup = |tables: usize| vectors * (tables as f64 + 2.0);
        // Loads are shared by the tile; an int16 product needs an add and, now and then, a widening.
        let product = |rows: usize, vectors: f64, narrow: bool| {
            let each = if narrow { 2.0 + 2.0 / 64.0 } else { 1.0 };
            let rows = rows as f64;
            each * vectors + 1.0 + vectors / rows
        };
        let (instructions, inputs) = match self.name.algorithm {
            GemmAlgorithm::Vlut { group, tables } => (lookup(tables), group * tables),
            GemmAlgorithm::Dot { rows } | GemmAlgorithm::Madd { rows } => {
                (product(rows, vectors, !self.banks.is_empty()), 4)
            }
            GemmAlgorithm::Mmla { rows } => {
                // Four sums to a vector; codes are loaded as two halves.
                let (rows, tokens) = (rows as f64, tokens);
                (tokens / 2.0 + 2.0 + tokens / rows, 16)
            }
            GemmAlgorithm::Mix { tables, steps, rows } => {
                let each = product(rows, 2.0 * vectors, false);
                // The int32 sums are loaded and stored in every pass.
                let sums = 4.0 * vectors;
                (lookup(tables) + sums + each * steps as f64, 4 * (tables + steps))
            }
        };
        // Vectors as arrays take several instructions for one.
        let each = if self.name.isa.target_arch().is_none() { 4.0 } else { 1.0 };
        each * instructions / (inputs as f64 * tokens)
    }
}

/// The words of the algorithms that the table of an ISA spells for vectors of a width, as a name gives it;
/// none where its CPUs run the kernels of another.
const fn spells(isa: Isa, width: Option<usize>) -> &'static [&'static str] {
    match (isa, width) {
        (Isa::Avx2 | Isa::Neon, _) => &["vlut", "madd"],
        // No table multiplies 64 bytes to int16.
        (Isa::Avx512, None) | (Isa::Emulated, Some(64)) => &["vlut", "dot", "mix"],
        (Isa::Scalar | Isa::AvxVnni | Isa::Avx512 | Isa::Dotprod, _) => {
            &["vlut", "dot", "madd", "mix"]
        }
        (Isa::I8mm | Isa::Emulated, _) => &["vlut", "dot", "madd", "mmla", "mix"],
        (Isa::Avx512Vbmi, _) => &[],
    }
}

/// Tokens in one vector of what the algorithm sums: int16 for lookups, int32 for products.
fn lanes(algorithm: GemmAlgorithm, width: usize) -> usize {
    match algorithm {
        GemmAlgorithm::Vlut { .. } | GemmAlgorithm::Mix { .. } => width / 2,
        GemmAlgorithm::Dot { .. } | GemmAlgorithm::Madd { .. } | GemmAlgorithm::Mmla { .. } => {
            width / 4
        }
    }
}

fn words(legal: &[usize]) -> String {
    legal.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The vector width, given by the ISA or by the name.
fn width(name: &GemmName) -> Result<usize, Error> {
    let (legal, text): (&[(Option<usize>, usize)], &str) = match name.isa {
        Isa::Scalar => (&[(None, 16)], "none (it is 16)"),
        Isa::Avx2 | Isa::AvxVnni => (&[(None, 32)], "none (it is 32)"),
        Isa::Avx512 => (&[(None, 64), (Some(32), 32)], "none (it is 64), w32"),
        Isa::Avx512Vbmi => (&[], "none"),
        Isa::Neon | Isa::Dotprod | Isa::I8mm => (&[(None, 16)], "none (it is 16)"),
        Isa::Emulated => (&[(Some(16), 16), (Some(64), 64)], "w16, w64"),
    };
    let found = legal.iter().find(|(given, _)| *given == name.width).map(|&(_, width)| width);
    found.ok_or_else(|| Error::GemmWidth {
        isa: name.isa,
        given: name.width,
        legal: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Result<GemmPlan, Error> {
        GemmPlan::new(&name.parse()?)
    }

    #[test]
    fn bounds_are_the_longest_that_fit() {
        for (name, adds, magnitude) in [
            ("gemm_vlut_g3p1t32_avx512", 85, 384),
            ("gemm_vlut_g4p1t32_avx512", 63, 512),
            ("gemm_vlut_g5p1t32_avx512", 51, 640),
            ("gemm_vlut_g4p8t16_avx2", 56, 512),
            ("gemm_madd_r4t16_avx2", 64, 512),
            ("gemm_madd_r4t16_neon", 64, 512),
            ("gemm_mix_p8s16r8t32_avx512", 56, 512),
        ] {
            let bank = plan(name).unwrap().banks[0];
            assert_eq!((bank.adds(), bank.magnitude), (adds, magnitude), "{name}");
        }
        assert_eq!(plan("gemm_dot_r4t32_avx512").unwrap().banks, []);
    }

    #[test]
    fn illegal_kernels_name_the_rule_and_legal_values() {
        for (name, words) in [
            ("gemm_vlut_g2p8t32_avx512", "3, 4, 5"),
            ("gemm_vlut_g4p6t32_avx512", "1, 2, 4, 8"),
            ("gemm_vlut_g4p8t16_avx512", "32, 64"),
            ("gemm_vlut_g4p8t32w64_avx512", "none (it is 64), w32"),
            ("gemm_vlut_g4p8t32_emulated", "w16, w64"),
            ("gemm_dot_r4t16_avx2", "legal: vlut, madd"),
            ("gemm_madd_r4t16_avx512", "legal: vlut, dot, mix"),
            ("gemm_madd_r4t16w64_emulated", "legal: vlut, dot, mix"),
            ("gemm_mmla_r4t8_avx512", "legal: vlut, dot, mix"),
            // Tokens that would be wrong as well are not the mistake.
            ("gemm_dot_r4t7_avx2", "does not spell"),
            ("gemm_mmla_r4t7_neon", "legal: vlut, madd"),
            ("gemm_madd_r3t16_avx2", "1, 2, 4, 6, 8"),
            ("gemm_mix_p8s16r8t16_avx2", "does not spell"),
            ("gemm_mix_p8s15r8t32_avx512", "12, 16"),
            ("gemm_mix_p2s16r8t32_avx512", "4, 8"),
            ("gemm_dot_r4t16_neon", "does not spell"),
            ("gemm_mmla_r4t16_dotprod", "does not spell"),
            ("gemm_mmla_r3t16_i8mm", "2, 4, 8"),
            ("gemm_vlut_g4p8t32_avx512vbmi", "run the kernels of a lesser isa"),
        ] {
            let error = plan(name).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
