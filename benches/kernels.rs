//! Decode kernels on one thread, over the registry: whatever is compiled in and runs here is measured.
//!
//! ```sh
//! cargo bench --bench kernels                        # everything, a few minutes
//! cargo bench --bench kernels -- 'gemv .*/cold'      # one member of each family, weights from memory
//! cargo bench --bench kernels -- 'specialised'       # kernels for one K against the generic ones
//! cargo bench --bench kernels -- 'tuned'             # the tuner's pick against the default kernel
//! TRILUT_BENCH_ALL=1 cargo bench --bench kernels -- 'gemv'   # every kernel in place of one of each family
//! ```
//!
//! A family is a format, an algorithm and an ISA; its member here is the default one of its format if it
//! has that, else its first. Cold weights are rotated through eight times the last-level cache, as in
//! decoding a large model; hot ones are one copy. `trilut tune --shape MxK` compares all kernels and tiles
//! on all threads.

use criterion::measurement::WallTime;
use criterion::{
    Bencher, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use std::cell::OnceCell;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use trilut::kernels::{Activations, Cpu, Packed, Runnable, find};
use trilut::presets::machine::free_memory;
use trilut::presets::preset::{Effort, Weights};
use trilut::presets::{Format, Machine, Phase, Shape, Tile, default_point};
use trilut::tuning::cold::{Distance, Rotation};
use trilut::tuning::copies::Copies;
use trilut::tuning::exactness::Random;
use trilut::tuning::{Request, ShapeUse, Silent};

/// A layer of a small model, and the layers of BitNet b1.58 2B-4T that carry most of its weights.
const SHAPES: [(usize, usize); 3] = [(640, 256), (6912, 2560), (2560, 6912)];

/// The shapes that a model is so large for that its weights are cold.
const LARGE: [(usize, usize); 2] = [SHAPES[1], SHAPES[2]];

/// What the tuner may take for a shape.
const TUNING: Duration = Duration::from_secs(15);

/// The memory that copies of weights may take where the system does not tell what is free.
const UNKNOWN_FREE: u64 = 1 << 30;

/// A layer with random weights, made when a benchmark first needs it.
struct Layer {
    shape: Shape,
    parts: OnceCell<(Vec<i8>, Vec<i8>)>,
}

impl Layer {
    fn new((m, k): (usize, usize)) -> Self {
        let shape = Shape::new(m, k).expect("a legal shape");
        Self { shape, parts: OnceCell::new() }
    }

    /// Ternary weights and activations.
    fn parts(&self) -> &(Vec<i8>, Vec<i8>) {
        self.parts.get_or_init(|| {
            let mut random = Random::new(1);
            (random.ternary(self.shape.weights()), random.activations(self.shape.k))
        })
    }

    /// Copies of the weights in the kernel's layout.
    fn copies(&self, kernel: &Runnable, weights: Weights) -> Copies {
        let packed = Packed::pack(kernel.layout(), self.shape, &self.parts().0).expect("ternary");
        let bytes = packed.view().bytes().len();
        let machine = Machine::detect();
        let free = free_memory(Path::new("/")).unwrap_or(UNKNOWN_FREE) / 4;
        let distance = Distance::of(u64::MAX, &machine, Phase::Decode);
        let copies = match weights {
            Weights::Cold => Rotation::plan(&[bytes], distance, free).expect("memory").copies,
            Weights::Warm => 1,
        };
        Copies::of(&packed, copies)
    }

    /// Times one matrix-vector product.
    fn time(&self, b: &mut Bencher<'_>, kernel: &Runnable, tile: Tile, weights: Weights) {
        let copies = self.copies(kernel, weights);
        let mut activations = Activations::new();
        activations.set(&self.parts().1);
        activations.prepare(kernel.activation());
        let mut sums = vec![0; self.shape.m];
        let mut turn = 0;
        b.iter(|| {
            turn += 1;
            kernel
                .gemv(copies.view(turn), &activations, 0..self.shape.m, tile, &mut sums)
                .expect("parts that fit");
            black_box(&mut sums);
        });
    }
}

/// A group whose figures are weights per second.
fn group<'a>(c: &'a mut Criterion, name: String, layer: &Layer) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .throughput(Throughput::Elements(layer.shape.weights() as u64))
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    group
}

/// Every kernel that runs a shape here.
fn candidates(cpu: &Cpu, shape: Shape) -> Vec<Runnable> {
    Format::ALL.iter().flat_map(|&format| cpu.candidates(format, shape)).collect()
}

