mod chances;
mod crossings;
mod paces;
mod shares;

use super::*;
use crate::bench::fake::{self, FakeLab, Script};
use crate::estimate;
use crate::prior::Prior;
use trilut_kernels::{Cpu, Format, Isa, Shape, Tile};
use trilut_presets::Machine;
use trilut_presets::preset::Record;

fn layer(m: usize, k: usize) -> ShapeUse {
    ShapeUse { phase: Phase::Decode, shape: Shape { m, k }, count_per_token: 2 }
}

fn request(effort: Effort) -> Request {
    Request {
        shapes: vec![layer(64, 128), layer(96, 256)],
        formats: vec![Format::I2S],
        decoded: vec![],
        threads: 1,
        effort,
        time_limit: Duration::from_secs(60),
        cpu: Cpu::capped(Some(Isa::Scalar)),
        machine: Machine::default(),
        model_bytes: 1 << 40,
        prior: Prior::default(),
    }
}

/// Writes events down; stops after a number of progress reports.
#[derive(Default)]
struct Notes {
    refused: Vec<String>,
    dropped: usize,
    best: Vec<f64>,
    progress: Vec<f64>,
    done: usize,
    stop_after: Option<usize>,
}

impl Observer for Notes {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Refused(refused) => self.refused.push(refused.kernel.clone()),
            Event::Dropped { .. } => self.dropped += 1,
            Event::Best { ns, .. } => self.best.push(*ns),
            Event::Progress(part) => self.progress.push(*part),
            Event::Done(_) => self.done += 1,
            _ => {}
        }
    }

    fn should_stop(&mut self) -> bool {
        self.stop_after.is_some_and(|after| self.progress.len() >= after)
    }
}

const TIMES: &[(&str, f64)] =
    &[("r1u1", 100.0), ("r2u1", 80.0), ("r4u1", 85.0), ("r8u1", 300.0), ("r9u9", 1.0)];

fn lab(script: Script) -> FakeLab {
    let kernels = ["r1u1", "r2u1", "r4u1", "r8u1"].map(fake::exact).to_vec();
    FakeLab::new(kernels, Script { times: TIMES, ..script })
}

fn run(lab: &mut FakeLab, request: &Request, notes: &mut Notes) -> Outcome {
    tune_in(lab, request, notes).unwrap()
}

/// What was found for one layer on a calm machine.
pub(super) fn a_report() -> ShapeReport {
    let request = Request { shapes: vec![layer(64, 128)], ..request(Effort::Measure) };
    run(&mut lab(Script::default()), &request, &mut Notes::default()).shapes.remove(0)
}

#[test]
fn the_fastest_exact_kernel_and_tile_win_for_every_shape() {
    // A prefetch that helps decides between candidates that are close.
    let mut lab = lab(Script { prefetch: Some((1024, 0.9)), ..Script::default() });
    let mut notes = Notes::default();
    let outcome = run(&mut lab, &request(Effort::Measure), &mut notes);
    assert_eq!((outcome.shapes.len(), outcome.stopped), (2, None));
    for report in &outcome.shapes {
        assert_eq!(fake::micro(&report.winner.candidate), "r2u1");
        assert_eq!(report.winner.candidate.tile, Tile { rows_per_task: 0, prefetch: 1024 });
        assert!((report.gain() - 100.0 / 72.0).abs() < 1e-9);
        assert!(report.confirmation.as_ref().unwrap().is_gain());
        assert!(report.scalar_ns.is_some());
        assert!(report.tried > 7 && report.reason.contains("95 %"), "{}", report.reason);
    }
    assert!(notes.progress.is_sorted() && notes.progress.last() == Some(&1.0));
    assert!(notes.best.len() >= 2 && notes.dropped >= 2 && notes.done == 2);
    assert_eq!(outcome.notes[0], "synthetic weights");

    let records = outcome.preset.records();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].median_ns, records[0].default_ns), (72, 100));
    let text = outcome.preset.to_text();
    assert_eq!(Preset::parse(&text, "tuned").unwrap().to_text(), text);
}

