//! Where small batches hand over to prompts.

use super::*;

#[test]
fn prompts_take_over_where_they_are_faster() {
    let prompt = ShapeUse { phase: Phase::Prefill, ..layer(96, 128) };
    for (even, from) in [(1, 4), (9, 10), (17, 18), (32, 34), (48, 49), (100, 49)] {
        let kernels = ["r1t4", "r2t8"].map(fake::exact_gemm).into_iter();
        let kernels = kernels.chain([fake::exact_batch("r1t8")]).collect();
        let times = &[("r1t4", 100.0), ("r2t8", 80.0), ("r1t8", 10.0)];
        let crossing = Some(even);
        let mut lab = FakeLab::new(kernels, Script { times, crossing, ..Script::default() });
        let request = Request { shapes: vec![prompt], ..request(Effort::Measure) };
        let outcome = run(&mut lab, &request, &mut Notes::default());
        assert_eq!(outcome.shapes[0].record.from, Some(from), "{even}");
        // An estimate has no time for it.
        let quick = Request { effort: Effort::Estimate, ..request };
        let outcome = run(&mut lab, &quick, &mut Notes::default());
        assert_eq!(outcome.shapes[0].record.from, None);
    }
}

#[test]
fn where_prompts_take_over_is_asked_of_the_kernel_that_small_batches_have() {
    let (shape, wide) = (layer(64, 128).shape, layer(96, 128).shape);
    let uses = |phase, shape| ShapeUse { phase, shape, count_per_token: 1 };
    let shapes = vec![uses(Phase::SmallBatch, shape), uses(Phase::Prefill, wide)];
    let kernels =
        vec![fake::exact_batch("r1t8"), fake::exact_batch("r2t8"), fake::exact_gemm("r1t4")];
    let times = &[("r1t8", 100.0), ("r2t8", 50.0), ("r1t4", 70.0)];
    let script = Script { times, crossing: Some(8), ..Script::default() };
    let mut lab = FakeLab::new(kernels, script);
    let request = Request { shapes, ..request(Effort::Measure) };
    let outcome = run(&mut lab, &request, &mut Notes::default());
    assert_eq!(outcome.shapes[1].record.from, Some(10));
    let log = lab.log.borrow();
    let last = log.iter().rev().find(|name| name.starts_with("batch")).unwrap();
    assert!(last.contains("r2t8"), "{last}");
}

#[test]
fn a_search_that_is_cut_short_leaves_the_record_of_a_greater_effort() {
    let prompt = ShapeUse { phase: Phase::Prefill, ..layer(96, 128) };
    let kernels = || {
        let kernels = ["r1t4", "r2t8"].map(fake::exact_gemm).into_iter();
        kernels.chain([fake::exact_batch("r1t8")]).collect()
    };
    let times = &[("r1t4", 100.0), ("r2t8", 80.0), ("r1t8", 10.0)];
    let script = Script { times, crossing: Some(9), ..Script::default() };
    let patient = Request { shapes: vec![prompt], ..request(Effort::Patient) };
    let earlier = run(&mut FakeLab::new(kernels(), script), &patient, &mut Notes::default()).preset;
    let known = &earlier.records()[0];
    assert_eq!((known.effort, known.from), (Effort::Patient, Some(10)));

    let tuned = |earlier: &Preset, effort, limit| {
        let prior = Prior { incumbents: Some(earlier.clone()), ..Prior::default() };
        let time_limit = Duration::from_millis(limit);
        let request = Request { effort, time_limit, prior, ..patient.clone() };
        let mut notes = Notes::default();
        let outcome = run(&mut FakeLab::new(kernels(), script), &request, &mut notes);
        assert_eq!(notes.done, outcome.shapes.len());
        outcome
    };
    for effort in [Effort::Estimate, Effort::Measure, Effort::Exhaustive] {
        let outcome = tuned(&earlier, effort, 3);
        assert!(outcome.preset.records().is_empty() && outcome.unfinished.is_empty());
        assert_eq!(outcome.cut_short, [prompt], "{effort}");
        assert!(outcome.notes.iter().any(|note| note.contains("stays")), "{:?}", outcome.notes);
    }
    // What is whole replaces it, and so does anything where the record is of an earlier build.
    let whole = tuned(&earlier, Effort::Exhaustive, 60_000);
    assert_eq!(whole.preset.records()[0].effort, Effort::Exhaustive);
    let changed = |change: &dyn Fn(&mut Record)| {
        let mut record = known.clone();
        change(&mut record);
        Preset::new(earlier.provenance.clone(), earlier.machine.clone(), vec![record])
    };
    for stale in [
        changed(&|record| record.hash += 1),
        changed(&|record| record.evidence.as_mut().unwrap().cores += 1),
        changed(&|record| record.tokens += 1),
    ] {
        let outcome = tuned(&stale, Effort::Exhaustive, 3);
        assert_eq!(outcome.preset.records()[0].effort, Effort::Estimate);
    }
    // Where prompts take over is still known of the same pick.
    let estimate = changed(&|record| record.effort = Effort::Estimate);
    let outcome = tuned(&estimate, Effort::Measure, 3);
    let record = &outcome.preset.records()[0];
    assert_eq!((record.kernel == known.kernel, record.from), (true, Some(10)));
}

