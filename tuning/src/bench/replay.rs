//! A lab that plays recorded tables: the search runs on the times of real machines, without one.
//!
//! Kernels are made up, exact ones that stand for the recorded ones: same name but for the instruction set,
//! which every machine has, same analytic cost, same times. The clock moves by what a sample takes on
//! hardware, so that deadlines bite as they do there.

use super::fake::{self, Exactness};
use super::{Lab, Runner, Stage};
use crate::estimate;
use crate::exactness::Random;
use crate::noise::CpuTimes;
use crate::request::{ShapeUse, TuneError};
use crate::statistics::median;
use crate::table::Table;
use crate::{AnyKernel, Candidate};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use trilut_kernels::{Cost, Format, GemmName, Isa, KernelName, Layout, Shape, Tile};

/// What a sample takes on hardware.
const SAMPLE: Duration = Duration::from_millis(6);

/// What is wrong with a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Spoil {
    /// Nothing.
    None,
    /// The noise of each candidate, so many times as large.
    Noise(f64),
    /// All candidates take the same time.
    Ties,
    /// The fastest kernel computes something else.
    Wrong,
    /// The fastest kernel fails when it is timed.
    Failing,
    /// Everything becomes slower, by this share with each sample.
    Drift(f64),
}

/// A lab of one table.
pub(crate) struct Replay<'a> {
    table: &'a Table,
    spoil: Spoil,
    /// The stand-ins, by the names that they stand for.
    kernels: Vec<(String, AnyKernel)>,
    default: AnyKernel,
    clock: Rc<Cell<Duration>>,
    /// Samples taken.
    pub(crate) taken: Rc<Cell<usize>>,
}

/// The instruction set of a kernel.
fn isa_of(name: &str) -> Isa {
    let gemv = name.parse::<KernelName>().map(|name| name.isa);
    gemv.unwrap_or_else(|_| name.parse::<GemmName>().expect("tables name kernels").isa)
}

/// The name that stands for another, on the instruction set that every machine has.
fn stand_in(name: &str) -> String {
    let width = |isa: Isa| Some(1000 + Isa::ALL.iter().position(|i| *i == isa).unwrap_or(0));
    if let Ok(mut name) = name.parse::<KernelName>() {
        name.micro.width = width(name.isa);
        name.isa = Isa::Scalar;
        return name.to_string();
    }
    let mut name: GemmName = name.parse().expect("tables name kernels");
    name.width = width(name.isa);
    name.isa = Isa::Scalar;
    name.to_string()
}

impl<'a> Replay<'a> {
    pub(crate) fn new(table: &'a Table, spoil: Spoil) -> Self {
        let fastest = fastest(table);
        let kernels: Vec<(String, AnyKernel)> = table
            .entries
            .iter()
            .map(|entry| {
                let is_wrong = spoil == Spoil::Wrong && entry.kernel == fastest;
                let exactness = if is_wrong { Exactness::Wrong } else { Exactness::Exact };
                // As the estimate counts them for the instruction set that is stood in for.
                let [own, other] = [isa_of(&entry.kernel), Isa::Scalar].map(estimate::per_cycle);
                let cost = Cost {
                    instructions_per_weight: entry.instructions * other / own,
                    bytes_per_weight: entry.bytes,
                };
                let mut distances: Vec<usize> =
                    entry.tiles.iter().map(|(tile, _)| tile.prefetch).collect();
                distances.sort_unstable();
                distances.dedup();
                // The usual distance and none are tried of every kernel.
                let prefetches = distances.len() > 2;
                let name = stand_in(&entry.kernel);
                (entry.kernel.clone(), fake::named(&name, cost, prefetches, exactness))
            })
            .collect();
        let default = kernels.iter().find(|(name, _)| *name == table.default);
        let default = default.expect("the default is in its table").1;
        Self { table, spoil, kernels, default, clock: Rc::default(), taken: Rc::default() }
    }

    /// The layer of the table.
    pub(crate) fn layer(&self) -> ShapeUse {
        ShapeUse { phase: self.table.phase, shape: self.table.shape, count_per_token: 1 }
    }

