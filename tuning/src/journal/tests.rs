use super::*;
use crate::bench::fake::{self, FakeLab, Script};
use crate::{Prior, Silent, tune_in};
use std::time::Duration;
use trilut_kernels::{Cpu, Format, Isa};
use trilut_presets::preset::Effort;

const TIMES: &[(&str, f64)] = &[("r1u1", 100.0), ("r2u1", 80.0), ("r4u1", 85.0), ("r8u1", 300.0)];

fn request() -> Request {
    let layer = |m, k| ShapeUse { phase: Phase::Decode, shape: Shape { m, k }, count_per_token: 2 };
    Request {
        shapes: vec![layer(64, 128), layer(96, 256)],
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

fn lab() -> FakeLab {
    let kernels = ["r1u1", "r2u1", "r4u1", "r8u1"].map(fake::exact).to_vec();
    FakeLab::new(kernels, Script { times: TIMES, ..Script::default() })
}

/// Stops after so many samples.
struct Stop(usize);

impl Observer for Stop {
    fn event(&mut self, _: &Event<'_>) {}

    fn should_stop(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

/// Tunes with a log and an observer; the samples taken.
fn run(path: &Path, request: &Request, observer: &mut dyn Observer) -> (Preset, usize) {
    let (mut journal, _) = Journal::open(path, request).unwrap();
    let mut lab = lab();
    let outcome = tune_in(&mut lab, request, &mut Logged::new(observer, &mut journal, request));
    let samples = lab.log.borrow().len();
    (outcome.unwrap().preset, samples)
}

#[test]
fn finished_layers_of_a_killed_run_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    let request = request();
    let (whole, samples) = run(&path, &request, &mut Silent);
    // As if killed before anything was saved: no `saved` line.
    let (_, recovered) = Journal::open(&path, &request).unwrap();
    let preset = recovered.preset.unwrap();
    assert_eq!(preset.records(), whole.records());
    assert_eq!((recovered.fallen.len(), recovered.unreadable), (0, 0));

    // Killed in the middle of the second layer.
    let path = dir.path().join("b.trials");
    run(&path, &request, &mut Stop(samples * 3 / 4));
    let (_, recovered) = Journal::open(&path, &request).unwrap();
    assert_eq!(recovered.preset.unwrap().records(), &whole.records()[..1]);
    let fallen = &recovered.fallen[&request.shapes[1]];
    assert!(fallen.candidates.keys().any(|name| name.contains("r8u1")), "{fallen:?}");
    // What fell far behind stays out, and the pick is the same.
    let shapes = vec![request.shapes[1]];
    let prior = Prior { fallen: recovered.fallen, ..Prior::default() };
    let rest = Request { shapes, prior, ..request.clone() };
    let mut lab = lab();
    let outcome = tune_in(&mut lab, &rest, &mut Silent).unwrap();
    assert_eq!(outcome.preset.records()[0].kernel, whole.records()[1].kernel);
    assert!(lab.log.borrow().iter().all(|name| !name.contains("r8u1")));
}

#[test]
fn what_is_saved_is_not_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    run(&path, &request(), &mut Silent);
    let (mut journal, recovered) = Journal::open(&path, &request()).unwrap();
    assert!(recovered.preset.is_some());
    journal.saved(None).unwrap();
    drop(journal);
    let (_, recovered) = Journal::open(&path, &request()).unwrap();
    assert!(recovered.preset.is_none() && recovered.fallen.is_empty());
}

#[test]
fn what_waits_for_its_model_is_kept_apart_and_outlives_other_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    let request = request();
    let (mut journal, _) = Journal::open(&path, &request).unwrap();
    journal.set_gated(true);
    let mut lab = lab();
    let mut silent = Silent;
    let mut logged = Logged::new(&mut silent, &mut journal, &request);
    let whole = tune_in(&mut lab, &request, &mut logged).unwrap().preset;
    drop(journal);
    let (mut journal, recovered) = Journal::open(&path, &request).unwrap();
    assert!(recovered.preset.is_none());
    let waiting = recovered.waiting.unwrap();
    assert_eq!(waiting.records(), whole.records());
    // A run for another model saves what it found; so does a later one.
    for _ in 0..2 {
        journal.begin(&request).unwrap();
        journal.saved(Some(&waiting)).unwrap();
    }
    drop(journal);
    let (mut journal, recovered) = Journal::open(&path, &request).unwrap();
    assert_eq!(recovered.waiting.unwrap().records(), whole.records());
    assert!(recovered.preset.is_none());
    journal.saved(None).unwrap();
    drop(journal);
    let (_, recovered) = Journal::open(&path, &request).unwrap();
    assert!(recovered.waiting.is_none() && recovered.preset.is_none());
}

#[test]
fn a_log_cut_anywhere_yields_whole_records_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    let (whole, _) = run(&path, &request(), &mut Silent);
    let text = std::fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..text.len()).step_by(37).collect();
    for end in ends {
        std::fs::write(&path, &text[..end]).unwrap();
        let (mut journal, recovered) = Journal::open(&path, &request()).unwrap();
        assert!(recovered.unreadable <= 1);
        let records = recovered.preset.map_or(vec![], |preset| preset.records().to_vec());
        assert_eq!(records, whole.records()[..records.len()]);
        // The next run's lines are not glued to the torn one.
        journal.begin(&request()).unwrap();
        drop(journal);
        let (_, again) = Journal::open(&path, &request()).unwrap();
        assert_eq!(again.preset.map_or(0, |p| p.records().len()), records.len());
    }
}

