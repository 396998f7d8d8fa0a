//! Expands the lattice of this target's architecture.

fn main() {
    let compile = |kernels: trilut_build::Kernels, file: &str| {
        kernels.compile(file).unwrap_or_else(|error| panic!("{error}"));
    };
    compile(trilut_build::kernels().lattice(), "lattice.rs");
    // Kernels that widen one bank a step too late, for the tests that show each bound is needed.
    compile(trilut_build::kernels().raised(0), "raised0.rs");
    compile(trilut_build::kernels().raised(1), "raised1.rs");
    compile(trilut_build::kernels().raised_gemms(), "raised_gemms.rs");
    compile(trilut_build::kernels().raised_batches(), "raised_batches.rs");
}
