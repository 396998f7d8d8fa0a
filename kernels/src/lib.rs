//! Ternary matrix kernels: what exists ([`registry`]), what may run here ([`Cpu`]), how weights are
//! stored for them ([`Packed`]), how activations are prepared ([`Activations`]), and the arithmetic
//! they must reproduce bit for bit ([`mod@reference`]).
//!
//! The kernels themselves are generated: `build.rs` expands the lattice through `trilut-build`. A
//! kernel is a value, [`Kernel`]; it runs only through [`Runnable`], which exists only for an ISA that
//! detection found.
//!
//! ```
//! use trilut_kernels::{Activations, Cpu, Packed, Format, Shape, registry};
//!
//! let shape = Shape::new(3, 128)?;
//! let ternary = vec![1i8; 3 * 128];
//! let cpu = Cpu::detect();
//! let kernel = cpu.default_kernel(Format::I2S, shape);
//! let weights = Packed::pack(kernel.layout(), shape, &ternary)?;
//!
//! let mut activations = Activations::new();
//! activations.set(&vec![2i8; 128]);
//! activations.prepare(kernel.activation());
//! let mut sums = [0i32; 3];
//! kernel.gemv(weights.view(), &activations, 0..3, Default::default(), &mut sums)?;
//! assert_eq!(sums, [256; 3]);
//! assert!(registry().len() > 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Generated kernels name this crate by its full path, inside and outside of it.
extern crate self as trilut_kernels;

mod activations;
mod affinity;
mod aligned;
mod any_kernel;
mod batch;
mod cpu;
pub mod exactness;
pub mod float;
mod gemm;
mod kernel;
pub mod lanes;
mod lattice;
mod packed;
mod panel;
pub mod pool;
pub mod quantise;
pub mod reference;
mod registry;
mod token_tile;

pub use activations::{Activation, Activations};
pub use aligned::AlignedBytes;
pub use any_kernel::AnyKernel;
pub use batch::{
    Batch, BatchError, BatchFn, BatchInfo, BatchKernel, BatchRunnable, MOST_BATCH_TOKENS,
};
pub use cpu::{Cpu, Supported};
pub use gemm::{Gemm, GemmError, GemmFn, GemmInfo, GemmKernel, GemmRunnable, GemmScratch};
pub use kernel::{Bound, Cost, Gemv, GemvError, GemvFn, Kernel, KernelInfo, Runnable};
pub use packed::{Layout, PackError, Packed, PackedView, check_i2s_file};
pub use panel::{Panel, PanelForm, Segment};
pub use registry::{
    Registry, RegistryError, batch_registry, find, find_batch, find_gemm, gemm_registry, registry,
};
pub use token_tile::TokenTile;
pub use trilut_presets::{
    Algorithm, BatchName, Fixed, Format, GemmAlgorithm, GemmName, Isa, KernelName, MicroTile, Op,
    Phase, Shape, Tile,
};
