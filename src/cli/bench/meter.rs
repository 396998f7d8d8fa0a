//! What a turn cost besides time: joules where the system counts them, else CPU time.
//!
//! A [`Meter`] takes [`Reading`]s of this process or of a child. A child loads its model and warms up
//! before it measures, which must not be counted, so readings are taken all along and the cost is that of
//! the [window](Timeline::cost) in which its test ran.

use super::rapl::{Counters, Rapl};
use std::path::Path;
use std::time::{Duration, Instant};

/// Tests of a child that are shorter than this have no cost: readings are 10 ms apart, and CPU time
/// comes in steps of as much.
const SHORTEST: Duration = Duration::from_millis(100);

/// The part of a test that readings must cover.
const COVERED: f64 = 0.9;

/// What a test cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    /// Energy of the machine meanwhile.
    pub(super) joules: Option<f64>,
    /// CPU time of the engine, over all its threads.
    pub(super) cpu_seconds: Option<f64>,
}

/// Takes readings.
#[derive(Debug)]
pub(super) struct Meter {
    rapl: Result<Rapl, String>,
}

/// A moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    at: Instant,
    counters: Option<Counters>,
    cpu_seconds: Option<f64>,
}

impl Meter {
    /// A meter that reads the energy counters under `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self { rapl: Rapl::find(root) }
    }

    /// Where costs come from, for a person.
    pub(super) fn describe(&self) -> String {
        match &self.rapl {
            Ok(rapl) => format!("energy of the whole machine by RAPL ({})", rapl.names()),
            Err(why) => format!("CPU time of the engine's threads: {why}"),
        }
    }

    /// A reading of this process.
    pub(super) fn own(&self) -> Reading {
        self.reading(own_cpu_seconds())
    }

    /// A reading of another process.
    pub(super) fn of(&self, process: u32) -> Reading {
        self.reading(process_cpu_seconds(process))
    }

    fn reading(&self, cpu_seconds: Option<f64>) -> Reading {
        let counters = self.rapl.as_ref().ok().and_then(Rapl::read);
        Reading { at: Instant::now(), counters, cpu_seconds }
    }

    /// The cost between two readings.
    pub(super) fn cost(&self, from: &Reading, to: &Reading) -> Cost {
        let joules = self
            .rapl
            .as_ref()
            .ok()
            .and_then(|rapl| Some(rapl.joules(from.counters.as_ref()?, to.counters.as_ref()?)));
        let cpu_seconds =
            from.cpu_seconds.zip(to.cpu_seconds).map(|(from, to)| (to - from).max(0.0));
        Cost { joules, cpu_seconds }
    }
}

/// Readings in the order of time.
#[derive(Debug, Default)]
pub(super) struct Timeline(Vec<Reading>);

impl Timeline {
    pub(super) fn push(&mut self, reading: Reading) {
        self.0.push(reading);
    }

    /// The cost between two moments: that of the readings between them, and of the readings around them in
    /// proportion. Nothing where the readings do not cover the time, or are too few for it.
    pub(super) fn cost(&self, meter: &Meter, from: Instant, to: Instant) -> Cost {
        let nothing = Cost { joules: None, cpu_seconds: None };
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return nothing };
        let length = to.saturating_duration_since(from);
        // The last reading may lie a moment before the end of the program.
        let covered = to.min(last.at).saturating_duration_since(from.max(first.at)).as_secs_f64();
        if covered < COVERED * length.as_secs_f64() || length < SHORTEST {
            return nothing;
        }
        self.0.windows(2).fold(Cost { joules: Some(0.0), cpu_seconds: Some(0.0) }, |sum, pair| {
            let [before, after] = pair else { unreachable!("windows of 2") };
            let inside =
                after.at.min(to).saturating_duration_since(before.at.max(from)).as_secs_f64();
            let all = after.at.duration_since(before.at).as_secs_f64();
            if inside <= 0.0 || all <= 0.0 {
                return sum;
            }
            let cost = meter.cost(before, after);
            let add = |sum: Option<f64>, part: Option<f64>| Some(sum? + part? * inside / all);
            Cost {
                joules: add(sum.joules, cost.joules),
                cpu_seconds: add(sum.cpu_seconds, cost.cpu_seconds),
            }
        })
    }
}

