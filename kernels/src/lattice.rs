//! The generated kernels of this architecture.

include!(concat!(env!("OUT_DIR"), "/lattice.rs"));
