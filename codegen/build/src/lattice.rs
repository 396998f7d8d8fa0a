//! The kernels that trilut itself compiles in, and those that its tests are made of. No shapes, formats or
//! presets belong to it: what a crate wants for itself it describes by [`crate::kernels`].

use crate::{Error, report, variable};
use std::path::PathBuf;
use trilut_codegen::{Kind, Named, lattice};
use trilut_presets::models;

/// Kernels of the lattice for the target's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lattice {
    /// All of them.
    All,
    /// The twins of those that have one (see [`lattice::twin`]): for tests.
    Twins,
    /// The generic kernels of a kind that have an int16 bank of this index, with that bank widened one step
    /// too late: wrong on purpose, for tests.
    Raised(Kind, usize),
}

impl Lattice {
    /// Generates them into a file of `OUT_DIR`: the functions and their registries, as `trilut-kernels`
    /// includes them. A mistake is reported and ends the build script.
    pub fn compile_to(self, file: &str) {
        report(self.try_compile(file));
    }

    /// The same, for build scripts that report mistakes themselves.
    ///
    /// # Errors
    /// When the environment is not a build script's, or the module cannot be written.
    pub fn try_compile(self, file: &str) -> Result<(), Error> {
        let arch = variable("CARGO_CFG_TARGET_ARCH")?;
        let path = PathBuf::from(variable("OUT_DIR")?).join(file);
        println!("cargo::rerun-if-changed=build.rs");
        let members: Vec<_> = self.members(&arch)?.iter().map(Named::emit).collect();
        let text = trilut_codegen::module(&members);
        std::fs::write(&path, text).map_err(|source| Error::Write { path, source })
    }

    fn members(self, arch: &str) -> Result<Vec<Named>, Error> {
        let mut members = Vec::new();
        for isa in lattice::isas(arch) {
            match self {
                Self::All => members.extend(lattice::members(isa, models::all())?),
                Self::Twins => {
                    for member in lattice::members(isa, &[])? {
                        members.extend(member.twin()?);
                    }
                }
                Self::Raised(kind, bank) => {
                    let of_kind = lattice::members(isa, &[])?.into_iter();
                    let of_kind = of_kind.filter(|member| member.kind() == kind);
                    members.extend(of_kind.filter_map(|member| member.raised(bank)));
                }
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_and_raised_kernels_are_there() {
        let count = |which: Lattice| which.members("x86_64").unwrap().len();
        assert!(count(Lattice::All) > 100);
        let twins = Lattice::Twins.members("x86_64").unwrap();
        assert!(
            twins.iter().all(|twin| twin.to_string().ends_with("w32_avx512")) && !twins.is_empty()
        );
        for kind in [Kind::Gemv, Kind::Gemm, Kind::Batch] {
            assert!(count(Lattice::Raised(kind, 0)) > 0);
        }
        assert!(count(Lattice::Raised(Kind::Gemv, 1)) > 0);
        assert_eq!(count(Lattice::Raised(Kind::Gemm, 1)), 0);
    }
}
