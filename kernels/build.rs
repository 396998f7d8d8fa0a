//! Expands the lattice of this target's architecture.

fn main() {
    trilut_build::kernels().lattice().compile_to("lattice.rs");
    // Kernels by which the spelling of others is proven, for tests.
    trilut_build::kernels().twins().compile_to("twins.rs");
    // Kernels that widen one bank a step too late, for the tests that show each bound is needed.
    trilut_build::kernels().raised(0).compile_to("raised0.rs");
    trilut_build::kernels().raised(1).compile_to("raised1.rs");
    trilut_build::kernels().raised_gemms().compile_to("raised_gemms.rs");
    trilut_build::kernels().raised_batches().compile_to("raised_batches.rs");
}
