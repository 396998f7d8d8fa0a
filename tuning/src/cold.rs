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

use trilut_kernels::{AlignedBytes, Layout, Packed, PackedView, Shape};
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
    /// The number of copies, at least 1.
    pub copies: usize,
    /// Bytes of all copies.
    pub bytes: u64,
}

impl Rotation {
    /// The rotation for matrices of `each` bytes. `free` is the memory that may be used for it, which there
    /// may be more of; `None` if not even one copy fits.
    pub fn plan(each: u64, distance: Distance, free: u64) -> Option<Self> {
        let each = each.max(1);
        let copies = distance.bytes.div_ceil(each).clamp(1, most_copies(distance));
        let fitting = free / (each + GAP as u64);
        if fitting == 0 {
            return None;
        }
        let copies = copies.min(fitting);
        let bytes = copies * each;
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

/// Memory for copies.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: AlignedBytes,
    /// Bytes from the beginning that were written: the system provides the others as they are.
    touched: usize,
}

impl Room {
    fn new(len: usize) -> Self {
        Self { bytes: AlignedBytes::zeroed(len), touched: 0 }
    }
}

/// Room that the copies of earlier layers have left. The copies of the next ones go there: with a large cache
/// it takes the system seconds to provide the pages for them.
#[derive(Debug, Default)]
pub(crate) struct Spares(Vec<Room>);

impl Spares {
    /// Bytes of memory that are in it.
    pub(crate) fn held(&self) -> u64 {
        self.0.iter().map(|room| room.touched as u64).sum()
    }

    /// Takes back the room of copies.
    pub(crate) fn give(&mut self, copies: impl Iterator<Item = Copies>) {
        self.0.extend(copies.map(|copies| copies.room));
    }

    /// A room for each of these sizes, each of at most `most` bytes, as far as that is enough. Room that is left
    /// is given back to the system, before any other is taken from it, where all together would be more.
    pub(crate) fn take(&mut self, needed: &[usize], most: u64) -> Vec<Room> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // The copies of the next layer may need a bit more; what is not written takes no memory.
        let size = |bytes: usize| bytes.saturating_add(bytes / 8).min(most).max(bytes);
        self.0.sort_unstable_by_key(|room| room.bytes.len());
        let find = |bytes: &usize| {
            let fits = |room: &Room| (*bytes..=most.max(*bytes)).contains(&room.bytes.len());
            self.0.iter().position(fits).map(|at| self.0.remove(at))
        };
        let found: Vec<Option<Room>> = needed.iter().map(find).collect();
        let taken = found.iter().zip(needed).map(|(room, bytes)| match room {
            Some(room) => room.bytes.len(),
            None => size(*bytes),
        });
        let mut left = most.saturating_mul(needed.len()).saturating_sub(taken.sum());
        self.0.retain(|room| {
            let rest = left.checked_sub(room.bytes.len());
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        let rooms = found.into_iter().zip(needed);
        rooms.map(|(room, bytes)| room.unwrap_or_else(|| Room::new(size(*bytes)))).collect()
    }
}

/// Bytes from one copy to the next.
fn stride(each: usize) -> usize {
    each.next_multiple_of(64) + GAP
}

/// The copies of one packed matrix.
#[derive(Debug)]
pub struct Copies {
    layout: Layout,
    shape: Shape,
    room: Room,
    stride: usize,
    copies: usize,
}

impl Copies {
    /// So many copies of a matrix.
    pub fn of(packed: &Packed, copies: usize) -> Self {
        let room = Room::new(Self::bytes(packed.view().bytes().len(), copies));
        Self::within(packed, copies, room)
    }

    /// Bytes of the room for so many matrices of `each` bytes.
    pub(crate) fn bytes(each: usize, copies: usize) -> usize {
        stride(each) * copies
    }

