//! The comparison: our turns and those of other engines, one after the other, round after round.
//!
//! A round of a test is one turn of ours and one of each baseline. Ours runs in this process, with the
//! model loaded once, while no other engine runs; a baseline runs in a process of its own, which loads its
//! model, warms up, runs the test once and ends, while our threads sleep. Each turn of ours is warmed up
//! too, because the turn before took the caches. What is compared is the time of the test alone, and the
//! ratio is taken within a round, so that drift of the machine hits both sides alike.

use super::super::failure::Failure;
use super::super::{interrupt, progress};
use super::agreement::Agreement;
use super::baseline::Baseline;
use super::engine::Engine;
use super::meter::Meter;
use super::ratio::Ratio;
use super::spelling::Reported;
use super::test::Test;
use super::turn::{Turn, per_token};
use serde::Serialize;
use std::path::PathBuf;
use trilut_runtime::Model;

/// A test of all engines, over the rounds that were finished.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Comparison {
    pub(super) test: String,
    pub(super) n_prompt: usize,
    pub(super) n_gen: usize,
    pub(super) n_depth: usize,
    pub(super) n_threads: usize,
    /// Rounds that were finished.
    pub(super) rounds: usize,
    /// Whether it was broken off.
    pub(super) interrupted: bool,
    pub(super) cpu_info: String,
    /// Where the costs come from.
    pub(super) cost: String,
    pub(super) trilut: Side,
    pub(super) baselines: Vec<Against>,
}

/// One engine's part.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Side {
    pub(super) engine: String,
    /// Version, or commit and build number, as far as the engine says.
    pub(super) build: String,
    pub(super) model_filename: String,
    pub(super) model_type: String,
    /// Bytes of the model file.
    pub(super) file_size: Option<u64>,
    /// Bytes of the model as the engine counts them; some count a head that is the embedding twice.
    pub(super) model_size: Option<u64>,
    /// Bytes of the process in memory, mapped files included.
    pub(super) memory: Option<u64>,
    pub(super) median_ts: f64,
    pub(super) min_ts: f64,
    pub(super) max_ts: f64,
    /// Median absolute deviation from the median.
    pub(super) mad_ts: f64,
    pub(super) samples_ns: Vec<u64>,
    pub(super) samples_ts: Vec<f64>,
    pub(super) joules_per_token: Option<f64>,
    pub(super) cpu_seconds_per_token: Option<f64>,
}

/// Another engine's part, and how we compare.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Against {
    #[serde(flatten)]
    pub(super) side: Side,
    /// The description, if the engine is a named one.
    pub(super) description: Option<Engine>,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) ratio: Ratio,
    /// That the two compute the same; nobody checked without it.
    pub(super) agreement: Option<Agreement>,
}

/// Our side before anything is measured.
#[derive(Debug, Clone)]
pub(super) struct Ours {
    pub(super) model_filename: String,
    pub(super) model_type: String,
    pub(super) model_size: u64,
    pub(super) cpu_info: String,
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Engines<'a> {
    pub(super) ours: &'a Ours,
    pub(super) model: &'a Model,
    pub(super) baselines: &'a [Baseline],
    /// One for each baseline, or none at all.
    pub(super) agreements: &'a [Agreement],
}

impl Engines<'_> {
    /// Runs the rounds of one test. The result is `None` when not even one was finished; the failure is
    /// what ended them early.
    pub(super) fn compare(
        &self,
        test: Test,
        rounds: u32,
        meter: &Meter,
    ) -> (Option<Comparison>, Result<(), Failure>) {
        let Self { ours, model, baselines, agreements } = *self;
        let mut done = Rounds { ours: Vec::new(), theirs: vec![Vec::new(); baselines.len()] };
        let outcome = done.run(model, test, rounds, baselines, meter);
        let finished = done.theirs.iter().map(Vec::len).min().unwrap_or(0).min(done.ours.len());
        if finished == 0 {
            return (None, outcome);
        }
        // A round that was broken off has no pairs.
        done.ours.truncate(finished);
        done.theirs.iter_mut().for_each(|turns| turns.truncate(finished));
        let trilut = side(
            test,
            &done.ours,
            Labels {
                engine: "trilut".to_owned(),
                build: env!("CARGO_PKG_VERSION").to_owned(),
                model_filename: ours.model_filename.clone(),
                model_type: ours.model_type.clone(),
                file_size: Some(ours.model_size),
                model_size: Some(ours.model_size),
            },
        );
        let against =
            baselines.iter().zip(&done.theirs).enumerate().map(|(index, (baseline, turns))| {
                let (turns, reported): (Vec<Turn>, Vec<&Reported>) =
                    turns.iter().map(|(turn, reported)| (*turn, reported)).unzip();
                let labels = Labels::of(baseline, reported[0]);
                let side = side(test, &turns, labels);
                Against {
                    ratio: Ratio::of(&trilut.samples_ns, &side.samples_ns),
                    side,
                    description: baseline.engine.clone(),
                    program: baseline.program.clone(),
                    args: baseline.bench_args.clone(),
                    agreement: agreements.get(index).cloned(),
                }
            });
        let (n_prompt, n_gen) = test.lengths();
        let comparison = Comparison {
            test: test.name(),
            n_prompt,
            n_gen,
            n_depth: test.depth(),
            n_threads: model.threads(),
            rounds: finished,
            interrupted: outcome.is_err(),
            cpu_info: ours.cpu_info.clone(),
            cost: meter.describe(),
            baselines: against.collect(),
            trilut,
        };
        (Some(comparison), outcome)
    }
}

