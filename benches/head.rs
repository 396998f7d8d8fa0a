//! The float head: rows of the vocabulary times one hidden vector, from memory, per ISA and number of
//! threads. In a decoded token of a model with an f16 head it is the largest single piece.
//!
//! ```sh
//! cargo bench --bench head
//! cargo bench --bench head -- f16
//! ```
//!
//! The widths are those of BitNet b1.58 2B-4T and of the demo model; of the large vocabulary there are
//! only as many rows as are surely not cached. The figure is bytes per second, to be held against
//! `trilut doctor --bandwidth`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use std::hint::black_box;
use std::time::Duration;
use trilut::kernels::float::matvec::{rows_f16, rows_f32};
use trilut::kernels::pool::{Parts, Pool, default_threads};
use trilut::kernels::{Cpu, Isa, Supported};
use trilut::presets::Machine;
use trilut::tuning::bandwidth::sensible_bytes;
use trilut::tuning::exactness::Random;

/// Widths of the hidden vector, with the rows of the vocabulary where all of them are measured.
const SIZES: [(usize, Option<usize>); 2] = [(256, Some(1280)), (2560, None)];

/// A function over rows of one type.
type Rows<E> = fn(Supported, &[E], &[f32], &mut [f32]);

fn values(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.next_u32() as f32 / u32::MAX as f32 - 0.5).collect()
}

/// One stored type on every ISA, with one thread and with all.
fn head<E: Copy + Sync>(c: &mut Criterion, name: &str, rows_of: Rows<E>, store: fn(f32) -> E) {
    let cpu = Cpu::detect();
    let mut random = Random::new(1);
    for (width, rows) in SIZES {
        let surely_cold = sensible_bytes(&Machine::detect()) as usize / (width * size_of::<E>());
        let rows = rows.unwrap_or(surely_cold);
        // A few rows over and over: time does not depend on the values.
        let few = values(&mut random, 64 * width);
        let mut weights: Vec<E> = Vec::new();
        let x = values(&mut random, width);
        let mut out = vec![0.0; rows];
        let mut group = c.benchmark_group(format!("head {name} {rows}x{width}"));
        group
            .throughput(Throughput::Bytes((rows * width * size_of::<E>()) as u64))
            .sample_size(20)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2));
        let mut counts = vec![1, default_threads()];
        counts.dedup();
        for threads in counts {
            let pool = Pool::new(threads);
            let isas = cpu.isas().filter(|isa| *isa != Isa::Emulated);
            for isa in isas.filter_map(|isa| cpu.supports(isa)) {
                let id = BenchmarkId::new(isa.isa().name(), format!("{threads} threads"));
                group.bench_function(id, |b| {
                    if weights.is_empty() {
                        weights =
                            few.iter().copied().cycle().take(rows * width).map(store).collect();
                    }
                    b.iter(|| {
                        let out = Parts::new(&mut out);
                        pool.run(|worker| {
                            let share = worker.share(rows, 16);
                            // SAFETY: the workers' shares do not overlap.
                            let out = unsafe { out.get_mut(share.clone()) };
                            rows_of(isa, &weights[share.start * width..share.end * width], &x, out);
                        });
                    });
                    black_box(&mut out);
                });
            }
        }
        group.finish();
    }
}

fn heads(c: &mut Criterion) {
    head(c, "f16", rows_f16, f16::from_f32);
    head(c, "f32", rows_f32, |x| x);
}

criterion_group!(benches, heads);
criterion_main!(benches);
