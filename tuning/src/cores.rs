//! How fast the cores compute at a moment: a fixed piece of work that neither reads nor writes memory.
//!
//! A virtual machine sees neither the frequency of its cores nor who else runs on them. A neighbour on the other
//! thread of a core takes a part of what it computes, for seconds, and slows kernels that compute all the time more
//! than those that wait for memory: what is fastest changes with it. So the same work is timed beside each race.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use trilut_kernels::pool::Pool;

/// Steps of each chain of the work: some 100 us.
const STEPS: usize = 40_000;

/// Chains that do not wait for each other, enough to keep all units for whole numbers busy.
const CHAINS: usize = 8;

/// How often the work is done for one look; the best time counts, since an interrupt is no neighbour.
const TIMES: usize = 5;

/// Steps of a chain per microsecond on the slowest of a pool's cores.
pub(crate) fn rate(pool: &Pool) -> f64 {
    let slowest = Mutex::new(0.0f64);
    pool.run(|worker| {
        let time = || {
            worker.barrier();
            let clock = Instant::now();
            black_box(work(black_box(worker.index as u64)));
            clock.elapsed().as_nanos() as f64
        };
        let best = (0..TIMES).map(|_| time()).fold(f64::INFINITY, f64::min);
        let mut slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = slowest.max(best);
    });
    let ns = slowest.into_inner().unwrap_or_else(PoisonError::into_inner);
    STEPS as f64 * 1e3 / ns.max(1.0)
}

/// By how much the slowest of some rates is behind the fastest, minus 1; `None` of fewer than two.
pub(crate) fn slowdown(rates: &[f64]) -> Option<f64> {
    let fastest = rates.iter().copied().fold(0.0, f64::max);
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    (rates.len() > 1 && slowest > 0.0).then(|| fastest / slowest - 1.0)
}

fn work(seed: u64) -> u64 {
    let mut chains = [0u64; CHAINS];
    for (chain, at) in chains.iter_mut().zip(seed..) {
        *chain = at;
    }
    for _ in 0..STEPS {
        for chain in &mut chains {
            *chain = chain.rotate_left(7).wrapping_add(*chain ^ 0x9e37_79b9_7f4a_7c15);
        }
    }
    chains.iter().fold(0, |all, own| all ^ own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pool_has_a_rate() {
        for threads in [1, 2, 5] {
            let rate = rate(&Pool::new(threads));
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
        assert_ne!(work(1), work(2));
    }

    #[test]
    fn the_slowest_is_compared_with_the_fastest() {
        assert_eq!(slowdown(&[]), None);
        assert_eq!(slowdown(&[5.0]), None);
        assert_eq!(slowdown(&[5.0, 4.0, 4.5]), Some(0.25));
        assert_eq!(slowdown(&[5.0, 0.0]), None);
    }
}