/// The turns so far; the last round may lack some.
struct Rounds {
    ours: Vec<Turn>,
    theirs: Vec<Vec<(Turn, Reported)>>,
}

impl Rounds {
    fn run(
        &mut self,
        model: &Model,
        test: Test,
        rounds: u32,
        baselines: &[Baseline],
        meter: &Meter,
    ) -> Result<(), Failure> {
        let mut subject = test.subject(model)?;
        let bar = progress::line();
        let tell = |round: u32, who: &str| {
            bar.set_message(format!("{} {round}/{rounds} {who}", test.name()));
            bar.tick();
        };
        for round in 1..=rounds {
            tell(round, "trilut");
            test.warm_up(&mut subject)?;
            self.ours.push(Turn::ours(test, &mut subject, meter)?);
            for (baseline, turns) in baselines.iter().zip(&mut self.theirs) {
                if interrupt::asked() {
                    return Err(Failure::interrupted());
                }
                tell(round, &baseline.name());
                turns.push(baseline.turn(test, model.threads(), meter)?);
            }
        }
        if interrupt::asked() { Err(Failure::interrupted()) } else { Ok(()) }
    }
}

/// What a side is called.
struct Labels {
    engine: String,
    build: String,
    model_filename: String,
    model_type: String,
    file_size: Option<u64>,
    model_size: Option<u64>,
}

impl Labels {
    fn of(baseline: &Baseline, reported: &Reported) -> Self {
        let or = |said: &str, otherwise: String| {
            if said.is_empty() { otherwise } else { said.to_owned() }
        };
        // A build that does not say what it is.
        let described = |engine: &Engine| format!("{} as described", engine.commit);
        let commit = baseline.engine.as_ref().map_or(String::new(), described);
        Self {
            engine: baseline.name(),
            build: or(&reported.build, commit),
            model_filename: or(&reported.model_filename, baseline.model.display().to_string()),
            model_type: or(&reported.model_type, "unknown".to_owned()),
            file_size: std::fs::metadata(&baseline.model).ok().map(|file| file.len()),
            model_size: reported.model_size,
        }
    }
}

fn side(test: Test, turns: &[Turn], labels: Labels) -> Side {
    let Labels { engine, build, model_filename, model_type, file_size, model_size } = labels;
    let samples_ns: Vec<u64> = turns.iter().map(|turn| turn.ns).collect();
    let samples_ts: Vec<f64> = samples_ns.iter().map(|&ns| test.rate(ns)).collect();
    let median_ts = trilut_tuning::median(&samples_ts);
    let deviations: Vec<f64> = samples_ts.iter().map(|ts| (ts - median_ts).abs()).collect();
    Side {
        engine,
        build,
        model_filename,
        model_type,
        file_size,
        model_size,
        memory: turns.iter().filter_map(|turn| turn.memory).max(),
        median_ts,
        min_ts: samples_ts.iter().copied().fold(f64::INFINITY, f64::min),
        max_ts: samples_ts.iter().copied().fold(0.0, f64::max),
        mad_ts: trilut_tuning::median(&deviations),
        samples_ns,
        samples_ts,
        joules_per_token: per_token(turns, test, |turn| turn.joules),
        cpu_seconds_per_token: per_token(turns, test, |turn| turn.cpu_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_summed_up_by_its_median() {
        let turn = |ns, joules, cpu_seconds| Turn { ns, joules, cpu_seconds, memory: Some(ns) };
        let turns = [
            turn(1_000_000_000, Some(20.0), Some(2.0)),
            turn(2_000_000_000, Some(40.0), None),
            turn(4_000_000_000, Some(30.0), Some(2.0)),
        ];
        let labels = Labels {
            engine: String::new(),
            build: String::new(),
            model_filename: String::new(),
            model_type: String::new(),
            file_size: None,
            model_size: None,
        };
        let side = side(Test::generate(1, 10), &turns, labels);
        assert_eq!((side.median_ts, side.min_ts, side.max_ts), (5.0, 2.5, 10.0));
        assert_eq!((side.mad_ts, side.joules_per_token), (2.5, Some(3.0)));
        // One turn does not know it, so nobody does.
        assert_eq!(side.cpu_seconds_per_token, None);
        assert_eq!(side.memory, Some(4_000_000_000));
    }
}