/// One member of each family, or everybody.
fn members(cpu: &Cpu, shape: Shape) -> Vec<Runnable> {
    let all = candidates(cpu, shape);
    if std::env::var_os("TRILUT_BENCH_ALL").is_some() {
        return all;
    }
    let family = |kernel: &Runnable| {
        let name = kernel.kernel().name;
        (name.format, name.algorithm, name.isa)
    };
    let is_default = |kernel: &Runnable| {
        let name = kernel.kernel().name;
        (name.algorithm, name.micro.rows, name.micro.unroll) == default_point(name.format, name.isa)
    };
    let mut members: Vec<Runnable> = Vec::new();
    for kernel in all.into_iter().filter(|kernel| kernel.kernel().name.fixed.k.is_none()) {
        match members.iter_mut().find(|member| family(member) == family(&kernel)) {
            None => members.push(kernel),
            Some(member) if is_default(&kernel) => *member = kernel,
            Some(_) => {}
        }
    }
    members
}

/// Each family on cold and hot weights.
fn gemv(c: &mut Criterion) {
    let cpu = Cpu::detect();
    for layer in SHAPES.map(Layer::new) {
        let mut group = group(c, format!("gemv {}", layer.shape), &layer);
        for kernel in members(&cpu, layer.shape) {
            for (state, weights) in [("cold", Weights::Cold), ("hot", Weights::Warm)] {
                let id = BenchmarkId::new(kernel.kernel().text, state);
                group.bench_function(id, |b| layer.time(b, &kernel, Tile::default(), weights));
            }
        }
        group.finish();
    }
}

/// Each kernel that is generated for one K, next to the generic one that it is made from.
fn specialised(c: &mut Criterion) {
    let cpu = Cpu::detect();
    for layer in LARGE.map(Layer::new) {
        let mut group = group(c, format!("specialised {}", layer.shape), &layer);
        let all = candidates(&cpu, layer.shape);
        for special in all.iter().filter(|kernel| kernel.kernel().name.fixed.k.is_some()) {
            let name = special.kernel().name;
            let generic = all.iter().find(|kernel| {
                let other = kernel.kernel().name;
                let same = (other.format, other.algorithm, other.micro, other.isa)
                    == (name.format, name.algorithm, name.micro, name.isa);
                same && other.fixed.k.is_none()
            });
            for kernel in generic.into_iter().chain([special]) {
                let id = BenchmarkId::from_parameter(kernel.kernel().text);
                let tile = Tile::default();
                group.bench_function(id, |b| layer.time(b, kernel, tile, Weights::Cold));
            }
        }
        group.finish();
    }
}

/// What the tuner picks for one thread, next to what runs without it.
fn tuned(c: &mut Criterion) {
    let cpu = Cpu::detect();
    for layer in LARGE.map(Layer::new) {
        let mut group = group(c, format!("tuned {}", layer.shape), &layer);
        // Tuned only if the filter lets the benchmark through.
        let pick: OnceCell<(Runnable, Tile)> = OnceCell::new();
        group.bench_function("tuned", |b| {
            let (kernel, tile) = pick.get_or_init(|| tune(&cpu, layer.shape));
            layer.time(b, kernel, *tile, Weights::Cold);
        });
        let kernel = cpu.default_kernel(Format::I2S, layer.shape);
        group.bench_function("default", |b| {
            layer.time(b, &kernel, Tile::default(), Weights::Cold);
        });
        group.finish();
    }
}

fn tune(cpu: &Cpu, shape: Shape) -> (Runnable, Tile) {
    let request = Request {
        decoded: vec![],
        shapes: vec![ShapeUse { phase: Phase::Decode, shape, count_per_token: 1 }],
        formats: Format::ALL.to_vec(),
        threads: 1,
        effort: Effort::Measure,
        time_limit: TUNING,
        cpu: cpu.clone(),
        machine: Machine::detect(),
        model_bytes: u64::MAX,
        prior: Default::default(),
    };
    let outcome = trilut::tuning::tune(&request, &mut Silent).expect("a shape that can be tuned");
    let record = outcome.preset.record(shape, Phase::Decode, 1).expect("a record of the shape");
    eprintln!("{shape}: the tuner picks {} with {}", record.kernel, record.tile);
    let kernel = find(&record.kernel).and_then(|kernel| cpu.runnable(kernel));
    (kernel.expect("the tuner picks what runs here"), record.tile)
}

criterion_group!(benches, gemv, specialised, tuned);
criterion_main!(benches);
