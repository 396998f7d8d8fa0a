//! How a prompt's tokens are cut into tiles: whole ones for the chosen gemm kernel, and the rest for the
//! narrowest kernels that read the same panels and take them.

use crate::{Cpu, GemmRunnable};
use std::ops::Range;

/// A gemm kernel with those of its ISA that read the same panels with fewer tokens.
#[derive(Debug, Clone)]
pub struct Tiling {
    /// Fewest tokens first, the chosen kernel last.
    kernels: Vec<GemmRunnable>,
}

impl Tiling {
    /// For a kernel, with the others that may run on a CPU.
    pub fn new(kernel: GemmRunnable, cpu: &Cpu) -> Self {
        // Narrower vectors gain nothing: a tile with empty places costs no more than one of theirs.
        let fits = |k: &GemmRunnable| {
            k.form() == kernel.form()
                && k.tokens() < kernel.tokens()
                && k.kernel().name.isa == kernel.kernel().name.isa
        };
        let mut kernels: Vec<_> = cpu.gemm_candidates().filter(fits).collect();
        kernels.sort_by_key(|k| k.tokens());
        // Of one width the last: the lattice has larger register tiles behind smaller ones.
        kernels.dedup_by(|later, kept| {
            let same = later.tokens() == kept.tokens();
            if same {
                *kept = *later;
            }
            same
        });
        kernels.push(kernel);
        Self { kernels }
    }

    /// The chosen kernel.
    pub fn kernel(&self) -> GemmRunnable {
        *self.kernels.last().expect("the chosen kernel is among them")
    }

    /// The tiles that `n` tokens are cut into, each with the kernel that multiplies it.
    pub fn tiles(&self, n: usize) -> impl Iterator<Item = (Range<usize>, GemmRunnable)> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let kernel = self.first(n - start)?;
            let tokens = start..n.min(start + kernel.tokens());
            start = tokens.end;
            Some((tokens, kernel))
        })
    }

    /// The kernel of the first of the tiles that `n` tokens are cut into; `None` for no tokens.
    fn first(&self, n: usize) -> Option<GemmRunnable> {
        let most = self.kernel();
        if n == 0 || n >= most.tokens() {
            return (n > 0).then_some(most);
        }
        let narrowest = *self.kernels.iter().find(|kernel| kernel.tokens() >= n)?;
        // A narrower tile and what is left after it may take fewer places than one tile for all: the fewest
        // where each width is a multiple of the one before, as those of the lattice are.
        let next = self.kernels.iter().map(|k| k.tokens()).filter(|&tokens| tokens < n).max();
        let shorter = next.filter(|&next| next + self.places(n - next) < narrowest.tokens());
        match shorter {
            Some(next) => self.kernels.iter().find(|kernel| kernel.tokens() == next).copied(),
            None => Some(narrowest),
        }
    }

    /// Places for tokens in the tiles that `n` tokens are cut into.
    fn places(&self, n: usize) -> usize {
        self.tiles(n).map(|(_, kernel)| kernel.tokens()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_cut_into_tiles_of_the_same_kind() {
        let cpu = Cpu::detect();
        for chosen in cpu.gemm_candidates() {
            let tiling = Tiling::new(chosen, &cpu);
            let isa = chosen.kernel().name.isa;
            for n in 1..=200 {
                let mut next = 0;
                for (tokens, kernel) in tiling.tiles(n) {
                    assert_eq!(tokens.start, next);
                    next = tokens.end;
                    assert!(!tokens.is_empty() && tokens.len() <= kernel.tokens());
                    assert_eq!(kernel.form(), chosen.form());
                    assert_eq!(kernel.kernel().name.isa, isa);
                }
                assert_eq!(next, n);
                // No places are left empty that the narrowest kernel could do without.
                let narrowest = tiling.kernels[0].tokens();
                assert_eq!(tiling.places(n), n.next_multiple_of(narrowest), "{n} by {chosen:?}");
            }
        }
    }
}
