//! Kernels, clocks and labs made up for tests: no decision is tested against real time.

use super::{Lab, Runner, Stage};
use crate::exactness::Random;
use crate::noise::CpuTimes;
use crate::request::{ShapeUse, Shortage, TuneError};
use crate::{AnyKernel, Candidate};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use trilut_kernels::{
    Activation, Batch, BatchInfo, BatchKernel, BatchRunnable, Cost, Format, Gemm, GemmInfo,
    GemmKernel, GemmRunnable, Gemv, Isa, Kernel, KernelInfo, Layout, PackedView, PanelForm, Phase,
    Runnable, Shape, Supported, reference,
};
use trilut_presets::preset::Weights;

type Run = fn(&mut Gemv<'_>);

/// A kernel called `gemv_i2s_madd_<micro>_scalar`.
fn kernel(micro: &str, cost: Cost, run: Run) -> AnyKernel {
    let text: &'static str = format!("gemv_i2s_madd_{micro}_scalar").leak();
    let info = KernelInfo {
        text,
        name: text.parse().unwrap(),
        layout: Layout::I2s,
        activation: Activation::Plain,
        bounds: &[],
        prefetches: true,
        cost,
        hash: 0xabc0 + text.len() as u64,
    };
    // SAFETY: `run` is a plain function, which the scalar ISA stands for.
    let kernel = Box::leak(Box::new(unsafe { Kernel::new(info, run) }));
    AnyKernel::Gemv(Runnable::new(kernel, Supported::detect(Isa::Scalar).unwrap()).unwrap())
}

/// A kernel called `gemm_dot_<micro>_scalar`.
fn gemm(micro: &str, run: fn(&mut Gemm<'_>)) -> AnyKernel {
    let text: &'static str = format!("gemm_dot_{micro}_scalar").leak();
    let info = GemmInfo {
        text,
        name: text.parse().unwrap(),
        form: PanelForm::Codes,
        bounds: &[],
        instructions: 0.1,
        hash: 0xdef0 + text.len() as u64,
    };
    // SAFETY: `run` is a plain function, which the scalar ISA stands for.
    let kernel = Box::leak(Box::new(unsafe { GemmKernel::new(info, run) }));
    AnyKernel::Gemm(GemmRunnable::new(kernel, Supported::detect(Isa::Scalar).unwrap()).unwrap())
}

/// Whether a made-up kernel computes what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exactness {
    Exact,
    Wrong,
}

/// A kernel of any name for the scalar ISA, with an analytic cost. Whatever its format, it reads I2_S.
pub(crate) fn named(name: &str, cost: Cost, prefetches: bool, exactness: Exactness) -> AnyKernel {
    let text: &'static str = name.to_owned().leak();
    let hash = trilut_presets::hash(text.bytes());
    let supported = Supported::detect(Isa::Scalar).unwrap();
    if let Ok(name) = text.parse() {
        let info = KernelInfo {
            text,
            name,
            layout: Layout::I2s,
            activation: Activation::Plain,
            bounds: &[],
            prefetches,
            cost,
            hash,
        };
        let run: Run = if exactness == Exactness::Exact { run_exact } else { run_wrong };
        // SAFETY: `run` is a plain function, which the scalar ISA stands for.
        let kernel = Box::leak(Box::new(unsafe { Kernel::new(info, run) }));
        return AnyKernel::Gemv(Runnable::new(kernel, supported).unwrap());
    }
    let info = GemmInfo {
        text,
        name: text.parse().unwrap(),
        form: PanelForm::Codes,
        bounds: &[],
        instructions: cost.instructions_per_weight,
        hash,
    };
    let run: fn(&mut Gemm<'_>) =
        if exactness == Exactness::Exact { run_gemm } else { run_wrong_gemm };
    // SAFETY: `run` is a plain function, which the scalar ISA stands for.
    let kernel = Box::leak(Box::new(unsafe { GemmKernel::new(info, run) }));
    AnyKernel::Gemm(GemmRunnable::new(kernel, supported).unwrap())
}

/// A kernel called `batch_i2s_dot_<micro>_scalar`.
fn batch(micro: &str, run: fn(&mut Batch<'_>)) -> AnyKernel {
    let text: &'static str = format!("batch_i2s_dot_{micro}_scalar").leak();
    let info = BatchInfo {
        text,
        name: text.parse().unwrap(),
        layout: Layout::I2s,
        activation: Activation::Plain,
        bounds: &[],
        prefetches: true,
        cost: COST,
        hash: 0x1230 + text.len() as u64,
    };
    // SAFETY: `run` is a plain function, which the scalar ISA stands for.
    let kernel = Box::leak(Box::new(unsafe { BatchKernel::new(info, run) }));
    AnyKernel::Batch(BatchRunnable::new(kernel, Supported::detect(Isa::Scalar).unwrap()).unwrap())
}

fn run_batch(call: &mut Batch<'_>) {
    let weights = PackedView::new(Layout::I2s, call.shape, call.weights).unwrap().unpack();
    for (token, out) in call.tokens.iter().zip(call.out.chunks_mut(call.rows.len().max(1))) {
        let q: Vec<i8> = token[..call.shape.k].iter().map(|b| *b as i8).collect();
        let sums = reference::gemv(call.shape, &weights, &q);
        out.copy_from_slice(&sums[call.rows.clone()]);
    }
}

fn run_wrong_batch(call: &mut Batch<'_>) {
    run_batch(call);
    if let Some(sum) = call.out.first_mut() {
        *sum += 1;
    }
}

/// A small-batch kernel that is exact.
pub(crate) fn exact_batch(micro: &str) -> AnyKernel {
    batch(micro, run_batch)
}

/// A small-batch kernel whose first sum is off by one.
pub(crate) fn wrong_batch(micro: &str) -> AnyKernel {
    batch(micro, run_wrong_batch)
}

const COST: Cost = Cost { instructions_per_weight: 0.1, bytes_per_weight: 0.25 };

thread_local! {
    /// The sums of calls, by a hash of what goes into them: many kernels are made to check the same.
    static KNOWN: RefCell<BTreeMap<(u64, usize), Vec<i32>>> = RefCell::default();
}

fn sums(call: &Gemv<'_>) -> Vec<i32> {
    let bytes = call.weights.iter().chain(&call.activations[..call.shape.k]).copied();
    let key = (trilut_presets::hash(bytes.chain(call.shape.m.to_le_bytes())), call.rows.start);
    if let Some(sums) = KNOWN.with_borrow(|known| known.get(&key).cloned()) {
        return sums;
    }
    let sums = compute(call);
    KNOWN.with_borrow_mut(|known| known.insert(key, sums.clone()));
    sums
}

fn compute(call: &Gemv<'_>) -> Vec<i32> {
    let weights = PackedView::new(Layout::I2s, call.shape, call.weights).unwrap().unpack();
    let q: Vec<i8> = call.activations[..call.shape.k].iter().map(|b| *b as i8).collect();
    reference::gemv(call.shape, &weights, &q)[call.rows.clone()].to_vec()
}

fn run_exact(call: &mut Gemv<'_>) {
    let sums = sums(call);
    call.out.copy_from_slice(&sums);
}

fn run_wrong(call: &mut Gemv<'_>) {
    run_exact(call);
    call.out[0] += 1;
}

fn run_wrapping(call: &mut Gemv<'_>) {
    run_exact(call);
    call.out.iter_mut().for_each(|sum| *sum = i32::from(*sum as i16));
}

fn run_gemm(call: &mut Gemm<'_>) {
    let bytes = call.panel.iter().chain(call.tile.iter()).copied();
    let shape = [call.k, call.token_sums.len(), call.sums.len()].map(usize::to_le_bytes);
    let key = (trilut_presets::hash(bytes.chain(shape.into_iter().flatten())), usize::MAX);
    if let Some(sums) = KNOWN.with_borrow(|known| known.get(&key).cloned()) {
        call.sums.copy_from_slice(&sums);
        return;
    }
    compute_gemm(call);
    let sums = call.sums.to_vec();
    KNOWN.with_borrow_mut(|known| known.insert(key, sums));
}

/// Codes times tokens, four inputs of each token after the other.
fn compute_gemm(call: &mut Gemm<'_>) {
    let (k, tokens) = (PanelForm::Codes.inputs(call.k), call.token_sums.len());
    for (row, sums) in call.sums.chunks_exact_mut(tokens).enumerate() {
        let codes = &call.panel[row * k..][..k];
        for (token, sum) in sums.iter_mut().enumerate() {
            let q = |i: usize| i32::from(call.tile[(i / 4 * tokens + token) * 4 + i % 4] as i8);
            let products = codes.iter().enumerate().map(|(i, &code)| i32::from(code) * q(i));
            *sum = products.sum::<i32>() - call.token_sums[token];
        }
    }
}

fn run_wrong_gemm(call: &mut Gemm<'_>) {
    run_gemm(call);
    call.sums[0] += 1;
}

fn run_wrapping_gemm(call: &mut Gemm<'_>) {
    run_gemm(call);
    call.sums.iter_mut().for_each(|sum| *sum = i32::from(*sum as i16));
}

fn run_swapping_gemm(call: &mut Gemm<'_>) {
    run_gemm(call);
    let tokens = call.token_sums.len();
    call.sums.chunks_exact_mut(tokens).for_each(|sums| sums.rotate_left(tokens / 2));
}

/// A gemm kernel that is exact.
pub(crate) fn exact_gemm(micro: &str) -> AnyKernel {
    gemm(micro, run_gemm)
}

/// A gemm kernel whose first sum is off by one.
pub(crate) fn wrong_gemm(micro: &str) -> AnyKernel {
    gemm(micro, run_wrong_gemm)
}

/// A gemm kernel whose sums wrap at 16 bits.
pub(crate) fn wrapping_gemm(micro: &str) -> AnyKernel {
    gemm(micro, run_wrapping_gemm)
}

/// A gemm kernel that takes one half of the tokens for the other.
pub(crate) fn swapping_gemm(micro: &str) -> AnyKernel {
    gemm(micro, run_swapping_gemm)
}

/// A kernel that is exact.
pub(crate) fn exact(micro: &str) -> AnyKernel {
    kernel(micro, COST, run_exact)
}

/// An exact kernel with an analytic cost.
pub(crate) fn with_cost(micro: &str, instructions_per_weight: f64, bytes: f64) -> AnyKernel {
    kernel(micro, Cost { instructions_per_weight, bytes_per_weight: bytes }, run_exact)
}

/// A kernel whose first sum is off by one.
pub(crate) fn wrong(micro: &str) -> AnyKernel {
    kernel(micro, COST, run_wrong)
}

/// A kernel whose sums wrap at 16 bits.
pub(crate) fn wrapping(micro: &str) -> AnyKernel {
    kernel(micro, COST, run_wrapping)
}

/// The micro tile in a candidate's name.
pub(crate) fn micro(candidate: &Candidate) -> &'static str {
    candidate.name().rsplit('_').nth(1).unwrap()
}

fn candidate(micro: &str) -> Candidate {
    Candidate::untuned(exact(micro))
}

/// Four candidates, the first one standing for the default.
pub(crate) fn field() -> Vec<Candidate> {
    ["r1u1", "r2u1", "r4u1", "r8u1"].map(candidate).to_vec()
}

/// A challenger and the default.
pub(crate) fn pair() -> [Candidate; 2] {
    ["r2u1", "r1u1"].map(candidate)
}

/// How long candidates take, by micro tile, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Script {
    pub(crate) times: &'static [(&'static str, f64)],
    /// Times of first samples, where they differ.
    pub(crate) first: &'static [(&'static str, f64)],
    /// Random slow-down up to this share.
    pub(crate) noise: f64,
    /// Slow-down per sample taken.
    pub(crate) drift: f64,
    /// Whether the slow-down is over when the second stage opens.
    pub(crate) drift_passes: bool,
    /// A prefetch distance and the factor that it brings.
    pub(crate) prefetch: Option<(usize, f64)>,
    /// A kernel, a prefetch distance and the factor that this brings to it.
    pub(crate) own_prefetch: Option<(&'static str, usize, f64)>,
    /// The paces of memory that looks find one after the other; the last one lasts.
    pub(crate) paces: &'static [f64],
    /// The rates of the cores that looks find one after the other; the last one lasts.
    pub(crate) rates: &'static [f64],
    /// The time that a look at memory takes.
    pub(crate) look: Duration,
    /// A row split and the factor that it brings.
    pub(crate) rows: Option<(usize, f64)>,
    /// The number of tokens at which kernels of small batches are as slow as those of prompts.
    pub(crate) crossing: Option<usize>,
    /// The weights of the largest layer that there is memory for.
    pub(crate) memory: Option<usize>,
    /// The time that it takes to open a stage.
    pub(crate) opening: Duration,
}

