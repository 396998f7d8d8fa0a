//! The float side of decoding, one thread: the head in each type on weights that are cold, and
//! attention over a chunk of positions, for each ISA of this CPU.
//!
//! `cargo bench --bench floats`; the head is to be compared with the plain reading of its bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use std::hint::black_box;
use trilut::kernels::float::blocks::BlockFormat;
use trilut::kernels::float::{attention, matvec, norm};
use trilut::kernels::quantise::quantise;
use trilut::kernels::{Isa, Supported};

/// A quarter of the head of BitNet b1.58 2B-4T: more than caches hold.
const ROWS: usize = 128_256 / 4;
/// Its inputs.
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

/// Bytes that are blocks of finite weights in any format.
fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 16) as u8 & 0xBF).collect()
}

fn head(c: &mut Criterion) {
    let (x, mut out) = (wave(K), vec![0.0; ROWS]);
    let rows = halves(ROWS * K);
    let mut group = c.benchmark_group(format!("head {ROWS}x{K}"));
    group.sample_size(10);
    group.throughput(Throughput::Bytes(2 * rows.len() as u64));
    group.bench_function("read", |b| {
        let words: &[[u64; 8]] = bytemuck::cast_slice(&rows);
        let fold = |sum: [u64; 8], line: &[u64; 8]| std::array::from_fn(|i| sum[i] ^ line[i]);
        b.iter(|| black_box(words.iter().fold([0; 8], fold)));
    });
    for isa in isas() {
        group.bench_function(BenchmarkId::new("f16", isa.isa()), |b| {
            b.iter(|| matvec::rows_f16(isa, &rows, &x, black_box(&mut out)));
        });
    }
    for (name, format) in [("q8_0", BlockFormat::Q8_0), ("q6_k", BlockFormat::Q6K)] {
        let rows = bytes(ROWS * K / format.weights() * format.bytes());
        group.throughput(Throughput::Bytes(rows.len() as u64));
        for isa in isas() {
            group.bench_function(BenchmarkId::new(name, isa.isa()), |b| {
                b.iter(|| format.rows(isa, &rows, &x, black_box(&mut out)));
            });
        }
    }
    group.finish();
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

criterion_group!(benches, head, heads, norms);
criterion_main!(benches);
