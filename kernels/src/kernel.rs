//! A kernel is a value: its name, what it needs, what bounds it keeps, and its function.

use crate::{Activation, Activations, Layout, PackedView, Supported};
use std::ops::Range;
use trilut_presets::{Format, KernelName, Shape, Tile};

/// The arguments of a generated gemv function: one token, some rows.
///
/// The function checks them against each other before its first load, so a wrong caller panics and
/// never reads outside the slices.
#[derive(Debug)]
pub struct Gemv<'a> {
    /// The whole packed matrix, in the kernel's [`Layout`].
    pub weights: &'a [u8],
    /// The prepared activations, in the kernel's [`Activation`] form.
    pub activations: &'a [u8],
    /// Sum of the token's activations, subtracted once by kernels that read codes `t + 1`.
    pub sum: i32,
    /// The matrix's size.
    pub shape: Shape,
    /// The rows to compute; `start` is a multiple of [`Tile::ROW_QUANTUM`].
    pub rows: Range<usize>,
    /// Prefetch distance in bytes.
    pub prefetch: usize,
    /// One exact int32 sum per row of `rows`.
    pub out: &'a mut [i32],
}

impl<'a> Gemv<'a> {
    /// Checks that all parts fit together, and lends weights and activations for the call.
    ///
    /// # Panics
    /// When a slice is shorter than the shape needs in these forms, or rows and output do not match.
    pub fn check(&self, layout: Layout, activation: Activation) -> (&'a [u8], &'a [u8]) {
        let Self { weights, activations, shape, rows, out, .. } = self;
        assert!((1..=Shape::MAX_M).contains(&shape.m) && (1..=Shape::MAX_K).contains(&shape.k));
        assert!(weights.len() >= layout.bytes(*shape), "weights are too short");
        assert!(activations.len() >= activation.bytes(shape.k), "activations are too short");
        assert!(rows.start <= rows.end && rows.end <= shape.m, "rows are outside the matrix");
        assert!(rows.start.is_multiple_of(Tile::ROW_QUANTUM), "rows begin inside a group");
        assert_eq!(rows.len(), out.len(), "one output per row");
        (weights, activations)
    }
}

/// Why a kernel's int16 sums cannot wrap: proven by the generator, kept here for tests and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The largest magnitude that one add contributes to an int16 lane.
    pub magnitude: u32,
    /// The number of adds after which the lane is widened to int32 at the latest.
    pub adds: u32,
}

/// The inner loop's size as counted by the generator, for the analytic estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Vector instructions per weight.
    pub instructions_per_weight: f64,
    /// Bytes of packed weights streamed per weight.
    pub bytes_per_weight: f64,
}

/// The generated function of a kernel.
///
/// # Safety
/// The CPU must support the kernel's ISA.
pub type GemvFn = for<'a, 'b> unsafe fn(&'a mut Gemv<'b>);

/// What there is to know of a kernel that reads the stored copy: of one token, or of a small batch.
#[derive(Debug)]
pub struct KernelInfo<Name = KernelName> {
    /// Its name as text, equal to `name.to_string()`.
    pub text: &'static str,
    /// Its name in parts.
    pub name: Name,
    /// How weights must be packed for it.
    pub layout: Layout,
    /// How activations must be prepared for it.
    pub activation: Activation,
    /// Its int16 bounds, one per kind of add; empty for kernels that never use int16.
    pub bounds: &'static [Bound],
    /// Its analytic cost; of a small batch, instructions are those per weight and token.
    pub cost: Cost,
    /// Whether it reads [`Tile::prefetch`].
    pub prefetches: bool,
    /// Hash of its own emitted text: a preset record with another hash claims no measurement.
    pub hash: u64,
}

/// One generated micro-kernel: a function, reached through [`Runnable`], and what there is to know of it.
#[derive(Debug)]
pub struct Kernel {
    info: KernelInfo,
    run: GemvFn,
}

impl Kernel {
    /// Joins a function with its description, which cannot be changed afterwards.
    ///
    /// # Safety
    /// `run` must need no more of the CPU than `info.name.isa` stands for.
    pub const unsafe fn new(info: KernelInfo, run: GemvFn) -> Self {
        Self { info, run }
    }

    /// Where its machine code begins, for tools that show it.
    pub fn code(&self) -> *const u8 {
        self.run as *const u8
    }
}

impl std::ops::Deref for Kernel {
    type Target = KernelInfo;

    fn deref(&self) -> &KernelInfo {
        &self.info
    }
}

