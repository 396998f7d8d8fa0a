//! The float side of decoding but for the head, one thread: attention over a chunk of positions, norm
//! and quantisation, for each ISA of this CPU.
//!
//! `cargo bench --bench floats`

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use std::hint::black_box;
use trilut::kernels::float::fixed_attention::{
    Panels, Rows, key_panels, lay_out_keys_i16, products, weigh,
};
use trilut::kernels::float::{attention, fixed_rows, norm};
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

/// The same in integers: as one token does it, and as many do who share what is laid out.
fn integers(c: &mut Criterion) {
    let (heads, n, width) = ATTENTION;
    for tokens in [1, 32] {
        let rows = tokens * heads;
        let integers = |n: usize| (0..n).map(|i| (i * 37 % 201) as i16 - 100).collect::<Vec<_>>();
        let (keys, queries) = (integers(n * width), integers(rows * width));
        let mut panels = vec![0; key_panels(n, width)];
        let (mut scores, mut weights) = (wave(rows * n), vec![0; n]);
        let scales = vec![1e-3; rows.max(n)];
        let mut group = c.benchmark_group(format!("integers {rows} heads {n}x{width}"));
        group.throughput(Throughput::Elements((rows * n * width) as u64));
        for isa in isas() {
            let stored = Rows { codes: &queries, stride: width, scales: &scales[..rows] };
            let (mut sums, mut out) = (vec![0; rows * width], vec![0.0; rows * width]);
            group.bench_function(BenchmarkId::new("stored keys", isa.isa()), |b| {
                let scales = &scales[..n];
                b.iter(|| {
                    fixed_rows::scores_i16(isa, stored, &keys, width, scales, &mut scores, n);
                });
            });
            group.bench_function(BenchmarkId::new("stored values", isa.isa()), |b| {
                let codes = &integers(rows * n);
                let stored = Rows { codes, stride: n, ..stored };
                b.iter(|| {
                    fixed_rows::weighted_i16(isa, stored, &keys, width, &mut sums, &mut out);
                });
            });
            group.bench_function(BenchmarkId::new("panels", isa.isa()), |b| {
                b.iter(|| lay_out_keys_i16(isa, &keys, width, black_box(&mut panels)));
            });
            group.bench_function(BenchmarkId::new("products", isa.isa()), |b| {
                let rows = Rows { codes: &queries, stride: width, scales: &scales[..rows] };
                let pairs = width / 2;
                let panels =
                    Panels { codes: &panels, pairs, used: pairs, scales: Some(&scales[..n]) };
                b.iter(|| products(isa, rows, panels, black_box(&mut scores), n));
            });
            group.bench_function(BenchmarkId::new("weights", isa.isa()), |b| {
                b.iter(|| {
                    for row in scores.chunks_exact_mut(n) {
                        black_box(weigh(isa, row, &scales[..n], &mut weights));
                    }
                });
            });
        }
        group.finish();
    }
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

criterion_group!(benches, heads, integers, norms);
criterion_main!(benches);
