//! Kernels that want another distance of prefetching than the usual one have a second chance; what cannot be timed has
//! none.

use super::*;
use crate::Candidate;
use crate::prior::Fallen;

#[test]
fn where_no_candidate_can_be_timed_nothing_is_found() {
    let mut lab =
        FakeLab::new(vec![fake::exact("r3u3")], Script { times: TIMES, ..Script::default() });
    let outcome = run(&mut lab, &request(Effort::Measure), &mut Notes::default());
    assert!(outcome.shapes.is_empty() && outcome.unfinished.len() == 2);
}

const CHANCES: &[(&str, f64)] = &[
    ("r1u1", 100.0),
    ("r2u1", 80.0),
    ("r4u1", 85.0),
    ("r1u2", 86.0),
    ("r4u2", 87.0),
    ("r2u2", 110.0),
    ("r8u1", 230.0),
];

/// Those kernels, one of which takes 0.3 of its time with a distance of its own.
fn with_own_prefetch(micro: &'static str, at: usize) -> FakeLab {
    let kernels = CHANCES.iter().map(|(micro, _)| fake::exact(micro)).collect();
    let own_prefetch = Some((micro, at, 0.3));
    FakeLab::new(kernels, Script { times: CHANCES, own_prefetch, ..Script::default() })
}

#[test]
fn a_kernel_that_wants_a_short_prefetch_or_none_has_a_second_chance() {
    for (micro, at, wins) in
        [("r2u2", 256, "r2u2"), ("r2u2", 0, "r2u2"), ("r2u2", 512, "r2u1"), ("r8u1", 256, "r2u1")]
    {
        let mut lab = with_own_prefetch(micro, at);
        let outcome = run(&mut lab, &request(Effort::Measure), &mut Notes::default());
        for report in &outcome.shapes {
            assert_eq!(fake::micro(&report.winner.candidate), wins, "{}", report.reason);
        }
    }
}

#[test]
fn a_resumed_search_gives_the_same_second_chance() {
    let shapes = vec![layer(64, 128)];
    let whole = Request { shapes, ..request(Effort::Measure) };
    let report = run(&mut with_own_prefetch("r2u2", 256), &whole, &mut Notes::default());
    let (space, threads) = (report.shapes[0].space, whole.threads);
    let usual = Candidate::untuned(fake::exact("r2u2"));
    let short = Candidate { tile: Tile { prefetch: 256, ..usual.tile }, ..usual };
    for (fell, behind, wins) in [
        (usual, 1.4, "r2u2"),
        (usual, 2.1, "r2u1"),
        (short, 1.4, "r2u1"),
        (usual, f64::INFINITY, "r2u1"),
    ] {
        let candidates = [(fell.to_string(), behind)].into();
        let fallen = [(whole.shapes[0], Fallen { space, threads, candidates })].into();
        let resumed = Request { prior: Prior { fallen, ..Prior::default() }, ..whole.clone() };
        let mut lab = with_own_prefetch("r2u2", 256);
        let outcome = run(&mut lab, &resumed, &mut Notes::default());
        let winner = outcome.shapes[0].winner.candidate;
        assert_eq!(fake::micro(&winner), wins, "{fell} was {behind} behind");
    }
}

#[test]
fn who_leads_when_a_search_is_resumed_is_not_kept_out_by_how_it_fared_before() {
    let whole = Request { shapes: vec![layer(64, 128)], ..request(Effort::Measure) };
    // No distance of prefetching is better than the usual one, with which it fell behind for a moment.
    let lab = || with_own_prefetch("r2u1", Candidate::untuned(fake::exact("r2u1")).tile.prefetch);
    let space = run(&mut lab(), &whole, &mut Notes::default()).shapes[0].space;
    let usual = Candidate::untuned(fake::exact("r2u1"));
    let candidates = [(usual.to_string(), 1.1)].into();
    let fallen = Fallen { space, threads: whole.threads, candidates };
    let fallen = [(whole.shapes[0], fallen)].into();
    let resumed = Request { prior: Prior { fallen, ..Prior::default() }, ..whole };
    let outcome = run(&mut lab(), &resumed, &mut Notes::default());
    assert!(outcome.shapes[0].winner.candidate.is(&usual), "{}", outcome.shapes[0].reason);
}
