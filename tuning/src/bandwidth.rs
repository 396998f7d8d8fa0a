//! How fast this machine reads memory: the ceiling of decoding, which streams every weight once per
//! token.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use trilut_kernels::pool::{Pool, Worker};
use trilut_presets::Machine;

/// A measured read bandwidth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// The number of threads that read.
    pub threads: usize,
    /// Bytes read per pass, over all threads.
    pub bytes: u64,
    /// The number of passes; the best one counts.
    pub passes: usize,
    /// The best pass in nanoseconds.
    pub best_ns: f64,
}

impl Bandwidth {
    /// 10^9 bytes per second.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.best_ns
    }

    /// Which part of the bandwidth a rate of 10^9 bytes per second uses.
    pub fn share(&self, gigabytes_per_second: f64) -> f64 {
        gigabytes_per_second / self.gigabytes_per_second()
    }
}

impl std::fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { threads, bytes, passes, .. } = self;
        let threads =
            if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
        write!(
            f,
            "{:.1} GB/s ({threads}, {} MiB, best of {passes})",
            self.gigabytes_per_second(),
            bytes >> 20
        )
    }
}

/// Bytes that are surely not cached: four times the last-level cache, at least 128 MiB, at most a
/// quarter of the memory.
pub fn sensible_bytes(machine: &Machine) -> u64 {
    let bytes = (4 * machine.last_level_bytes()).max(128 << 20);
    match machine.memory_bytes {
        0 => bytes,
        memory => bytes.min(memory / 4),
    }
}

/// Reads `bytes` with all threads of the pool, `passes` times, and keeps the best pass.
///
/// Each thread fills its own part first, so that on machines with several memory nodes it reads what is
/// near to it.
pub fn measure(pool: &Pool, bytes: u64, passes: usize) -> Bandwidth {
    let threads = pool.threads();
    let words = (bytes as usize / 8 / threads).max(LANES);
    let passes = passes.max(1);
    let times = Mutex::new(Vec::with_capacity(passes));
    pool.run(|worker| {
        // Not zero: pages that were never written may all be the same one.
        let part = vec![worker.index as u64 + 1; words];
        for _ in 0..passes {
            let ns = pass(worker, &part);
            if worker.index == 0 {
                times.lock().unwrap_or_else(PoisonError::into_inner).push(ns);
            }
        }
    });
    let times = times.into_inner().unwrap_or_else(PoisonError::into_inner);
    let best_ns = crate::statistics::least(&times).max(1.0);
    Bandwidth { threads, bytes: (words * threads * 8) as u64, passes, best_ns }
}

/// 10^9 bytes per second at which the threads of a pool read these bytes, each its part, once.
pub(crate) fn of_pass(pool: &Pool, bytes: &[u64]) -> f64 {
    let each = bytes.len() / pool.threads();
    let elapsed = Mutex::new(0.0);
    pool.run(|worker| {
        let ns = pass(worker, &bytes[worker.index * each..][..each]);
        if worker.index == 0 {
            *elapsed.lock().unwrap_or_else(PoisonError::into_inner) = ns;
        }
    });
    let ns: f64 = elapsed.into_inner().unwrap_or_else(PoisonError::into_inner);
    (each * pool.threads() * 8) as f64 / ns.max(1.0)
}

/// Reads one worker's part while the others read theirs: the nanoseconds until all have.
fn pass(worker: &Worker<'_>, part: &[u64]) -> f64 {
    worker.barrier();
    let clock = Instant::now();
    std::hint::black_box(sum(std::hint::black_box(part)));
    worker.barrier();
    clock.elapsed().as_nanos() as f64
}

/// Independent sums, so that additions never hold up the loads.
const LANES: usize = 32;

fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; LANES];
    let chunks = words.chunks_exact(LANES);
    let rest = chunks.remainder().iter();
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |total, word| total.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_reads_every_word() {
        for count in [0, 1, LANES, 3 * LANES + 5] {
            let words: Vec<u64> = (1..=count as u64).collect();
            assert_eq!(sum(&words), (count * (count + 1) / 2) as u64);
        }
    }

    #[test]
    fn all_threads_are_counted() {
        let measured = measure(&Pool::new(2), 1 << 20, 3);
        assert_eq!((measured.threads, measured.bytes, measured.passes), (2, 1 << 20, 3));
        assert!(measured.gigabytes_per_second() > 0.0);
        let half = measured.gigabytes_per_second() / 2.0;
        assert!((measured.share(half) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_buffer_exceeds_the_caches_but_not_the_memory() {
        assert_eq!(sensible_bytes(&Machine::default()), 128 << 20);
        let small = Machine { memory_bytes: 256 << 20, ..Machine::default() };
        assert_eq!(sensible_bytes(&small), 64 << 20);
    }
}