/// CPU time of this process.
#[cfg(unix)]
fn own_cpu_seconds() -> Option<f64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to memory of the type that the call fills in.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0;
    if failed {
        return None;
    }
    // SAFETY: the call that fills it in succeeded.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

#[cfg(not(unix))]
fn own_cpu_seconds() -> Option<f64> {
    None
}

/// CPU time of a process, in steps of usually 10 ms.
#[cfg(target_os = "linux")]
fn process_cpu_seconds(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // SAFETY: asks for a constant of the system.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    (ticks > 0).then(|| ticks_of(&stat))?.map(|n| n as f64 / ticks as f64)
}

#[cfg(not(target_os = "linux"))]
fn process_cpu_seconds(_: u32) -> Option<f64> {
    None
}

/// Fields 14 and 15 of `/proc/PID/stat`: clock ticks in user and system mode. The second field is a name
/// in parentheses that may contain anything.
#[cfg(any(target_os = "linux", test))]
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Bytes of a process that are in memory, from a file of `/proc/PID/status`: `VmRSS` now, `VmHWM` at most
/// so far. `process` is a number or `self`.
pub(super) fn resident_bytes(process: &str, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> (tempfile::TempDir, Meter) {
        let root = tempfile::tempdir().unwrap();
        let zone = root.path().join("intel-rapl:0");
        std::fs::create_dir(&zone).unwrap();
        for (file, text) in
            [("name", "package-0"), ("energy_uj", "0"), ("max_energy_range_uj", "999999999")]
        {
            std::fs::write(zone.join(file), text).unwrap();
        }
        let meter = Meter::new(root.path());
        (root, meter)
    }

    #[test]
    fn only_the_window_is_counted() {
        let (root, meter) = meter();
        let start = Instant::now();
        let second = |n: f64| start + Duration::from_secs_f64(n);
        let mut timeline = Timeline::default();
        // 5 W while loading, 20 W in the test from second 2 to second 4, 5 W after it.
        for (at, joules, cpu) in [
            (0.0, 0, 0.0),
            (1.0, 5, 1.0),
            (2.0, 10, 2.0),
            (3.0, 30, 4.0),
            (4.0, 50, 6.0),
            (5.0, 55, 6.0),
        ] {
            let counter = root.path().join("intel-rapl:0/energy_uj");
            std::fs::write(counter, (joules * 1_000_000).to_string()).unwrap();
            let reading = meter.reading(Some(cpu));
            timeline.push(Reading { at: second(at), ..reading });
        }
        let close = |cost: Cost, joules: f64, cpu: f64| {
            (cost.joules.unwrap() - joules).abs() < 1e-6
                && (cost.cpu_seconds.unwrap() - cpu).abs() < 1e-6
        };
        assert!(close(timeline.cost(&meter, second(2.0), second(4.0)), 40.0, 4.0));
        // Between readings: in proportion.
        assert!(close(timeline.cost(&meter, second(1.5), second(2.5)), 12.5, 1.5));
        assert!(close(timeline.cost(&meter, second(3.25), second(3.5)), 5.0, 0.5));
        let short = timeline.cost(&meter, second(3.0), second(3.05));
        assert_eq!(short, Cost { joules: None, cpu_seconds: None });
        let outside = timeline.cost(&meter, second(4.5), second(5.5));
        assert_eq!(outside, Cost { joules: None, cpu_seconds: None });
    }

    #[test]
    fn without_counters_it_is_cpu_time_and_says_so() {
        let empty = tempfile::tempdir().unwrap();
        let meter = Meter::new(empty.path());
        assert!(meter.describe().starts_with("CPU time"), "{}", meter.describe());
        let before = meter.own();
        let cost = meter.cost(&before, &meter.own());
        assert_eq!(cost.joules, None);
        if cfg!(unix) {
            assert!(cost.cpu_seconds.unwrap() >= 0.0);
        }
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_is_passed_over() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 4 0 100 0 0";
        assert_eq!(ticks_of(stat), Some(175));
        assert_eq!(ticks_of("42 (short) S 1"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_in_memory() {
        let (now, most) = (resident_bytes("self", "VmRSS"), resident_bytes("self", "VmHWM"));
        assert!(now.unwrap() > 100_000 && most.unwrap() > 100_000);
        assert!(process_cpu_seconds(std::process::id()).is_some());
    }
}