/// A runner that follows a script. Its clock moves by a millisecond per sample.
pub(crate) struct Synthetic {
    script: Script,
    random: Random,
    taken: usize,
    seen: BTreeSet<String>,
    clock: Rc<Cell<Duration>>,
    log: Rc<RefCell<Vec<String>>>,
    tokens: Option<usize>,
    looks: Rc<Cell<usize>>,
    core_looks: Rc<Cell<usize>>,
}

impl Synthetic {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script,
            random: Random::new(5),
            taken: 0,
            seen: BTreeSet::new(),
            clock: Rc::default(),
            log: Rc::default(),
            tokens: None,
            looks: Rc::default(),
            core_looks: Rc::default(),
        }
    }
}

fn find(times: &[(&str, f64)], micro: &str) -> Option<f64> {
    times.iter().find(|(name, _)| *name == micro).map(|(_, ns)| *ns)
}

impl Runner for Synthetic {
    fn now(&self) -> Duration {
        self.clock.get()
    }

    fn set_tokens(&mut self, tokens: usize) {
        self.tokens = Some(tokens);
    }

    fn memory(&mut self) -> Option<f64> {
        let look = self.looks.replace(self.looks.get() + 1);
        self.clock.set(self.clock.get() + self.script.look);
        let paces = self.script.paces;
        paces.get(look).or(paces.last()).copied()
    }

