//! Expands the lattice of this target's architecture.

use trilut_build::{Kind, Lattice};

fn main() {
    Lattice::All.compile_to("lattice.rs");
    // Kernels by which the spelling of others is proven, for tests.
    Lattice::Twins.compile_to("twins.rs");
    // Kernels that widen one bank a step too late, for the tests that show each bound is needed.
    Lattice::Raised(Kind::Gemv, 0).compile_to("raised0.rs");
    Lattice::Raised(Kind::Gemv, 1).compile_to("raised1.rs");
    Lattice::Raised(Kind::Gemm, 0).compile_to("raised_gemms.rs");
    Lattice::Raised(Kind::Batch, 0).compile_to("raised_batches.rs");
}
