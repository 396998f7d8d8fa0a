//! How far the machine's times can be trusted.

use crate::cores;
use crate::disturbance::Disturbance;
use crate::statistics::{median, spread};
use std::path::Path;
use trilut_presets::Pace;

/// Above this spread or stolen share, times are called unreliable.
pub const BUSY: f64 = 0.05;

/// The noise of one race.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Noise {
    /// The relative spread of the default candidate's own samples; `None` with fewer than three.
    pub spread: Option<f64>,
    /// Its second half over its first half, minus 1: positive when the machine became slower.
    pub drift: f64,
    /// The share of CPU time that the host took away meanwhile, if the system tells.
    pub steal: Option<f64>,
    /// What else happened meanwhile.
    pub disturbance: Disturbance,
    /// How fast memory was read before, after each race that counts and at the end; `None` where weights are in the cache or nobody can tell.
    pub memory: Option<Pace>,
    /// By how much the cores computed slower at one look than at another, seen beside those at memory.
    pub cores: Option<f64>,
}

impl Noise {
    /// The noise that the default's samples and the CPU times before and after show.
    pub fn of(samples: &[f64], before: Option<CpuTimes>, after: Option<CpuTimes>) -> Self {
        let (first, second) = samples.split_at(samples.len() / 2);
        let drift = match median(first) {
            // Halves of one or two samples show noise, not drift.
            m if m > 0.0 && samples.len() >= 6 => median(second) / m - 1.0,
            _ => 0.0,
        };
        let steal = before.zip(after).and_then(|(before, after)| after.steal_since(before));
        Self { spread: spread(samples), drift, steal, ..Self::default() }
    }

    /// The same with the paces of memory that were seen.
    #[must_use]
    pub(crate) fn at(self, seen: &[f64]) -> Self {
        Self { memory: Pace::of(seen.iter().copied().map(Pace::at)), ..self }
    }

    /// The same with the rates at which cores were seen to compute.
    #[must_use]
    pub(crate) fn computing(self, seen: &[f64]) -> Self {
        Self { cores: cores::slowdown(seen), ..self }
    }

    /// The same with the drift that samples of a longer time show.
    #[must_use]
    pub(crate) fn over(self, samples: &[f64]) -> Self {
        Self { drift: Self::of(samples, None, None).drift, ..self }
    }

    /// The same with what else happened meanwhile.
    #[must_use]
    pub fn with(self, disturbance: Disturbance) -> Self {
        Self { disturbance, ..self }
    }

    /// Whether times taken under this noise are to be believed rather than those under the other.
    pub fn is_calmer_than(&self, other: &Self) -> bool {
        let disorder = |noise: &Self| {
            noise
                .spread
                .unwrap_or(f64::INFINITY)
                .max(noise.drift.abs())
                .max(noise.steal.unwrap_or(0.0))
                .max(noise.disturbance.share())
                .max(noise.cores.unwrap_or(0.0))
                .max(noise.memory.filter(|pace| !pace.is_steady()).map_or(0.0, Pace::change))
        };
        disorder(self) < disorder(other)
    }

    /// What to tell a person, if the times are unreliable.
    pub fn warning(&self) -> Option<String> {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        if let Some(steal) = self.steal.filter(|s| *s > BUSY) {
            return Some(format!("the host took away {} of the CPU time", percent(steal)));
        }
        if let Some(what) = self.disturbance.warning(2.0 * BUSY) {
            return Some(what);
        }
        if let Some(pace) = self.memory.filter(|pace| !pace.is_steady()) {
            return Some(format!("memory changed its speed during the race, {pace}"));
        }
        if let Some(slower) = self.cores.filter(|slower| *slower > 2.0 * BUSY) {
            let by = percent(slower);
            return Some(format!(
                "cores computed {by} slower for a time: neighbours on them, or another frequency"
            ));
        }
        // Before the spread, which drift widens too.
        if self.drift.abs() > 2.0 * BUSY {
            let direction = if self.drift > 0.0 { "slower" } else { "faster" };
            let by = percent(self.drift.abs());
            return Some(format!("the machine became {by} {direction} during the race"));
        }
        let spread = self.spread.filter(|s| *s > BUSY)?;
        Some(format!("repeated samples differ by {}: is the machine busy?", percent(spread)))
    }
}

/// Time that CPUs have spent since the system started, in the system's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    total: u64,
    stolen: u64,
}

impl CpuTimes {
    /// Reads `/proc/stat` or its like.
    pub fn read(stat: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(stat).ok()?;
        let values = text.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; guest times are part of user.
        let ticks: Vec<u64> =
            values.split_ascii_whitespace().take(8).map_while(|v| v.parse().ok()).collect();
        let stolen = *ticks.get(7)?;
        Some(Self { total: ticks.iter().fold(0, |sum, t| sum.saturating_add(*t)), stolen })
    }

    /// The stolen share of all time since then; `None` if no tick has passed.
    fn steal_since(self, before: Self) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|t| *t > 0)?;
        Some(self.stolen.checked_sub(before.stolen)? as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(line: &str) -> Option<CpuTimes> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), line).unwrap();
        CpuTimes::read(file.path())
    }

    #[test]
    fn stolen_time_is_a_share() {
        let before = times("cpu  100 0 0 900 0 0 0 10 0 0\ncpu0 1\n");
        let after = times("cpu  150 0 0 930 0 0 0 30 0 0\n");
        let noise = Noise::of(&[1.0; 8], before, after);
        assert_eq!(noise.steal, Some(0.2));
        assert!(noise.warning().unwrap().contains("20 %"));
        assert_eq!(Noise::of(&[1.0; 8], before, before).steal, None);
        assert_eq!(Noise::of(&[1.0; 8], after, before).steal, None);
        assert_eq!(times("cpu  1 2 3"), None);
        assert_eq!(times("intr 5"), None);
    }

    #[test]
    fn spread_and_drift_are_told_apart() {
        let quiet = Noise::of(&[100.0, 101.0, 100.0, 99.0], None, None);
        assert_eq!(quiet.warning(), None);
        let wild = Noise::of(&[100.0, 140.0, 90.0, 95.0, 150.0, 100.0], None, None);
        assert!(wild.warning().unwrap().contains("differ"));
        let slower = Noise { spread: Some(0.01), drift: 0.2, ..Noise::default() };
        assert!(slower.warning().unwrap().contains("20 % slower"));
        assert_eq!(Noise::of(&[], None, None), Noise::default());
    }

    #[test]
    fn a_disturbed_race_is_told_and_believed_less() {
        let busy = Disturbance { others: Some(0.4), ..Disturbance::default() };
        let (calm, noisy) =
            (Noise::of(&[1.0; 8], None, None), Noise::of(&[1.0; 8], None, None).with(busy));
        assert!(calm.is_calmer_than(&noisy) && !noisy.is_calmer_than(&calm));
        assert!(noisy.warning().unwrap().contains("40 %"));
        let faster = calm.at(&[40.0, 66.0]);
        assert!(calm.is_calmer_than(&faster));
        assert!(faster.warning().unwrap().contains("40.0 to 66.0 GB/s"));
        let neighbour = calm.computing(&[500.0, 400.0, 480.0]);
        assert!(calm.is_calmer_than(&neighbour));
        assert!(neighbour.warning().unwrap().contains("25 % slower for a time"));
        assert_eq!(calm.computing(&[500.0, 470.0]).warning(), None);
        let wavering = calm.at(&[40.0, 44.0]);
        assert_eq!(wavering.warning(), None);
        assert!(wavering.is_calmer_than(&Noise { spread: Some(0.02), ..calm }));
    }
}