    /// The same in a room of at least those [bytes](Self::bytes).
    pub(crate) fn within(packed: &Packed, copies: usize, mut room: Room) -> Self {
        let view = packed.view();
        let one = view.bytes();
        let stride = stride(one.len());
        for copy in room.bytes.chunks_exact_mut(stride).take(copies) {
            copy[..one.len()].copy_from_slice(one);
        }
        room.touched = room.touched.max(stride * copies);
        Self { layout: view.layout(), shape: view.shape(), room, stride, copies }
    }

    /// The arrangement of the weights.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Copy `index`, counted on and on.
    pub fn view(&self, index: usize) -> PackedView<'_> {
        let start = index % self.copies * self.stride;
        PackedView::new(self.layout, self.shape, &self.room.bytes[start..])
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

    /// For decoding on two caches of 16 MiB.
    fn plan(each: u64, model_bytes: u64, free: u64) -> Option<Rotation> {
        Rotation::plan(each, Distance::of(model_bytes, &machine(16), Phase::Decode), free)
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

    #[test]
    fn every_copy_holds_the_matrix() {
        let shape = Shape { m: 3, k: 130 };
        let ternary: Vec<i8> = (0..390).map(|i| (i % 3) as i8 - 1).collect();
        for &layout in Layout::ALL {
            let packed = Packed::pack(layout, shape, &ternary).unwrap();
            let copies = Copies::of(&packed, 3);
            for index in 0..5 {
                assert_eq!(copies.view(index).unpack(), ternary);
            }
            assert_ne!(copies.view(0).bytes().as_ptr(), copies.view(1).bytes().as_ptr());
            assert_eq!(copies.view(3).bytes().as_ptr(), copies.view(0).bytes().as_ptr());
        }
    }

    #[test]
    fn the_room_of_earlier_copies_is_filled_again() {
        let packed = |m, value| {
            let shape = Shape { m, k: 128 };
            let ternary = vec![value; shape.weights()];
            (Packed::pack(Layout::I2s, shape, &ternary).unwrap(), ternary)
        };
        let mut spares = Spares::default();
        let mut places = Vec::new();
        // A larger matrix within the slack, and a smaller one, of other values.
        for (m, value) in [(64, 1), (72, -1), (8, 0)] {
            let (packed, ternary) = packed(m, value);
            let needed = Copies::bytes(packed.view().bytes().len(), 3);
            let room = spares.take(&[needed], 1 << 20).pop().unwrap();
            assert!(room.bytes.len() >= needed && spares.held() == 0);
            let copies = Copies::within(&packed, 3, room);
            for index in 0..4 {
                assert_eq!(copies.view(index).unpack(), ternary);
            }
            places.push(copies.view(0).bytes().as_ptr());
            spares.give([copies].into_iter());
            assert!(spares.held() >= needed as u64);
        }
        assert!(places.iter().all(|place| *place == places[0]));
    }

    #[test]
    fn spare_room_stays_within_what_may_be_used() {
        let of = |lens: &[usize]| {
            let room = |len: &usize| Room { touched: *len, ..Room::new(*len) };
            Spares(lens.iter().map(room).collect())
        };
        let lens = |rooms: &[Room]| rooms.iter().map(|r| r.bytes.len()).collect::<Vec<_>>();
        let taken = |spares: &[usize], needed: &[usize], most| {
            let mut spares = of(spares);
            let rooms = spares.take(needed, most);
            (lens(&rooms), lens(&spares.0))
        };
        // The smallest that is large enough; what else there is stays while there is room for all.
        assert_eq!(taken(&[900, 500], &[400, 450], 1000), (vec![500, 900], vec![]));
        assert_eq!(taken(&[900, 500], &[800], 1000), (vec![900], vec![]));
        assert_eq!(taken(&[300, 400], &[400], 1000), (vec![400], vec![300]));
        // Of what is too small or too large, and of new room, there is not more than that.
        assert_eq!(taken(&[300], &[800], 1000), (vec![900], vec![]));
        assert_eq!(taken(&[5000], &[800], 1000), (vec![900], vec![]));
        assert_eq!(taken(&[], &[960, 80], 1000), (vec![1000, 90], vec![]));
        assert_eq!(taken(&[600], &[1010], 1000), (vec![1010], vec![]));
    }
}
