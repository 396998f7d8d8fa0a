//! A candidate: a kernel with its run-time loop bounds, whatever the part of inference it is for.

use trilut_kernels::{AnyKernel, Tile};

/// A kernel with its run-time loop bounds.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// The kernel.
    pub kernel: AnyKernel,
    /// Its loop bounds.
    pub tile: Tile,
}

impl Candidate {
    /// The kernel with the bounds that it has untuned.
    pub fn untuned(kernel: AnyKernel) -> Self {
        Self { kernel, tile: Tile::default_for(kernel.phase()) }
    }

    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        self.kernel.name()
    }

    /// Whether both are the same kernel with the same bounds.
    pub fn is(&self, other: &Self) -> bool {
        self.name() == other.name() && self.tile == other.tile
    }
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = self.kernel.phase();
        if self.tile == Tile::default_for(phase) {
            return f.pad(self.name());
        }
        f.pad(&format!("{} ({})", self.name(), self.tile.in_words(phase)))
    }
}
