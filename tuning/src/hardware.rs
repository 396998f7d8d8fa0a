//! The real lab: this CPU, its kernels, its memory and its clock.

use crate::bench::{Lab, Runner, Stage};
use crate::cold::{self, Copies, Rotation};
use crate::exactness::Random;
use crate::noise::CpuTimes;
use crate::request::{Request, TuneError};
use crate::space::Candidate;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use trilut_kernels::pool::Pool;
use trilut_kernels::{Activation, Activations, Cpu, Format, Layout, Packed, Runnable, Shape, Tile};
use trilut_presets::Machine;
use trilut_presets::machine::meminfo;
use trilut_presets::preset::Effort;

/// Memory that is taken to be free where the system does not tell.
const UNKNOWN_FREE: u64 = 1 << 30;

/// Rows of random weights that are repeated to fill a matrix: timing does not depend on the values.
const RANDOM_ROWS: usize = 64;

/// This machine, with a pool of as many threads as decoding will use.
#[derive(Debug)]
pub struct Hardware {
    cpu: Cpu,
    machine: Machine,
    pool: Pool,
    model_bytes: u64,
    sample_time: Duration,
    zero: Instant,
}

impl Hardware {
    /// The lab for a request.
    pub fn new(request: &Request) -> Self {
        let sample_time = match request.effort {
            Effort::Estimate => Duration::from_micros(1500),
            Effort::Measure => Duration::from_millis(6),
        };
        Self {
            cpu: request.cpu.clone(),
            machine: request.machine.clone(),
            pool: Pool::new(request.threads),
            model_bytes: request.model_bytes,
            sample_time,
            zero: Instant::now(),
        }
    }
}

impl Lab for Hardware {
    fn kernels(&self, format: Format, shape: Shape) -> Vec<Runnable> {
        self.cpu.candidates(format, shape).collect()
    }