    /// The recorded name of a stand-in.
    fn original(&self, name: &str) -> &str {
        let known = self.kernels.iter().find(|(_, kernel)| kernel.name() == name);
        known.map_or("", |(original, _)| original)
    }

    /// How far the pick's true median is from the best one that is exact and runs; `None` for a pick
    /// that is not in the table.
    pub(crate) fn regret(&self, kernel: &str, tile: Tile) -> Option<f64> {
        if self.spoil == Spoil::Ties {
            return Some(0.0);
        }
        let fastest = fastest(self.table);
        let is_out =
            |name: &str| matches!(self.spoil, Spoil::Wrong | Spoil::Failing) && name == fastest;
        let entries = self.table.entries.iter().filter(|entry| !is_out(&entry.kernel));
        let medians = entries.flat_map(|e| e.tiles.iter().map(|(tile, _)| (&e.kernel, *tile)));
        let best = medians
            .filter_map(|(kernel, tile)| self.table.median_ns(kernel, tile))
            .fold(f64::INFINITY, f64::min);
        Some(self.table.median_ns(self.original(kernel), tile)? / best - 1.0)
    }
}

/// The kernel with the best time of a table, the default aside: a wrong default ends the search.
fn fastest(table: &Table) -> String {
    let challengers = table.entries.iter().filter(|entry| entry.kernel != table.default);
    let time = |entry: &&crate::table::Entry| {
        let times =
            entry.tiles.iter().filter_map(|(tile, _)| table.median_ns(&entry.kernel, *tile));
        times.fold(f64::INFINITY, f64::min)
    };
    let best = challengers.min_by(|a, b| time(a).total_cmp(&time(b)));
    best.map_or(String::new(), |entry| entry.kernel.clone())
}

impl Lab for Replay<'_> {
    fn kernels(&self, _: &ShapeUse, format: Format) -> Vec<AnyKernel> {
        let all = self.kernels.iter().map(|(_, kernel)| *kernel);
        all.filter(|kernel| kernel.format().is_none_or(|f| f == format)).collect()
    }

    fn default_kernel(&self, _: &ShapeUse, _: Format) -> AnyKernel {
        self.default
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

    fn open(&mut self, _: &ShapeUse, _: &[Layout]) -> Result<Stage<'_>, TuneError> {
        let weights = self.table.weights;
        let player = Player { lab: self, at: RefCell::default(), random: Random::new(9) };
        Ok(Stage { runner: Box::new(player), weights, notes: Vec::new() })
    }
}

/// Plays samples back.
struct Player<'a> {
    lab: &'a Replay<'a>,
    /// How many samples of each candidate were taken.
    at: RefCell<BTreeMap<String, usize>>,
    random: Random,
}

impl Runner for Player<'_> {
    fn now(&self) -> Duration {
        self.lab.clock.get()
    }

    fn sample(&mut self, candidate: &Candidate) -> Result<f64, String> {
        let lab = self.lab;
        lab.clock.set(lab.clock.get() + SAMPLE);
        lab.taken.set(lab.taken.get() + 1);
        let name = lab.original(candidate.name());
        if lab.spoil == Spoil::Failing && name == fastest(lab.table) {
            return Err("it fails, as the table says".to_owned());
        }
        let samples = lab.table.samples(name, candidate.tile).ok_or("not in the table")?;
        let middle = median(&samples.iter().map(|ns| *ns as f64).collect::<Vec<_>>());
        let mut at = self.at.borrow_mut();
        let at = at.entry(candidate.to_string()).or_default();
        // In the order recorded, then in an order of chance: what comes later is no exact repetition.
        let index = match *at < samples.len() {
            true => *at,
            false => self.random.next_u32() as usize % samples.len(),
        };
        *at += 1;
        let ns = samples[index] as f64;
        Ok(match lab.spoil {
            Spoil::Noise(times) => (middle + (ns - middle) * times).max(middle * 0.2),
            Spoil::Ties => 1000.0 + (index % 3) as f64,
            Spoil::Drift(share) => ns * (1.0 + share * lab.taken.get() as f64),
            Spoil::None | Spoil::Wrong | Spoil::Failing => ns,
        })
    }
}

#[cfg(test)]
mod tests;
