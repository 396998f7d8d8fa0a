//! The real lab: this CPU, its kernels, its memory and its clock.

mod either;
mod few;
mod prompt;
mod token;

use crate::bandwidth;
use crate::bench::{Lab, Runner, Stage};
use crate::clock;
use crate::cold::{Distance, Rotation};
use crate::copies::{Copies, Spare, block};
use crate::cores;
use crate::disturbance::Snapshot;
use crate::exactness::Random;
use crate::noise::CpuTimes;
use crate::request::{Request, ShapeUse, Shortage, TuneError};
use crate::{AnyKernel, Candidate};
use either::Either;
use few::Few;
use prompt::Prompt;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use token::Token;
use trilut_kernels::pool::{Pool, Worker};
use trilut_kernels::{Cpu, Format, Layout, Packed, PackedView, Phase, Shape, Tile};
use trilut_presets::Machine;
use trilut_presets::machine::free_memory;
use trilut_presets::preset::{Effort, Weights};

/// Memory that is taken to be free where the system does not tell.
const UNKNOWN_FREE: u64 = 1 << 30;

/// The part of the free memory that is used for all copies of a layer's weights: one in so many.
const SHARE: u64 = 4;

/// A sample that takes so many times as long as planned is cut off: on a busy machine a barrier can take
/// a thousand times as long as a moment before.
const PATIENCE: u32 = 4;

/// Products after which the clock is looked at.
const LOOK: usize = 16;

/// Bytes of the copies in one layout at most for an estimate, which has no time to fill many times the caches.
const ESTIMATED_COPIES: u64 = 128 << 20;

/// How often memory is read to learn its pace; the best time counts.
const PACE_LOOKS: usize = 4;

/// The most bytes that are read each time.
const PACE_BYTES: usize = 32 << 20;

/// The first samples of a candidate with more than one product are so many times as short as the others: most
/// candidates are far behind, which they are enough to see.
const FIRST: f64 = 5.0;

/// Rows of random weights that are repeated to fill a matrix: timing does not depend on the values.
const RANDOM_ROWS: usize = 64;

/// This machine, with a pool of as many threads as the model will use.
#[derive(Debug)]
pub struct Hardware {
    cpu: Cpu,
    machine: Machine,
    pool: Pool,
    model_bytes: u64,
    sample_time: Duration,
    /// How many samples of a candidate are short ones.
    first: u32,
    /// Bytes of the copies of a layer in one layout at most.
    most_copies: u64,
    /// What is to be said about the clock.
    clock_note: Option<String>,
    /// Where the copies of the layer before were.
    spare: RefCell<Spare>,
    zero: Instant,
}

impl Hardware {
    /// The lab for a request.
    pub fn new(request: &Request) -> Self {
        let sample_time = match request.effort {
            Effort::Estimate => Duration::from_micros(1500),
            Effort::Measure | Effort::Exhaustive => Duration::from_millis(6),
            Effort::Patient => Duration::from_millis(10),
        };
        // Of the three samples of an estimate most are whole ones.
        let (most_copies, first) = match request.effort {
            Effort::Estimate => (ESTIMATED_COPIES, 1),
            _ => (u64::MAX, 2),
        };
        let (sample_time, clock_note) = clock::sample_time(sample_time, clock::own_step());
        Self {
            cpu: request.cpu.clone(),
            machine: request.machine.clone(),
            pool: Pool::new(request.threads),
            model_bytes: request.model_bytes,
            sample_time,
            first,
            most_copies,
            clock_note,
            spare: RefCell::default(),
            zero: Instant::now(),
        }
    }
}

/// The kernels of a CPU that may run a layer whose weights are stored in a format.
pub(crate) fn kernels(cpu: &Cpu, layer: &ShapeUse, format: Format) -> Vec<AnyKernel> {
    match layer.phase {
        Phase::Prefill => cpu.gemm_candidates().map(AnyKernel::Gemm).collect(),
        Phase::Decode => cpu.candidates(format, layer.shape).map(AnyKernel::Gemv).collect(),
        // A token at a time is what a kernel of small batches must beat.
        Phase::SmallBatch => {
            let one = AnyKernel::Gemv(cpu.default_kernel(format, layer.shape));
            cpu.batch_candidates(format).map(AnyKernel::Batch).chain([one]).collect()
        }
    }
}

