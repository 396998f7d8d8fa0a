//! The search on recorded tables: how good its picks are, and how many samples they cost.

use super::*;
use crate::{Outcome, Prior, Request, Silent, tune_in};
use std::path::Path;
use trilut_kernels::{Cpu, Phase};
use trilut_presets::Machine;
use trilut_presets::preset::Effort;

/// Every table of the directory.
fn tables() -> Vec<(String, Table)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tables");
    let mut tables: Vec<(String, Table)> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let table = Table::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(table.to_text(), text, "{name}");
            (name, table)
        })
        .collect();
    tables.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(tables.len() >= 6, "tables of several shapes in both phases");
    tables
}

/// One run of the search on a table.
struct Run {
    regret: f64,
    samples: usize,
    outcome: Outcome,
}

fn run(table: &Table, spoil: Spoil, effort: Effort) -> Run {
    let mut lab = Replay::new(table, spoil);
    let request = Request {
        shapes: vec![lab.layer()],
        formats: Format::ALL.to_vec(),
        threads: table.threads,
        effort,
        // What a layer of a model gets of a minute; exhaustive is what others are measured against.
        time_limit: Duration::from_secs(if effort == Effort::Exhaustive { 3600 } else { 8 }),
        cpu: Cpu::capped(Some(Isa::Scalar)),
        machine: Machine::default(),
        model_bytes: 1 << 40,
        prior: Prior::default(),
        decoded: Vec::new(),
    };
    let outcome = tune_in(&mut lab, &request, &mut Silent).unwrap();
    let record = &outcome.preset.records()[0];
    let regret = lab.regret(&record.kernel, record.tile).unwrap();
    let samples = lab.taken.get();
    drop(lab);
    Run { regret, samples, outcome }
}

/// The median and the worst regret, and the samples of all.
fn summary(spoil: Spoil, effort: Effort) -> (f64, f64, usize) {
    let runs: Vec<Run> = tables().iter().map(|(_, table)| run(table, spoil, effort)).collect();
    for ((name, _), run) in tables().iter().zip(&runs) {
        println!(
            "{effort:<10} {spoil:<13?} {name:<28} regret {:5.1} % with {:>5} samples: {}",
            run.regret * 100.0,
            run.samples,
            run.outcome.shapes[0].reason,
        );
    }
    let regrets: Vec<f64> = runs.iter().map(|run| run.regret).collect();
    let worst = regrets.iter().copied().fold(0.0, f64::max);
    (median(&regrets), worst, runs.iter().map(|run| run.samples).sum())
}

#[test]
fn each_effort_buys_less_regret_with_more_samples() {
    let [estimate, measure, exhaustive] =
        [Effort::Estimate, Effort::Measure, Effort::Exhaustive].map(|e| summary(Spoil::None, e));
    // The worst of `measure` is that of the default: the tables were recorded on a busy machine, and a gain
    // inside their noise is not taken.
    let worst = tables().iter().map(|(_, table)| of_default(table)).fold(0.0, f64::max);
    assert!(measure.0 <= 0.02 && measure.1 <= worst, "{measure:?}");
    assert!(exhaustive.0 <= 0.01 && exhaustive.1 <= 0.08, "{exhaustive:?}");
    assert!(estimate.1 <= worst + 0.02, "{estimate:?}");
    assert!(estimate.2 < measure.2, "{estimate:?} {measure:?}");
    assert!(measure.0 <= estimate.0, "{estimate:?} {measure:?}");
}

#[test]
fn an_estimate_of_decoding_is_near_the_best() {
    let decode = tables().into_iter().filter(|(_, table)| table.phase == Phase::Decode);
    for (name, table) in decode {
        let found = run(&table, Spoil::None, Effort::Estimate);
        assert!(found.regret <= 0.1, "{name}: {}", found.regret);
    }
}

/// The regret of what runs without tuning.
fn of_default(table: &Table) -> f64 {
    let usual = Tile::default_for(table.phase);
    table.median_ns(&table.default, usual).unwrap() / table.best_ns() - 1.0
}

#[test]
fn the_search_is_the_same_each_time() {
    let (_, table) = &tables()[0];
    let [a, b] = [0, 1].map(|_| run(table, Spoil::None, Effort::Measure));
    assert_eq!((a.samples, a.outcome.preset.to_text()), (b.samples, b.outcome.preset.to_text()));
}

#[test]
fn noise_costs_samples_and_some_regret_but_never_picks_what_is_slower_than_the_default() {
    let calm: usize = summary(Spoil::None, Effort::Measure).2;
    let mut samples = 0;
    for (name, table) in tables() {
        let found = run(&table, Spoil::Noise(5.0), Effort::Measure);
        let default = of_default(&table);
        assert!(found.regret <= default + 0.02, "{name}: {} of {default}", found.regret);
        samples += found.samples;
    }
    assert!(samples > calm, "{samples} of {calm}");
}

#[test]
fn ties_leave_the_default() {
    for (name, table) in tables() {
        let found = run(&table, Spoil::Ties, Effort::Measure);
        let report = &found.outcome.shapes[0];
        assert!(report.winner.candidate.is(&report.default.candidate), "{name}: {}", report.reason);
    }
}

#[test]
fn the_fastest_is_not_picked_when_it_is_wrong_or_fails() {
    for spoil in [Spoil::Wrong, Spoil::Failing] {
        for (name, table) in tables() {
            let found = run(&table, spoil, Effort::Measure);
            let report = &found.outcome.shapes[0];
            let bad = stand_in(&fastest(&table));
            assert_ne!(report.winner.candidate.name(), bad, "{name}");
            // With a reason, where the search came upon it at all.
            let met = report.refused.iter().find(|refused| refused.kernel.starts_with(&bad));
            let word = if spoil == Spoil::Wrong { "must be" } else { "it fails" };
            assert!(met.is_none_or(|refused| refused.reason.contains(word)), "{met:?}");
            assert!(found.regret <= 0.12, "{name}: {}", found.regret);
        }
    }
}

#[test]
fn a_drifting_clock_is_told_and_does_not_choose() {
    let drifting = summary(Spoil::Drift(0.001), Effort::Measure);
    assert!(drifting.0 <= 0.03, "{drifting:?}");
    let (_, table) = &tables()[0];
    let found = run(table, Spoil::Drift(0.002), Effort::Measure);
    let notes = found.outcome.notes.join("; ");
    assert!(notes.contains("slower") || notes.contains("differ"), "{notes}");
}
