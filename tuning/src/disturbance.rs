//! What disturbed the machine between two moments: other programs, the container's quota, heat, and cores
//! that change their frequency.

use std::path::Path;
use std::time::Duration;
use trilut_presets::machine::control_groups::{Group, groups};

/// Counters of the system at one moment; `None` where it does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Snapshot {
    /// Ticks of all CPUs: all, and those spent by programs.
    ticks: Option<(u64, u64)>,
    /// Ticks spent by this program.
    own: Option<u64>,
    /// Microseconds for which the container was held back by its quota.
    throttled: Option<u64>,
    /// Times that a core was slowed down because of heat.
    heat: Option<u64>,
    /// The mean frequency of all cores in kHz.
    frequency: Option<f64>,
}

/// What happened between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Disturbance {
    /// The share of CPU time that other programs used.
    pub others: Option<f64>,
    /// How long the container was held back by its quota.
    pub throttled: Duration,
    /// How often a core was slowed down because of heat.
    pub heat: u64,
    /// The frequency at the end over that at the beginning, minus 1.
    pub frequency: Option<f64>,
}

impl Snapshot {
    /// Reads the files under `root`.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let cpus = || {
            let directory = std::fs::read_dir(root.join("sys/devices/system/cpu"));
            directory.into_iter().flatten().flatten().map(|entry| entry.path())
        };
        let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let each =
            |file: &str| -> Vec<u64> { cpus().filter_map(|cpu| number(&cpu.join(file))).collect() };
        let some = |counts: Vec<u64>| (!counts.is_empty()).then_some(counts);
        let frequencies = some(each("cpufreq/scaling_cur_freq"));
        Self {
            ticks: text("proc/stat").as_deref().and_then(ticks),
            own: text("proc/self/stat").as_deref().and_then(own),
            throttled: groups(root, "cpu").iter().filter_map(throttled).reduce(|a, b| a + b),
            heat: some(each("thermal_throttle/core_throttle_count")).map(|c| c.iter().sum()),
            frequency: frequencies.map(|f| f.iter().sum::<u64>() as f64 / f.len() as f64),
        }
    }

    /// What happened since an earlier snapshot.
    pub fn since(self, before: Self) -> Disturbance {
        let rise =
            |now: Option<u64>, then: Option<u64>| now.zip(then).map(|(n, t)| n.saturating_sub(t));
        let ticks = self.ticks.zip(before.ticks);
        let others = ticks.and_then(|((all, busy), (all_then, busy_then))| {
            let all = all.checked_sub(all_then).filter(|ticks| *ticks > 0)?;
            let own = rise(self.own, before.own)?;
            let others = busy.saturating_sub(busy_then).saturating_sub(own);
            Some(others as f64 / all as f64)
        });
        let frequency = self.frequency.zip(before.frequency).filter(|(_, then)| *then > 0.0);
        Disturbance {
            others,
            throttled: Duration::from_micros(rise(self.throttled, before.throttled).unwrap_or(0)),
            heat: rise(self.heat, before.heat).unwrap_or(0),
            frequency: frequency.map(|(now, then)| now / then - 1.0),
        }
    }
}

impl Disturbance {
    /// How much of it there was, as a share that compares with a spread of times.
    pub(crate) fn share(&self) -> f64 {
        let held_back = if self.throttled.is_zero() { 0.0 } else { 0.5 };
        let hot = if self.heat == 0 { 0.0 } else { 0.25 };
        let others = self.others.unwrap_or(0.0);
        others.max(self.frequency.unwrap_or(0.0).abs()).max(held_back).max(hot)
    }

    /// What to tell a person when it is more than `bound`.
    pub(crate) fn warning(&self, bound: f64) -> Option<String> {
        if !self.throttled.is_zero() {
            let held = self.throttled.as_millis().max(1);
            return Some(format!("the container's CPU quota held it back for {held} ms"));
        }
        if self.heat > 0 {
            let times =
                if self.heat == 1 { "once".to_owned() } else { format!("{} times", self.heat) };
            return Some(format!("cores were slowed down {times} because of heat"));
        }
        if let Some(others) = self.others.filter(|share| *share > bound) {
            return Some(format!("other programs used {:.0} % of the CPU time", others * 100.0));
        }
        let change = self.frequency.filter(|change| change.abs() > bound)?;
        let direction = if change < 0.0 { "fell" } else { "rose" };
        Some(format!("the cores' frequency {direction} by {:.0} %", change.abs() * 100.0))
    }
}

