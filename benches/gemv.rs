//! Decode kernels, one thread: each format's default kernel and the scalar one, on weights that are
//! cold (rotated through more than the last-level cache, as in decoding a large model) and hot.
//!
//! `cargo bench --bench gemv`; `trilut tune --shape MxK` compares all kernels.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use trilut::kernels::{Activations, Cpu, Format, Isa, Packed, Shape, Tile};
use trilut::presets::Machine;
use trilut::tuning::exactness::Random;

/// The layers of BitNet b1.58 2B-4T that carry most of its weights.
const SHAPES: [(usize, usize); 2] = [(6912, 2560), (2560, 6912)];

fn gemv(c: &mut Criterion) {
    let cache = Machine::detect().last_level_bytes().max(8 << 20) as usize;
    for (m, k) in SHAPES {
        let shape = Shape::new(m, k).expect("a legal shape");
        let mut random = Random::new(1);
        let ternary = random.ternary(shape.weights());
        let mut activations = Activations::new();
        activations.set(&random.activations(k));
        let mut group = c.benchmark_group(format!("gemv {shape}"));
        group.throughput(Throughput::Elements(shape.weights() as u64));
        for (isa, cpu) in [("best", Cpu::detect()), ("scalar", Cpu::capped(Some(Isa::Scalar)))] {
            for &format in Format::ALL {
                let kernel = cpu.default_kernel(format, shape);
                let packed = Packed::pack(kernel.layout(), shape, &ternary).expect("ternary");
                activations.prepare(kernel.activation());
                // Three times the cache, so that no copy is still there when its turn comes.
                let copies = 3 * cache / packed.view().bytes().len() + 1;
                for (state, copies) in [("cold", copies), ("hot", 1)] {
                    let copies = vec![packed.clone(); copies];
                    let mut sums = vec![0; m];
                    let mut turn = 0;
                    let name = format!("{isa} {state}");
                    group.bench_function(BenchmarkId::new(name, format), |b| {
                        b.iter(|| {
                            turn = (turn + 1) % copies.len();
                            let (weights, tile) = (copies[turn].view(), Tile::default());
                            kernel
                                .gemv(weights, &activations, 0..m, tile, &mut sums)
                                .expect("parts that fit");
                            black_box(&mut sums);
                        });
                    });
                }
            }
        }
        group.finish();
    }
}

criterion_group!(benches, gemv);
criterion_main!(benches);
