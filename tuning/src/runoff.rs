//! The runoff: two candidates meet in pairs.
//!
//! They take turns, A B B A, so that drift hits both of a pair alike, and what counts is the ratio of each pair. So a
//! winner meets the pick of an earlier run, a pick all others or the default it claims to beat, and a prompt's
//! kernel that of small batches.

use crate::bench::Runner;
use crate::candidate::Candidate;
use crate::confirm::Confirmation;
use std::time::Duration;

/// Runs so many pairs, or as many as the time allows. `None` when a sample fails, or `stop` says so.
pub fn pairs(
    runner: &mut dyn Runner,
    rival: &Candidate,
    leader: &Candidate,
    pairs: usize,
    deadline: Duration,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Confirmation> {
    let (mut rivals, mut leaders) = (Vec::new(), Vec::new());
    while rivals.len() < pairs && runner.now() < deadline {
        let order = if rivals.len().is_multiple_of(2) { [0, 1] } else { [1, 0] };
        for side in order {
            match side {
                0 => rivals.push(runner.sample(rival).ok()?),
                _ => leaders.push(runner.sample(leader).ok()?),
            }
        }
        if stop() {
            return None;
        }
    }
    Some(Confirmation::of(rivals, leaders))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::{self, Script, Synthetic};
    use crate::confirm::MIN_PAIRS;

    fn run(script: Script, deadline: Duration) -> Confirmation {
        let [rival, leader] = fake::pair();
        pairs(&mut Synthetic::new(script), &rival, &leader, 15, deadline, &mut || false).unwrap()
    }

    #[test]
    fn only_a_clear_rival_takes_over() {
        let times = &[("r2u1", 98.0), ("r1u1", 100.0)];
        assert!(run(Script { times, ..Script::default() }, Duration::MAX).is_gain());
        let noisy = Script { times, noise: 0.3, ..Script::default() };
        assert!(!run(noisy, Duration::MAX).is_gain());
        let drifting = Script { times: &[("r2u1", 9.0), ("r1u1", 9.0)], drift: 0.05, ..noisy };
        assert!(!run(Script { noise: 0.0, ..drifting }, Duration::MAX).is_gain());
    }

    #[test]
    fn a_runoff_that_is_cut_short_decides_nothing() {
        let times = &[("r2u1", 50.0), ("r1u1", 100.0)];
        // A millisecond per sample.
        let short = run(Script { times, ..Script::default() }, Duration::from_millis(7));
        assert!(short.winner.len() < MIN_PAIRS && !short.is_gain());
    }
}
