//! How a prompt's tokens are cut into tiles: whole ones for the chosen gemm kernel, and the rest for the
//! narrowest kernel that reads the same panels and takes them.

use crate::{Cpu, GemmRunnable, Isa};
use std::cmp::Reverse;
use std::ops::Range;

/// A gemm kernel with those that read the same panels with fewer tokens.
#[derive(Debug, Clone)]
pub struct Tiling {
    /// Fewest tokens first, the chosen kernel last.
    kernels: Vec<GemmRunnable>,
}

impl Tiling {
    /// For a kernel, with the others that may run on a CPU.
    pub fn new(kernel: GemmRunnable, cpu: &Cpu) -> Self {
        // Portable vectors are so slow that a tile with empty places costs less.
        let is_portable = |k: &GemmRunnable| k.kernel().name.isa == Isa::Scalar;
        let fits = |k: &GemmRunnable| {
            k.form() == kernel.form()
                && k.tokens() < kernel.tokens()
                && (!is_portable(k) || is_portable(&kernel))
        };
        let mut kernels: Vec<_> = cpu.gemm_candidates().filter(fits).collect();
        kernels.sort_by_key(|k| (k.tokens(), Reverse(k.kernel().name.isa)));
        kernels.push(kernel);
        Self { kernels }
    }

    /// The chosen kernel.
    pub fn kernel(&self) -> GemmRunnable {
        *self.kernels.last().expect("the chosen kernel is among them")
    }

    /// The tiles that `n` tokens are cut into, each with the kernel that multiplies it.
    pub fn tiles(&self, n: usize) -> impl Iterator<Item = (Range<usize>, GemmRunnable)> {
        let most = self.kernel().tokens();
        (0..n).step_by(most).map(move |start| {
            let count = (n - start).min(most);
            let narrowest = self.kernels.iter().find(|kernel| kernel.tokens() >= count);
            (start..start + count, *narrowest.expect("the chosen kernel takes a whole tile"))
        })
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
                    let own = kernel.kernel().name.isa;
                    assert!(own != Isa::Scalar || isa == Isa::Scalar, "{n} tokens");
                }
                assert_eq!(next, n);
            }
        }
    }
}
