//! The head in each stored type: rows of the vocabulary times one hidden vector, from memory, per ISA and number of
//! threads. In a decoded token of a model with an f16 head it is the largest single piece.
//!
//! ```sh
//! cargo bench --bench head
//! cargo bench --bench head -- q6_k
//! ```
//!
//! The widths are those of BitNet b1.58 2B-4T and of the demo model; of the large vocabulary there are
//! only as many rows as are surely not cached. The figure is bytes per second, to be held against
//! `trilut doctor --bandwidth`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use trilut::kernels::float::blocks::BlockFormat;
use trilut::kernels::float::matvec::{rows_f16, rows_f32};
use trilut::kernels::pool::{Parts, Pool, default_threads};
use trilut::kernels::{AlignedBytes, Cpu, Isa, Supported};
use trilut::presets::Machine;
use trilut::tuning::bandwidth::sensible_bytes;

/// Widths of the hidden vector, with the rows of the vocabulary where all of them are measured.
const SIZES: [(usize, Option<usize>); 2] = [(256, Some(1280)), (2560, None)];

/// A function over the bytes of rows of one stored type.
type Rows = fn(Supported, &[u8], &[f32], &mut [f32]);

/// Each stored type, its bytes per 256 weights, and its function.
const TYPES: [(&str, usize, Rows); 4] = [
    ("f32", 1024, |isa, rows, x, out| rows_f32(isa, bytemuck::cast_slice(rows), &[x], &mut [out])),
    ("f16", 512, |isa, rows, x, out| rows_f16(isa, bytemuck::cast_slice(rows), &[x], &mut [out])),
    ("q8_0", 272, |isa, rows, x, out| blocks(BlockFormat::Q8_0, isa, rows, x, out)),
    ("q6_k", 210, |isa, rows, x, out| blocks(BlockFormat::Q6K, isa, rows, x, out)),
];

/// Rows of a block format; turning the vector into what they are multiplied with is part of it.
fn blocks(format: BlockFormat, isa: Supported, rows: &[u8], x: &[f32], out: &mut [f32]) {
    format.rows(isa, rows, &format.vectors(isa, &[x]), &mut [out]);
}

/// Bytes that are finite weights in every type: no exponent has its highest bit.
fn weights(count: usize) -> AlignedBytes {
    let mut bytes = AlignedBytes::zeroed(count);
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (i.wrapping_mul(0x9e37_79b9) >> 16) as u8 & 0xbf;
    }
    bytes
}

/// One stored type on every ISA, with one thread and with all.
fn head(c: &mut Criterion, name: &str, bytes_per_256: usize, rows_of: Rows) {
    let cpu = Cpu::detect();
    for (width, rows) in SIZES {
        let row = width / 256 * bytes_per_256;
        let rows = rows.unwrap_or(sensible_bytes(&Machine::detect()) as usize / row);
        let mut stored = AlignedBytes::default();
        let x: Vec<f32> = (0..width).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut out = vec![0.0; rows];
        let mut group = c.benchmark_group(format!("head {name} {rows}x{width}"));
        group
            .throughput(Throughput::Bytes((rows * row) as u64))
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
                    if stored.is_empty() {
                        stored = weights(rows * row);
                    }
                    b.iter(|| {
                        let out = Parts::new(&mut out);
                        pool.run(|worker| {
                            let share = worker.share(rows, 16);
                            // SAFETY: the workers' shares do not overlap.
                            let out = unsafe { out.get_mut(share.clone()) };
                            rows_of(isa, &stored[share.start * row..share.end * row], &x, out);
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
    for (name, bytes_per_256, rows_of) in TYPES {
        head(c, name, bytes_per_256, rows_of);
    }
}

criterion_group!(benches, heads);
criterion_main!(benches);
