//! A gemm kernel is a value, like a gemv kernel: it multiplies a [`Panel`] of rows with a [`TokenTile`].
//!
//! Panels are filled from the stored copy of any format, so gemm kernels know no format.

use crate::panel::{Panel, PanelForm, Segment};
use crate::token_tile::TokenTile;
use crate::{Activations, AlignedBytes, Bound, Supported};
use trilut_presets::{GemmAlgorithm, GemmName, Shape, Tile};

/// The arguments of a generated gemm function.
///
/// The function checks them against each other before its first load, so a wrong caller panics and
/// never reads outside the slices.
#[derive(Debug)]
pub struct Gemm<'a> {
    /// The panel's bytes, in the kernel's [`PanelForm`].
    pub panel: &'a [u8],
    /// The token tile's bytes, in the same form.
    pub tile: &'a [u8],
    /// Rows of the panel.
    pub rows: usize,
    /// Inputs of a row.
    pub k: usize,
    /// Room for tables and int16 sums, at least [`PanelForm::scratch_len`].
    pub scratch: &'a mut [i16],
    /// One exact int32 sum per row and token, rows by tokens.
    pub sums: &'a mut [i32],
    /// The sum of each token's activations that meet codes `t + 1`, subtracted once.
    pub token_sums: &'a [i32],
}

impl<'a> Gemm<'a> {
    /// Checks that all parts fit together; lends panel and tile for the call, with the number of groups
    /// of a row.
    ///
    /// # Panics
    /// When a slice is shorter than rows, inputs and tokens need in this form.
    pub fn check(&self, form: PanelForm, tokens: usize) -> (&'a [u8], &'a [u8], usize) {
        let Self { panel, tile, rows, k, scratch, sums, token_sums } = self;
        assert!(*rows <= Shape::MAX_M && (1..=Shape::MAX_K).contains(k));
        assert!(panel.len() >= form.panel_bytes(*rows, *k), "the panel is too short");
        assert!(tile.len() >= form.tile_bytes(tokens, *k), "the token tile is too short");
        assert!(scratch.len() >= form.scratch_len(*rows, tokens), "the scratch is too short");
        assert!(sums.len() >= rows * tokens, "one sum per row and token");
        assert!(token_sums.len() >= tokens, "one sum of activations per token");
        (panel, tile, form.groups(*k))
    }
}

/// The generated function of a gemm kernel.
///
/// # Safety
/// The CPU must support the kernel's ISA.
pub type GemmFn = for<'a, 'b> unsafe fn(&'a mut Gemm<'b>);

/// What there is to know of a gemm kernel.
#[derive(Debug)]
pub struct GemmInfo {
    /// Its name as text, equal to `name.to_string()`.
    pub text: &'static str,
    /// Its name in parts.
    pub name: GemmName,
    /// What its panels and token tiles hold.
    pub form: PanelForm,
    /// Its int16 bounds, one per kind of add; empty for kernels that never use int16.
    pub bounds: &'static [Bound],
    /// Vector instructions per weight and token, as counted by the generator.
    pub instructions: f64,
    /// Hash of its own emitted text: a preset record with another hash claims no measurement.
    pub hash: u64,
}

/// One generated gemm kernel: a function, reached through [`GemmRunnable`], and what there is to know of
/// it.
#[derive(Debug)]
pub struct GemmKernel {
    info: GemmInfo,
    run: GemmFn,
}

impl GemmKernel {
    /// Joins a function with its description, which cannot be changed afterwards.
    ///
    /// # Safety
    /// `run` must need no more of the CPU than `info.name.isa` stands for.
    pub const unsafe fn new(info: GemmInfo, run: GemmFn) -> Self {
        Self { info, run }
    }

    /// Where its machine code begins, for tools that show it.
    pub fn code(&self) -> *const u8 {
        self.run as *const u8
    }
}

impl std::ops::Deref for GemmKernel {
    type Target = GemmInfo;

    fn deref(&self) -> &GemmInfo {
        &self.info
    }
}

/// A gemm kernel together with the proof that this CPU supports its ISA.
#[derive(Debug, Clone, Copy)]
pub struct GemmRunnable {
    kernel: &'static GemmKernel,
    proof: Supported,
}

