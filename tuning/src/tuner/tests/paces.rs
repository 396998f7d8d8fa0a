//! Memory that changes its pace, and cores that do.

use super::*;
use trilut_presets::Pace;

/// The looks at memory in one layer, with one thread: before, after each of three races, and at the end.
const LOOKS: usize = 5;

fn three_layers(paces: &'static [f64]) -> (Outcome, Vec<String>, usize) {
    let mut lab = lab(Script { paces, ..Script::default() });
    let shapes = vec![layer(64, 128), layer(96, 256), layer(32, 128)];
    let request = Request { shapes, ..request(Effort::Measure) };
    let outcome = run(&mut lab, &request, &mut Notes::default());
    let notes = outcome.notes.clone();
    (outcome, notes, lab.looks.get())
}

#[test]
fn a_layer_that_was_raced_at_another_pace_of_memory_is_raced_again() {
    let (steady, notes, looks) = three_layers(&[66.0, 62.0, 68.0]);
    assert_eq!(looks, 3 * LOOKS);
    assert!(notes.iter().all(|note| !note.contains("memory")), "{notes:?}");
    assert!(steady.shapes.iter().all(|report| report.noise.memory.unwrap().is_steady()));

    // The second of three at less than two thirds.
    let (outcome, notes, looks) =
        three_layers(&[66.0, 66.0, 66.0, 66.0, 66.0, 40.0, 40.0, 40.0, 40.0, 40.0, 66.0]);
    assert_eq!(looks, 4 * LOOKS);
    assert!(notes.iter().all(|note| !note.contains("memory")), "{notes:?}");
    for report in &outcome.shapes {
        assert_eq!(report.noise.memory, Some(Pace::at(66.0)));
        assert_eq!(fake::micro(&report.winner.candidate), "r2u1");
    }

    // A change in the middle of a race.
    let (_, notes, looks) = three_layers(&[66.0, 40.0, 66.0]);
    assert_eq!(looks, 4 * LOOKS);
    assert!(
        notes.iter().any(|note| note.contains("during the race, 40.0 to 66.0 GB/s")),
        "{notes:?}"
    );
}

#[test]
fn what_is_disturbed_twice_is_measured_a_third_time() {
    let one = |paces: &'static [f64]| {
        let mut lab = lab(Script { paces, ..Script::default() });
        let request = Request { shapes: vec![layer(64, 128)], ..request(Effort::Measure) };
        let outcome = run(&mut lab, &request, &mut Notes::default());
        (outcome.shapes[0].noise.memory.unwrap(), lab.looks.get(), outcome.notes)
    };
    let (pace, looks, notes) =
        one(&[66.0, 40.0, 66.0, 66.0, 66.0, 66.0, 40.0, 66.0, 66.0, 66.0, 40.0, 41.0]);
    assert!(pace.is_steady() && pace.is_near(Pace::at(41.0)), "{pace}");
    assert_eq!(looks, 3 * LOOKS);
    assert_eq!(notes.iter().filter(|note| note.contains("measured once more")).count(), 1);
    assert!(!notes.iter().any(|note| note.ends_with("GB/s")), "{notes:?}");
    // There is an end to it.
    static WAVERING: [f64; 100] = {
        let mut paces = [40.0; 100];
        let mut at = 0;
        while at < 100 {
            paces[at] = 66.0;
            at += 2;
        }
        paces
    };
    let (pace, looks, notes) = one(&WAVERING);
    assert!(!pace.is_steady());
    assert_eq!(looks, 4 * LOOKS);
    assert_eq!(notes.iter().filter(|note| note.ends_with("GB/s")).count(), 1, "{notes:?}");
}

#[test]
fn what_was_raced_while_neighbours_slowed_the_cores_is_raced_again() {
    let rates = &[500.0, 512.0, 400.0, 500.0, 505.0];
    let mut lab = lab(Script { rates, ..Script::default() });
    let request = Request { shapes: vec![layer(64, 128)], ..request(Effort::Measure) };
    let outcome = run(&mut lab, &request, &mut Notes::default());
    assert!(outcome.notes.iter().any(|note| note.contains("28 % slower for a time")));
    assert_eq!(outcome.shapes[0].noise.warning(), None, "{:?}", outcome.shapes[0].noise);
    assert!(outcome.shapes[0].noise.cores.is_some());
}

#[test]
fn a_pace_that_does_not_come_back_is_noted() {
    let (outcome, notes, _) =
        three_layers(&[66.0, 66.0, 66.0, 66.0, 66.0, 66.0, 66.0, 66.0, 66.0, 66.0, 40.0]);
    assert_eq!(outcome.shapes[2].noise.memory, Some(Pace::at(40.0)));
    let told = notes.iter().filter(|note| note.contains("during the run, 40.0 to 66.0 GB/s"));
    assert_eq!(told.count(), 1, "{notes:?}");
}