    fn cores(&mut self) -> Option<f64> {
        let look = self.core_looks.replace(self.core_looks.get() + 1);
        let rates = self.script.rates;
        rates.get(look).or(rates.last()).copied()
    }

    fn sample(&mut self, candidate: &Candidate) -> Result<f64, String> {
        self.clock.set(self.clock.get() + Duration::from_millis(1));
        self.log.borrow_mut().push(candidate.name().to_owned());
        let (script, micro) = (self.script, micro(candidate));
        if let Some((tokens, even)) = self.tokens.zip(script.crossing) {
            let is_prompt = candidate.kernel.phase() == Phase::Prefill;
            return Ok(if is_prompt { even as f64 } else { tokens as f64 });
        }
        let mut ns = find(script.times, micro).ok_or("no time is scripted")?;
        if self.seen.insert(candidate.to_string()) {
            ns = find(script.first, micro).unwrap_or(ns);
        }
        let hit = |knob: Option<(usize, f64)>, value| knob.filter(|(at, _)| *at == value);
        ns *= hit(script.prefetch, candidate.tile.prefetch).map_or(1.0, |(_, factor)| factor);
        ns *= hit(script.rows, candidate.tile.rows_per_task).map_or(1.0, |(_, factor)| factor);
        let own =
            script.own_prefetch.filter(|(own, _, _)| *own == micro).map(|(_, at, by)| (at, by));
        ns *= hit(own, candidate.tile.prefetch).map_or(1.0, |(_, factor)| factor);
        let wobble = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        self.taken += 1;
        Ok(ns * (1.0 + script.noise * wobble) * (1.0 + script.drift * self.taken as f64))
    }
}

