//! The copies of a layer's weights that are read in turn, in each layout that a candidate wants.
//!
//! Memory is not equally fast everywhere: a virtual machine's may lie on several nodes of its host, of which it is told
//! nothing. So the copies in all layouts lie among each other, one of each layout in each block: what one candidate
//! finds slow, the others find slow as well, and kernels are compared, not places.

use crate::cold::GAP;
use std::sync::Arc;
use trilut_kernels::{AlignedBytes, Layout, Packed, PackedView, Shape};

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

/// Room that the copies of an earlier layer have left. The copies of the next one go there: with a large cache it
/// takes the system seconds to provide the pages for them.
#[derive(Debug, Default)]
pub(crate) struct Spare(Option<Room>);

impl Spare {
    /// Bytes of memory that are in it.
    pub(crate) fn held(&self) -> u64 {
        self.0.as_ref().map_or(0, |room| room.touched as u64)
    }

    /// Takes back the room of copies.
    pub(crate) fn give(&mut self, copies: Vec<Copies>) {
        let room = copies.first().map(|copies| Arc::clone(&copies.room));
        drop(copies);
        self.0 = room.and_then(Arc::into_inner);
    }

    /// A room of at least so many bytes, and at most of `most` as far as that is enough. What there is goes back to
    /// the system, before any other is taken from it, where it does not fit.
    pub(crate) fn take(&mut self, needed: usize, most: u64) -> Room {
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(needed);
        let fits = |room: &Room| (needed..=most).contains(&room.bytes.len());
        let known = self.0.take().filter(fits);
        // The copies of the next layer may need a bit more; what is not written takes no memory.
        known.unwrap_or_else(|| Room::new(needed.saturating_add(needed / 8).min(most)))
    }
}

/// Bytes from one copy to the next.
fn stride(each: usize) -> usize {
    each.next_multiple_of(64) + GAP
}

/// Bytes of a block: a copy of each of these sizes.
pub(crate) fn block(each: impl Iterator<Item = usize>) -> usize {
    each.map(stride).sum()
}

/// The copies of one packed matrix.
#[derive(Debug)]
pub struct Copies {
    layout: Layout,
    shape: Shape,
    room: Arc<Room>,
    /// Where the first one is, and bytes from one to the next.
    first: usize,
    block: usize,
    copies: usize,
}

impl Copies {
    /// So many copies of a matrix.
    pub fn of(packed: &Packed, copies: usize) -> Self {
        let view = packed.view();
        let room = Room::new(block([view.bytes().len()].into_iter()) * copies);
        let mut all = Self::among(&[view.layout()], view.shape(), copies, room, |_| packed.clone());
        all.pop().expect("one layout has one set of copies")
    }

    /// So many copies in each layout, in a room for as many [blocks](block). `pack` makes the matrix in a layout.
    pub(crate) fn among(
        layouts: &[Layout],
        shape: Shape,
        copies: usize,
        mut room: Room,
        pack: impl Fn(Layout) -> Packed,
    ) -> Vec<Self> {
        let block = block(layouts.iter().map(|layout| layout.bytes(shape)));
        let packed: Vec<Packed> = layouts.iter().map(|&layout| pack(layout)).collect();
        let mut places = Vec::new();
        let mut first = 0;
        for one in &packed {
            places.push((one.view().layout(), first));
            first += stride(one.view().bytes().len());
        }
        // By all cores: where the system must provide the pages first, one takes seconds.
        let fill = |blocks: &mut [u8]| {
            for block in blocks.chunks_exact_mut(block) {
                for (one, (_, first)) in packed.iter().zip(&places) {
                    let bytes = one.view().bytes();
                    block[*first..first + bytes.len()].copy_from_slice(bytes);
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let part = block * copies.div_ceil(cores).max(1);
        std::thread::scope(|scope| {
            for blocks in room.bytes[..block * copies].chunks_mut(part) {
                scope.spawn(move || fill(blocks));
            }
        });
        room.touched = room.touched.max(block * copies);
        let room = Arc::new(room);
        let of =
            |(layout, first)| Self { layout, shape, room: Arc::clone(&room), first, block, copies };
        places.into_iter().map(of).collect()
    }

    /// The arrangement of the weights.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// All copies in all layouts, as they lie in their room.
    pub(crate) fn all(&self) -> &[u8] {
        &self.room.bytes[..self.block * self.copies]
    }

    /// Where in [all of them](Self::all) the block of a copy begins, counted on and on.
    pub(crate) fn offset(&self, index: usize) -> usize {
        index % self.copies * self.block
    }

    /// Copy `index`, counted on and on.
    pub fn view(&self, index: usize) -> PackedView<'_> {
        let start = self.first + self.offset(index);
        PackedView::new(self.layout, self.shape, &self.room.bytes[start..])
            .expect("every copy is as long as the layout needs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with some of each value, and its copies in all layouts.
    fn all(shape: Shape, turn: usize, spare: &mut Spare) -> (Vec<i8>, Vec<Copies>) {
        let ternary: Vec<i8> = (0..shape.weights()).map(|i| ((i + turn) % 3) as i8 - 1).collect();
        let needed = 3 * block(Layout::ALL.iter().map(|layout| layout.bytes(shape)));
        let room = spare.take(needed, 1 << 30);
        let pack = |layout| Packed::pack(layout, shape, &ternary).unwrap();
        let copies = Copies::among(Layout::ALL, shape, 3, room, pack);
        (ternary, copies)
    }

    #[test]
    fn every_copy_holds_the_matrix_and_lies_beside_the_others() {
        let mut spare = Spare::default();
        // Of other sizes and values, in the room that the ones before have left.
        for (turn, m) in [3, 7, 2].into_iter().enumerate() {
            let (ternary, copies) = all(Shape { m, k: 130 }, turn, &mut spare);
            for (at, own) in copies.iter().enumerate() {
                assert_eq!(own.layout(), Layout::ALL[at]);
                for index in 0..5 {
                    assert_eq!(own.view(index).unpack(), ternary, "{:?}", own.layout());
                }
                let place = |index| own.view(index).bytes().as_ptr();
                assert_ne!(place(0), place(1));
                assert_eq!(place(0), place(3));
            }
            let place = |own: &Copies, index| own.view(index).bytes().as_ptr().addr();
            let (first, last) = (&copies[0], copies.last().unwrap());
            assert!(place(first, 0) < place(last, 0) && place(last, 0) < place(first, 1));
            spare.give(copies);
        }
    }

    #[test]
    fn room_is_used_again_where_it_fits() {
        let mut spare = Spare::default();
        let shape = Shape { m: 16, k: 128 };
        let (_, copies) = all(shape, 0, &mut spare);
        let place = copies[0].view(0).bytes().as_ptr();
        assert_eq!(spare.held(), 0);
        spare.give(copies);
        let held = spare.held();
        assert_eq!(held, 3 * block(Layout::ALL.iter().map(|layout| layout.bytes(shape))) as u64);
        let (_, copies) = all(Shape { m: 8, k: 128 }, 1, &mut spare);
        assert_eq!(copies[0].view(0).bytes().as_ptr(), place);
        spare.give(copies);
        // Too small, and too large.
        assert!(spare.take(2 * held as usize, 1 << 30).bytes.len() >= 2 * held as usize);
        spare.0 = Some(Room::new(5000));
        assert_eq!(spare.take(800, 1000).bytes.len(), 900);
        assert_eq!(Spare::default().take(960, 1000).bytes.len(), 1000);
        assert_eq!(Spare::default().take(1010, 1000).bytes.len(), 1010);
    }
}
