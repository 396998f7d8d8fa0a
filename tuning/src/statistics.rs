//! The few robust statistics that the tuner decides by.

use crate::exactness::Random;

/// The median; 0 of nothing.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => 0.0,
        n if n.is_multiple_of(2) => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        n => sorted[n / 2],
    }
}

/// The smallest sample; infinite for none.
pub(crate) fn least(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Samples that can show a spread: with fewer, it would read as stability.
pub(crate) const LEAST_SPREAD: usize = 3;

/// The relative spread: the median absolute deviation over the median, scaled so that it estimates the
/// standard deviation of normal samples. `None` below [`LEAST_SPREAD`].
pub(crate) fn spread(samples: &[f64]) -> Option<f64> {
    let middle = median(samples);
    if samples.len() < LEAST_SPREAD || middle <= 0.0 {
        return None;
    }
    let deviations: Vec<f64> = samples.iter().map(|s| (s - middle).abs()).collect();
    Some(1.4826 * median(&deviations) / middle)
}

/// An interval that misses the median with a probability of at most `tail` on each side, from order
/// statistics alone; the whole range where there are too few samples for that.
pub(crate) fn median_interval(samples: &[f64], tail: f64) -> (f64, f64) {
    let allowed = tail;
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 {
        return (f64::NEG_INFINITY, f64::INFINITY);
    }
    // As many samples are cut off each end as P(Binomial(n, 1/2) < cut) allows.
    let (mut cut, mut tail, mut term) = (0, 0.0, 0.5f64.powi(n as i32));
    loop {
        tail += term;
        if tail > allowed || cut >= n / 2 {
            break;
        }
        cut += 1;
        term *= (n - cut + 1) as f64 / cut as f64;
    }
    let skip = cut.saturating_sub(1);
    (sorted[skip], sorted[n - 1 - skip])
}

/// Bootstrap samples: enough for a share to two places.
const RESAMPLES: usize = 400;

/// The share of bootstrap samples in which the pick's median is below that of every rival; ties count for
/// the pick. Each one's samples are drawn anew, with replacement, by a generator whose seed is fixed.
pub(crate) fn win_share(pick: &[f64], rivals: &[&[f64]]) -> f64 {
    let mut random = Random::new(0x7e57);
    let mut drawn = |samples: &[f64]| {
        let draw =
            |_| samples[((u64::from(random.next_u32()) * samples.len() as u64) >> 32) as usize];
        median(&(0..samples.len()).map(draw).collect::<Vec<f64>>())
    };
    let rivals: Vec<&[f64]> = rivals.iter().copied().filter(|r| !r.is_empty()).collect();
    if pick.is_empty() {
        return 0.0;
    }
    let wins = (0..RESAMPLES).filter(|_| {
        let own = drawn(pick);
        // Every rival draws, so that the sequence does not depend on who is ahead.
        let medians: Vec<f64> = rivals.iter().map(|rival| drawn(rival)).collect();
        medians.iter().all(|median| own <= *median)
    });
    wins.count() as f64 / RESAMPLES as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread(&[1.0, 1.0]), None);
        assert_eq!(spread(&[5.0; 9]), Some(0.0));
        // One outlier does not move a robust spread.
        assert_eq!(spread(&[10.0, 10.0, 10.0, 10.0, 1e9]), Some(0.0));
    }

    #[test]
    fn intervals_match_the_tables() {
        let ordered = |n: usize| (1..=n).map(|i| i as f64).collect::<Vec<_>>();
        // Tables of the sign test: n = 6 keeps 1..6, n = 9 keeps 2..8, n = 15 keeps 4..12, n = 20 6..15.
        for (n, low, high) in [(6, 1.0, 6.0), (9, 2.0, 8.0), (15, 4.0, 12.0), (20, 6.0, 15.0)] {
            assert_eq!(median_interval(&ordered(n), 0.025), (low, high), "{n}");
        }
        assert_eq!(median_interval(&[2.0, 1.0], 0.025), (1.0, 2.0));
    }

    #[test]
    fn the_share_of_wins_tells_sure_picks_from_lucky_ones() {
        let near =
            |middle: f64| (0..9).map(|i| middle + f64::from(i % 3) - 1.0).collect::<Vec<_>>();
        assert_eq!(win_share(&near(100.0), &[&near(110.0), &near(120.0)]), 1.0);
        assert_eq!(win_share(&near(100.0), &[&near(90.0)]), 0.0);
        let even = win_share(&near(100.0), &[&near(100.2)]);
        assert!((0.3..1.0).contains(&even), "{even}");
        assert_eq!(even, win_share(&near(100.0), &[&near(100.2)]), "the same each time");
        assert_eq!(win_share(&[5.0], &[]), 1.0);
        assert_eq!(win_share(&[], &[&near(1.0)]), 0.0);
    }
}