impl Lab for Hardware {
    fn kernels(&self, layer: &ShapeUse, format: Format) -> Vec<AnyKernel> {
        kernels(&self.cpu, layer, format)
    }

    fn default_kernel(&self, layer: &ShapeUse, format: Format) -> AnyKernel {
        match layer.phase {
            Phase::Prefill => AnyKernel::Gemm(self.cpu.default_gemm()),
            Phase::Decode => AnyKernel::Gemv(self.cpu.default_kernel(format, layer.shape)),
            Phase::SmallBatch => match self.cpu.default_batch(format) {
                Some(kernel) => AnyKernel::Batch(kernel),
                None => AnyKernel::Gemv(self.cpu.default_kernel(format, layer.shape)),
            },
        }
    }

    fn layout(&self, format: Format, shape: Shape) -> Layout {
        self.cpu.default_kernel(format, shape).layout()
    }

    fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    fn date(&self) -> SystemTime {
        SystemTime::now()
    }

    fn cpu_times(&self) -> Option<CpuTimes> {
        CpuTimes::read(Path::new("/proc/stat"))
    }

    fn is_real(&self) -> bool {
        true
    }

    fn disturbance(&self) -> Snapshot {
        Snapshot::read(Path::new("/"))
    }

    fn check_memory(&self, shape: Shape, layouts: &[Layout]) -> Result<(), Shortage> {
        fits(shape, layouts, self.available())
    }

    fn open(&mut self, layer: &ShapeUse, layouts: &[Layout]) -> Result<Stage<'_>, TuneError> {
        let (shape, threads, cpu) = (layer.shape, self.pool.threads(), self.cpu.clone());
        self.stage(shape, layouts, layer.phase, |random| match layer.phase {
            Phase::Prefill => Box::new(Prompt::new(shape, layer.tokens(), threads, cpu, random)),
            Phase::SmallBatch => {
                Box::new(Few::new(shape, layer.tokens(), layouts, threads, random))
            }
            Phase::Decode => Box::new(Token::new(shape, layouts, threads, random)),
        })
    }

    fn crossing(
        &mut self,
        shape: Shape,
        layout: Layout,
        most: usize,
    ) -> Result<Option<Stage<'_>>, TuneError> {
        let (threads, cpu) = (self.pool.threads(), self.cpu.clone());
        let work = |random: &mut Random| -> Box<dyn Work> {
            let few = Few::new(shape, most, &[layout], threads, random);
            Box::new(Either::new(few, Prompt::new(shape, most, threads, cpu, random)))
        };
        self.stage(shape, &[layout], Phase::SmallBatch, work).map(Some)
    }
}

impl Hardware {
    /// Bytes of memory that are free for the next stage.
    fn available(&self) -> u64 {
        available() + self.spare.borrow().held()
    }

    /// A stage for work on weights in these layouts.
    fn stage(
        &self,
        shape: Shape,
        layouts: &[Layout],
        phase: Phase,
        work: impl FnOnce(&mut Random) -> Box<dyn Work>,
    ) -> Result<Stage<'_>, TuneError> {
        let distance = Distance::of(self.model_bytes, &self.machine, phase);
        let available = self.available();
        // Before anything is allocated: a shape may be larger than the memory.
        fits(shape, layouts, available)?;
        let free = available / SHARE - shape.weights() as u64;
        // At least one of each.
        let each: Vec<usize> = layouts.iter().map(|layout| layout.bytes(shape)).collect();
        let block = block(each.iter().copied());
        let most = self.most_copies.saturating_mul(layouts.len() as u64).max(block as u64);
        let free = free.min(most);
        let mut random = Random::new(1);
        let rows = shape.m.min(RANDOM_ROWS);
        let plain = random.ternary(rows * shape.k);
        let ternary: Vec<i8> = plain.iter().copied().cycle().take(shape.weights()).collect();
        let rotation = Rotation::plan(&each, distance, free).expect("a copy in each layout fits");
        let room = self.spare.borrow_mut().take(block * rotation.copies, free);
        let pack = |layout| {
            Packed::pack(layout, shape, &ternary).expect("ternary values of the shape's own size")
        };
        let copies = Copies::among(layouts, shape, rotation.copies, room, pack);
        let clock = self.clock_note.iter().cloned();
        let notes = clock.chain([rotation.to_string()]).collect();
        let work = work(&mut random);
        let runner = Timer {
            pool: &self.pool,
            zero: self.zero,
            sample_time: self.sample_time,
            first: self.first,
            copies,
            spare: &self.spare,
            is_cold: distance.weights == Weights::Cold && !rotation.is_short(),
            work,
            position: 0,
            known: HashMap::new(),
        };
        Ok(Stage { runner: Box::new(runner), weights: distance.weights, notes })
    }
}

