//! Every kernel that is compiled in.

use crate::{Kernel, lattice};

/// Every kernel of this architecture, generic ones first within each ISA.
pub fn registry() -> &'static [Kernel] {
    &lattice::KERNELS
}

/// The kernel with a name.
pub fn find(name: &str) -> Option<&'static Kernel> {
    registry().iter().find(|kernel| kernel.text == name)
}