#[test]
fn logs_of_other_machines_and_of_other_kernels_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    run(&path, &request(), &mut Stop(60));
    let moved =
        Request { machine: Machine { vendor: "other".into(), ..Machine::default() }, ..request() };
    let (journal, recovered) = Journal::open(&path, &moved).unwrap();
    assert!(recovered.preset.is_none() && recovered.fallen.is_empty());
    drop(journal);
    let (_, mut recovered) = Journal::open(&path, &request()).unwrap();
    let (layer, fallen) = recovered.fallen.pop_first().unwrap();
    let prior = Prior { fallen: [(layer, fallen.clone())].into(), ..Prior::default() };
    let (name, behind) = fallen.candidates.first_key_value().unwrap();
    let threads = fallen.threads;
    assert_eq!(threads, request().threads);
    assert_eq!(prior.behind(&layer, (fallen.space, threads), name), Some(*behind));
    assert_eq!(prior.behind(&layer, (fallen.space + 1, threads), name), None);
    // With more threads it may be the fastest.
    assert_eq!(prior.behind(&layer, (fallen.space, threads + 1), name), None);
}

#[test]
fn what_one_machine_saves_is_not_taken_for_what_another_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    let machine = Machine { vendor: "other".into(), ..Machine::default() };
    let (own, other) = (request(), Request { machine, ..request() });
    let found = |request: &Request| {
        let (_, recovered) = Journal::open(&path, request).unwrap();
        recovered.preset.map_or(0, |preset| preset.records().len())
    };
    run(&path, &own, &mut Silent);
    run(&path, &other, &mut Silent);
    assert_eq!((found(&own), found(&other)), (2, 2));
    for (saver, left) in [(&own, (0, 2)), (&other, (0, 0))] {
        // Whichever run the file ends with.
        Journal::open(&path, saver).unwrap().0.saved(None).unwrap();
        assert_eq!((found(&own), found(&other)), left);
    }
}

#[test]
fn two_tuners_cannot_share_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    let first = Journal::open(&path, &request()).unwrap();
    let error = Journal::open(&path, &request()).unwrap_err();
    assert!(matches!(error, JournalError::Busy { .. }) && error.hint().is_some(), "{error}");
    drop(first);
    Journal::open(&path, &request()).unwrap();
    assert!(Journal::open(&dir.path().join("no/such/dir"), &request()).is_err());
}

#[test]
fn nonsense_in_a_log_is_counted_and_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    std::fs::write(
        &path,
        b"{\"done\":{}\n\xff\xfe\nhello\n{\"fell\":{\"candidate\":\"x\",\"behind\":2}}",
    )
    .unwrap();
    let (_, recovered) = Journal::open(&path, &request()).unwrap();
    assert_eq!((recovered.unreadable, recovered.preset.is_none()), (3, true));
    // Once: nothing in it was needed.
    assert_eq!(Journal::open(&path, &request()).unwrap().1.unreadable, 0);
    // What another machine may need stays.
    run(&path, &request(), &mut Silent);
    let text = std::fs::read_to_string(&path).unwrap() + "hello\n";
    std::fs::write(&path, &text).unwrap();
    let machine = Machine { vendor: "other".into(), ..Machine::default() };
    Journal::open(&path, &Request { machine, ..request() }).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn what_a_newer_build_wrote_is_kept_for_it_and_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    let newer = "{\"run\":{\"begun\":1}}\n{\"learned\":{\"x\":[1,2]}}\n\"closed\"\n";
    std::fs::write(&path, format!("{newer}half a li\n")).unwrap();
    let (journal, recovered) = Journal::open(&path, &request()).unwrap();
    assert_eq!((recovered.unreadable, recovered.preset.is_none()), (1, true));
    drop(journal);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with(newer));
    // What follows the beginning of such a run is not that of the run before it.
    run(&path, &request(), &mut Silent);
    let text = std::fs::read_to_string(&path).unwrap();
    let done = text.lines().find(|line| line.starts_with("{\"done\"")).unwrap();
    let (other, one) = (done.replace("64x128", "32x128"), newer.lines().next().unwrap());
    std::fs::write(&path, format!("{text}{one}\n{other}\n")).unwrap();
    let (mut journal, recovered) = Journal::open(&path, &request()).unwrap();
    assert_eq!(recovered.preset.unwrap().records().len(), 2);
    // What is of this machine is spent once a run says so; the newer build's own run is not.
    journal.saved(None).unwrap();
    drop(journal);
    let is_begun_anew = || {
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "nonsense\n").unwrap();
        assert_eq!(Journal::open(&path, &request()).unwrap().1.unreadable, 1);
        std::fs::read(&path).unwrap().is_empty()
    };
    assert!(!is_begun_anew());
    // A line of a newer kind in a run that this build knows is.
    std::fs::remove_file(&path).unwrap();
    run(&path, &request(), &mut Silent);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "{\"learned\":{\"x\":[1,2]}}\n").unwrap();
    assert!(!is_begun_anew());
    Journal::open(&path, &request()).unwrap().0.saved(None).unwrap();
    assert!(is_begun_anew());
}

#[test]
fn what_cannot_be_read_is_told_until_what_is_beside_it_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trials");
    run(&path, &request(), &mut Silent);
    let mut text = std::fs::read(&path).unwrap();
    text.extend(b"nonsense\n");
    std::fs::write(&path, text).unwrap();
    for _ in 0..2 {
        let (_, recovered) = Journal::open(&path, &request()).unwrap();
        assert!(recovered.unreadable == 1 && recovered.preset.is_some());
    }
    let (mut journal, _) = Journal::open(&path, &request()).unwrap();
    journal.saved(None).unwrap();
    drop(journal);
    assert_eq!(Journal::open(&path, &request()).unwrap().1.unreadable, 0);
}
