//! Every kernel that is compiled in.

use crate::{BatchKernel, GemmKernel, Kernel, lattice};

/// Every kernel of this architecture, generic ones first within each ISA.
pub fn registry() -> &'static [Kernel] {
    &lattice::KERNELS
}

/// The kernel with a name.
pub fn find(name: &str) -> Option<&'static Kernel> {
    registry().iter().find(|kernel| kernel.text == name)
}

/// Every gemm kernel of this architecture.
pub fn gemm_registry() -> &'static [GemmKernel] {
    &lattice::GEMM_KERNELS
}

/// The gemm kernel with a name.
pub fn find_gemm(name: &str) -> Option<&'static GemmKernel> {
    gemm_registry().iter().find(|kernel| kernel.text == name)
}

/// Every small-batch kernel of this architecture.
pub fn batch_registry() -> &'static [BatchKernel] {
    &lattice::BATCH_KERNELS
}

/// The small-batch kernel with a name.
pub fn find_batch(name: &str) -> Option<&'static BatchKernel> {
    batch_registry().iter().find(|kernel| kernel.text == name)
}
