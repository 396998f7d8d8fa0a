//! The generated kernels of this architecture.
#![allow(unreachable_pub, reason = "generated modules export their registry, here for the crate")]

include!(concat!(env!("OUT_DIR"), "/lattice.rs"));
