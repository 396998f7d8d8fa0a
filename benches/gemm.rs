//! Prompt kernels on one thread: every gemm kernel that runs here, and what surrounds it.
//!
//! ```sh
//! cargo bench --bench gemm                    # everything, a few minutes
//! cargo bench --bench gemm -- 'tile .*vlut'   # one algorithm
//! cargo bench --bench gemm -- 'fill|arrange'  # panels and token tiles alone
//! ```
//!
//! `tile` is one whole tile of tokens through a panel of 960 rows of 2560 inputs; throughput is in
//! multiply-adds. `fill` makes the panel from each stored format, once for all tiles of a prompt, and
//! `arrange` the tile, once for all panels of a stack. `trilut tune --phase prefill` times all of it as
//! prompts run it, on all threads.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use trilut::kernels::{
    Activations, Cpu, GemmScratch, Layout, Packed, Panel, PanelForm, Segment, Shape, TokenTile,
};
use trilut::tuning::exactness::Random;

const ROWS: usize = 960;
const K: usize = 2560;

fn weights(layout: Layout) -> Packed {
    let shape = Shape::new(ROWS, K).expect("a legal shape");
    let ternary = Random::new(1).ternary(shape.weights());
    Packed::pack(layout, shape, &ternary).expect("as many weights as the shape has")
}

fn tokens(count: usize) -> Vec<Activations> {
    let mut random = Random::new(2);
    let token = |_| {
        let mut activations = Activations::new();
        activations.set(&random.activations(K));
        activations
    };
    (0..count).map(token).collect()
}

fn segment(packed: &Packed) -> [Segment<'_>; 1] {
    [Segment { weights: packed.view(), rows: 0..ROWS }]
}

fn tiles(c: &mut Criterion) {
    let mut group = c.benchmark_group("tile");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    let packed = weights(Layout::I2s);
    for kernel in Cpu::detect().gemm_candidates() {
        let (mut panel, mut tile) = (Panel::new(), TokenTile::new());
        kernel.fill(&mut panel, &segment(&packed));
        kernel.arrange(&mut tile, tokens(kernel.tokens()).iter());
        let mut scratch = GemmScratch::default();
        group.throughput(Throughput::Elements((ROWS * K * kernel.tokens()) as u64));
        group.bench_function(kernel.kernel().text, |b| {
            b.iter(|| black_box(kernel.run(&panel, &tile, &mut scratch)).map(<[i32]>::len));
        });
    }
    group.finish();
}

/// The forms that the default kernels of some ISA read.
const FORMS: [(&str, PanelForm); 3] = [
    ("indices", PanelForm::Indices { group: 4, tables: 8 }),
    ("codes", PanelForm::Codes),
    ("mixed", PanelForm::Mixed { tables: 8, steps: 16 }),
];

fn panels(c: &mut Criterion) {
    let isa = Cpu::detect().best();
    let mut group = c.benchmark_group("fill");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements((ROWS * K) as u64));
    for &layout in Layout::ALL {
        let packed = weights(layout);
        for (name, form) in FORMS {
            let mut panel = Panel::new();
            group.bench_function(format!("{} {name}", layout.format()), |b| {
                b.iter(|| panel.fill(isa, form, &segment(&packed)));
            });
        }
    }
    group.finish();
}

fn token_tiles(c: &mut Criterion) {
    let isa = Cpu::detect().best();
    let mut group = c.benchmark_group("arrange");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    let tokens = tokens(32);
    group.throughput(Throughput::Elements((K * tokens.len()) as u64));
    for (name, form) in FORMS {
        let mut tile = TokenTile::new();
        group.bench_function(name, |b| {
            b.iter(|| tile.arrange(isa, form, tokens.len(), tokens.iter()));
        });
    }
    group.finish();
}

criterion_group!(benches, tiles, panels, token_tiles);
criterion_main!(benches);
