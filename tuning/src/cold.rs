//! Cold weights: copies of a layer's matrix that are read in turn, so that each read comes from memory
//! as it does when a whole model is decoded.
//!
//! A kernel timed on one matrix again and again reads the cache and gets a rank that it does not have
//! in use. Only where the whole model fits into the cache is that the truth.

use trilut_kernels::{AlignedBytes, Layout, Packed, PackedView, Shape};
use trilut_presets::Machine;
use trilut_presets::preset::Weights;

/// Copies cover at least this many times the last-level cache.
pub const TIMES_CACHE: u64 = 3;

/// The last-level cache that is assumed where the system tells none.
pub const UNKNOWN_CACHE: u64 = 32 << 20;

/// Bytes between two copies, so that they do not start in the same cache sets.
pub(crate) const GAP: usize = 4096 + 64;

/// Where a model's weights are during decoding: in the cache only if they leave half of it to the
/// activations, the KV cache and everybody else.
pub fn state(model_bytes: u64, machine: &Machine) -> Weights {
    if model_bytes > 0 && model_bytes <= last_level(machine) / 2 {
        Weights::Warm
    } else {
        Weights::Cold
    }
}

fn last_level(machine: &Machine) -> u64 {
    match machine.last_level_bytes() {
        0 => UNKNOWN_CACHE,
        bytes => bytes,
    }
}

/// How many copies of a matrix are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Whether the copies are meant to be cold or warm.
    pub weights: Weights,
    /// The number of copies, at least 1.
    pub copies: usize,
    /// Bytes of all copies.
    pub bytes: u64,
    /// The bytes that would be needed to be surely cold, if there was no room for them.
    pub short_of: Option<u64>,
}

impl Rotation {
    /// The rotation for matrices of `each` bytes. `free` is the memory that may be used for it, which there
    /// may be more of; `None` if not even one copy fits.
    pub fn plan(each: u64, model_bytes: u64, machine: &Machine, free: u64) -> Option<Self> {
        let each = each.max(1);
        let weights = state(model_bytes, machine);
        let wanted = match weights {
            Weights::Cold => TIMES_CACHE * last_level(machine),
            // As much as the model: the distance at which a matrix is read again is the same.
            Weights::Warm => model_bytes,
        };
        // Very small matrices are spread over pages of their own: four times the cache in pages is as
        // cold as it gets.
        let most = (4 * wanted / GAP as u64).max(1);
        let copies = wanted.div_ceil(each).clamp(1, most);
        let fitting = free / (each + GAP as u64);
        if fitting == 0 {
            return None;
        }
        let short = fitting < copies && weights == Weights::Cold;
        let copies = copies.min(fitting);
        Some(Self {
            weights,
            copies: usize::try_from(copies).unwrap_or(usize::MAX),
            bytes: copies * each,
            short_of: short.then_some(wanted),
        })
    }
}

impl std::fmt::Display for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        match self.weights {
            Weights::Cold => write!(f, "cold weights: {} MiB in turn", mib(self.bytes))?,
            Weights::Warm => {
                write!(f, "warm weights: the model fits into the cache ({} MiB)", mib(self.bytes))?;
            }
        }
        self.short_of.map_or(Ok(()), |wanted| {
            write!(f, " (there is no room for {} MiB: times may be too good)", mib(wanted))
        })
    }
}

/// The copies of one packed matrix.
#[derive(Debug)]
pub struct Copies {
    layout: Layout,
    shape: Shape,
    bytes: AlignedBytes,
    stride: usize,
    copies: usize,
}

impl Copies {
    /// Copies a matrix as often as the rotation says.
    pub fn of(packed: &Packed, rotation: Rotation) -> Self {
        let view = packed.view();
        let one = view.bytes();
        let stride = one.len().next_multiple_of(64) + GAP;
        let mut bytes = AlignedBytes::zeroed(stride * rotation.copies);
        for copy in bytes.chunks_exact_mut(stride) {
            copy[..one.len()].copy_from_slice(one);
        }
        Self { layout: view.layout(), shape: view.shape(), bytes, stride, copies: rotation.copies }
    }

    /// The arrangement of the weights.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Copy `index`, counted on and on.
    pub fn view(&self, index: usize) -> PackedView<'_> {
        let start = index % self.copies * self.stride;
        PackedView::new(self.layout, self.shape, &self.bytes[start..])
            .expect("every copy is as long as the layout needs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trilut_presets::machine::Cache;

    fn machine(megabytes: u64) -> Machine {
        let cache = Cache { level: 3, bytes: megabytes << 20, shared_by: 2 };
        Machine { caches: vec![cache], logical_cpus: 4, ..Machine::default() }
    }

    #[test]
    fn copies_exceed_all_caches_three_times() {
        // Two caches of 16 MiB.
        let rotation = Rotation::plan(1 << 20, 1 << 30, &machine(16), 1 << 40).unwrap();
        assert_eq!((rotation.weights, rotation.copies), (Weights::Cold, 96));
        assert_eq!(rotation.short_of, None);
        let huge = Rotation::plan(1 << 30, 1 << 33, &machine(16), 1 << 40).unwrap();
        assert_eq!(huge.copies, 1);
    }

    #[test]
    fn scarce_memory_is_stated() {
        let rotation = Rotation::plan(1 << 20, 1 << 30, &machine(16), 10 << 20).unwrap();
        assert_eq!(rotation.copies, 9);
        assert!(rotation.to_string().contains("no room for 96 MiB"), "{rotation}");
        assert_eq!(Rotation::plan(1 << 20, 1 << 30, &machine(16), 1 << 20), None);
    }

    #[test]
    fn a_model_that_fits_is_warm() {
        let rotation = Rotation::plan(1 << 18, 4 << 20, &machine(16), 1 << 40).unwrap();
        assert_eq!((rotation.weights, rotation.copies), (Weights::Warm, 16));
        assert_eq!(state(17 << 20, &machine(16)), Weights::Cold);
        // An unknown size is never assumed to fit.
        assert_eq!(state(0, &machine(16)), Weights::Cold);
        assert_eq!(state(33 << 20, &Machine::default()), Weights::Cold);
    }

    #[test]
    fn every_copy_holds_the_matrix() {
        let shape = Shape { m: 3, k: 130 };
        let ternary: Vec<i8> = (0..390).map(|i| (i % 3) as i8 - 1).collect();
        for &layout in Layout::ALL {
            let packed = Packed::pack(layout, shape, &ternary).unwrap();
            let rotation = Rotation { weights: Weights::Cold, copies: 3, bytes: 0, short_of: None };
            let copies = Copies::of(&packed, rotation);
            for index in 0..5 {
                assert_eq!(copies.view(index).unpack(), ternary);
            }
            assert_ne!(copies.view(0).bytes().as_ptr(), copies.view(1).bytes().as_ptr());
            assert_eq!(copies.view(3).bytes().as_ptr(), copies.view(0).bytes().as_ptr());
        }
    }
}
