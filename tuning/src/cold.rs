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
    /// Copies a matrix as often as the rotation says.
    pub fn of(packed: &Packed, rotation: Rotation) -> Self {
        let room = Room::new(Self::bytes(packed.view().bytes().len(), rotation));
        Self::within(packed, rotation, room)
    }

    /// Bytes of the room for a rotation of matrices of `each` bytes.
    pub(crate) fn bytes(each: usize, rotation: Rotation) -> usize {
        stride(each) * rotation.copies
    }

    /// The same in a room of at least those [bytes](Self::bytes).
    pub(crate) fn within(packed: &Packed, rotation: Rotation, mut room: Room) -> Self {
        let view = packed.view();
        let one = view.bytes();
        let (stride, copies) = (stride(one.len()), rotation.copies);
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

    #[test]
    fn the_room_of_earlier_copies_is_filled_again() {
        let packed = |m, value| {
            let shape = Shape { m, k: 128 };
            let ternary = vec![value; shape.weights()];
            (Packed::pack(Layout::I2s, shape, &ternary).unwrap(), ternary)
        };
        let rotation = Rotation { weights: Weights::Cold, copies: 3, bytes: 0, short_of: None };
        let mut spares = Spares::default();
        let mut places = Vec::new();
        // A larger matrix within the slack, and a smaller one, of other values.
        for (m, value) in [(64, 1), (72, -1), (8, 0)] {
            let (packed, ternary) = packed(m, value);
            let needed = Copies::bytes(packed.view().bytes().len(), rotation);
            let room = spares.take(&[needed], 1 << 20).pop().unwrap();
            assert!(room.bytes.len() >= needed && spares.held() == 0);
            let copies = Copies::within(&packed, rotation, room);
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