/// A lab with made-up kernels, the first one of each phase being the default.
pub(crate) struct FakeLab {
    pub(crate) kernels: Vec<AnyKernel>,
    pub(crate) script: Script,
    pub(crate) clock: Rc<Cell<Duration>>,
    /// The name of the kernel of every sample taken.
    pub(crate) log: Rc<RefCell<Vec<String>>>,
    /// Looks at the pace of memory so far.
    pub(crate) looks: Rc<Cell<usize>>,
    /// The same at the rate of the cores.
    core_looks: Rc<Cell<usize>>,
}

impl FakeLab {
    pub(crate) fn new(kernels: Vec<AnyKernel>, script: Script) -> Self {
        Self {
            kernels,
            script,
            clock: Rc::default(),
            log: Rc::default(),
            looks: Rc::default(),
            core_looks: Rc::default(),
        }
    }
}

impl Lab for FakeLab {
    fn kernels(&self, layer: &ShapeUse, format: Format) -> Vec<AnyKernel> {
        let fits = |kernel: &&AnyKernel| format == Format::I2S && kernel.phase() == layer.phase;
        self.kernels.iter().filter(fits).copied().collect()
    }

    fn default_kernel(&self, layer: &ShapeUse, _: Format) -> AnyKernel {
        let own = self.kernels.iter().find(|kernel| kernel.phase() == layer.phase);
        *own.or(self.kernels.first()).unwrap()
    }