/// A kernel together with the proof that this CPU supports its ISA.
#[derive(Debug, Clone, Copy)]
pub struct Runnable {
    kernel: &'static Kernel,
    _proof: Supported,
}

/// A call that a kernel refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GemvError {
    /// The weights are packed for another layout.
    #[error("kernel {kernel} reads layout {wants:?}, the weights are packed as {given:?}")]
    Layout {
        /// The kernel's name.
        kernel: &'static str,
        /// The layout it reads.
        wants: Layout,
        /// The layout of the weights.
        given: Layout,
    },
    /// The kernel is specialised for another size.
    #[error("kernel {kernel} does not accept the shape {shape}")]
    Shape {
        /// The kernel's name.
        kernel: &'static str,
        /// The shape that was asked for.
        shape: Shape,
    },
    /// None of the kernels of a module runs on this CPU.
    #[error("no kernel of `{registry}` for {shape} in {format} runs on this CPU; add isa `scalar`")]
    NoKernel {
        /// The module.
        registry: &'static str,
        /// The format.
        format: Format,
        /// The shape.
        shape: Shape,
    },
    /// The weights are of another size than the function is for.
    #[error("the function is for {wants}, the weights are {given}")]
    Weights {
        /// The size that it is for.
        wants: Shape,
        /// The size of the weights.
        given: Shape,
    },
    /// The activations were not prepared in the kernel's form, or have another length.
    #[error("kernel {kernel} needs {wants:?} activations of length {k}")]
    Activations {
        /// The kernel's name.
        kernel: &'static str,
        /// The form it reads.
        wants: Activation,
        /// The length it needs.
        k: usize,
    },
    /// The rows are outside the matrix, do not begin at a multiple of the row quantum, or do not match
    /// the output's length.
    #[error(
        "rows {rows:?} of {m} do not fit: start at a multiple of 32, end within, {out} outputs"
    )]
    Rows {
        /// The rows that were asked for.
        rows: Range<usize>,
        /// The number of rows of the matrix.
        m: usize,
        /// The length of the output.
        out: usize,
    },
}

impl Runnable {
    /// Pairs a kernel with the proof for its ISA; `None` when the proof is for another ISA.
    pub fn new(kernel: &'static Kernel, proof: Supported) -> Option<Self> {
        (proof.isa() == kernel.name.isa).then_some(Self { kernel, _proof: proof })
    }

    /// The kernel.
    pub fn kernel(&self) -> &'static Kernel {
        self.kernel
    }

    /// How weights must be packed for it.
    pub fn layout(&self) -> Layout {
        self.kernel.layout
    }

    /// How activations must be prepared for it.
    pub fn activation(&self) -> Activation {
        self.kernel.activation
    }

    /// Computes `out[i] = sum_k t[rows.start + i][k] * q[k]`, exactly, for the given rows.
    ///
    /// # Errors
    /// When layout, shape, activations, rows or output do not fit together; nothing is written then.
    pub fn gemv(
        &self,
        weights: PackedView<'_>,
        activations: &Activations,
        rows: Range<usize>,
        tile: Tile,
        out: &mut [i32],
    ) -> Result<(), GemvError> {
        let kernel = self.kernel;
        let shape = weights.shape();
        if weights.layout() != kernel.layout {
            return Err(GemvError::Layout {
                kernel: kernel.text,
                wants: kernel.layout,
                given: weights.layout(),
            });
        }
        if !kernel.name.fixed.accepts(shape) {
            return Err(GemvError::Shape { kernel: kernel.text, shape });
        }
        let Some(prepared) = activations.get(kernel.activation, shape.k) else {
            return Err(GemvError::Activations {
                kernel: kernel.text,
                wants: kernel.activation,
                k: shape.k,
            });
        };
        let aligned = rows.start.is_multiple_of(Tile::ROW_QUANTUM);
        if !aligned || rows.start > rows.end || rows.end > shape.m || rows.len() != out.len() {
            return Err(GemvError::Rows { rows, m: shape.m, out: out.len() });
        }
        let mut call = Gemv {
            weights: weights.bytes(),
            activations: prepared,
            sum: activations.sum(),
            shape,
            rows,
            prefetch: tile.prefetch,
            out,
        };
        // SAFETY: `_proof` was made by detection for the kernel's ISA, so the CPU supports it, and
        // whoever made the kernel vouched that the function needs no more than that.
        unsafe { (kernel.run)(&mut call) };
        Ok(())
    }
}