#[test]
fn a_kernel_that_is_fast_but_wrong_is_refused_and_never_timed() {
    for effort in [Effort::Estimate, Effort::Measure] {
        let mut lab = lab(Script::default());
        lab.kernels.push(fake::wrong("r9u9"));
        let mut notes = Notes::default();
        let outcome = run(&mut lab, &request(effort), &mut notes);
        assert!(lab.log.borrow().iter().all(|name| !name.contains("r9u9")));
        if effort == Effort::Measure {
            assert_eq!(notes.refused.len(), 2);
            let refused = &outcome.shapes[0].refused[0];
            assert!(refused.kernel.contains("r9u9") && refused.reason.contains("must be"));
        }
        assert_eq!(fake::micro(&outcome.shapes[0].winner.candidate), "r2u1");
    }
}

#[test]
fn a_wrong_default_is_an_error_with_its_cause() {
    let mut lab = lab(Script::default());
    lab.kernels.insert(0, fake::wrong("r9u9"));
    let error = tune_in(&mut lab, &request(Effort::Measure), &mut Notes::default()).unwrap_err();
    assert!(matches!(error, TuneError::DefaultInexact { .. }));
    assert!(std::error::Error::source(&error).is_some() && error.hint().is_some());
    assert!(lab.log.borrow().is_empty());
}

#[test]
fn a_gain_inside_the_noise_keeps_the_default_and_says_so() {
    let kernels = ["r1u1", "r2u1"].map(fake::exact).to_vec();
    let times = &[("r1u1", 100.0), ("r2u1", 99.9)];
    for effort in [Effort::Estimate, Effort::Measure] {
        let script = Script { times, noise: 0.5, ..Script::default() };
        let mut lab = FakeLab::new(kernels.clone(), script);
        let outcome = run(&mut lab, &request(effort), &mut Notes::default());
        for report in &outcome.shapes {
            assert_eq!(fake::micro(&report.winner.candidate), "r1u1", "{}", report.reason);
            assert_eq!(report.winner.candidate.tile, Tile::default());
            assert!(report.reason.contains("default"), "{}", report.reason);
            assert_eq!(report.gain(), 1.0);
        }
    }
}

#[test]
fn equal_candidates_leave_the_default() {
    let times = &[("r1u1", 100.0), ("r2u1", 100.0), ("r4u1", 100.0), ("r8u1", 100.0)];
    let kernels = lab(Script::default()).kernels;
    let mut lab = FakeLab::new(kernels, Script { times, ..Script::default() });
    let outcome = run(&mut lab, &request(Effort::Measure), &mut Notes::default());
    assert!(
        outcome
            .shapes
            .iter()
            .all(|r| r.reason == "nothing was faster than the default by a percent")
    );
    assert!(outcome.preset.records().iter().all(|r| r.confidence.is_none()));
}

#[test]
fn candidates_within_a_percent_are_equals_of_which_the_same_one_is_picked() {
    let pick = |times| {
        let kernels = lab(Script::default()).kernels;
        let mut lab = FakeLab::new(kernels, Script { times, ..Script::default() });
        let outcome = run(&mut lab, &request(Effort::Measure), &mut Notes::default());
        fake::micro(&outcome.shapes[0].winner.candidate).to_owned()
    };
    let one = pick(&[("r1u1", 100.0), ("r2u1", 80.0), ("r4u1", 80.5), ("r8u1", 300.0)]);
    let other = pick(&[("r1u1", 100.0), ("r2u1", 80.5), ("r4u1", 80.0), ("r8u1", 300.0)]);
    assert_eq!(one, other);
    // Beyond that the fastest is, and a gain of less is none.
    assert_eq!(pick(&[("r1u1", 100.0), ("r2u1", 80.0), ("r4u1", 82.0), ("r8u1", 300.0)]), "r2u1");
    assert_eq!(pick(&[("r1u1", 100.0), ("r2u1", 82.0), ("r4u1", 80.0), ("r8u1", 300.0)]), "r4u1");
    assert_eq!(pick(&[("r1u1", 100.0), ("r2u1", 99.5), ("r4u1", 99.5), ("r8u1", 99.5)]), "r1u1");
}

#[test]
fn drift_is_noted_and_does_not_choose() {
    let mut lab = lab(Script { drift: 0.01, ..Script::default() });
    let outcome = run(&mut lab, &request(Effort::Measure), &mut Notes::default());
    assert!(outcome.shapes.iter().all(|r| fake::micro(&r.winner.candidate) == "r2u1"));
    assert!(outcome.notes.iter().any(|n| n.contains("slower")), "{:?}", outcome.notes);
}