    fn layout(&self, _: Format, _: Shape) -> Layout {
        Layout::I2s
    }

    fn now(&self) -> Duration {
        self.clock.get()
    }

    fn date(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn cpu_times(&self) -> Option<CpuTimes> {
        None
    }

    fn check_memory(&self, shape: Shape, _: &[Layout]) -> Result<(), Shortage> {
        let (needed, free) =
            (shape.weights() as u64, self.script.memory.unwrap_or(usize::MAX) as u64);
        if needed > free { Err(Shortage { shape, needed, free }) } else { Ok(()) }
    }

    fn open(&mut self, _: &ShapeUse, _: &[Layout]) -> Result<Stage<'_>, TuneError> {
        let script = self.script;
        if script.drift_passes {
            self.script.drift = 0.0;
        }
        self.clock.set(self.clock.get() + script.opening);
        let mut runner = Synthetic::new(script);
        runner.clock = Rc::clone(&self.clock);
        runner.log = Rc::clone(&self.log);
        runner.looks = Rc::clone(&self.looks);
        runner.core_looks = Rc::clone(&self.core_looks);
        let notes = vec!["synthetic weights".to_owned()];
        Ok(Stage { runner: Box::new(runner), weights: Weights::Cold, notes })
    }

    fn crossing(
        &mut self,
        shape: Shape,
        layout: Layout,
        _: usize,
    ) -> Result<Option<Stage<'_>>, TuneError> {
        if self.script.crossing.is_none() {
            return Ok(None);
        }
        let layer = ShapeUse { phase: Phase::Prefill, shape, count_per_token: 1 };
        self.open(&layer, &[layout]).map(Some)
    }
}

mod tests {
    use super::*;
    use crate::exactness::{Gate, Inexact};

    fn check(kernel: &AnyKernel, shape: Shape) -> Result<(), Inexact> {
        Gate::new(shape, Layout::I2s).check(kernel)
    }

    #[test]
    fn a_wrong_kernel_is_named_with_its_first_difference() {
        let shape = Shape { m: 64, k: 128 };
        for wrong in [wrong("r8u8"), wrong_batch("r1t8"), wrong_gemm("r1t8")] {
            let error = check(&wrong, shape).unwrap_err();
            assert!(matches!(error, Inexact::Sum { shape: Shape { m: 61, k: 128 }, .. }));
            assert!(error.to_string().contains("must be"), "{error}");
        }
        for exact in [exact("r1u1"), exact_batch("r1t8"), exact_gemm("r1t8")] {
            assert_eq!(check(&exact, shape), Ok(()));
        }
    }

    #[test]
    fn a_kernel_that_wraps_only_at_the_extremes_is_caught() {
        for wrapping in [wrapping("r4u4"), wrapping_gemm("r1t8")] {
            let error = check(&wrapping, Shape { m: 40, k: 1024 }).unwrap_err();
            assert!(error.to_string().contains("activations 127"), "{error}");
        }
    }

    #[test]
    fn tokens_that_change_places_are_caught() {
        let error = check(&swapping_gemm("r1t8"), Shape { m: 40, k: 64 }).unwrap_err();
        assert!(matches!(error, Inexact::Sum { token: 0, .. }), "{error}");
    }
}
