use super::*;
use crate::bench::fake::{self, FakeLab, Script};
use crate::{Prior, Silent};
use trilut_kernels::{Cpu, Format, Isa, Phase, Shape};
use trilut_presets::Machine;
use trilut_presets::preset::Effort;

fn run(pick: &str, prefetch: usize) -> Result<Option<Contest>, TuneError> {
    run_at(pick, prefetch, (None, None), Script::default()).map(|(contest, _)| contest)
}

/// With the pace and the time at which the pick was found, and what the machine does meanwhile; returns how often
/// memory was looked at.
fn run_at(
    pick: &str,
    prefetch: usize,
    (memory, median_ns): (Option<f64>, Option<f64>),
    script: Script,
) -> Result<(Option<Contest>, usize), TuneError> {
    let layer =
        ShapeUse { phase: Phase::Decode, shape: Shape { m: 64, k: 128 }, count_per_token: 1 };
    let request = Request {
        shapes: vec![layer],
        formats: vec![Format::I2S],
        threads: 1,
        effort: Effort::Exhaustive,
        time_limit: Duration::MAX,
        cpu: Cpu::capped(Some(Isa::Scalar)),
        machine: Machine::default(),
        model_bytes: 0,
        prior: Prior::default(),
        decoded: Vec::new(),
    };
    let times = &[("r1u1", 100.0), ("r2u1", 80.0), ("r4u1", 200.0), ("r9u9", 1.0)];
    let mut kernels = ["r1u1", "r2u1", "r4u1"].map(fake::exact).to_vec();
    kernels.push(fake::wrong("r9u9"));
    let look = script.look.max(Duration::from_secs(1));
    let script = Script { times, prefetch: Some((1024, 0.9)), look, ..script };
    let mut lab = FakeLab::new(kernels, script);
    let pick = format!("gemv_i2s_madd_{pick}_scalar");
    let tile = Tile { rows_per_task: 0, prefetch };
    let holder = Holder { kernel: &pick, tile, memory, median_ns };
    let contest = contest(&mut lab, &request, layer, holder, 5, &mut Silent)?;
    Ok((contest, lab.looks.get()))
}

#[test]
fn the_pick_is_found_among_all_and_its_regret_is_told() {
    let best = run("r2u1", 1024).unwrap().unwrap();
    assert!(best.rows[0].is_pick && best.regret < 0.0, "{best:?}");
    // Every point but those of the wrong kernel, and of the one that is far behind its usual one alone.
    assert_eq!(best.rows.len(), 2 * 7 + 1, "{best:?}");
    assert!(best.rows.is_sorted_by(|a, b| a.median_ns <= b.median_ns));
    assert_eq!(best.rows.iter().filter(|row| row.kernel.contains("r4u1")).count(), 1);
    assert!(best.best.unwrap().0.contains("r2u1"));
    let far = run("r1u1", 4096).unwrap().unwrap();
    assert!((far.regret - (100.0 / 72.0 - 1.0)).abs() < 1e-9, "{far:?}");
    assert_eq!(far.rows.iter().filter(|row| row.is_pick).count(), 1);
    let (kernel, tile) = far.best.unwrap();
    assert!(kernel.contains("r2u1") && tile.prefetch == 1024);
}

#[test]
fn the_pick_is_met_at_the_pace_of_memory_at_which_it_was_found() {
    let at = |paces| {
        let script = Script { paces, look: Duration::from_secs(5), ..Script::default() };
        run_at("r2u1", 1024, (Some(66.0), None), script).unwrap()
    };
    // A look that finds the pace, and those before the leaders meet, before the pairs and after them.
    let (contest, looks) = at(&[66.0]);
    assert_eq!((contest.unwrap().warning, looks), (None, 4));
    let (contest, looks) = at(&[40.0, 40.0, 66.0]);
    assert_eq!((contest.unwrap().warning, looks), (None, 6), "it waits");
    let (contest, looks) = at(&[66.0, 66.0, 40.0, 66.0]);
    assert_eq!((contest.unwrap().warning, looks), (None, 8), "it begins anew");
    let (contest, _) = at(&[40.0]);
    let contest = contest.unwrap();
    assert!(contest.warning.unwrap().contains("read at 40.0 GB/s, at 66.0 when"));
    assert!(contest.regret < 0.0);
}

#[test]
fn a_pick_that_takes_another_time_than_when_it_was_found_meets_the_others_again() {
    let steady = Script { paces: &[66.0], ..Script::default() };
    let at = |ns| run_at("r2u1", 1024, (None, Some(ns)), steady).unwrap();
    let (same, looks) = at(75.0);
    assert_eq!((same.unwrap().warning, looks), (None, 4));
    let (other, looks) = at(60.0);
    let other = other.unwrap();
    assert_eq!(other.warning.unwrap(), "the pick took 0.07 us, 0.06 when it was found");
    assert!(looks > 8 && other.regret < 0.0, "{looks}");
}

#[test]
fn of_some_meetings_in_a_busy_moment_the_calmest_counts() {
    let at = |noise| {
        let script = Script { paces: &[66.0], noise, ..Script::default() };
        let (contest, looks) = run_at("r2u1", 1024, (None, None), script).unwrap();
        (contest.unwrap(), looks)
    };
    assert_eq!(at(0.0).1, 4);
    let (noisy, looks) = at(1.0);
    assert_eq!(looks, MEETINGS * 4, "{noisy:?}");
    assert!(noisy.interval[1] - noisy.interval[0] > CALM);
    // One in another state between them does not count, however calm.
    let paces = &[66.0, 66.0, 66.0, 66.0, 66.0, 66.0, 40.0, 66.0];
    let script = Script { paces, noise: 1.0, ..Script::default() };
    let (_, looks) = run_at("r2u1", 1024, (Some(66.0), None), script).unwrap();
    assert_eq!(looks, (MEETINGS + 1) * 4);
    let holder = Holder { kernel: "k", tile: Tile::default(), memory: Some(66.0), median_ns: None };
    let meeting = |memory: f64, width: f64| Meeting {
        memory: vec![memory],
        interval: [0.0, width],
        ..Meeting::default()
    };
    let order = [meeting(66.0, 0.01), meeting(66.0, 0.2), meeting(40.0, 0.001)];
    let neighbour = Meeting { cores: vec![500.0, 400.0], ..meeting(66.0, 0.01) };
    assert!(order[1].is_better_than(&neighbour, &holder) && !neighbour.is_calm());
    for (at, worse) in order.iter().enumerate().skip(1) {
        assert!(order[at - 1].is_better_than(worse, &holder));
        assert!(!worse.is_better_than(&order[at - 1], &holder));
    }
}

#[test]
fn a_pick_far_behind_is_compared_all_the_same() {
    let slow = run("r4u1", 4096).unwrap().unwrap();
    assert!((slow.regret - (200.0 / 72.0 - 1.0)).abs() < 1e-9, "{slow:?}");
}

#[test]
fn a_pick_that_is_wrong_or_unknown_is_an_error() {
    for pick in ["r9u9", "r3u3"] {
        let error = run(pick, 0).unwrap_err();
        assert!(error.to_string().contains(pick) && error.hint().is_some(), "{error}");
    }
}