#[test]
fn where_prompts_take_over_goes_with_the_pick_that_it_was_found_for() {
    let prompt = ShapeUse { phase: Phase::Prefill, ..layer(96, 128) };
    let kernels = ["r1t4", "r2t8"].map(fake::exact_gemm).into_iter();
    let kernels = kernels.chain([fake::exact_batch("r1t8")]).collect();
    let times = &[("r1t4", 100.0), ("r2t8", 80.0), ("r1t8", 10.0)];
    let mut lab = FakeLab::new(kernels, Script { times, crossing: Some(9), ..Script::default() });
    let request = Request { shapes: vec![prompt], ..request(Effort::Measure) };
    let mut first = run(&mut lab, &request, &mut Notes::default()).shapes.remove(0);
    assert_eq!(first.record.from, Some(10));
    first.is_cut_short = true;
    first.record.from = Some(4);
    let other = Record { kernel: "gemm_dot_r1t4_scalar".to_owned(), ..first.record.clone() };
    for (record, from) in [(first.record.clone(), 4), (other, 10)] {
        let reports = vec![ShapeReport { record, ..first.clone() }];
        let mut found = Found { reports, ..Found::default() };
        let limit = lab.now() + Duration::from_secs(61);
        again(&mut lab, &mut request.clone(), &mut found, limit, &mut Notes::default()).unwrap();
        let report = &found.reports[0];
        assert_eq!((report.is_cut_short, report.record.from), (false, Some(from)));
    }
}

#[test]
fn where_prompts_take_over_is_asked_again_where_it_is_not_known_any_more() {
    let prompt = ShapeUse { phase: Phase::Prefill, ..layer(96, 128) };
    let batch = ShapeUse { phase: Phase::SmallBatch, ..layer(96, 128) };
    let kernels =
        vec![fake::exact_gemm("r1t4"), fake::exact_batch("r1t8"), fake::exact_batch("r2t8")];
    let times = &[("r1t4", 100.0), ("r1t8", 10.0), ("r2t8", 8.0)];
    let mut lab = FakeLab::new(kernels, Script { times, crossing: Some(9), ..Script::default() });
    let request = Request { shapes: vec![prompt, batch], ..request(Effort::Measure) };
    let mut reports = run(&mut lab, &request, &mut Notes::default()).shapes;
    reports[0].record.from = Some(4);
    // As if a busy moment had made small batches pick another one.
    reports[1].noise.drift = 0.5;
    reports[1].record.kernel = "batch_i2s_dot_r1t8_scalar".to_owned();
    let asked = |reports: &[ShapeReport], lab: &mut FakeLab, limit| {
        let mut found = Found { reports: reports.to_vec(), ..Found::default() };
        let limit = lab.now() + Duration::from_secs(limit);
        again(lab, &mut request.clone(), &mut found, limit, &mut Notes::default()).unwrap();
        found.reports[0].record.from
    };
    assert_eq!(asked(&reports, &mut lab, 60), Some(10));
    // Without time for anything what there was stays.
    assert_eq!(asked(&reports, &mut lab, 0), Some(4));
    // An undisturbed run keeps what it knows.
    reports[1].noise.drift = 0.0;
    assert_eq!(asked(&reports, &mut lab, 60), Some(4));
    reports[0].record.from = None;
    assert_eq!(asked(&reports, &mut lab, 60), Some(10));
}
