//! The file that remembers which kernel and tile won on a machine.
//!
//! A preset is small, sorted TOML: one `[provenance]`, one `[machine]`, and a `[[record]]` for each
//! (shape, phase, threads). It is data for picks, never for results: a foreign or stale preset can cost
//! speed, not correctness. [`Preset::parse`] refuses what it does not understand and says in which
//! line; [`Preset::to_plan`] turns records into picks and says which ones it had to drop.

mod compare;
mod date;
mod error;
mod evidence;
mod file;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
mod text;

pub use compare::{Agreement, Change, Combined, Difference};
pub use date::rfc3339;
pub use error::{PresetError, Rule};
pub use evidence::Evidence;
pub use file::{MAX_BYTES, Saved};

use crate::machine::Likeness;
use crate::{
    BatchName, Format, GemmName, Isa, KernelName, MOST_THREADS, Machine, Pace, Phase, Pick, Plan,
    Shape, Tile,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the file format that this program reads and writes.
pub const SCHEMA: u32 = 1;

/// How much time a tuning run may spend; more effort comes later in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effort {
    /// Analytic rank, then a few samples of the best: two seconds for a model.
    Estimate,
    /// Races of all plausible candidates and a paired check of the winners: a minute.
    Measure,
    /// As `measure` with more samples, more leaders in the last race, and a second opinion of another harness:
    /// minutes.
    Patient,
    /// Every kernel with every value of every knob, nothing ruled out by the estimate.
    Exhaustive,
}

impl Effort {
    /// Every effort, least first.
    pub const ALL: &[Self] = &[Self::Estimate, Self::Measure, Self::Patient, Self::Exhaustive];

    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Estimate => "estimate",
            Self::Measure => "measure",
            Self::Patient => "patient",
            Self::Exhaustive => "exhaustive",
        }
    }
}

crate::named!(Effort, "effort");

/// Where the weights were when a kernel was timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weights {
    /// Streamed from memory, as in the decoding of a model larger than the caches.
    Cold,
    /// In the last-level cache, where the whole model fits into it.
    Warm,
}

impl Weights {
    /// Both states.
    pub const ALL: &[Self] = &[Self::Cold, Self::Warm];

    /// The name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

crate::named!(Weights, "state of the weights");

/// Who made the newest records, when and how well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The version of trilut.
    pub trilut: String,
    /// The date and time in UTC, RFC 3339.
    pub date: String,
    /// The best ISA that was allowed.
    pub isa: Isa,
    /// The least effort of a record of the run.
    pub effort: Effort,
    /// The number of threads of the run.
    pub threads: usize,
    /// The typical relative spread of repeated samples: 0.02 is two percent; absent where there were too few
    /// to show any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
}

/// What was measured for one (shape, phase, threads).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The linear layer's size; in prefill that of a stack of layers with one input.
    pub shape: Shape,
    /// The part of inference.
    pub phase: Phase,
    /// Tokens that were multiplied in each of the times.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub tokens: usize,
    /// The number of threads.
    pub threads: usize,
    /// The winner's codec; in prefill the one that its panels were filled from.
    pub format: Format,
    /// All codecs that were raced against each other.
    pub formats: Vec<Format>,
    /// Fingerprint of all kernels that there were to choose from: with another one, a new race may have
    /// another winner.
    #[serde(with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub space: u64,
    /// The winner's name.
    pub kernel: String,
    /// The hash of the winner's emitted text.
    #[serde(with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub hash: u64,
    /// The winner's loop bounds.
    pub tile: Tile,
    /// The effort of the race.
    pub effort: Effort,
    /// Of a prompt's kernel: the tokens from which on it is faster than the kernels of small batches; absent
    /// where that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
    /// Whether weights came from memory or from the cache.
    pub weights: Weights,
    /// The winner's median time in nanoseconds.
    pub median_ns: u64,
    /// Samples of the winner in nanoseconds, evenly taken from all, in the order they were taken.
    pub samples: Vec<u64>,
    /// The kernel that would run without tuning.
    pub default_kernel: String,
    /// Its median time in nanoseconds in the same race.
    pub default_ns: u64,
    /// The time of the scalar kernel in nanoseconds, if there was time to take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scalar_ns: Option<u64>,
    /// Half the width of the 95 % interval of (winner's time / default's time) in the paired check;
    /// absent where there was no such check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Where the record comes from; absent in records of early versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// A preset file's contents. Records are sorted by (shape, phase, threads) and unique in them.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// Who made the newest records.
    pub provenance: Provenance,
    /// Where they were made.
    pub machine: Machine,
    records: Vec<Record>,
}