#[test]
fn a_race_in_a_busy_moment_is_run_again() {
    let mut lab = lab(Script { drift: 0.01, drift_passes: true, ..Script::default() });
    let outcome = run(&mut lab, &request(Effort::Measure), &mut Notes::default());
    assert!(outcome.notes.iter().any(|n| n.contains("slower")), "{:?}", outcome.notes);
    assert!(outcome.shapes.iter().all(|r| r.noise.warning().is_none()));
    assert_eq!(outcome.shapes.len(), 2);
}

#[test]
fn several_threads_vary_the_split() {
    let mut lab = lab(Script { rows: Some((32, 0.5)), ..Script::default() });
    let several = Request { threads: 2, shapes: vec![layer(256, 128)], ..request(Effort::Measure) };
    let outcome = run(&mut lab, &several, &mut Notes::default());
    assert_eq!(outcome.shapes[0].winner.candidate.tile.rows_per_task, 32);
    assert_eq!(outcome.preset.records()[0].threads, 2);
}

#[test]
fn an_estimate_takes_three_samples_of_the_best_few() {
    let mut lab = lab(Script::default());
    let outcome = run(&mut lab, &request(Effort::Estimate), &mut Notes::default());
    assert_eq!(fake::micro(&outcome.shapes[0].winner.candidate), "r2u1");
    assert!(outcome.shapes.iter().all(|r| r.confirmation.is_none()));
    assert!(outcome.shapes[0].winner.samples.len() <= 3);
    // Per shape: the default and three more, then the default and two with every prefetch distance; of each
    // one sample is thrown away and three are kept. Twice the scalar one.
    let candidates = 4 + 1 + 2 * crate::space::PREFETCH.values.len();
    assert!(lab.log.borrow().len() <= 2 * (4 * candidates + 2));
    assert!(request(Effort::Estimate).limit() <= Request::ESTIMATE_LIMIT);
}

#[test]
fn a_short_limit_is_kept_and_leaves_a_usable_result() {
    // A millisecond per sample: the first shape gets its least, the second one nothing.
    let mut lab = lab(Script::default());
    let short = Request { time_limit: Duration::from_millis(6), ..request(Effort::Measure) };
    let outcome = run(&mut lab, &short, &mut Notes::default());
    assert_eq!(outcome.stopped, Some(Stopped::TimeLimit));
    assert_eq!(outcome.unfinished, [layer(96, 256)]);
    assert_eq!(outcome.preset.records().len(), 1);
    assert!(lab.clock.get() < Duration::from_millis(40), "{:?}", lab.clock.get());

    let none = Request { time_limit: Duration::ZERO, ..request(Effort::Measure) };
    let outcome = run(&mut lab, &none, &mut Notes::default());
    assert_eq!((outcome.unfinished.len(), outcome.stopped), (2, Some(Stopped::TimeLimit)));
}

#[test]
fn cancelling_keeps_the_finished_shapes() {
    let mut whole = Notes::default();
    run(&mut lab(Script::default()), &request(Effort::Measure), &mut whole);
    // Stop in the middle of the second shape, and in the middle of the first.
    for (after, finished) in [(whole.progress.len() * 3 / 4, 1), (3, 0)] {
        let mut notes = Notes { stop_after: Some(after), ..Notes::default() };
        let outcome = run(&mut lab(Script::default()), &request(Effort::Measure), &mut notes);
        assert_eq!(outcome.stopped, Some(Stopped::Cancelled));
        assert_eq!(outcome.shapes.len(), finished);
        assert_eq!(outcome.preset.records().len(), finished);
        assert_eq!(outcome.unfinished.len(), 2 - finished);
    }
}