/// Bytes of memory that are free.
fn available() -> u64 {
    free_memory(Path::new("/")).unwrap_or(UNKNOWN_FREE)
}

/// Whether one copy in each layout fits, with the plain weights that they are packed from.
fn fits(shape: Shape, layouts: &[Layout], free: u64) -> Result<(), Shortage> {
    let copies = block(layouts.iter().map(|layout| layout.bytes(shape)));
    let needed = shape.weights() as u64 + copies as u64;
    if free / SHARE < needed { Err(Shortage { shape, needed, free }) } else { Ok(()) }
}

/// What the threads of the model do with one layer.
trait Work: Sync {
    /// How the weights must be packed for a candidate, or why it cannot be run; makes ready what is
    /// made once and not timed.
    fn ready(&mut self, candidate: &Candidate) -> Result<Option<Layout>, String>;

    /// One worker's part of one product. Every worker passes the same barriers, also after an error.
    fn product(
        &self,
        worker: &Worker<'_>,
        candidate: &Candidate,
        weights: PackedView<'_>,
    ) -> Result<(), String>;

    /// Nanoseconds of what a candidate needs once per product beyond the product.
    fn beyond(&self, candidate: &Candidate) -> f64;

    /// How many of its tokens the next products have.
    fn set_tokens(&mut self, _tokens: usize) {}
}

/// Times products of one layer the way the model runs them: one parallel region, the rows split over
/// the threads, a barrier after each product, the next copy of the weights each time.
struct Timer<'a> {
    pool: &'a Pool,
    zero: Instant,
    sample_time: Duration,
    first: u32,
    copies: Vec<Copies>,
    /// Where the copies leave their room.
    spare: &'a RefCell<Spare>,
    /// Whether the copies are surely read from memory.
    is_cold: bool,
    work: Box<dyn Work + 'a>,
    /// The next copy; runs on over all samples, so that no candidate finds its weights in the cache.
    position: usize,
    /// The last time of each candidate, which decides how many products make a sample, and how many samples it gave
    /// before that.
    known: HashMap<(&'static str, Tile), (f64, u32)>,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.spare.borrow_mut().give(std::mem::take(&mut self.copies));
    }
}

