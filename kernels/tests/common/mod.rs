//! Inputs that the kernel tests share.
#![allow(dead_code, reason = "each test binary uses a part")]

use trilut_kernels::{
    Activations, BatchKernel, Cpu, GemmKernel, Isa, Kernel, Layout, Packed, Runnable, Shape, Tile,
    reference, registry,
};

/// Kernels by which the spelling of others is proven on machines that cannot run those.
mod twins {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/twins.rs"));
}

/// The gemm kernels among them.
pub(crate) fn gemm_twins() -> &'static [GemmKernel] {
    #[cfg(target_arch = "x86_64")]
    return &twins::GEMM_KERNELS;
    #[cfg(not(target_arch = "x86_64"))]
    return &[];
}

/// The small-batch kernels among them.
pub(crate) fn batch_twins() -> &'static [BatchKernel] {
    #[cfg(target_arch = "x86_64")]
    return &twins::BATCH_KERNELS;
    #[cfg(not(target_arch = "x86_64"))]
    return &[];
}

/// Whether shapes should be small and few: on an emulated CPU, where `TRILUT_TEST_SHAPES=small` is set.
pub(crate) fn small_shapes() -> bool {
    std::env::var("TRILUT_TEST_SHAPES").is_ok_and(|shapes| shapes == "small")
}

/// Whether the kernels of an ISA are of interest: on an emulated CPU not those that are the same everywhere.
pub(crate) fn wanted(isa: Isa) -> bool {
    !small_shapes() || isa != Isa::Emulated
}

/// Notes kernels that were found exact, a line each, in the file that `TRILUT_COVERAGE` names, if set.
pub(crate) fn note_exact(names: impl IntoIterator<Item = &'static str>) {
    if let Some(file) = std::env::var_os("TRILUT_COVERAGE") {
        // In one write: test binaries may run side by side.
        let lines: String = names.into_iter().map(|name| format!("\nexact {name}")).collect();
        let mut file = std::fs::File::options().append(true).create(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, (lines + "\n").as_bytes()).unwrap();
    }
}

/// SplitMix64: a counter turned into well-mixed bits.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A matrix and a token's activations, with the exact answer.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) shape: Shape,
    pub(crate) ternary: Vec<i8>,
    pub(crate) q: Vec<i8>,
    pub(crate) sums: Vec<i32>,
}

impl Case {
    pub(crate) fn new(what: &str, shape: Shape, ternary: Vec<i8>, q: Vec<i8>) -> Self {
        let sums = reference::gemv(shape, &ternary, &q);
        Self { what: format!("{what} {shape}"), shape, ternary, q, sums }
    }

    /// Uniform ternary weights and int8 activations, the whole range.
    pub(crate) fn random(shape: Shape, seed: u64) -> Self {
        let mut next = random(seed);
        let ternary = (0..shape.weights()).map(|_| (next() % 3) as i8 - 1).collect();
        let q = (0..shape.k).map(|_| next() as i8).collect();
        Self::new("random", shape, ternary, q)
    }

    /// One weight in sixteen and one activation in four is not zero.
    pub(crate) fn sparse(shape: Shape, seed: u64) -> Self {
        let mut next = random(seed);
        let mut one_in = |n: u64| next().is_multiple_of(n);
        let ternary = (0..shape.weights())
            .map(|i| if one_in(16) { (i % 2) as i8 * 2 - 1 } else { 0 })
            .collect();
        let q = (0..shape.k).map(|i| if one_in(4) { i as i8 } else { 0 }).collect();
        Self::new("sparse", shape, ternary, q)
    }

    /// Every combination of weights and activations that drives partial sums to an end of their range.
    pub(crate) fn adversarial(shape: Shape) -> Vec<Self> {
        type At = fn(usize) -> i8;
        let activations: [(&str, At); 5] = [
            ("q=127", |_| 127),
            ("q=-128", |_| -128),
            ("q=-127", |_| -127),
            ("q=+-127", |i| if i % 2 == 0 { 127 } else { -127 }),
            ("q=127,-128", |i| if i % 3 == 0 { 127 } else { -128 }),
        ];
        let mut cases = Vec::new();
        for (q_text, q) in activations {
            let q: Vec<i8> = (0..shape.k).map(q).collect();
            let mut case = |what: &str, t: &dyn Fn(usize) -> i8| {
                let ternary = (0..shape.weights()).map(|i| t(i % shape.k)).collect();
                cases.push(Self::new(&format!("{what} {q_text}"), shape, ternary, q.clone()));
            };
            case("t=1", &|_| 1);
            case("t=-1", &|_| -1);
            case("t=sign(q)", &|k| q[k].signum());
            case("t=-sign(q)", &|k| -q[k].signum());
        }
        cases
    }

    /// The matrix in every layout.
    pub(crate) fn packed(&self) -> Vec<Packed> {
        let pack = |&layout| Packed::pack(layout, self.shape, &self.ternary).unwrap();
        Layout::ALL.iter().map(pack).collect()
    }

    /// The activations in every form.
    pub(crate) fn activations(&self) -> Activations {
        let mut activations = Activations::new();
        activations.set(&self.q);
        trilut_kernels::Activation::ALL.iter().for_each(|&form| activations.prepare(form));
        activations
    }

    /// What a kernel computes, all rows in one call.
    pub(crate) fn run(&self, kernel: &Runnable, packed: &[Packed], x: &Activations) -> Vec<i32> {
        let weights = packed.iter().find(|p| p.layout() == kernel.layout()).unwrap();
        // Sums that a kernel forgets to write must not look right.
        let mut out = vec![i32::MIN; self.shape.m];
        kernel.gemv(weights.view(), x, 0..self.shape.m, Tile::default(), &mut out).unwrap();
        out
    }
}

/// The kernels that can run here. The others are counted and named on stderr. The CPU must support the ISA
/// that `TRILUT_REQUIRE_ISA` names.
pub(crate) fn runnable(kernels: &'static [Kernel]) -> Vec<Runnable> {
    let cpu = Cpu::capped(None);
    let (mut run, mut skipped) = (Vec::new(), Vec::new());
    for kernel in kernels.iter().filter(|kernel| wanted(kernel.name.isa)) {
        match cpu.runnable(kernel) {
            Some(kernel) => run.push(kernel),
            None => skipped.push(kernel.text),
        }
    }
    if !skipped.is_empty() {
        eprintln!("{} kernels cannot run on this CPU: {}", skipped.len(), skipped.join(", "));
    }
    if let Ok(required) = std::env::var("TRILUT_REQUIRE_ISA") {
        let isa: Isa = required.parse().expect("TRILUT_REQUIRE_ISA names an ISA");
        assert!(
            cpu.supports(isa).is_some(),
            "TRILUT_REQUIRE_ISA={isa}, but this CPU cannot run it"
        );
        assert!(registry().iter().any(|k| k.name.isa == isa), "no kernel for {isa} is compiled in");
    }
    run
}

/// Every kernel of the registry, and every twin, that can run here.
pub(crate) fn every() -> Vec<Runnable> {
    let mut kernels = runnable(registry());
    kernels.append(&mut runnable(&twins::KERNELS));
    kernels
}

/// Every kernel that can run here and accepts a shape.
pub(crate) fn accepting(shape: Shape) -> Vec<Runnable> {
    let mut kernels = every();
    kernels.retain(|k| k.kernel().name.fixed.accepts(shape));
    kernels
}
