//! The thread pool of the token loop: what it costs to enter a parallel region, and to pass a barrier
//! inside one, with 1 thread up to one for each core.
//!
//! ```sh
//! cargo bench --bench pool
//! ```
//!
//! A decoded token enters one region and passes some ten barriers in each layer. On a machine that is
//! shared with others both grow, because a thread whose core was taken away is waited for.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Instant;
use trilut::kernels::pool::{Pool, default_threads};

fn region(c: &mut Criterion) {
    let mut group = c.benchmark_group("region");
    for threads in 1..=default_threads() {
        let pool = Pool::new(threads);
        let id = BenchmarkId::from_parameter(threads);
        group.bench_function(id, |b| b.iter(|| pool.run(|worker| _ = black_box(worker.index))));
    }
    group.finish();
}

fn barrier(c: &mut Criterion) {
    let mut group = c.benchmark_group("barrier");
    for threads in 1..=default_threads() {
        let pool = Pool::new(threads);
        group.bench_function(BenchmarkId::from_parameter(threads), |b| {
            // One region holds all of them, so that only barriers are counted.
            b.iter_custom(|count| {
                let began = Instant::now();
                pool.run(|worker| (0..count).for_each(|_| worker.barrier()));
                began.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, region, barrier);
criterion_main!(benches);