impl Runner for Timer<'_> {
    fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    fn set_tokens(&mut self, tokens: usize) {
        self.work.set_tokens(tokens);
        self.known.clear();
    }

    fn memory(&mut self) -> Option<f64> {
        let copies = self.copies.first().filter(|_| self.is_cold)?;
        // The third of all copies that lies farthest from the one that is next: what was read last may still be in the
        // cache, and what is read next must not be.
        let all: &[u64] = bytemuck::cast_slice(copies.all());
        let third = all.len() / 3;
        let part = (third / PACE_LOOKS).min(PACE_BYTES / size_of::<u64>());
        let begin = copies.offset(self.position) / size_of::<u64>() + third;
        let looks = (0..PACE_LOOKS).map(|look| {
            let at = (begin + look * part) % (all.len() - part).max(1);
            bandwidth::of_pass(self.pool, &all[at..at + part])
        });
        Some(looks.fold(0.0, f64::max)).filter(|pace| *pace > 0.0)
    }

    fn cores(&mut self) -> Option<f64> {
        Some(cores::rate(self.pool))
    }

    fn sample(&mut self, candidate: &Candidate) -> Result<f64, String> {
        let layout = self.work.ready(candidate)?;
        let copies = match layout {
            None => self.copies.first(),
            Some(layout) => self.copies.iter().find(|c| c.layout() == layout),
        };
        let copies = copies.ok_or_else(|| format!("no weights are packed as {layout:?}"))?;
        let key = (candidate.name(), candidate.tile);
        let wanted = self.sample_time.as_nanos() as f64;
        let (products, given) = match self.known.get(&key) {
            Some(&(ns, given)) => {
                let wanted = if given < self.first { wanted / FIRST } else { wanted };
                ((wanted / ns).clamp(1.0, 1e6) as usize, given.saturating_add(1))
            }
            None => (1, 0),
        };
        let begin = self.position;
        let patience = self.sample_time * PATIENCE;
        // Where to stop if it takes too long: decided by one worker before a barrier, seen by all after it.
        let last = AtomicUsize::new(begin + products - 1);
        let elapsed = Mutex::new(Duration::ZERO);
        let refusal = Mutex::new(None);
        self.pool.run(|worker| {
            worker.barrier();
            let clock = Instant::now();
            for product in begin.. {
                if let Err(why) = self.work.product(worker, candidate, copies.view(product)) {
                    *lock(&refusal) = Some(why);
                }
                let is_time_to_look = (product - begin) % LOOK == LOOK - 1;
                if worker.index == 0 && is_time_to_look && clock.elapsed() > patience {
                    last.fetch_min(product, Ordering::Relaxed);
                }
                worker.barrier();
                if product >= last.load(Ordering::Relaxed) {
                    break;
                }
            }
            if worker.index == 0 {
                *lock(&elapsed) = clock.elapsed();
            }
        });
        let products = last.into_inner() + 1 - begin;
        self.position = begin.wrapping_add(products);
        if let Some(why) = lock(&refusal).take() {
            return Err(why);
        }
        let ns = (lock(&elapsed).as_nanos() as f64 / products as f64).max(0.1);
        self.known.insert(key, (ns, given));
        Ok(ns + self.work.beyond(candidate))
    }
}

