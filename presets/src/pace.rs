//! The pace of memory: how fast all threads read weights at a moment.
//!
//! It is not always the same. Where other guests of a host, or a fabric whose clock follows the load of cores that
//! one does not see, have a say in it, memory may be half as fast for seconds and then as fast as before. Which
//! kernel is the fastest changes with that: one that is bound by memory gains, one that computes all the time does
//! not. So the pace is taken beside each race, and times of different paces are not compared.

/// The middles of two paces that differ by more than this are those of different ones.
const APART: f64 = 0.15;

/// Looks at one pace differ by less than this.
const WAVER: f64 = 0.25;

/// The slowest and the fastest pace that were seen, in 10^9 bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The slowest.
    pub slowest: f64,
    /// The fastest.
    pub fastest: f64,
}

impl Pace {
    /// One that was seen once.
    pub fn at(gigabytes_per_second: f64) -> Self {
        Self { slowest: gigabytes_per_second, fastest: gigabytes_per_second }
    }

    /// All that was seen at several times; `None` where nothing was.
    pub fn of(seen: impl IntoIterator<Item = Self>) -> Option<Self> {
        let both = |a: Self, b: Self| Self {
            slowest: a.slowest.min(b.slowest),
            fastest: a.fastest.max(b.fastest),
        };
        seen.into_iter().reduce(both)
    }

    /// Between the slowest and the fastest.
    pub fn middle(self) -> f64 {
        (self.slowest * self.fastest).sqrt()
    }

    /// By how much the fastest exceeds the slowest.
    pub fn change(self) -> f64 {
        self.fastest / self.slowest - 1.0
    }

    /// Whether it is one pace, as far as can be told.
    pub fn is_steady(self) -> bool {
        self.change() <= WAVER
    }

    /// Whether two are the same pace, whatever each wavered.
    pub fn is_near(self, other: Self) -> bool {
        let middles = [self, other].map(|pace| Self::at(pace.middle()));
        Self::of(middles).is_some_and(|both| both.change() <= APART)
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} to {:.1} GB/s", self.slowest, self.fastest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_that_changes_is_told_from_one_that_wavers() {
        let seen = |all: &[f64]| Pace::of(all.iter().copied().map(Pace::at));
        assert_eq!(seen(&[]), None);
        let steady = seen(&[40.0, 42.0, 39.0]).unwrap();
        assert!(steady.is_steady(), "{steady}");
        let changed = seen(&[40.0, 66.0, 41.0]).unwrap();
        assert!(!changed.is_steady() && !changed.is_near(steady));
        assert_eq!(changed.to_string(), "40.0 to 66.0 GB/s");
        assert!((changed.change() - 0.65).abs() < 1e-9);
        assert!((changed.middle() / 51.38 - 1.0).abs() < 1e-3);
        assert!(Pace::at(41.0).is_near(steady) && !Pace::at(66.0).is_near(steady));
        assert!(Pace::at(63.0).is_near(seen(&[50.0, 61.0]).unwrap()));
    }
}