#[test]
fn nonsense_requests_are_errors() {
    let base = request(Effort::Measure);
    for bad in [
        Request { shapes: vec![], ..base.clone() },
        Request { formats: vec![], ..base.clone() },
        Request { threads: 0, ..base.clone() },
        Request { threads: 1 << 20, ..base },
    ] {
        let error = tune(&bad, &mut crate::Silent).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn without_a_preset_the_estimate_picks_for_every_shape() {
    let lab = lab(Script::default());
    let plan = estimate::plan(&lab, &request(Effort::Measure));
    assert_eq!(plan.picks.len(), 2);
    assert!(plan.picks.iter().all(|p| p.reason.contains("estimate")));
    assert!(lab.log.borrow().is_empty(), "nothing is run");
}

fn prompts(m: usize, k: usize) -> ShapeUse {
    ShapeUse { phase: Phase::Prefill, ..layer(m, k) }
}

const PROMPT_TIMES: &[(&str, f64)] =
    &[("r1u1", 100.0), ("r2u1", 80.0), ("r1t8", 1e4), ("r2t8", 8e3), ("r4t8", 8.2e3)];

/// A lab of both phases.
fn lab_of_both(script: Script) -> FakeLab {
    let mut kernels = ["r1u1", "r2u1"].map(fake::exact).to_vec();
    kernels.extend(["r1t8", "r2t8", "r4t8"].map(fake::exact_gemm));
    FakeLab::new(kernels, Script { times: PROMPT_TIMES, ..script })
}

#[test]
fn prompts_are_tuned_like_tokens_with_their_own_kernels_and_knob() {
    let mut lab = lab_of_both(Script { rows: Some((960, 0.9)), ..Script::default() });
    lab.kernels.push(fake::wrong_gemm("r8t8"));
    let shapes = vec![layer(64, 128), prompts(1500, 128)];
    let formats = vec![Format::I2S, Format::Tl1];
    let both = Request { shapes, formats, ..request(Effort::Measure) };
    let mut notes = Notes::default();
    let outcome = run(&mut lab, &both, &mut notes);
    assert_eq!((outcome.shapes.len(), outcome.stopped), (2, None));
    assert!(notes.refused.iter().any(|kernel| kernel.contains("r8t8")));
    assert!(lab.log.borrow().iter().all(|name| !name.contains("r8t8")));
    assert!(notes.progress.is_sorted() && notes.progress.last() == Some(&1.0));

    let report = &outcome.shapes[1];
    assert_eq!(report.winner.candidate.to_string(), "gemm_dot_r2t8_scalar (panels of 960)");
    assert_eq!(report.default.candidate.to_string(), "gemm_dot_r1t8_scalar");
    assert!(report.confirmation.as_ref().unwrap().is_gain());
    let record = outcome.preset.record(Shape { m: 1500, k: 128 }, Phase::Prefill, 1).unwrap();
    assert_eq!((record.tokens, record.median_ns, record.default_ns), (128, 7200, 10_000));
    // Panels are filled from the first format; decode races all.
    assert_eq!((record.format, &record.formats[..]), (Format::I2S, &[Format::I2S][..]));
    assert_eq!(outcome.preset.records()[0].formats, both.formats);
    assert_ne!(outcome.shapes[0].space, report.space);
    let text = outcome.preset.to_text();
    assert_eq!(Preset::parse(&text, "tuned").unwrap(), outcome.preset);

    // Two layers per token, a prompt of 128 tokens.
    let (tuned, default) = outcome.token_ns(Phase::Prefill).unwrap();
    assert!((tuned - 112.5).abs() < 1e-9 && (default - 156.25).abs() < 1e-9, "{tuned} {default}");
    assert_eq!(outcome.token_ns(Phase::SmallBatch), None);
}

#[test]
fn phases_share_the_time_alike() {
    // A millisecond per sample, and far more work per layer in one phase than in the other.
    let mut lab = lab_of_both(Script { noise: 0.5, ..Script::default() });
    let shapes = vec![layer(4096, 128), prompts(64, 128)];
    let limit = Duration::from_millis(400);
    let both = Request { shapes, time_limit: limit, ..request(Effort::Measure) };
    run(&mut lab, &both, &mut Notes::default());
    let log = lab.log.borrow();
    // The prompts' turn begins when half of the time is over; what is left is for a second try of either.
    let first = log.iter().position(|name| name.starts_with("gemm_")).unwrap();
    assert!((150..=230).contains(&first), "{first} of {}", log.len());
}

#[test]
fn small_batches_are_tuned_on_what_decoding_reads() {
    let times = &[("r1u1", 100.0), ("r1t8", 400.0), ("r2t8", 200.0), ("r4t8", 100.0)];
    let kernels = vec![
        fake::exact("r1u1"),
        fake::exact_batch("r1t8"),
        fake::exact_batch("r2t8"),
        fake::wrong_batch("r4t8"),
    ];
    let mut lab = FakeLab::new(kernels, Script { times, ..Script::default() });
    let decode = layer(64, 128);
    let batch = ShapeUse { phase: Phase::SmallBatch, ..decode };
    let formats = vec![Format::Tl1, Format::I2S];
    let both = Request { shapes: vec![decode, batch], formats, ..request(Effort::Measure) };
    let mut notes = Notes::default();
    let outcome = run(&mut lab, &both, &mut notes);
    assert_eq!((outcome.shapes.len(), outcome.stopped), (2, None));
    assert!(notes.refused.iter().any(|kernel| kernel.contains("r4t8")));
    let record = outcome.preset.record(decode.shape, Phase::SmallBatch, 1).unwrap();
    assert_eq!((&record.kernel[..], record.tokens), ("batch_i2s_dot_r2t8_scalar", 4));
    // Decoding raced both formats and reads this one.
    assert_eq!((record.format, &record.formats[..]), (Format::I2S, &[Format::I2S][..]));
    let text = outcome.preset.to_text();
    assert_eq!(Preset::parse(&text, "tuned").unwrap(), outcome.preset);
}

#[test]
fn small_batches_are_tuned_anew_when_decoding_turns_to_another_format() {
    let times = &[("r1u1", 100.0), ("r1t8", 400.0)];
    let kernels = vec![fake::exact("r1u1"), fake::exact_batch("r1t8")];
    let mut lab = FakeLab::new(kernels, Script { times, ..Script::default() });
    let decode = layer(64, 128);
    let batch = ShapeUse { phase: Phase::SmallBatch, ..decode };
    let formats = vec![Format::Tl1, Format::I2S];
    let request = Request { shapes: vec![decode, batch], formats, ..request(Effort::Measure) };
    let mut reports = run(&mut lab, &request, &mut Notes::default()).shapes;
    // As if a busy moment had made decoding pick another one.
    reports[0].noise.drift = 0.5;
    reports[1].record.format = Format::Tl1;
    let (mut notes, limit) = (Notes::default(), lab.now() + Duration::from_secs(60));
    let mut found = Found { reports, ..Found::default() };
    again(&mut lab, &mut request.clone(), &mut found, limit, &mut notes).unwrap();
    assert_eq!(notes.done, 2);
    let formats = found.reports.iter().map(|report| (report.layer, report.record.format));
    assert!(formats.eq([(decode, Format::I2S), (batch, Format::I2S)]));
}

#[test]
fn a_search_that_is_cut_short_claims_no_more_than_an_estimate() {
    for effort in [Effort::Measure, Effort::Patient, Effort::Exhaustive] {
        // A millisecond per sample: a round of the first race, and the fewest pairs.
        let short = Request { time_limit: Duration::from_millis(3), ..request(effort) };
        let outcome = run(&mut lab(Script::default()), &short, &mut Notes::default());
        assert_eq!(outcome.stopped, Some(Stopped::TimeLimit));
        assert_eq!((&outcome.cut_short[..], outcome.unfinished.len()), (&[layer(64, 128)][..], 1));
        let record = &outcome.preset.records()[0];
        assert_eq!(
            (record.effort, outcome.preset.provenance.effort),
            (Effort::Estimate, Effort::Estimate)
        );
        // One sample of the default in the race shows no noise, and no certainty of the pick.
        let evidence = record.evidence.clone().unwrap();
        assert_eq!((evidence.noise, evidence.wins), (None, None));
        assert_eq!(outcome.preset.provenance.noise, None);

        let whole = run(&mut lab(Script::default()), &request(effort), &mut Notes::default());
        assert!(whole.cut_short.is_empty() && whole.stopped.is_none());
        assert!(whole.preset.records().iter().all(|record| record.effort == effort));
        let evidence = whole.preset.records()[0].evidence.clone().unwrap();
        assert!(evidence.noise.is_some() && evidence.wins.is_some());
    }
}

#[test]
fn a_search_that_was_cut_short_is_begun_anew_in_the_time_that_others_leave() {
    let mut lab = lab(Script::default());
    let request = request(Effort::Measure);
    let mut reports = run(&mut lab, &request, &mut Notes::default()).shapes;
    reports[0].is_cut_short = true;
    reports[0].record.effort = Effort::Estimate;
    // Too little for a usual share, then enough.
    for (left, efforts) in
        [(29, [Effort::Estimate, Effort::Measure]), (31, [Effort::Measure, Effort::Measure])]
    {
        let limit = lab.now() + Duration::from_secs(left);
        let mut found = Found { reports: reports.clone(), ..Found::default() };
        again(&mut lab, &mut request.clone(), &mut found, limit, &mut Notes::default()).unwrap();
        assert!(found.reports.iter().map(|report| report.record.effort).eq(efforts));
        assert!(found.reports.iter().map(|report| report.layer).eq(request.shapes.clone()));
    }
}

#[test]
fn any_time_limit_is_a_time_limit() {
    for limit in [Duration::from_secs(u64::MAX), Duration::MAX] {
        let request = Request { time_limit: limit, ..request(Effort::Measure) };
        assert_eq!(request.limit(), Request::LONGEST);
        let outcome = run(&mut lab(Script::default()), &request, &mut Notes::default());
        assert_eq!((outcome.shapes.len(), outcome.stopped), (2, None));
        assert!(request.limit() > crate::end_to_end::share_of(limit));
    }
}

#[test]
fn a_shape_that_is_too_large_is_told_from_one_that_there_was_no_time_for() {
    let memory = Some(layer(64, 128).shape.weights());
    let script = Script { memory, ..Script::default() };
    let short = |outcome: &Outcome| -> Vec<ShapeUse> {
        outcome.too_large.iter().map(|(layer, _)| *layer).collect()
    };
    // The large one is named, and the others are kept.
    let outcome = run(&mut lab(script), &request(Effort::Measure), &mut Notes::default());
    assert_eq!((short(&outcome), outcome.stopped), (vec![layer(96, 256)], None));
    assert_eq!((outcome.preset.records().len(), outcome.unfinished.len()), (1, 0));
    // Nothing else is there: it is an error, however little time there was.
    for limit in [Duration::from_secs(60), Duration::from_nanos(1)] {
        let alone =
            Request { shapes: vec![layer(96, 256)], time_limit: limit, ..request(Effort::Measure) };
        let mut lab = lab(script);
        let error = tune_in(&mut lab, &alone, &mut Notes::default()).unwrap_err();
        assert!(matches!(error, TuneError::Memory(short) if short.needed == 96 * 256), "{error}");
        assert!(lab.log.borrow().is_empty() && error.hint().is_some());
    }
}

#[test]
fn a_race_of_finalists_claims_no_more_than_the_search_that_found_them() {
    let first = run(&mut lab(Script::default()), &request(Effort::Measure), &mut Notes::default());
    let [whole, other] = first.preset.records() else { panic!("{:?}", first.preset) };
    let short = Record { effort: Effort::Estimate, ..other.clone() };
    let records = vec![whole.clone(), short];
    let known = Preset::new(first.preset.provenance.clone(), Machine::default(), records);
    let prior = Prior { incumbents: Some(known), finalists_only: true, ..Prior::default() };
    let next = Request { threads: 2, prior, ..request(Effort::Measure) };
    let mut notes = Notes::default();
    let outcome = run(&mut lab(Script::default()), &next, &mut notes);
    let efforts: Vec<Effort> = outcome.shapes.iter().map(|report| report.record.effort).collect();
    assert_eq!(efforts, [Effort::Measure, Effort::Estimate]);
    // It had its time: no second search of it, but one to come.
    assert_eq!((notes.done, &outcome.cut_short[..]), (2, &request(Effort::Measure).shapes[1..]));
    // Where nothing is known there are no finalists.
    let prior = Prior { incumbents: None, ..next.prior.clone() };
    let outcome = run(&mut lab(Script::default()), &Request { prior, ..next }, &mut notes);
    assert!(outcome.shapes.iter().all(|report| report.record.effort == Effort::Estimate));
}
