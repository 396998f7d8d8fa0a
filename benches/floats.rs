//! The float side of decoding but for the head, one thread: attention over a chunk of positions, norm
//! and quantisation, for each ISA of this CPU.
//!
//! `cargo bench --bench floats`

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use std::hint::black_box;
use trilut::kernels::float::{attention, norm};
use trilut::kernels::quantise::quantise;
use trilut::kernels::{Isa, Supported};

/// The width of BitNet b1.58 2B-4T.
const K: usize = 2560;
/// Query heads for a key/value head, positions of a chunk, and dimensions.
const ATTENTION: (usize, usize, usize) = (4, 256, 128);

/// The ISAs that floats are spelled for.
fn isas() -> impl Iterator<Item = Supported> {
    [Isa::Scalar, Isa::Avx2, Isa::Avx512].into_iter().filter_map(Supported::detect)
}

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn halves(n: usize) -> Vec<f16> {
    wave(n).into_iter().map(f16::from_f32).collect()
}

fn heads(c: &mut Criterion) {
    let (heads, n, width) = ATTENTION;
    let (keys, queries) = (halves(n * width), wave(heads * width));
    let (mut scores, mut out) = (wave(heads * n), vec![0.0; heads * width]);
    let mut group = c.benchmark_group(format!("attention {heads} heads {n}x{width}"));
    group.throughput(Throughput::Elements((heads * n * width) as u64));
    for isa in isas() {
        group.bench_function(BenchmarkId::new("sums", isa.isa()), |b| {
            b.iter(|| {
                attention::weighted_sums_f16(isa, &scores, &keys, width, black_box(&mut out));
            });
        });
        group.bench_function(BenchmarkId::new("scores", isa.isa()), |b| {
            b.iter(|| attention::scores_f16(isa, &keys, &queries, width, black_box(&mut scores)));
        });
    }
    group.finish();
}

fn norms(c: &mut Criterion) {
    let (x, weight) = (wave(K), vec![1.0; K]);
    let (mut out, mut q) = (vec![0.0; K], vec![0; K]);
    let mut group = c.benchmark_group(format!("norm {K}"));
    for isa in isas() {
        group.bench_function(BenchmarkId::new("norm and quantise", isa.isa()), |b| {
            b.iter(|| {
                norm::rms_norm(isa, &x, &weight, 1e-5, &mut out);
                black_box(quantise(isa, &out, &mut q))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, heads, norms);
criterion_main!(benches);
