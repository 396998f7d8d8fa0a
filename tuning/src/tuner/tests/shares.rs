//! The parts of a run's time that layers have.

use super::*;

#[test]
fn what_it_takes_to_fill_the_copies_leaves_time_for_every_stage() {
    // Longer than the first stage's part of the time.
    let one = Request { shapes: vec![layer(64, 128)], ..request(Effort::Measure) };
    let script = Script { opening: Duration::from_secs(50), ..Script::default() };
    let outcome = run(&mut lab(script), &one, &mut Notes::default());
    assert!(outcome.cut_short.is_empty(), "{:?}", outcome.notes);
    // It counts against the limit of the run.
    assert!(outcome.took >= script.opening && outcome.took <= one.limit());
}

#[test]
fn what_it_takes_to_fill_the_copies_is_not_the_first_layers_fault() {
    // More than the part that the first layer would have of the whole time.
    let script = Script { opening: Duration::from_millis(7600), ..Script::default() };
    let both = Request { time_limit: Duration::from_secs(20), ..request(Effort::Measure) };
    let outcome = run(&mut lab(script), &both, &mut Notes::default());
    assert!(outcome.cut_short.is_empty() && outcome.unfinished.is_empty(), "{:?}", outcome.notes);
    assert_eq!(outcome.preset.provenance.effort, Effort::Measure);
    assert!(outcome.took <= both.limit());
}
