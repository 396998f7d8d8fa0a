//! The build-script API: generate kernels into `OUT_DIR` and include them.
//!
//! ```no_run
//! // build.rs
//! use trilut_build::{Format, kernels};
//!
//! fn main() -> Result<(), trilut_build::Error> {
//!     kernels().shape(4096, 14336).formats([Format::I2S]).compile("kernels.rs")
//! }
//! ```
//!
//! ```text
//! // src/lib.rs
//! include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
//! ```
//!
//! The generated module ends with `KERNELS`, an array of `trilut_kernels::Kernel`; that of the whole lattice
//! also has `GEMM_KERNELS`, of `trilut_kernels::GemmKernel`, and `BATCH_KERNELS`, of `trilut_kernels::BatchKernel`. ISAs that the target
//! architecture (`CARGO_CFG_TARGET_ARCH`) cannot have are left out.

use std::path::PathBuf;
use trilut_codegen::{
    BatchPlan, GemmPlan, Generated, GeneratedBatch, GeneratedGemm, Plan, Spec, emit_batch,
    emit_gemm, lattice,
};
pub use trilut_presets::{Format, Isa};
use trilut_presets::{ParseError, Shape, models};

/// A kernel set that is being described.
#[derive(Debug, Clone, Default)]
pub struct Kernels {
    shapes: Vec<(usize, usize)>,
    formats: Option<Vec<Format>>,
    isas: Option<Vec<Isa>>,
    lattice: bool,
    raised: Option<usize>,
    raised_gemms: bool,
    raised_batches: bool,
}