/// A record that could not become a pick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The layer it was for.
    pub shape: Shape,
    /// The part of inference it was for.
    pub phase: Phase,
    /// The kernel it names.
    pub kernel: String,
    /// Why it was dropped, for a person.
    pub reason: String,
}

/// The picks that a preset yields here.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Picks {
    /// The picks.
    pub plan: Plan,
    /// The records that yielded none.
    pub dropped: Vec<Dropped>,
}

type Key = (Shape, Phase, usize);

fn one() -> usize {
    1
}

fn is_one(tokens: &usize) -> bool {
    *tokens == 1
}

impl Record {
    /// The largest number of tokens from which on a batch may be run as a prompt.
    pub const MOST_FROM: usize = 4096;

    /// The most tokens that a record may be of.
    pub const MOST_TOKENS: usize = 1 << 16;

    fn key(&self) -> Key {
        (self.shape, self.phase, self.threads)
    }

    /// The pace of memory at which it was tuned, where the record knows it.
    pub fn pace(&self) -> Option<Pace> {
        self.evidence.as_ref().and_then(|evidence| evidence.memory).map(Pace::at)
    }

    /// The first rule that the record breaks.
    fn broken_rule(&self) -> Option<String> {
        if !self.tile.is_legal() {
            return Some(format!(
                "the tile ({}) is illegal: rows_per_task must be a multiple of {}, prefetch at most {}",
                self.tile,
                Tile::ROW_QUANTUM,
                Tile::MAX_PREFETCH
            ));
        }
        if !(1..=MOST_THREADS).contains(&self.threads) {
            return Some(format!("threads = {} is not in 1..={MOST_THREADS}", self.threads));
        }
        if self.median_ns == 0 || self.default_ns == 0 || self.samples.is_empty() {
            return Some("a record needs samples and times above 0".to_owned());
        }
        if !self.formats.contains(&self.format) {
            return Some(format!("formats does not list the winner's format {}", self.format));
        }
        if self.confidence.is_some_and(|c| !c.is_finite() || c < 0.0) {
            return Some("confidence must be a number of at least 0".to_owned());
        }
        if let Some(rule) = self.evidence.as_ref().and_then(Evidence::broken_rule) {
            return Some(rule.to_owned());
        }
        if !(1..=Self::MOST_TOKENS).contains(&self.tokens) {
            return Some(format!("tokens = {} is not in 1..={}", self.tokens, Self::MOST_TOKENS));
        }
        if let Some(from) = self.from {
            if self.phase != Phase::Prefill {
                return Some(format!("from is for prompts, not for {}", self.phase));
            }
            if !(2..=Self::MOST_FROM).contains(&from) {
                return Some(format!("from = {from} is not in 2..={}", Self::MOST_FROM));
            }
        }
        // A default may be of another format than the pick.
        self.kernel_rule(&self.kernel, Some(self.format))
            .or_else(|| Some(format!("default_{}", self.kernel_rule(&self.default_kernel, None)?)))
    }

    /// The rule that a kernel breaks: it takes something else than the record's phase, or reads another format than
    /// it should. Names of kernels that this version does not know are legal here and dropped by `to_plan`.
    fn kernel_rule(&self, kernel: &str, format: Option<Format>) -> Option<String> {
        let is_foreign = |own: Format| format.is_some_and(|format| format != own);
        let foreign = "does not read the record's format";
        let (rule, breaks) = if let Ok(name) = kernel.parse::<KernelName>() {
            match self.phase {
                Phase::Prefill => ("takes one token at a time, not a prompt", true),
                _ => (foreign, is_foreign(name.format)),
            }
        } else if let Ok(name) = kernel.parse::<BatchName>() {
            match self.phase {
                Phase::SmallBatch => (foreign, is_foreign(name.format)),
                _ => ("takes small batches", true),
            }
        } else if kernel.parse::<GemmName>().is_ok() {
            ("takes prompts", self.phase != Phase::Prefill)
        } else {
            return None;
        };
        breaks.then(|| format!("kernel {kernel} {rule} ({}, {})", self.phase, self.format))
    }

    /// Whether the pick is what runs without tuning.
    pub fn is_default(&self) -> bool {
        self.kernel == self.default_kernel && self.tile == Tile::default_for(self.phase)
    }

    /// In words: what the record says about its pick.
    fn reason(&self, likeness: Likeness, machine: &Machine, stale: bool) -> String {
        let place = match likeness {
            Likeness::SameCpu => "this CPU".to_owned(),
            _ => format!("{} ({}, {likeness})", machine.brand, machine.microarchitecture),
        };
        if stale {
            return format!(
                "picked on {place} with an earlier build of this kernel: the measurement is stale"
            );
        }
        if self.is_default() {
            return match self.evidence.as_ref().and_then(|evidence| evidence.model) {
                Some([_, high]) if high < 1.0 => {
                    format!("tuned on {place}: what was faster cost another phase more")
                }
                Some(_) => {
                    format!("tuned on {place}: the model as a whole gained nothing beyond noise")
                }
                None => format!("tuned on {place}: the default is the fastest"),
            };
        }
        let gain = self.default_ns as f64 / self.median_ns as f64;
        format!("tuned on {place}: {gain:.2}x the speed of the default")
    }
}

