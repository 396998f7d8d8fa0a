//! Is the clock fit for the purpose? A sample must be many of its steps long.

use std::time::{Duration, Instant};

/// Steps of the clock that make a sample at least.
pub const STEPS: u32 = 500;

/// Looks at the clock for its smallest step.
const LOOKS: usize = 200;

/// The smallest step that a clock was seen to make; zero when it never moved in a million readings.
pub fn step(mut now: impl FnMut() -> Duration) -> Duration {
    let (mut least, mut readings) = (Duration::MAX, 0);
    let mut last = now();
    let mut seen = 0;
    while seen < LOOKS && readings < 1_000_000 {
        let next = now();
        readings += 1;
        if next > last {
            least = least.min(next - last);
            seen += 1;
        }
        last = next;
    }
    if seen == 0 { Duration::ZERO } else { least }
}

/// The smallest step of this machine's clock.
pub fn own_step() -> Duration {
    let zero = Instant::now();
    step(|| zero.elapsed())
}

/// How long samples must be on a clock of such steps: as planned, or longer, which is said.
pub fn sample_time(planned: Duration, step: Duration) -> (Duration, Option<String>) {
    let least = step.saturating_mul(STEPS);
    if step.is_zero() {
        let text = "the clock does not move: times mean nothing".to_owned();
        return (planned, Some(text));
    }
    if least <= planned {
        return (planned, None);
    }
    let (us, ms) = (step.as_micros(), least.as_millis());
    (least, Some(format!("the clock moves in steps of {us} us: samples take {ms} ms")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(step: u64) -> impl FnMut() -> Duration {
        let mut readings = 0u64;
        // Read four times in each step.
        move || {
            readings += 1;
            Duration::from_nanos(readings / 4 * step)
        }
    }

    #[test]
    fn fine_clocks_change_nothing_and_coarse_ones_lengthen_samples() {
        let planned = Duration::from_millis(6);
        assert_eq!(step(clock(30)), Duration::from_nanos(30));
        assert_eq!(sample_time(planned, step(clock(30))), (planned, None));
        let (longer, note) = sample_time(planned, step(clock(1_000_000)));
        assert_eq!(longer, Duration::from_millis(500));
        assert!(note.unwrap().contains("1000 us"));
    }

    #[test]
    fn a_clock_that_stands_still_is_told() {
        assert_eq!(step(clock(0)), Duration::ZERO);
        let (_, note) = sample_time(Duration::from_millis(6), Duration::ZERO);
        assert!(note.unwrap().contains("does not move"));
        assert!(own_step() > Duration::ZERO);
    }
}
