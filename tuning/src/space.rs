//! The search space: which knobs exist, and which candidates are legal for a layer.

use crate::bench::Lab;
use trilut_kernels::{Format, Runnable, Shape, Tile};

/// A kernel with its run-time loop bounds.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// The kernel.
    pub kernel: Runnable,
    /// Its loop bounds.
    pub tile: Tile,
}

impl Candidate {
    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        self.kernel.kernel().text
    }

    /// Whether both are the same kernel with the same bounds.
    pub fn is(&self, other: &Self) -> bool {
        self.name() == other.name() && self.tile == other.tile
    }

    /// Bytes of weights that one product reads.
    pub fn bytes(&self, shape: Shape) -> u64 {
        self.kernel.layout().bytes(shape) as u64
    }
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.tile == Tile::default() {
            return f.pad(self.name());
        }
        f.pad(&format!("{} ({})", self.name(), self.tile))
    }
}

/// A run-time bound that the tuner varies.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Its name in [`Tile`] and in presets.
    pub name: &'static str,
    /// The values that are tried; the first one is the default.
    pub values: &'static [usize],
    /// What it does.
    pub help: &'static str,
}

/// How far ahead of the loads weights are prefetched.
pub const PREFETCH: Knob = Knob {
    name: "prefetch",
    values: &[0, 256, 512, 1024, 2048, 4096, 8192],
    help: "bytes ahead of the load at which weights are prefetched, 0 for none",
};

/// How many rows a thread takes at a time.
pub const ROWS_PER_TASK: Knob = Knob {
    name: "rows_per_task",
    values: &[0, 32, 64, 128, 256, 512],
    help: "rows that a thread takes at a time, 0 for one even share per thread",
};

/// Every knob.
pub const KNOBS: &[Knob] = &[PREFETCH, ROWS_PER_TASK];

/// The kernels for a layer in any of the formats, in the order of the formats.
pub fn kernels(lab: &dyn Lab, formats: &[Format], shape: Shape) -> Vec<Runnable> {
    let mut found: Vec<Runnable> = Vec::new();
    for kernel in formats.iter().flat_map(|&format| lab.kernels(format, shape)) {
        if !found.iter().any(|k| k.kernel().text == kernel.kernel().text) {
            found.push(kernel);
        }
    }
    found
}

/// Tells one set of kernels from another, whatever their order (a hash of names and hashes).
pub fn fingerprint(kernels: &[Runnable]) -> u64 {
    let mut members: Vec<(&str, u64)> =
        kernels.iter().map(|k| (k.kernel().text, k.kernel().hash)).collect();
    members.sort_unstable();
    let bytes = |(text, hash): &(&str, u64)| [text.as_bytes(), &[0], &hash.to_le_bytes()].concat();
    trilut_presets::hash(members.iter().flat_map(bytes))
}

/// The candidate with every prefetch distance; with none alone if its kernel does not prefetch.
pub fn prefetch_variants(candidate: Candidate) -> impl Iterator<Item = Candidate> {
    let reads = candidate.kernel.kernel().prefetches;
    let values = PREFETCH.values.iter().filter(move |distance| reads || **distance == 0);
    values
        .map(move |&prefetch| Candidate { tile: Tile { prefetch, ..candidate.tile }, ..candidate })
}

/// The candidate with every row split that differs from the others: with one thread the split changes
/// nothing, and a task above an even share would leave threads idle.
pub fn split_variants(
    candidate: Candidate,
    shape: Shape,
    threads: usize,
) -> impl Iterator<Item = Candidate> {
    let share = shape.m.div_ceil(threads);
    let useful = move |rows: usize| rows == 0 || (threads > 1 && rows < share);
    ROWS_PER_TASK.values.iter().filter(move |rows| useful(**rows)).map(move |&rows_per_task| {
        Candidate { tile: Tile { rows_per_task, ..candidate.tile }, ..candidate }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake;

    #[test]
    fn every_value_of_every_knob_is_legal() {
        for &prefetch in PREFETCH.values {
            for &rows_per_task in ROWS_PER_TASK.values {
                assert!(Tile { prefetch, rows_per_task }.is_legal());
            }
        }
        assert!(KNOBS.iter().all(|k| k.values[0] == 0 && k.values.is_sorted()));
    }

    #[test]
    fn a_fingerprint_depends_on_the_members_alone() {
        let [a, b] = ["r1u1", "r2u1"].map(fake::exact);
        assert_eq!(fingerprint(&[a, b]), fingerprint(&[b, a]));
        assert_ne!(fingerprint(&[a, b]), fingerprint(&[a]));
        assert_ne!(fingerprint(&[a]), fingerprint(&[b]));
    }

    #[test]
    fn splits_that_leave_threads_idle_are_left_out() {
        let shape = Shape::new(256, 128).unwrap();
        let candidate = Candidate { kernel: fake::exact("r1u1"), tile: Tile::default() };
        let rows = |threads| -> Vec<usize> {
            split_variants(candidate, shape, threads).map(|c| c.tile.rows_per_task).collect()
        };
        assert_eq!(rows(1), [0]);
        assert_eq!(rows(2), [0, 32, 64]);
        assert_eq!(rows(64), [0]);
    }
}