/// A call that a gemm kernel refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GemmError {
    /// Panel or tile were made for another kernel.
    #[error("gemm kernel {kernel} reads {wants:?} with {tokens} tokens, not what it was given")]
    Form {
        /// The kernel's name.
        kernel: &'static str,
        /// What it reads.
        wants: PanelForm,
        /// Tokens of its tiles.
        tokens: usize,
    },
    /// Panel and tile have different numbers of inputs.
    #[error("the panel has {panel} inputs, the token tile {tile}")]
    Inputs {
        /// Inputs of the panel.
        panel: usize,
        /// Inputs of the tile.
        tile: usize,
    },
}

/// The buffers of a gemm call, kept from call to call.
#[derive(Debug, Clone, Default)]
pub struct GemmScratch {
    lanes: AlignedBytes,
    sums: AlignedBytes,
}

impl GemmRunnable {
    /// Pairs a kernel with the proof for its ISA; `None` when the proof is for another ISA.
    pub fn new(kernel: &'static GemmKernel, proof: Supported) -> Option<Self> {
        (proof.isa() == kernel.name.isa).then_some(Self { kernel, proof })
    }

    /// The kernel.
    pub fn kernel(&self) -> &'static GemmKernel {
        self.kernel
    }

    /// What its panels and token tiles must hold.
    pub fn form(&self) -> PanelForm {
        self.kernel.form
    }

    /// Makes the rows of all segments ready for it.
    ///
    /// # Panics
    /// When there is no segment, the segments differ in their number of inputs, or rows are outside their
    /// matrix.
    pub fn fill(&self, panel: &mut Panel, segments: &[Segment<'_>]) {
        panel.fill(self.proof, self.form(), segments);
    }

    /// Arranges the activations of at most [`GemmRunnable::tokens`] tokens for it.
    ///
    /// # Panics
    /// When there is no token or no input, there are too many tokens, or their lengths differ.
    pub fn arrange<'a, I>(&self, tile: &mut TokenTile, inputs: I)
    where
        I: ExactSizeIterator<Item = &'a Activations> + Clone,
    {
        tile.arrange(self.proof, self.form(), self.tokens(), inputs);
    }

    /// Tokens of one tile.
    pub fn tokens(&self) -> usize {
        self.kernel.name.tokens
    }

    /// Rows of a panel, at most: what the bounds say, and where they say nothing what does well untuned.
    /// A lookup builds its tables for each panel anew, so it wants many rows; a register tile wants codes
    /// and tokens in the second cache.
    pub fn panel_rows(&self, tile: Tile) -> usize {
        match (tile.rows_per_task, self.kernel.name.algorithm) {
            (0, GemmAlgorithm::Vlut { .. }) => 2048,
            (0, _) => 480,
            (rows, _) => rows,
        }
    }

    /// Computes the exact sums of every row of the panel with every token of the tile: the returned
    /// slice is rows by [`GemmRunnable::tokens`]; those of tokens that the tile lacks are 0.
    ///
    /// # Errors
    /// When panel and tile were not made for this kernel, or not for each other.
    pub fn run<'s>(
        &self,
        panel: &Panel,
        tile: &TokenTile,
        scratch: &'s mut GemmScratch,
    ) -> Result<&'s [i32], GemmError> {
        let (form, tokens) = (self.form(), self.tokens());
        if panel.form() != Some(form) || tile.form() != Some((form, tokens)) {
            return Err(GemmError::Form { kernel: self.kernel.text, wants: form, tokens });
        }
        if panel.k() != tile.k() {
            return Err(GemmError::Inputs { panel: panel.k(), tile: tile.k() });
        }
        let rows = panel.rows();
        let GemmScratch { lanes, sums } = scratch;
        grow(lanes, form.scratch_len(rows, tokens) * 2);
        grow(sums, rows * tokens * 4);
        let sums = &mut sums.as_i32_mut()[..rows * tokens];
        let mut call = Gemm {
            panel: panel.bytes(),
            tile: tile.bytes(),
            rows,
            k: panel.k(),
            scratch: lanes.as_i16_mut(),
            sums: &mut *sums,
            token_sums: tile.sums(),
        };
        // SAFETY: `_proof` was made by detection for the kernel's ISA, so the CPU supports it, and
        // whoever made the kernel vouched that the function needs no more than that.
        unsafe { (self.kernel.run)(&mut call) };
        Ok(sums)
    }
}

/// Makes room without touching what is there.
fn grow(buffer: &mut AlignedBytes, bytes: usize) {
    if buffer.len() < bytes {
        buffer.resize(bytes);
    }
}
