//! The ratio of two engines, and what a user asserts of it.

use super::super::failure::Failure;
use serde::Serialize;
use std::str::FromStr;

/// Our speed over theirs, in pairs of turns that followed each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// The median of the rounds.
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// One for each round.
    pub(super) rounds: Vec<f64>,
}

impl Ratio {
    /// From our times and theirs, round by round; there is at least one.
    pub(super) fn of(ours_ns: &[u64], theirs_ns: &[u64]) -> Self {
        let pairs = ours_ns.iter().zip(theirs_ns);
        let rounds: Vec<f64> = pairs.map(|(&ours, &theirs)| theirs as f64 / ours as f64).collect();
        let min = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let max = rounds.iter().copied().fold(0.0, f64::max);
        Self { median: trilut_tuning::median(&rounds), min, max, rounds }
    }
}

/// `tg128=1.3`: the least ratio that is accepted of a test.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assertion {
    pub(super) test: String,
    pub(super) least: f64,
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(test, least)| {
            let least: f64 = least.trim().parse().ok()?;
            let legal = least.is_finite() && least > 0.0;
            legal.then(|| Self { test: test.trim().to_owned(), least })
        });
        parsed.ok_or_else(|| format!("`{text}` is not like tg128=1.3"))
    }
}

/// A ratio with what it is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) test: &'a str,
    pub(super) engine: &'a str,
    pub(super) threads: usize,
    pub(super) ratio: &'a Ratio,
}

/// Fails when a ratio is below what is asserted of it, or was not measured at all.
pub(super) fn judge(assertions: &[Assertion], ratios: &[Judged<'_>]) -> Result<(), Failure> {
    let mut missed = Vec::new();
    for assertion in assertions {
        let of = ratios.iter().filter(|judged| judged.test == assertion.test);
        let mut count = 0;
        for Judged { test, engine, threads, ratio } in of {
            count += 1;
            let (found, least) = (ratio.median, assertion.least);
            if found < least {
                missed.push(format!(
                    "{test} with {} is {found:.3} times {engine}, {:.3} ({:.1} %) below the {least} asked for",
                    super::super::output::count(*threads, "thread"),
                    least - found,
                    (1.0 - found / least) * 100.0,
                ));
            }
        }
        if count == 0 {
            missed.push(format!("{} was not measured to the end", assertion.test));
        }
    }
    let mut missed = missed.into_iter();
    match missed.next() {
        None => Ok(()),
        Some(first) => Err(missed.fold(Failure::check(first), Failure::because)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_paired() {
        // Both become twice as slow in the second round: the ratio does not.
        let ratio = Ratio::of(&[100, 200, 100], &[150, 300, 140]);
        assert_eq!(ratio, Ratio { median: 1.5, min: 1.4, max: 1.5, rounds: vec![1.5, 1.5, 1.4] });
    }

    #[test]
    fn assertions_are_parsed() {
        assert_eq!("tg128=1.3".parse(), Ok(Assertion { test: "tg128".to_owned(), least: 1.3 }));
        for bad in ["tg128", "tg128=", "tg128=fast", "tg128=-1", "tg128=inf", "=nan"] {
            assert!(bad.parse::<Assertion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_ratio_of_the_test_must_reach_it() {
        let (good, bad) = (Ratio::of(&[100], &[150]), Ratio::of(&[100], &[125]));
        let judged = |ratio, threads| Judged { test: "tg8", engine: "other", threads, ratio };
        let assertion = [Assertion { test: "tg8".to_owned(), least: 1.3 }];
        assert!(judge(&assertion, &[judged(&good, 1)]).is_ok());
        let failure = judge(&assertion, &[judged(&good, 1), judged(&bad, 2)]).unwrap_err();
        assert_eq!(
            failure.summary(),
            "tg8 with 2 threads is 1.250 times other, 0.050 (3.8 %) below the 1.3 asked for"
        );
        assert!(judge(&assertion, &[]).unwrap_err().summary().contains("not measured"));
    }
}