impl Preset {
    /// How the text of every preset begins that a program of any version has written.
    pub const HEADING: &str = "# A trilut preset";

    /// A preset of these records; of several with one (shape, phase, threads) the last one stays.
    pub fn new(provenance: Provenance, machine: Machine, records: Vec<Record>) -> Self {
        let records: BTreeMap<Key, Record> = records.into_iter().map(|r| (r.key(), r)).collect();
        Self { provenance, machine, records: records.into_values().collect() }
    }

    /// The records, sorted by (shape, phase, threads).
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The record for exactly this layer, phase and number of threads.
    pub fn record(&self, shape: Shape, phase: Phase, threads: usize) -> Option<&Record> {
        let key = (shape, phase, threads);
        self.records.binary_search_by_key(&key, Record::key).ok().map(|at| &self.records[at])
    }

    /// Reads a preset; `origin` names it in errors (a path, or the name of an embedded preset).
    ///
    /// # Errors
    /// When the text is not a preset of this schema: the error names the origin and the line.
    pub fn parse(text: &str, origin: &str) -> Result<Self, PresetError> {
        text::parse(text, origin)
    }

    /// The preset as text: the same records always give the same bytes.
    pub fn to_text(&self) -> String {
        text::write(self)
    }

    /// Takes over the newer run's provenance and machine, and its records in place of those with the
    /// same (shape, phase, threads); other records stay.
    ///
    /// The provenance is of the file; what an earlier record owes to it is written into the record, so
    /// that it does not take on the newer machine's microcode or number of cores.
    pub fn merge(&mut self, newer: Self) {
        let mut older = std::mem::take(&mut self.records);
        let own = self.evidence();
        older.iter_mut().for_each(|record| _ = record.evidence.get_or_insert_with(|| own.clone()));
        let records = older.into_iter().chain(newer.records).collect();
        *self = Self::new(newer.provenance, newer.machine, records);
    }

    /// What is known of records that say nothing of themselves.
    pub fn evidence(&self) -> Evidence {
        Evidence {
            date: self.provenance.date.clone(),
            trilut: self.provenance.trilut.clone(),
            microcode: self.machine.microcode.clone(),
            cores: self.machine.physical_cores,
            ..Evidence::default()
        }
    }

    /// How closely the preset's machine resembles `machine`, for which `isa` is the best.
    pub fn likeness(&self, machine: &Machine, isa: Isa) -> Likeness {
        machine.likeness(isa, &self.machine, self.provenance.isa)
    }

    /// The picks for a machine of this likeness. `resolve` gives the hash of a kernel that exists and
    /// may run here.
    ///
    /// A record whose kernel does not resolve is dropped. One whose hash differs still names the
    /// starting pick, but its reason says that the measurement is stale.
    pub fn to_plan(&self, likeness: Likeness, resolve: impl Fn(&str) -> Option<u64>) -> Picks {
        let mut picks = Picks::default();
        for record in &self.records {
            match self.pick(record, likeness, &resolve) {
                Ok(pick) => picks.plan.picks.push(pick),
                Err(dropped) => picks.dropped.push(dropped),
            }
        }
        picks
    }

    /// What one of the records comes to.
    pub(crate) fn pick(
        &self,
        record: &Record,
        likeness: Likeness,
        resolve: &impl Fn(&str) -> Option<u64>,
    ) -> Result<Pick, Dropped> {
        let Record { shape, phase, .. } = *record;
        let kernel = record.kernel.clone();
        match resolve(&kernel) {
            None => Err(Dropped {
                shape,
                phase,
                kernel,
                reason: "this build has no such kernel, or the CPU cannot run it".to_owned(),
            }),
            Some(hash) => Ok(Pick {
                shape,
                phase,
                threads: record.threads,
                format: record.format,
                kernel,
                tile: record.tile,
                from: record.from,
                reason: record.reason(likeness, &self.machine, hash != record.hash),
            }),
        }
    }
}

/// Hashes as `0x` and 16 digits: TOML integers are signed.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{hash:#018x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        let digits = text.strip_prefix("0x").filter(|t| t.len() == 16);
        digits.and_then(|t| u64::from_str_radix(t, 16).ok()).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is not a hash: 0x and 16 hexadecimal digits"
            ))
        })
    }
}
