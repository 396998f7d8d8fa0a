//! Instruction sets that kernels are spelled for.

/// An instruction set. Each is one spelling table over the same algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Portable Rust, on every architecture.
    Scalar,
    /// Other ISAs' operation sequences spelled in portable Rust: for tests, never picked for speed.
    Emulated,
    /// x86-64 with AVX2, BMI1, BMI2 and F16C.
    Avx2,
    /// x86-64 with AVX-VNNI (256-bit `vpdpbusd`).
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and VNNI.
    Avx512,
    /// x86-64 with AVX-512 as above, and VBMI (byte permutations).
    Avx512Vbmi,
    /// AArch64 with NEON.
    Neon,
    /// AArch64 with the dot-product extension (`sdot`).
    Dotprod,
    /// AArch64 with the int8 matrix extension (`usdot`, `smmla`).
    I8mm,
}

impl Isa {
    /// Every ISA, portable ones first, then by architecture in rising capability.
    pub const ALL: &[Self] = &[
        Self::Scalar,
        Self::Emulated,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vbmi,
        Self::Neon,
        Self::Dotprod,
        Self::I8mm,
    ];

    /// The name in kernel names, files and `TRILUT_ISA`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Emulated => "emulated",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vbmi => "avx512vbmi",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
        }
    }

    /// The value of `target_arch` that this ISA needs, or `None` for the portable ones.
    pub const fn target_arch(self) -> Option<&'static str> {
        match self {
            Self::Scalar | Self::Emulated => None,
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Vbmi => Some("x86_64"),
            Self::Neon | Self::Dotprod | Self::I8mm => Some("aarch64"),
        }
    }

    /// The compiler's feature names that code for this ISA is compiled with and needs at run time.
    pub const fn target_features(self) -> &'static [&'static str] {
        match self {
            Self::Scalar | Self::Emulated => &[],
            Self::Avx2 => &["avx2", "bmi1", "bmi2", "f16c"],
            Self::AvxVnni => &["avx2", "bmi1", "bmi2", "f16c", "avxvnni"],
            Self::Avx512 => {
                &["avx2", "bmi1", "bmi2", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni"]
            }
            Self::Avx512Vbmi => &[
                "avx2",
                "bmi1",
                "bmi2",
                "f16c",
                "avx512f",
                "avx512bw",
                "avx512vl",
                "avx512vnni",
                "avx512vbmi",
            ],
            Self::Neon => &["neon"],
            Self::Dotprod => &["neon", "dotprod"],
            Self::I8mm => &["neon", "dotprod", "i8mm"],
        }
    }

    /// Whether this ISA may be used under a cap (`TRILUT_ISA`): it is the cap or a predecessor of it
    /// on the same architecture. The portable ISAs are always allowed.
    pub fn within(self, cap: Self) -> bool {
        self.target_arch().is_none() || (self.target_arch() == cap.target_arch() && self <= cap)
    }
}

crate::named!(Isa, "isa");