/// All ticks, and those that programs of this system spent: user, nice, system, interrupts.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let values = stat.lines().next()?.strip_prefix("cpu ")?;
    let values: Vec<u64> =
        values.split_ascii_whitespace().take(8).map_while(|v| v.parse().ok()).collect();
    let &[user, nice, system, _, _, irq, softirq, ..] = &values[..] else { return None };
    let all = values.iter().fold(0u64, |sum, v| sum.saturating_add(*v));
    Some((all, user.saturating_add(nice).saturating_add(system + irq + softirq)))
}

/// User and system ticks of this process: the 12th and 13th field after its name, which may hold anything.
fn own(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn throttled(group: &Group) -> Option<u64> {
    let stat = std::fs::read_to_string(group.path.join("cpu.stat")).ok()?;
    let find = |name: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
    };
    // The first version of control groups counts nanoseconds.
    find("throttled_usec ").or_else(|| Some(find("throttled_time ")? / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn at(busy: u64, own: u64, more: &[(&str, &str)]) -> Snapshot {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "proc/stat",
            &format!("cpu  {busy} 0 0 {} 0 0 0 0 0 0\n", 1000 - busy / 2),
        );
        let stat = format!("7 (a ) b) R 1 1 1 0 -1 0 0 0 0 0 {own} 0 0 0 20\n");
        write(root.path(), "proc/self/stat", &stat);
        write(root.path(), "proc/self/cgroup", "0::/slice/own\n");
        more.iter().for_each(|(path, text)| write(root.path(), path, text));
        Snapshot::read(root.path())
    }

    #[test]
    fn other_programs_are_told_from_this_one() {
        let quiet = at(400, 300, &[]).since(at(200, 100, &[]));
        assert_eq!(quiet.others, Some(0.0));
        assert_eq!(quiet.warning(0.05), None);
        let busy = at(400, 150, &[]).since(at(200, 100, &[]));
        assert!(busy.others.unwrap() > 0.5);
        assert!(busy.warning(0.05).unwrap().contains("other programs"));
        assert!(busy.share() > quiet.share());
    }

    #[test]
    fn quota_heat_and_frequency_are_watched() {
        let cpu = "sys/devices/system/cpu/cpu0";
        let state = |throttled: &str, heat: &str, khz: &str| {
            let (heat_file, khz_file) = (
                format!("{cpu}/thermal_throttle/core_throttle_count"),
                format!("{cpu}/cpufreq/scaling_cur_freq"),
            );
            let stat = format!("usage_usec 5\nthrottled_usec {throttled}\n");
            at(
                0,
                0,
                &[
                    ("sys/fs/cgroup/slice/cpu.stat", &stat[..]),
                    (&heat_file, heat),
                    (&khz_file, khz),
                ],
            )
        };
        let begin = state("1000", "5", "4000000");
        let held = state("31000", "5", "4000000").since(begin);
        assert!(held.warning(0.05).unwrap().contains("30 ms"));
        let hot = state("1000", "7", "4000000").since(begin);
        assert!(hot.warning(0.05).unwrap().contains("2 times"));
        let slow = state("1000", "5", "3000000").since(begin);
        assert!(slow.warning(0.05).unwrap().contains("fell by 25 %"));
        assert_eq!(state("1000", "5", "4000000").since(begin).share(), 0.0);
    }

    #[test]
    fn a_system_that_tells_nothing_disturbs_nothing() {
        let root = tempfile::tempdir().unwrap();
        let none = Snapshot::read(root.path());
        assert_eq!(none, Snapshot::default());
        assert_eq!(none.since(none), Disturbance::default());
        assert_eq!(Disturbance::default().warning(0.0), None);
        write(root.path(), "proc/stat", "cpu  nonsense");
        write(root.path(), "proc/self/stat", "1 (x");
        assert_eq!(Snapshot::read(root.path()), none);
    }
}