/// Nothing that is kept in these locks can be left half-written.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(threads: usize) -> Request {
        Request {
            shapes: vec![],
            formats: Format::ALL.to_vec(),
            decoded: vec![],
            threads,
            effort: Effort::Estimate,
            time_limit: Duration::from_secs(1),
            cpu: Cpu::detect(),
            machine: Machine::default(),
            // Small, so that one megabyte of copies is enough.
            model_bytes: 1 << 20,
            prior: crate::Prior::default(),
        }
    }

    fn layer(phase: Phase) -> ShapeUse {
        ShapeUse { phase, shape: Shape { m: 96, k: 256 }, count_per_token: 1 }
    }

    #[test]
    fn every_kernel_can_be_sampled_with_one_and_two_threads() {
        for threads in [1, 2] {
            for &phase in Phase::ALL {
                let mut lab = Hardware::new(&request(threads));
                let layer = layer(phase);
                let kernels: Vec<_> =
                    Format::ALL.iter().flat_map(|&format| lab.kernels(&layer, format)).collect();
                assert!(kernels.len() >= Format::ALL.len());
                let mut stage = lab.open(&layer, Layout::ALL).unwrap();
                for kernel in kernels {
                    for rows_per_task in [0, 32] {
                        let tile = Tile { rows_per_task, prefetch: 512 };
                        let ns = stage.runner.sample(&Candidate { kernel, tile }).unwrap();
                        assert!(ns.is_finite() && ns > 0.0);
                    }
                }
                assert!(stage.notes[0].contains("warm"), "{:?}", stage.notes);
            }
        }
    }

    #[test]
    fn the_pace_of_memory_is_seen_where_weights_are_read_from_it() {
        for threads in [1, 2, 7] {
            let cold =
                Request { model_bytes: u64::MAX, effort: Effort::Measure, ..request(threads) };
            let mut lab = Hardware::new(&cold);
            let layer = layer(Phase::Decode);
            let kernel = lab.default_kernel(&layer, Format::I2S);
            let mut stage = lab.open(&layer, &[kernel.layout(Layout::I2s)]).unwrap();
            for _ in 0..3 {
                let pace = stage.runner.memory().unwrap();
                assert!(pace.is_finite() && pace > 0.0, "{pace}");
                stage.runner.sample(&Candidate::untuned(kernel)).unwrap();
            }
            drop(stage);
            let mut warm = Hardware::new(&request(threads));
            assert_eq!(warm.open(&layer, Layout::ALL).unwrap().runner.memory(), None);
        }
    }

    #[test]
    fn a_shape_larger_than_the_memory_is_refused_with_the_bytes_that_it_needs() {
        let shape = Shape { m: 1 << 20, k: 1 << 20 };
        let mut lab = Hardware::new(&request(1));
        let large = ShapeUse { shape, ..layer(Phase::Decode) };
        let layouts = [Layout::I2s];
        let Err(TuneError::Memory(short)) = lab.open(&large, &layouts) else { panic!("it fits") };
        // A byte for each plain weight, two bits for each packed one, and the gap behind them.
        assert_eq!(short.needed, (1 << 40) + (1 << 38) + crate::cold::GAP as u64);
        assert!(lab.check_memory(shape, &layouts).is_err());
        let told = short.to_string();
        assert!(told.contains(&short.needed.to_string()), "{told}");
        assert!(told.contains(&short.free.to_string()) && short.free > 0, "{told}");
        // What is just enough is enough.
        let (small, free) = (layer(Phase::Decode).shape, |short: Shortage| short.needed * SHARE);
        let least = fits(small, &layouts, 0).map_err(free).unwrap_err();
        assert_eq!(fits(small, &layouts, least), Ok(()));
        assert!(fits(small, &layouts, least - 1).is_err());
    }

    #[test]
    fn the_next_stage_is_filled_where_the_last_one_was() {
        let mut lab = Hardware::new(&request(1));
        let (first, next) = (layer(Phase::Decode), layer(Phase::SmallBatch));
        drop(lab.open(&first, Layout::ALL).unwrap());
        let held = lab.spare.borrow().held();
        assert!(held >= (Layout::ALL.len() as u64) << 20, "{held}");
        let stage = lab.open(&next, Layout::ALL).unwrap();
        drop(stage);
        // Rooms may have changed places; new ones would be as much again.
        let now = lab.spare.borrow().held();
        assert!(now >= held && now < held + held / 4, "{now} after {held}");
    }

    #[test]
    fn more_threads_than_rows_wait_for_the_others() {
        let mut lab = Hardware::new(&request(7));
        let layer = ShapeUse { shape: Shape { m: 30, k: 64 }, ..layer(Phase::Prefill) };
        let kernel = lab.default_kernel(&layer, Format::I2S);
        let mut stage = lab.open(&layer, &[Layout::I2s]).unwrap();
        assert!(stage.runner.sample(&Candidate::untuned(kernel)).unwrap() > 0.0);
    }

    #[test]
    fn what_a_stage_is_not_made_for_is_a_stated_refusal() {
        let mut lab = Hardware::new(&request(1));
        let (decode, prefill) = (layer(Phase::Decode), layer(Phase::Prefill));
        let [tl2, i2_s] = [Format::Tl2, Format::I2S]
            .map(|format| Candidate::untuned(lab.default_kernel(&decode, format)));
        let gemm = Candidate::untuned(lab.default_kernel(&prefill, Format::I2S));
        let mut stage = lab.open(&decode, &[Layout::I2s]).unwrap();
        assert!(stage.runner.sample(&tl2).unwrap_err().contains("Tl2"));
        assert!(stage.runner.sample(&gemm).unwrap_err().contains("one token"));
        drop(stage);
        let mut stage = lab.open(&layer(Phase::SmallBatch), &[Layout::I2s]).unwrap();
        assert!(stage.runner.sample(&gemm).unwrap_err().contains("small batch"));
        drop(stage);
        let mut stage = lab.open(&prefill, &[Layout::I2s]).unwrap();
        assert!(stage.runner.sample(&i2_s).unwrap_err().contains("prompt"));
    }
}
