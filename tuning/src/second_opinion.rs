//! A second opinion on a winner: criterion's, with its own warm-up, sampling and bootstrap.
//!
//! The tuner's own pairs and criterion's one-after-the-other runs go wrong in different ways. Criterion
//! keeps its files in a directory of its own that is removed afterwards, draws no plots, and what it
//! prints goes to a file there, never to the user's terminal or standard output.

use crate::bench::Runner;
use crate::candidate::Candidate;
use criterion::Criterion;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// The least time that an opinion is asked for with; with less it would say nothing.
pub(crate) const LEAST: Duration = Duration::from_millis(400);

/// The most time that one takes.
const MOST: Duration = Duration::from_secs(12);

/// Two medians in nanoseconds, each with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opinion {
    /// The winner's median and interval.
    pub winner: [f64; 3],
    /// The default's.
    pub default: [f64; 3],
}

impl Opinion {
    /// Whether the winner is slower than the default beyond the intervals.
    pub fn contradicts(&self) -> bool {
        self.winner[1] > self.default[2]
    }
}

/// Asks in the time that is left; `Ok(None)` when that is too little.
///
/// # Errors
/// In words, when criterion's files cannot be written or read, or a sample fails.
pub fn of(
    runner: &mut dyn Runner,
    winner: &Candidate,
    default: &Candidate,
    left: Duration,
) -> Result<Option<Opinion>, String> {
    if left < LEAST {
        return Ok(None);
    }
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    // Half of a turn is measurement; criterion warms up and computes in the rest.
    let turn = left.min(MOST) / 2;
    let mut failed = None;
    let measured = quietly(&directory.path().join("printed.txt"), || {
        let mut criterion = Criterion::default()
            .output_directory(directory.path())
            .without_plots()
            .sample_size(20)
            .warm_up_time(turn / 6)
            .measurement_time(turn / 2)
            .nresamples(2000);
        for (name, candidate) in [("winner", winner), ("default", default)] {
            criterion.bench_function(name, |bencher| {
                bencher.iter_custom(|products| {
                    let mut total = 0.0;
                    // One sample is many products already: their mean stands for each.
                    match runner.sample(candidate) {
                        Ok(ns) => total += ns * products as f64,
                        Err(why) => failed = Some(why),
                    }
                    Duration::from_nanos((total as u64).max(1))
                });
            });
        }
    });
    measured.map_err(|error| error.to_string())?;
    if let Some(why) = failed {
        return Err(why);
    }
    let read = |name: &str| median(&directory.path().join(name).join("new/estimates.json"));
    Ok(Some(Opinion { winner: read("winner")?, default: read("default")? }))
}

/// The median in a file of estimates, with its interval.
fn median(path: &Path) -> Result<[f64; 3], String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let all: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let median = &all["median"];
    let interval = &median["confidence_interval"];
    let values = [&median["point_estimate"], &interval["lower_bound"], &interval["upper_bound"]]
        .map(serde_json::Value::as_f64);
    let [Some(point), Some(low), Some(high)] = values else {
        return Err("criterion's estimates have no median".to_owned());
    };
    Ok([point, low, high])
}

/// Does something whose standard output and errors go to a file.
#[cfg(unix)]
fn quietly(path: &Path, work: impl FnOnce()) -> io::Result<()> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    /// Puts a stream back, also when the work panics.
    struct Back(OwnedFd, RawFd);
    impl Drop for Back {
        fn drop(&mut self) {
            let _ = io::stdout().flush();
            // SAFETY: both descriptors are open, one by this value and one by the standard library.
            unsafe { libc::dup2(self.0.as_raw_fd(), self.1) };
        }
    }

    let file = std::fs::File::create(path)?;
    io::stdout().flush()?;
    let lead = |stream: RawFd| -> io::Result<Back> {
        // SAFETY: duplicates an open descriptor; a negative result is no descriptor and is not wrapped.
        let own = unsafe { libc::dup(stream) };
        if own < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and owned by nobody else.
        let back = Back(unsafe { OwnedFd::from_raw_fd(own) }, stream);
        // SAFETY: both descriptors are open.
        match unsafe { libc::dup2(file.as_raw_fd(), stream) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(back),
        }
    };
    let streams = [lead(libc::STDOUT_FILENO)?, lead(libc::STDERR_FILENO)?];
    work();
    drop(streams);
    Ok(())
}

/// Where standard output cannot be led elsewhere there is no second opinion.
#[cfg(not(unix))]
fn quietly(_: &Path, _: impl FnOnce()) -> io::Result<()> {
    Err(io::Error::other("criterion's output cannot be caught on this system"))
}
