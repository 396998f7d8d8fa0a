//! Is what a preset claims true here? Its kernels are checked for exactness again, and some of its times
//! are taken again.
//!
//! A record claims that its pick takes a certain part of the default's time. That claim is about ratios,
//! so it is checked by pairs, and only on the CPU that it was made on. It fails when the whole interval
//! lies above what was claimed, by more than a tolerance; where memory has another [pace](Pace) than it had when the
//! record was made, that is no failure, and no confirmation either.

use crate::bench::{Lab, Stage};
use crate::confirm::Confirmation;
use crate::exactness::Gate;
use crate::observer::{Event, Observer};
use crate::request::{Request, ShapeUse, TuneError};
use crate::{AnyKernel, Candidate};
use crate::{Hardware, runoff, space};
use std::time::Duration;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Record, Weights};
use trilut_presets::{Pace, Preset};

/// Pairs of each check.
const PAIRS: usize = 31;

/// How much worse than claimed a ratio may be: machines of one kind differ in memory and neighbours.
pub const TOLERANCE: f64 = 0.10;

/// More products a nanosecond than any thread makes: four times what a core with 8-bit matrix units could (Intel's
/// AMX, 1024 a cycle at 4 GHz).
const MOST_PRODUCTS: f64 = 16384.0;

/// What became of one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// Exact, and as fast as claimed: the measured part of the default's time, and the claimed one.
    Holds {
        /// Measured here.
        measured: f64,
        /// In the record.
        claimed: f64,
    },
    /// Exact; its time was not taken, and why.
    Exact(String),
    /// Slower than claimed.
    Slow {
        /// The lower end of the measured interval.
        measured: f64,
        /// In the record.
        claimed: f64,
    },
    /// Slower than claimed, while memory is read at another speed than then.
    OtherPace {
        /// Measured here.
        measured: f64,
        /// In the record.
        claimed: f64,
        /// 10^9 bytes per second when the record was made.
        then: f64,
        /// The same here and now.
        now: f64,
    },
    /// It computes something else than the reference.
    Inexact(String),
    /// Its numbers contradict each other, or are those of no CPU.
    Impossible(String),
    /// Nothing can be said of it here, and why: no such kernel, another instruction set.
    Unknown(String),
}

impl Finding {
    /// Whether it refutes the record.
    pub fn refutes(&self) -> bool {
        matches!(self, Self::Slow { .. } | Self::Inexact(_) | Self::Impossible(_))
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Holds { measured, claimed } => {
                write!(f, "holds: {measured:.3} of the default's time, claimed {claimed:.3}")
            }
            Self::Exact(why) => write!(f, "exact; {why}"),
            Self::Slow { measured, claimed } => write!(
                f,
                "too slow: at least {measured:.3} of the default's time, claimed {claimed:.3}"
            ),
            Self::OtherPace { measured, claimed, then, now } => write!(
                f,
                "exact; {measured:.3} of the default's time, claimed {claimed:.3}, but memory is read at {now:.1} \
                 GB/s now and was at {then:.1}"
            ),
            Self::Inexact(why) => write!(f, "NOT EXACT: {why}"),
            Self::Impossible(why) => write!(f, "cannot be true: {why}"),
            Self::Unknown(why) => write!(f, "cannot be checked here: {why}"),
        }
    }
}

/// A record and what became of it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The record.
    pub record: Record,
    /// What became of it.
    pub finding: Finding,
}

