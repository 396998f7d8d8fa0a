//! Settling: weights are moved to the memory that is near to the threads which will read them.
//!
//! A system puts a page where the thread runs that touches it first. Loading runs on other threads than
//! multiplying, in other parts, so on machines with several memory nodes the threads of the pool copy what each
//! of them will read. Elsewhere nothing is done. Mapped files stay where the page cache has them.

use crate::pool::{Parts, Pool, Worker};
use crate::{AlignedBytes, Tile};
use std::ops::Range;

/// The bytes of some rows among `len` bytes of `rows` rows. Layouts store rows, or small groups of them, one
/// after the other, so shares of rows are shares of bytes.
fn bytes_of(part: &Range<usize>, rows: usize, len: usize) -> Range<usize> {
    let at = |row: usize| (row as u128 * len as u128 / rows.max(1) as u128) as usize;
    at(part.start)..at(part.end)
}

/// The parts of the bytes that a worker reads, where rows are dealt out as [`Worker::tasks`] does.
fn parts(
    worker: &Worker<'_>,
    rows: usize,
    rows_per_task: usize,
    len: usize,
) -> impl Iterator<Item = Range<usize>> {
    let tasks = worker.tasks(rows, rows_per_task, Tile::ROW_QUANTUM);
    tasks.map(move |task| bytes_of(&task, rows, len))
}

impl AlignedBytes {
    /// Moves the bytes of a matrix of `rows` rows near to the threads of a pool that read them, where these are
    /// near to different memory; the bytes stay the same. For the time being both copies exist.
    pub fn settle(&mut self, pool: &Pool, rows: usize, rows_per_task: usize) {
        if !pool.spans_nodes() {
            return;
        }
        let len = self.len();
        let mut near = Self::untouched(len);
        {
            let (from, to) = (&**self, Parts::new(&mut near[..]));
            pool.run(|worker| {
                for part in parts(worker, rows, rows_per_task, len) {
                    // SAFETY: the tasks of different workers are disjoint, and so are their bytes.
                    let to = unsafe { to.get_mut(part.clone()) };
                    to.copy_from_slice(&from[part]);
                }
            });
        }
        *self = near;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layout, Packed, Shape};
    use std::sync::Mutex;
    use trilut_presets::machine::cores::Seat;

    fn seats(nodes: &[usize]) -> Vec<Seat> {
        nodes.iter().map(|&node| Seat { cpus: vec![], weight: 1, node }).collect()
    }

    #[test]
    fn every_byte_is_touched_by_the_thread_that_reads_it_and_by_no_other() {
        let pool = Pool::seated(&seats(&[0, 0, 1]));
        assert!(pool.spans_nodes());
        for (rows, rows_per_task, row_bytes) in
            [(96, 0, 64), (640, 32, 640), (97, 64, 52), (1, 0, 7), (0, 0, 0)]
        {
            let len = rows * row_bytes;
            let touched = Mutex::new(vec![usize::MAX; len]);
            pool.run(|worker| {
                let tasks = worker.tasks(rows, rows_per_task, Tile::ROW_QUANTUM);
                for (part, task) in parts(worker, rows, rows_per_task, len).zip(tasks) {
                    assert_eq!(part, task.start * row_bytes..task.end * row_bytes);
                    let mut touched = touched.lock().unwrap();
                    for by in &mut touched[part] {
                        assert_eq!(*by, usize::MAX, "touched twice");
                        *by = worker.index;
                    }
                }
            });
            assert!(touched.into_inner().unwrap().iter().all(|by| *by < 3));
        }
    }

    #[test]
    fn settled_weights_are_the_same_in_every_layout() {
        let ternary: Vec<i8> = (0..97 * 300).map(|i| (i * i % 3) as i8 - 1).collect();
        let shape = Shape { m: 97, k: 300 };
        for nodes in [&[0, 1][..], &[0, 0, 1, 1], &[0, 0], &[0]] {
            let pool = Pool::seated(&seats(nodes));
            assert_eq!(pool.spans_nodes(), nodes.contains(&1));
            for &layout in Layout::ALL {
                for rows_per_task in [0, 32] {
                    let mut packed = Packed::pack(layout, shape, &ternary).unwrap();
                    let before = packed.view().bytes().to_vec();
                    packed.settle(&pool, rows_per_task);
                    assert!(packed.view().bytes() == before, "{layout:?} {nodes:?}");
                }
            }
        }
    }
}