    fn default_kernel(&self, format: Format, shape: Shape) -> Runnable {
        self.cpu.default_kernel(format, shape)
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

    fn open(&mut self, shape: Shape, layouts: &[Layout]) -> Result<Stage<'_>, TuneError> {
        let available = meminfo(Path::new("/proc/meminfo"), "MemAvailable").unwrap_or(UNKNOWN_FREE);
        // A quarter for all copies; the plain weights they are packed from take from it first.
        let free = (available / 4).saturating_sub(shape.weights() as u64);
        let free = free / layouts.len().max(1) as u64;
        // Before anything is allocated: a shape may be larger than the memory.
        for layout in layouts {
            let needed = layout.bytes(shape) as u64;
            if free < needed {
                return Err(TuneError::Memory { shape, needed, free });
            }
        }
        let mut random = Random::new(1);
        let rows = shape.m.min(RANDOM_ROWS);
        let plain = random.ternary(rows * shape.k);
        let ternary: Vec<i8> = plain.iter().copied().cycle().take(shape.weights()).collect();
        let (mut copies, mut notes) = (Vec::new(), Vec::new());
        for &layout in layouts {
            let needed = layout.bytes(shape) as u64;
            let memory = TuneError::Memory { shape, needed, free };
            let rotation =
                Rotation::plan(needed, self.model_bytes, &self.machine, free).ok_or(memory)?;
            let packed = Packed::pack(layout, shape, &ternary)
                .expect("ternary values of the shape's own size");
            copies.push(Copies::of(&packed, rotation));
            let note = rotation.to_string();
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        let mut activations = Activations::new();
        let q = random.activations(shape.k);
        let preparing = prepare_times(&mut activations, &q, layouts);
        let scratch = (0..self.pool.threads()).map(|_| Mutex::new(vec![0; shape.m])).collect();
        let runner = Timer {
            pool: &self.pool,
            zero: self.zero,
            sample_time: self.sample_time,
            shape,
            copies,
            activations,
            preparing,
            scratch,
            position: 0,
            known: HashMap::new(),
        };
        let weights = cold::state(self.model_bytes, &self.machine);
        Ok(Stage { runner: Box::new(runner), weights, notes })
    }
}

/// Prepares all forms that the layouts need; returns the nanoseconds that each form costs beyond the
/// plain one. Decoding pays this once per input, so it belongs to the price of lookup kernels.
fn prepare_times(
    activations: &mut Activations,
    q: &[i8],
    layouts: &[Layout],
) -> HashMap<Activation, f64> {
    let forms = layouts.iter().flat_map(|layout| layout.activations()).copied();
    let forms: Vec<Activation> = forms.filter(|form| *form != Activation::Plain).collect();
    let mut times = HashMap::new();
    for &form in &forms {
        let time = |_| {
            activations.set(q);
            let begin = Instant::now();
            activations.prepare(form);
            begin.elapsed()
        };
        let best = (0..5).map(time).min().unwrap_or_default();
        times.insert(form, best.as_nanos() as f64);
    }
    // New values forget the forms made of the old ones.
    activations.set(q);
    forms.iter().for_each(|&form| activations.prepare(form));
    times
}

/// Times products of one layer the way decoding runs them: one parallel region, the rows split over
/// the threads, a barrier after each product, the next copy of the weights each time.
struct Timer<'a> {
    pool: &'a Pool,
    zero: Instant,
    sample_time: Duration,
    shape: Shape,
    copies: Vec<Copies>,
    activations: Activations,
    preparing: HashMap<Activation, f64>,
    /// One output per worker: what it writes is not read by others during a product.
    scratch: Vec<Mutex<Vec<i32>>>,
    /// The next copy; runs on over all samples, so that no candidate finds its weights in the cache.
    position: usize,
    /// The last time of each candidate, which decides how many products make a sample.
    known: HashMap<(&'static str, Tile), f64>,
}

impl Runner for Timer<'_> {
    fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    fn sample(&mut self, candidate: &Candidate) -> Result<f64, String> {
        let Candidate { kernel, tile } = *candidate;
        let copies = self
            .copies
            .iter()
            .find(|c| c.layout() == kernel.layout())
            .ok_or_else(|| format!("no weights are packed as {:?}", kernel.layout()))?;
        let key = (candidate.name(), tile);
        let wanted = self.sample_time.as_nanos() as f64;
        let products = match self.known.get(&key) {
            Some(ns) => (wanted / ns).clamp(1.0, 1e6) as usize,
            None => 1,
        };
        let begin = self.position;
        let elapsed = Mutex::new(Duration::ZERO);
        let refusal = Mutex::new(None);
        self.pool.run(|worker| {
            let mut out = lock(&self.scratch[worker.index]);
            worker.barrier();
            let clock = Instant::now();
            for product in begin..begin + products {
                let weights = copies.view(product);
                for rows in worker.tasks(self.shape.m, tile.rows_per_task, Tile::ROW_QUANTUM) {
                    let out = &mut out[rows.clone()];
                    if let Err(error) = kernel.gemv(weights, &self.activations, rows, tile, out) {
                        *lock(&refusal) = Some(error.to_string());
                    }
                }
                worker.barrier();
            }
            if worker.index == 0 {
                *lock(&elapsed) = clock.elapsed();
            }
        });
        self.position = begin.wrapping_add(products);
        if let Some(why) = lock(&refusal).take() {
            return Err(why);
        }
        let ns = (lock(&elapsed).as_nanos() as f64 / products as f64).max(0.1);
        self.known.insert(key, ns);
        Ok(ns + self.preparing.get(&kernel.activation()).copied().unwrap_or(0.0))
    }
}

/// Nothing that is kept in these locks can be left half-written.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_can_be_sampled_with_one_and_two_threads() {
        let shape = Shape { m: 96, k: 256 };
        for threads in [1, 2] {
            let request = Request {
                shapes: vec![],
                formats: Format::ALL.to_vec(),
                threads,
                effort: Effort::Estimate,
                time_limit: Duration::from_secs(1),
                cpu: Cpu::detect(),
                machine: Machine::default(),
                // Small, so that one megabyte of copies is enough.
                model_bytes: 1 << 20,
            };
            let mut lab = Hardware::new(&request);
            let kernels: Vec<_> = Format::ALL.iter().flat_map(|&f| lab.kernels(f, shape)).collect();
            assert!(kernels.len() >= Format::ALL.len());
            let mut stage = lab.open(shape, Layout::ALL).unwrap();
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

    #[test]
    fn a_layout_that_was_not_packed_is_a_stated_refusal() {
        let shape = Shape { m: 32, k: 128 };
        let cpu = Cpu::detect();
        let kernel = cpu.default_kernel(Format::Tl2, shape);
        let request = Request {
            shapes: vec![],
            formats: vec![Format::I2S],
            threads: 1,
            effort: Effort::Estimate,
            time_limit: Duration::ZERO,
            cpu,
            machine: Machine::default(),
            model_bytes: 1 << 16,
        };
        let mut lab = Hardware::new(&request);
        let mut stage = lab.open(shape, &[Layout::I2s]).unwrap();
        let error = stage.runner.sample(&Candidate { kernel, tile: Tile::default() }).unwrap_err();
        assert!(error.contains("Tl2"), "{error}");
    }
}
