//! What kernel is wanted.

use crate::Error;
use trilut_presets::{Format, Isa, KernelName, MicroTile, Shape, default_point};

/// A kernel that is wanted: the parts of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Format, algorithm, micro tile, ISA and fixed sizes.
    pub name: KernelName,
}

impl Spec {
    /// The representative kernel for a shape, format and ISA: the algorithm and micro tile that are the
    /// default there, fixed to the shape's K. It is what `kernels!` and `trilut codegen` start from.
    ///
    /// # Errors
    /// When the ISA has no such kernel for the format.
    pub fn representative(shape: Shape, format: Format, isa: Isa) -> Result<Self, Error> {
        let (algorithm, rows, unroll) = default_point(format, isa);
        let (rows, unroll, width) = match isa {
            // For tests: the least that there is.
            Isa::Emulated => (1, 1, Some(16)),
            _ => (rows, unroll, None),
        };
        let micro = MicroTile { rows, unroll, width };
        let fixed = trilut_presets::Fixed { m: None, k: Some(shape.k) };
        let spec = Self { name: KernelName { format, algorithm, micro, isa, fixed } };
        crate::Plan::new(&spec).map(|_| spec)
    }
}

impl std::str::FromStr for Spec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(Self { name: name.parse()? })
    }
}
