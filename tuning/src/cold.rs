//! Cold weights: copies of a layer's matrix that are read in turn, so that each read comes from memory
//! as it does when a whole model is decoded.
//!
//! A kernel timed on one matrix again and again reads the cache and gets a rank that it does not have
//! in use. Only where the whole model fits into the cache is that the truth.
//!
//! A few times the cache are not enough: the last-level caches of today keep a part of what is streamed through
//! them in turn, up to their own share of it, and which kernel profits depends on how it prefetches. Of three times
//! the cache that is a third, of a whole model a few percent. So a matrix is read again at the distance at which the
//! model reads it again.

use crate::copies::block;
use trilut_presets::preset::Weights;
use trilut_presets::{Machine, Phase};

/// Copies cover at least this many times the last-level cache.
pub const LEAST_CACHES: u64 = 3;

/// And of a model that is larger not more than this many times, which leaves the cache a sixteenth.
pub const MOST_CACHES: u64 = 16;

/// As many times where nobody knows the model, which costs less memory and time.
pub const USUAL_CACHES: u64 = 8;

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

/// How much is read before a matrix is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distance {
    /// Whether the weights are meant to be cold or warm.
    pub weights: Weights,
    /// The bytes that are aimed at.
    pub bytes: u64,
    /// With less than this the weights are not surely cold.
    pub least: u64,
}

impl Distance {
    /// The distance for the layers of a model of `model_bytes`, which is `u64::MAX` where it is not known.
    pub fn of(model_bytes: u64, machine: &Machine, phase: Phase) -> Self {
        let cache = last_level(machine);
        let weights = state(model_bytes, machine);
        let least = LEAST_CACHES * cache;
        let bytes = match weights {
            Weights::Warm => model_bytes,
            // Of a prompt a weight is read once for many tokens.
            Weights::Cold if phase == Phase::Prefill => least,
            Weights::Cold if model_bytes == u64::MAX => USUAL_CACHES * cache,
            Weights::Cold => model_bytes.clamp(least, MOST_CACHES * cache),
        };
        Self { weights, bytes, least }
    }
}

/// How many copies of a matrix are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// What the copies are for.
    pub distance: Distance,
    /// The number of copies of each matrix, at least 1.
    pub copies: usize,
    /// Bytes of all copies of the smallest.
    pub bytes: u64,
}

impl Rotation {
    /// The rotation for a matrix of so many bytes in each layout. `free` is the memory that may be used for all of
    /// them, which there may be more of; `None` if not even one copy of each fits.
    pub fn plan(each: &[usize], distance: Distance, free: u64) -> Option<Self> {
        let smallest = each.iter().copied().min().unwrap_or(1).max(1) as u64;
        let copies = distance.bytes.div_ceil(smallest).clamp(1, most_copies(distance));
        let fitting = free / (block(each.iter().copied()) as u64).max(1);
        if fitting == 0 {
            return None;
        }
        let copies = copies.min(fitting);
        let bytes = copies * smallest;
        Some(Self { distance, copies: usize::try_from(copies).unwrap_or(usize::MAX), bytes })
    }

    /// Whether there was no room for enough copies to be surely cold.
    pub fn is_short(&self) -> bool {
        let Distance { weights, least, .. } = self.distance;
        weights == Weights::Cold && self.bytes < least && !self.is_spread()
    }

    /// Whether the matrices are so small that fewer bytes are enough.
    fn is_spread(&self) -> bool {
        self.copies as u64 == most_copies(self.distance)
    }
}

/// The most copies that are worth while. Very small matrices are spread over pages of their own: four times the
/// least distance in pages is as cold as it gets.
fn most_copies(distance: Distance) -> u64 {
    let least = distance.least.min(distance.bytes);
    (4 * least / GAP as u64).max(1)
}

impl std::fmt::Display for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let Distance { weights, bytes: aimed, least } = self.distance;
        let bytes = mib(self.bytes);
        match weights {
            Weights::Warm => {
                write!(f, "warm weights: the model fits into the cache ({bytes} MiB)")
            }
            Weights::Cold if self.is_short() => write!(
                f,
                "cold weights: {bytes} MiB in turn (there is no room for {} MiB: times may be too good)",
                mib(least)
            ),
            Weights::Cold if self.bytes < least => {
                write!(f, "cold weights: {bytes} MiB in turn, each copy on pages of its own")
            }
            // The same for every layer that has as much.
            Weights::Cold => {
                let all = if self.bytes < aimed { least } else { aimed };
                write!(f, "cold weights: at least {} MiB in turn", mib(all))
            }
        }
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

    /// For decoding on two caches of 16 MiB.
    fn plan(each: usize, model_bytes: u64, free: u64) -> Option<Rotation> {
        Rotation::plan(&[each], Distance::of(model_bytes, &machine(16), Phase::Decode), free)
    }

    #[test]
    fn a_matrix_is_read_again_at_the_distance_at_which_the_model_reads_it_again() {
        let copies = |model_bytes| {
            let rotation = plan(1 << 20, model_bytes, 1 << 40).unwrap();
            assert_eq!((rotation.distance.weights, rotation.is_short()), (Weights::Cold, false));
            rotation.copies
        };
        // At least three times all caches, at most sixteen times.
        assert_eq!([40 << 20, 300 << 20, 1 << 30, u64::MAX].map(copies), [96, 300, 512, 256]);
        let prompts = Distance::of(1 << 30, &machine(16), Phase::Prefill);
        assert_eq!(prompts.bytes, 96 << 20);
        assert_eq!(plan(1 << 30, 1 << 33, 1 << 40).unwrap().copies, 1);
        let told = |each, free| plan(each, 300 << 20, free).unwrap().to_string();
        assert_eq!(told(1 << 20, 1 << 40), "cold weights: at least 300 MiB in turn");
        assert_eq!(told(1 << 20, 200 << 20), "cold weights: at least 96 MiB in turn");
        assert!(told(64, 1 << 40).contains("pages of its own"), "{}", told(64, 1 << 40));
    }

    #[test]
    fn scarce_memory_is_stated() {
        let rotation = plan(1 << 20, 1 << 30, 10 << 20).unwrap();
        assert_eq!(rotation.copies, 9);
        assert!(rotation.to_string().contains("no room for 96 MiB"), "{rotation}");
        assert_eq!(plan(1 << 20, 1 << 30, 1 << 20), None);
        // Of two layouts each has half of it.
        let distance = Distance::of(1 << 30, &machine(16), Phase::Decode);
        let both = Rotation::plan(&[1 << 20, 3 << 20], distance, 100 << 20).unwrap();
        assert_eq!((both.copies, both.bytes), (24, 24 << 20));
    }

    #[test]
    fn a_model_that_fits_is_warm() {
        let rotation = plan(1 << 18, 4 << 20, 1 << 40).unwrap();
        assert_eq!((rotation.distance.weights, rotation.copies), (Weights::Warm, 16));
        assert_eq!(state(17 << 20, &machine(16)), Weights::Cold);
        // An unknown size is never assumed to fit.
        assert_eq!(state(0, &machine(16)), Weights::Cold);
        assert_eq!(state(33 << 20, &Machine::default()), Weights::Cold);
    }
}