/// Checks every record for exactness, and times at most `sample` of them, evenly taken from those that claim a
/// gain. What the request says of shapes, formats, threads and effort is not looked at.
///
/// # Errors
/// When the machine has no memory for it.
pub fn verify(
    request: &Request,
    preset: &Preset,
    sample: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Checked>, TuneError> {
    let lab = |threads| -> Box<dyn Lab> {
        Box::new(Hardware::new(&Request { threads, ..request.clone() }))
    };
    verify_in(&lab, request, preset, sample, observer)
}

/// As [`verify`], with labs of the caller's choice, made for a number of threads.
///
/// # Errors
/// As [`verify`].
pub fn verify_in<'a>(
    lab: &dyn Fn(usize) -> Box<dyn Lab + 'a>,
    request: &Request,
    preset: &Preset,
    sample: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Checked>, TuneError> {
    let likeness = preset.likeness(&request.machine, request.isa());
    let records = preset.records();
    let timed = sampled(records, sample);
    let most_threads = match request.machine.logical_cpus {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        known => known,
    };
    let mut checked = Vec::new();
    for (index, record) in records.iter().enumerate() {
        if observer.should_stop() {
            break;
        }
        observer.event(&Event::Progress(index as f64 / records.len() as f64));
        // Threads that wait for each other on one CPU say nothing of times, and a file may name any number of
        // them; what a kernel computes does not depend on it.
        let (threads, untimed) = match record.threads {
            many if many > most_threads => (
                1,
                Some(format!(
                    "its time is that of {many} threads, and this machine has {most_threads} logical CPUs"
                )),
            ),
            some if timed.contains(&index) => (some, None),
            some => (some, Some("not among those that were timed".to_owned())),
        };
        let finding = check(&mut *lab(threads), record, preset, likeness, untimed, observer)?;
        checked.push(Checked { record: record.clone(), finding });
    }
    Ok(checked)
}

/// The places of at most so many records that claim a gain, evenly taken from all of them: where the pick is the
/// default itself there are no two times to compare.
fn sampled(records: &[Record], sample: usize) -> Vec<usize> {
    let claims = |at: &usize| !records[*at].is_default();
    let claiming: Vec<usize> = (0..records.len()).filter(claims).collect();
    let taken = sample.min(claiming.len());
    (0..taken).map(|nth| claiming[nth * claiming.len() / taken]).collect()
}

fn check(
    lab: &mut dyn Lab,
    record: &Record,
    preset: &Preset,
    likeness: Likeness,
    untimed: Option<String>,
    observer: &mut dyn Observer,
) -> Result<Finding, TuneError> {
    let layer = ShapeUse { phase: record.phase, shape: record.shape, count_per_token: 1 };
    let kernels = space::kernels(lab, &layer, &record.formats);
    let find = |name: &str| kernels.iter().find(|kernel| kernel.name() == name).copied();
    let Some(kernel) = find(&record.kernel) else {
        let isa = preset.provenance.isa;
        return Ok(Finding::Unknown(format!(
            "this build has no {}, or this CPU cannot run it (the preset is for {isa})",
            record.kernel
        )));
    };
    let stored = lab.layout(record.format, record.shape);
    let mut gate = Gate::new(record.shape, stored);
    if let Err(why) = gate.check(&kernel) {
        return Ok(Finding::Inexact(why.to_string()));
    }
    if let Some(why) = impossible(record) {
        return Ok(Finding::Impossible(why));
    }
    let exact = |why: &str| Ok(Finding::Exact(why.to_owned()));
    if likeness != Likeness::SameCpu {
        return exact("its times are of another CPU");
    }
    if kernel.hash() != record.hash {
        return exact("its times are of an earlier build of this kernel");
    }
    let pick = Candidate { kernel, tile: record.tile };
    let Some(default) = find(&record.default_kernel).map(Candidate::untuned) else {
        return exact("the default of its time is no longer there");
    };
    if pick.is(&default) {
        return exact("it is the default itself");
    }
    if record.weights == Weights::Warm {
        return exact("its time is that of a model in the cache, of a size that nobody wrote down");
    }
    if let Some(why) = untimed {
        return Ok(Finding::Exact(why));
    }
    Ok(compare(lab, &layer, record, stored, &pick, &default, observer)?
        .unwrap_or_else(|| Finding::Exact("its time could not be taken".to_owned())))
}

/// Why the times of a record cannot be what anybody measured.
fn impossible(record: &Record) -> Option<String> {
    let (pick, default) = (record.median_ns, record.default_ns);
    if !record.is_default() && pick / 2 > default {
        return Some(format!("the pick takes {pick} ns, and the default only {default} ns"));
    }
    if record.is_default() && pick != default {
        return Some(format!(
            "the pick is the default, at {pick} ns, and the default takes {default} ns"
        ));
    }
    let products = record.shape.weights() as f64 * record.tokens as f64;
    let rate = products / pick.min(default) as f64 / record.threads as f64;
    (rate > MOST_PRODUCTS).then(|| format!("{rate:.0} products a nanosecond by each thread"))
}

fn compare(
    lab: &mut dyn Lab,
    layer: &ShapeUse,
    record: &Record,
    stored: trilut_kernels::Layout,
    pick: &Candidate,
    default: &Candidate,
    observer: &mut dyn Observer,
) -> Result<Option<Finding>, TuneError> {
    let layout = |kernel: &AnyKernel| kernel.layout(stored);
    let mut layouts = vec![stored, layout(&pick.kernel), layout(&default.kernel)];
    layouts.sort_unstable();
    // Panels are filled from the first, which must be what the record says.
    layouts.sort_by_key(|layout| *layout != stored);
    layouts.dedup();
    let Stage { mut runner, .. } = lab.open(layer, &layouts)?;
    // The first samples pay for cold pages.
    for candidate in [pick, default] {
        if runner.sample(candidate).is_err() {
            return Ok(None);
        }
    }
    let check: Option<Confirmation> =
        runoff::pairs(&mut *runner, pick, default, PAIRS, Duration::MAX, &mut || {
            observer.should_stop()
        });
    let claimed = record.median_ns as f64 / record.default_ns as f64;
    let paces = record.pace().and_then(|then| Some((then, Pace::at(runner.memory()?))));
    let other = paces.filter(|(then, now)| !then.is_near(*now));
    Ok(check.map(|check| match (check.low > claimed * (1.0 + TOLERANCE), other) {
        (true, Some((then, now))) => {
            let [then, now] = [then, now].map(Pace::middle);
            Finding::OtherPace { measured: check.ratio, claimed, then, now }
        }
        (true, None) => Finding::Slow { measured: check.low, claimed },
        (false, _) => Finding::Holds { measured: check.ratio, claimed },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::{self, FakeLab, Script};
    use crate::{Prior, Silent, tune_in};
    use trilut_kernels::{Cpu, Format, Isa, Phase, Shape};
    use trilut_presets::Machine;
    use trilut_presets::preset::Effort;

    const TIMES: &[(&str, f64)] = &[("r1u1", 100.0), ("r2u1", 80.0)];

    fn request() -> Request {
        let shape = Shape { m: 64, k: 128 };
        Request {
            shapes: vec![ShapeUse { phase: Phase::Decode, shape, count_per_token: 1 }],
            formats: vec![Format::I2S],
            threads: 1,
            effort: Effort::Measure,
            time_limit: Duration::from_secs(60),
            cpu: Cpu::capped(Some(Isa::Scalar)),
            machine: Machine::default(),
            model_bytes: 1 << 40,
            prior: Prior::default(),
            decoded: Vec::new(),
        }
    }

    fn lab(times: &'static [(&'static str, f64)]) -> FakeLab {
        let kernels = ["r1u1", "r2u1"].map(fake::exact).to_vec();
        FakeLab::new(kernels, Script { times, ..Script::default() })
    }

    fn findings(
        preset: &Preset,
        request: &Request,
        times: &'static [(&'static str, f64)],
        change: impl Fn(&mut FakeLab),
    ) -> Vec<Finding> {
        let make = |_: usize| -> Box<dyn Lab> {
            let mut lab = lab(times);
            change(&mut lab);
            Box::new(lab)
        };
        let checked = verify_in(&make, request, preset, 10, &mut Silent).unwrap();
        checked.into_iter().map(|checked| checked.finding).collect()
    }

    #[test]
    fn claims_hold_fail_or_cannot_be_checked() {
        let request = request();
        let preset = tune_in(&mut lab(TIMES), &request, &mut Silent).unwrap().preset;
        let of = |times, change: &dyn Fn(&mut FakeLab)| {
            findings(&preset, &request, times, change).remove(0)
        };
        let holds = of(TIMES, &|_| {});
        assert!(matches!(holds, Finding::Holds { claimed: 0.8, .. }), "{holds}");
        // 12 % worse than claimed; then 5 %, which may be the machine.
        let slow = of(&[("r1u1", 100.0), ("r2u1", 90.0)], &|_| {});
        assert!(slow.refutes() && slow.to_string().contains("0.900"), "{slow}");
        assert!(!of(&[("r1u1", 100.0), ("r2u1", 84.0)], &|_| {}).refutes());
        let wrong = of(TIMES, &|lab| lab.kernels[1] = fake::wrong("r2u1"));
        assert!(wrong.refutes() && wrong.to_string().contains("NOT EXACT"), "{wrong}");
        let gone = of(TIMES, &|lab| _ = lab.kernels.pop());
        assert!(matches!(&gone, Finding::Unknown(why) if why.contains("no gemv")), "{gone}");

        let elsewhere = Request {
            machine: Machine { vendor: "x".into(), ..Machine::default() },
            ..request.clone()
        };
        let foreign = findings(&preset, &elsewhere, TIMES, |_| {}).remove(0);
        assert!(matches!(&foreign, Finding::Exact(why) if why.contains("another CPU")));
    }

    #[test]
    fn a_time_at_another_pace_of_memory_refutes_nothing() {
        let request = request();
        let at = |paces: &'static [f64]| move |lab: &mut FakeLab| lab.script.paces = paces;
        let mut tuned = lab(TIMES);
        at(&[40.0])(&mut tuned);
        let preset = tune_in(&mut tuned, &request, &mut Silent).unwrap().preset;
        assert_eq!(preset.records()[0].evidence.as_ref().unwrap().memory, Some(40.0));
        let slow = &[("r1u1", 100.0), ("r2u1", 95.0)];
        let same = findings(&preset, &request, slow, at(&[41.0])).remove(0);
        assert!(same.refutes(), "{same}");
        let other = findings(&preset, &request, slow, at(&[66.0])).remove(0);
        assert!(matches!(other, Finding::OtherPace { .. }) && !other.refutes(), "{other}");
        assert!(other.to_string().contains("read at 66.0 GB/s now and was at 40.0"), "{other}");
    }

    #[test]
    fn times_that_nobody_measured_are_refuted_on_any_machine() {
        let request = request();
        let preset = tune_in(&mut lab(TIMES), &request, &mut Silent).unwrap().preset;
        let of = |change: &dyn Fn(&mut Record)| {
            let mut record = preset.records()[0].clone();
            change(&mut record);
            let preset =
                Preset::new(preset.provenance.clone(), preset.machine.clone(), vec![record]);
            findings(&preset, &request, TIMES, |_| {}).remove(0)
        };
        assert!(!of(&|_| {}).refutes());
        let faster_than_itself = of(&|record| {
            record.kernel = record.default_kernel.clone();
            record.tile = trilut_kernels::Tile::default();
            record.default_ns = 2 * record.median_ns;
        });
        let too_fast = of(&|record| record.tokens = 1 << 20);
        for finding in [faster_than_itself, too_fast] {
            assert!(matches!(finding, Finding::Impossible(_)) && finding.refutes(), "{finding}");
        }
    }

    #[test]
    fn what_is_timed_is_taken_from_records_that_claim_a_gain() {
        let preset = tune_in(&mut lab(TIMES), &request(), &mut Silent).unwrap().preset;
        let gain = preset.records()[0].clone();
        assert!(!gain.is_default());
        let none = Record {
            kernel: gain.default_kernel.clone(),
            tile: trilut_kernels::Tile::default(),
            ..gain.clone()
        };
        assert!(none.is_default());
        let all = |claims: &[bool]| -> Vec<Record> {
            claims.iter().map(|claims| if *claims { gain.clone() } else { none.clone() }).collect()
        };
        let few = all(&[false, true, false, false, true]);
        assert_eq!(sampled(&few, 2), [1, 4]);
        assert_eq!(sampled(&few, 9), [1, 4]);
        assert!(sampled(&few, 0).is_empty());
        assert_eq!(sampled(&all(&[true; 9]), 3), [0, 3, 6]);
        assert!(sampled(&all(&[false; 3]), 3).is_empty());
    }

    #[test]
    fn a_record_for_more_threads_than_the_machine_has_is_exact_or_not_all_the_same() {
        let machine = Machine { logical_cpus: 2, ..Machine::default() };
        let request = Request { machine, ..request() };
        let preset = tune_in(&mut lab(TIMES), &request, &mut Silent).unwrap().preset;
        for (threads, is_timed) in [(1, true), (2, true), (3, false), (4096, false)] {
            let record = Record { threads, ..preset.records()[0].clone() };
            let preset =
                Preset::new(preset.provenance.clone(), preset.machine.clone(), vec![record]);
            let find = |is_wrong: bool| {
                let make = |given: usize| -> Box<dyn Lab> {
                    assert_eq!(given, if is_timed { threads } else { 1 });
                    let mut lab = lab(TIMES);
                    if is_wrong {
                        lab.kernels[1] = fake::wrong("r2u1");
                    }
                    Box::new(lab)
                };
                verify_in(&make, &request, &preset, 1, &mut Silent).unwrap().remove(0).finding
            };
            let finding = find(false);
            let is_exact = matches!(&finding, Finding::Exact(why) if why.contains("2 logical"));
            assert_eq!(is_exact, !is_timed, "{finding}");
            assert!(matches!(find(true), Finding::Inexact(_)), "{threads}");
        }
    }
}