/// Why a kernel set could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shape is empty or too large.
    #[error("cannot generate kernels")]
    Shape(#[from] ParseError),
    /// A kernel is illegal.
    #[error("cannot generate kernels")]
    Kernel(#[from] trilut_codegen::Error),
    /// None of the ISAs asked for, or of the target's, has kernels for a format.
    #[error("no isa of this set reads format `{format}`; legal: {legal}")]
    Format {
        /// The format.
        format: Format,
        /// The ISAs that read it.
        legal: String,
    },
    /// Cargo's environment is missing: not called from a build script.
    #[error("{0} is not set; call this from a build script")]
    Environment(&'static str),
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Begins a kernel set.
pub fn kernels() -> Kernels {
    Kernels::default()
}

impl Kernels {
    /// Adds kernels specialised for a shape of `m` outputs and `k` inputs.
    #[must_use]
    pub fn shape(mut self, m: usize, k: usize) -> Self {
        self.shapes.push((m, k));
        self
    }

    /// Limits the formats; all by default.
    #[must_use]
    pub fn formats(mut self, formats: impl IntoIterator<Item = Format>) -> Self {
        self.formats = Some(formats.into_iter().collect());
        self
    }

    /// Limits the ISAs; all that the target can have by default.
    #[must_use]
    pub fn isas(mut self, isas: impl IntoIterator<Item = Isa>) -> Self {
        self.isas = Some(isas.into_iter().collect());
        self
    }

    /// Adds the whole lattice that trilut itself compiles in.
    #[must_use]
    pub fn lattice(mut self) -> Self {
        self.lattice = true;
        self
    }

    /// Adds every generic kernel that has an int16 bank of this index, with that bank widened one step
    /// too late: wrong on purpose, for tests.
    #[must_use]
    pub fn raised(mut self, bank: usize) -> Self {
        self.raised = Some(bank);
        self
    }

    /// The same for every gemm kernel that has an int16 bank.
    #[must_use]
    pub fn raised_gemms(mut self) -> Self {
        self.raised_gemms = true;
        self
    }

    /// The same for every small-batch kernel that has an int16 bank.
    #[must_use]
    pub fn raised_batches(mut self) -> Self {
        self.raised_batches = true;
        self
    }

    /// Generates everything into `OUT_DIR/file`.
    ///
    /// # Errors
    /// When a kernel is illegal, the environment is not a build script's, or the file cannot be written.
    pub fn compile(&self, file: &str) -> Result<(), Error> {
        let variable = |name| std::env::var(name).map_err(|_| Error::Environment(name));
        let arch = variable("CARGO_CFG_TARGET_ARCH")?;
        let path = PathBuf::from(variable("OUT_DIR")?).join(file);
        // The generator itself is a build dependency, so cargo rebuilds the script when it changes.
        println!("cargo::rerun-if-changed=build.rs");
        let text = trilut_codegen::module(
            &self.generate(&arch)?,
            &self.generate_gemms(&arch)?,
            &self.generate_batches(&arch)?,
        );
        std::fs::write(&path, text).map_err(|source| Error::Write { path, source })
    }

    /// The gemm kernels of this set for a target architecture: those of the lattice, or the raised ones.
    ///
    /// # Errors
    /// When a kernel is illegal.
    pub fn generate_gemms(&self, arch: &str) -> Result<Vec<GeneratedGemm>, Error> {
        let wanted = |isa: &Isa| self.isas.as_ref().is_none_or(|isas| isas.contains(isa));
        let mut kernels = Vec::new();
        for name in lattice::isas(arch).into_iter().filter(wanted).flat_map(lattice::gemms) {
            let plan = GemmPlan::new(&name)?;
            if self.raised_gemms {
                kernels.extend(plan.raised().map(|plan| emit_gemm(&plan)));
            } else if self.lattice {
                kernels.push(emit_gemm(&plan));
            }
        }
        Ok(kernels)
    }

    /// The small-batch kernels of this set, likewise.
    ///
    /// # Errors
    /// When a kernel is illegal.
    pub fn generate_batches(&self, arch: &str) -> Result<Vec<GeneratedBatch>, Error> {
        let wanted = |isa: &Isa| self.isas.as_ref().is_none_or(|isas| isas.contains(isa));
        let mut kernels = Vec::new();
        for name in lattice::isas(arch).into_iter().filter(wanted).flat_map(lattice::batches) {
            let plan = BatchPlan::new(&name)?;
            if self.raised_batches {
                kernels.extend(plan.raised().map(|plan| emit_batch(&plan)));
            } else if self.lattice {
                kernels.push(emit_batch(&plan));
            }
        }
        Ok(kernels)
    }

    /// The kernels of this set for a target architecture.
    ///
    /// # Errors
    /// When a shape or kernel is illegal.
    pub fn generate(&self, arch: &str) -> Result<Vec<Generated>, Error> {
        let wanted = |isa: &Isa| self.isas.as_ref().is_none_or(|isas| isas.contains(isa));
        let isas = lattice::isas(arch).into_iter().filter(wanted);
        let isas: Vec<Isa> = isas.collect();
        let formats = self.formats.as_deref().unwrap_or(Format::ALL);
        for &format in formats.iter().filter(|_| !self.shapes.is_empty()) {
            // A format that no ISA reads would be missing without a word.
            if !lattice::spelled_for(format).any(|isa| isas.contains(&isa)) {
                let legal = lattice::spelled_for(format).map(|isa| isa.name());
                return Err(Error::Format { format, legal: legal.collect::<Vec<_>>().join(", ") });
            }
        }
        let mut kernels = Vec::new();
        for isa in isas {
            let mut specs = Vec::new();
            if self.lattice {
                specs.extend(lattice::specs(isa, models::all()));
            }
            for &(m, k) in &self.shapes {
                let shape = Shape::new(m, k)?;
                let spelled = |format: &&Format| lattice::spelled_for(**format).any(|i| i == isa);
                for &format in formats.iter().filter(spelled) {
                    specs.push(Spec::representative(shape, format, isa)?);
                }
            }
            if let Some(bank) = self.raised {
                for spec in lattice::specs(isa, &[]) {
                    let plan = Plan::new(&spec)?;
                    if plan.banks.get(bank).is_some_and(|bank| bank.tight) {
                        kernels.push(trilut_codegen::emit::emit(&plan.raised(bank)));
                    }
                }
            }
            specs.retain(|spec| formats.contains(&spec.name.format));
            for spec in &specs {
                kernels.push(trilut_codegen::generate(spec)?);
            }
        }
        Ok(kernels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_no_isa_reads_is_an_error() {
        let set = kernels().shape(64, 256).formats([Format::Tl1]);
        assert_eq!(set.clone().isas([Isa::Avx2]).generate("x86_64").unwrap().len(), 1);
        let error = set.isas([Isa::Avx512]).generate("x86_64").unwrap_err().to_string();
        assert!(error.contains("tl1") && error.contains("avx2"), "{error}");
    }
}
