//! The paired check: is the winner of a race really faster than the default?
//!
//! A race picks the best of many noisy medians, which flatters the winner. Here the two run in turn,
//! A B B A, and each pair gives one ratio: drift hits both of a pair alike. The gain counts only when the
//! whole 95 % interval of the median ratio lies below 1, and is taken when it is worth a change ([`WORTH`]).

use crate::bench::Runner;
use crate::candidate::Candidate;
use crate::statistics::{median, median_interval};
use std::time::Duration;

/// The probability of error on each side of the interval at one look: 2.5 % over all looks together.
const TAIL: f64 = 0.025 / (DOUBLINGS + 1) as f64;

/// Pairs below which no such interval exists.
pub const MIN_PAIRS: usize = 8;

/// The least gain that is worth a change. Candidates that are nearer to each other than this are taken for
/// equal, and the choice among equals is the same each time: else two runs would pick differently for nothing.
pub const WORTH: f64 = 0.01;

/// A gain that one would be sorry to miss: a check that leaves room for it has not decided.
const MATTERS: f64 = 0.05;

/// What the pairs showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirmation {
    /// The winner's samples in nanoseconds.
    pub winner: Vec<f64>,
    /// The default's samples in nanoseconds, in the same pairs.
    pub default: Vec<f64>,
    /// The median of (winner's time / default's time).
    pub ratio: f64,
    /// The lower end of its 95 % interval.
    pub low: f64,
    /// The upper end of its 95 % interval.
    pub high: f64,
}

impl Confirmation {
    /// What these pairs show.
    pub(crate) fn of(winner: Vec<f64>, default: Vec<f64>) -> Self {
        Self::of_interval(winner, default, TAIL)
    }

    /// The same with an interval that errs with so small a probability on each side.
    pub(crate) fn of_interval(winner: Vec<f64>, default: Vec<f64>, tail: f64) -> Self {
        let ratios = ratios(&winner, &default);
        let (low, high) = median_interval(&ratios, tail);
        Self { ratio: median(&ratios), low, high, winner, default }
    }

    /// Whether the gain is outside the noise.
    pub fn is_gain(&self) -> bool {
        self.winner.len() >= MIN_PAIRS && self.high < 1.0
    }

    /// Whether the gain is outside the noise and worth a change: [`WORTH`] at least.
    pub fn is_worth(&self) -> bool {
        self.is_gain() && self.ratio <= 1.0 - WORTH
    }

    /// Whether more time might have decided it: it says neither that there is a gain nor that there is none, after
    /// fewer pairs than were meant to be, or before [all](DOUBLINGS) that help, when they differed so much that the
    /// gain may be one that [matters](MATTERS).
    pub(crate) fn is_open(&self, pairs: usize) -> bool {
        let bound = match self.winner.len() {
            few if few < pairs => 1.0,
            some if some < pairs << DOUBLINGS => 1.0 - MATTERS,
            _ => return false,
        };
        !self.is_gain() && self.low < bound
    }

    /// Half the width of the interval.
    pub fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

fn ratios(winner: &[f64], default: &[f64]) -> Vec<f64> {
    winner.iter().zip(default).map(|(winner, default)| winner / default).collect()
}

/// How often the number of pairs is doubled while they decide nothing.
const DOUBLINGS: u32 = 4;

/// Runs `pairs` pairs, and at least [`MIN_PAIRS`] even past the deadline: a check that was begun is worth
/// its few milliseconds. While the interval still contains 1 and there is time, the number of pairs is
/// doubled, and only then is looked at them again. `None` when a sample fails or `stop`
/// says so.
pub fn confirm(
    runner: &mut dyn Runner,
    winner: &Candidate,
    default: &Candidate,
    pairs: usize,
    deadline: Duration,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Confirmation> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let (mut goal, most) = (pairs.max(MIN_PAIRS), pairs.max(MIN_PAIRS) << DOUBLINGS);
    loop {
        if a.len() >= MIN_PAIRS && runner.now() >= deadline {
            break;
        }
        if a.len() == goal {
            let (low, high) = median_interval(&ratios(&a, &b), TAIL);
            if goal == most || high < 1.0 || low > 1.0 || high == low {
                break;
            }
            goal *= 2;
        }
        if a.len().is_multiple_of(2) {
            a.push(runner.sample(winner).ok()?);
            b.push(runner.sample(default).ok()?);
        } else {
            b.push(runner.sample(default).ok()?);
            a.push(runner.sample(winner).ok()?);
        }
        if stop() {
            return None;
        }
    }
    Some(Confirmation::of(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::{self, Script};

    fn check(script: Script) -> Confirmation {
        let [fast, slow] = fake::pair();
        let mut runner = fake::Synthetic::new(script);
        confirm(&mut runner, &fast, &slow, 15, Duration::MAX, &mut || false).unwrap()
    }

    #[test]
    fn a_clear_gain_is_confirmed() {
        let result =
            check(Script { times: &[("r2u1", 90.0), ("r1u1", 100.0)], ..Script::default() });
        assert!(result.is_gain());
        assert!((result.ratio - 0.9).abs() < 1e-9 && result.half_width() < 1e-9);
    }

    #[test]
    fn a_gain_inside_the_noise_is_not() {
        let times = &[("r2u1", 99.9), ("r1u1", 100.0)];
        let result = check(Script { times, noise: 0.5, ..Script::default() });
        assert!(!result.is_gain(), "{result:?}");
        assert_eq!(result.winner.len(), 15 << DOUBLINGS, "undecided to the end");
        assert!(
            !check(Script { times: &[("r2u1", 5.0), ("r1u1", 5.0)], ..Script::default() })
                .is_gain()
        );
    }

    #[test]
    fn drift_does_not_fake_or_hide_a_gain() {
        let times = &[("r2u1", 95.0), ("r1u1", 100.0)];
        assert!(check(Script { times, drift: 0.01, ..Script::default() }).is_gain());
        let equal = &[("r2u1", 100.0), ("r1u1", 100.0)];
        assert!(!check(Script { times: equal, drift: 0.01, ..Script::default() }).is_gain());
    }

    #[test]
    fn the_deadline_leaves_the_smallest_sound_number_of_pairs() {
        let [fast, slow] = fake::pair();
        let times = &[("r2u1", 90.0), ("r1u1", 100.0)];
        let mut runner = fake::Synthetic::new(Script { times, ..Script::default() });
        let mut never = || false;
        let result = confirm(&mut runner, &fast, &slow, 99, Duration::ZERO, &mut never).unwrap();
        assert_eq!(result.winner.len(), MIN_PAIRS);
        assert!(!result.is_open(99), "they decide it");
        let noisy =
            Script { times: &[("r2u1", 99.0), ("r1u1", 100.0)], noise: 0.5, ..Script::default() };
        let mut noisy = fake::Synthetic::new(noisy);
        let few = confirm(&mut noisy, &fast, &slow, 99, Duration::ZERO, &mut never).unwrap();
        assert!(few.is_open(99) && few.is_open(MIN_PAIRS), "{few:?}");
        let close = Confirmation { low: 0.97, high: 1.02, ..few.clone() };
        assert!(close.is_open(99) && !close.is_open(MIN_PAIRS), "{close:?}");
        let times = vec![100.0; MIN_PAIRS << DOUBLINGS];
        let all = Confirmation { winner: times.clone(), default: times, ..few };
        assert!(all.is_open(MIN_PAIRS + 1) && !all.is_open(MIN_PAIRS), "{all:?}");
        assert!(confirm(&mut runner, &fast, &slow, 99, Duration::MAX, &mut || true).is_none());
    }
}
