//! The trial log: what a run has found so far, a line each, never rewritten.
//!
//! A run appends to it as it goes, and brings it to the disk whenever a layer is finished. When the run
//! is killed, the next one reads the log: finished layers are taken over, and in the layer that was cut
//! short candidates that had fallen behind stay out, but for those with a second chance. A line that was half
//! written is passed over, and so is one of a newer build, which is kept for that. The log is locked while a run
//! lasts, so that two tuners cannot disturb each other unseen.

use crate::observer::{Event, Observer};
use crate::prior::Fallen;
use crate::record::Trial;
use crate::request::{Request, ShapeUse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use trilut_kernels::{Phase, Shape};
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Provenance, Record, rfc3339};
use trilut_presets::{Machine, Preset};

/// A log that has grown beyond this is begun anew once nothing in it is needed.
const MOST_BYTES: u64 = 4 << 20;

/// Beyond this, what other machines or newer builds may need is no reason to keep it.
const MOST_FOREIGN_BYTES: u64 = 16 << 20;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// A run begins.
    Run(Box<Run>),
    /// Work on a layer begins.
    Layer {
        #[serde(flatten)]
        layer: Layer,
        space: Hex,
    },
    /// A candidate left the race.
    Fell { candidate: String, behind: Option<f64> },
    /// How a candidate fared in a race.
    Trial(Trial),
    /// A layer is finished.
    Done(Box<Record>),
    /// Everything above that this machine found is in a preset.
    Saved,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    provenance: Provenance,
    machine: Machine,
    /// Whether what it finds counts only once the model as a whole was checked with it.
    #[serde(default)]
    is_gated: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Layer {
    phase: Phase,
    shape: Shape,
    count: usize,
}

/// A fingerprint, as text: JSON's numbers lose its last bits.
#[derive(Debug, Serialize, Deserialize)]
struct Hex(String);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another run writes it.
    #[error("another `trilut tune` is at work on {}", path.display())]
    Busy {
        /// The log.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot keep the trial log {}", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl JournalError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { .. } => Some(
                "wait for it: two at once spoil each other's times (`trilut tune -o FILE` to go on anyway)"
                    .into(),
            ),
            Self::Io { .. } => None,
        }
    }
}

/// What a run that was cut short leaves behind.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The layers that it finished.
    pub preset: Option<Preset>,
    /// The same of runs that were to check the model as a whole and did not come to it.
    pub waiting: Option<Preset>,
    /// Candidates that fell behind in the layer that it did not finish.
    pub fallen: BTreeMap<ShapeUse, Fallen>,
    /// Lines that could not be read, of those that may have been of use.
    pub unreadable: usize,
}

/// The log of a run.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// How a run of this request begins.
    run: Run,
}

impl Journal {
    /// The log that belongs to a preset file.
    pub fn path_for(preset: &Path) -> PathBuf {
        let mut path = preset.as_os_str().to_owned();
        path.push(".trials");
        PathBuf::from(path)
    }

    /// Opens and locks a log, made if missing, and reads what an interrupted run left in it that holds on
    /// the request's machine.
    ///
    /// # Errors
    /// When another run holds it, or when it cannot be read or written.
    pub fn open(path: &Path, request: &Request) -> Result<(Self, Recovered), JournalError> {
        let failed = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().create(true).append(true).read(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::Busy { path: path.to_owned() });
            }
            // A file system without locks: better than no log.
            Err(TryLockError::Error(_)) => {}
        }
        let mut bytes = Vec::new();
        (&mut file).take(64 << 20).read_to_end(&mut bytes).map_err(failed)?;
        let (recovered, has_foreign) = recover(&String::from_utf8_lossy(&bytes), request);
        // What comes next begins on a line of its own.
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        let found = [&recovered.preset, &recovered.waiting];
        // A machine that never comes back must not fill the disk.
        let is_kept = has_foreign && bytes.len() as u64 <= MOST_FOREIGN_BYTES;
        let is_needed =
            is_kept || found.iter().any(|f| f.is_some()) || !recovered.fallen.is_empty();
        // What cannot be read is told once.
        let is_spent = bytes.len() as u64 > MOST_BYTES || recovered.unreadable > 0;
        if is_spent && !is_needed {
            file.set_len(0).map_err(failed)?;
        }
        Ok((Self { file, path: path.to_owned(), run: Run::of(request) }, recovered))
    }

    /// What runs find from here on counts only once the model as a whole was checked with it, or does so as
    /// it is.
    pub fn set_gated(&mut self, is_gated: bool) {
        self.run.is_gated = is_gated;
    }

    /// Writes down that a run begins.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(&mut self, request: &Request) -> io::Result<()> {
        self.run = Run { is_gated: self.run.is_gated, ..Run::of(request) };
        self.write(&Line::Run(Box::new(self.run.clone())))
    }

    /// Writes down that all that this machine found is in a preset, but for what waits for a check of its model.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn saved(&mut self, waiting: Option<&Preset>) -> io::Result<()> {
        // Whose it is, is said first: a file may be shared with other machines.
        let mut lines = vec![Line::Run(Box::new(self.run.clone())), Line::Saved];
        if let Some(preset) = waiting {
            let Preset { provenance, machine, .. } = preset.clone();
            lines.push(Line::Run(Box::new(Run { provenance, machine, is_gated: true })));
            let records = preset.records().iter().cloned();
            lines.extend(records.map(|record| Line::Done(Box::new(record))));
        }
        // In one write: a killed run leaves all of it or nothing.
        self.write_all(&lines)?;
        self.file.sync_data()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One line in one write, so that a killed run leaves half a line at most.
    fn write(&mut self, line: &Line) -> io::Result<()> {
        self.write_all(std::slice::from_ref(line))
    }

    fn write_all(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        self.file.write_all(&text)
    }
}

impl Run {
    fn of(request: &Request) -> Self {
        let provenance = Provenance {
            trilut: env!("CARGO_PKG_VERSION").to_owned(),
            date: rfc3339(SystemTime::now()),
            isa: request.isa(),
            effort: request.effort,
            threads: request.threads,
            noise: None,
        };
        Self { provenance, machine: request.machine.clone(), is_gated: false }
    }
}

/// The run that lines belong to.
enum Whose {
    /// One on this machine.
    Own(Box<Run>),
    /// One on another machine.
    Other(Box<Run>),
    /// One of a newer build, or none.
    Unknown,
}

/// What a log holds for a machine, and whether it holds something for another one or for a newer build.
fn recover(text: &str, request: &Request) -> (Recovered, bool) {
    let mut recovered = Recovered::default();
    let own = Run::of(request);
    // What is not saved and not of use here: other machines' runs that found something, and whether a newer build did,
    // on this machine or nobody knows where.
    let mut others = Vec::<Run>::new();
    let add = |others: &mut Vec<Run>, run: &Run| {
        if !others.iter().any(|other| is_same_cpu(run, other)) {
            others.push(run.clone());
        }
    };
    let (mut is_newer_own, mut is_newer) = (false, false);
    let mut whose = Whose::Unknown;
    let mut layer: Option<ShapeUse> = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line = match serde_json::from_str::<Line>(line) {
            Ok(line) => line,
            Err(_) => {
                match serde_json::from_str::<serde_json::Value>(line) {
                    // A newer build's, which may need it. What follows a run's beginning is not the earlier run's.
                    Ok(newer) => {
                        if newer.get("run").is_some() {
                            (whose, layer) = (Whose::Unknown, None);
                            recovered.fallen.clear();
                        }
                        match &whose {
                            Whose::Own(_) => is_newer_own = true,
                            Whose::Other(run) => add(&mut others, run),
                            Whose::Unknown => is_newer = true,
                        }
                    }
                    Err(_) => recovered.unreadable += 1,
                }
                continue;
            }
        };
        match line {
            Line::Run(begun) => {
                let is_own = is_same_cpu(&own, &begun);
                layer = None;
                whose = if is_own {
                    recovered.fallen.clear();
                    Whose::Own(begun)
                } else {
                    Whose::Other(begun)
                };
            }
            Line::Layer { layer: begun, space } => {
                let used = ShapeUse {
                    phase: begun.phase,
                    shape: begun.shape,
                    count_per_token: begun.count,
                };
                let Whose::Own(run) = &whose else { continue };
                layer = Some(used);
                if let Ok(space) = u64::from_str_radix(&space.0, 16) {
                    let threads = run.provenance.threads;
                    let none = Fallen { space, threads, ..Fallen::default() };
                    recovered.fallen.insert(used, none);
                }
            }
            Line::Fell { candidate, behind } => {
                if let Some(fallen) = layer.and_then(|used| recovered.fallen.get_mut(&used)) {
                    fallen.candidates.insert(candidate, behind.unwrap_or(f64::INFINITY));
                }
            }
            Line::Trial(_) => {}
            Line::Done(record) => {
                let run = match &whose {
                    Whose::Own(run) => run,
                    Whose::Other(run) => {
                        add(&mut others, run);
                        continue;
                    }
                    Whose::Unknown => {
                        is_newer = true;
                        continue;
                    }
                };
                // One may be written down again beside another's search.
                let is_of =
                    |used: &mut ShapeUse| (used.phase, used.shape) == (record.phase, record.shape);
                if let Some(used) = layer.take_if(is_of) {
                    recovered.fallen.remove(&used);
                }
                let machine = run.machine.clone();
                let one = Preset::new(run.provenance.clone(), machine, vec![*record]);
                let found = match run.is_gated {
                    true => &mut recovered.waiting,
                    false => &mut recovered.preset,
                };
                match found {
                    Some(all) => all.merge(one),
                    none => *none = Some(one),
                }
            }
            Line::Saved => match &whose {
                // Nothing above is of any use to this machine, whatever it was.
                Whose::Own(_) => (recovered, is_newer_own) = (Recovered::default(), false),
                Whose::Other(run) => others.retain(|other| !is_same_cpu(run, other)),
                Whose::Unknown => is_newer = false,
            },
        }
    }
    recovered.fallen.retain(|_, fallen| !fallen.candidates.is_empty());
    (recovered, is_newer_own || is_newer || !others.is_empty())
}

fn is_same_cpu(a: &Run, b: &Run) -> bool {
    a.machine.likeness(a.provenance.isa, &b.machine, b.provenance.isa) == Likeness::SameCpu
}

/// Passes events on and writes down those that a later run can use.
pub struct Logged<'a> {
    inner: &'a mut dyn Observer,
    journal: Option<&'a mut Journal>,
    /// Why the log ends before the run does.
    failure: Option<String>,
    /// What an interrupted run knew is written down again, should this one be interrupted as well.
    fallen: BTreeMap<ShapeUse, Fallen>,
}

impl std::fmt::Debug for Logged<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logged").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl<'a> Logged<'a> {
    /// Begins the log of a run. Where a log cannot be written the run goes on without it.
    pub fn new(inner: &'a mut dyn Observer, journal: &'a mut Journal, request: &Request) -> Self {
        let begun = journal.begin(request);
        let mut fallen = request.prior.fallen.clone();
        fallen.retain(|_, fallen| fallen.threads == request.threads);
        let mut logged = Self { inner, journal: Some(journal), failure: None, fallen };
        logged.check(begun);
        logged
    }

    fn check(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.journal = None;
            self.failure = Some(error.to_string());
        }
    }

    /// Why the log ends before the run does, if it does: no later run can resume from there.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

impl Observer for Logged<'_> {
    fn event(&mut self, event: &Event<'_>) {
        self.write(event);
        if let Event::Shape { layer, space, .. } = event {
            let known = self.fallen.remove(layer).filter(|fallen| fallen.space == *space);
            for (candidate, behind) in known.into_iter().flat_map(|fallen| fallen.candidates) {
                self.write(&Event::Dropped { candidate: &candidate, behind });
            }
        }
        self.inner.event(event);
    }

    fn should_stop(&mut self) -> bool {
        self.inner.should_stop()
    }
}

impl Logged<'_> {
    /// Writes an event down if a later run can use it.
    fn write(&mut self, event: &Event<'_>) {
        let line = match event {
            Event::Shape { layer, space, .. } => {
                let ShapeUse { phase, shape, count_per_token: count } = *layer;
                let layer = Layer { phase, shape, count };
                Some(Line::Layer { layer, space: Hex(format!("{space:016x}")) })
            }
            Event::Dropped { candidate, behind } => Some(Line::Fell {
                candidate: (*candidate).to_owned(),
                behind: behind.is_finite().then_some(*behind),
            }),
            Event::Trial { trial, .. } => Some(Line::Trial((*trial).clone())),
            Event::Done(report) => Some(Line::Done(Box::new(report.record.clone()))),
            _ => None,
        };
        let is_done = matches!(event, Event::Done(_));
        if let (Some(line), Some(journal)) = (line, &mut self.journal) {
            let written = journal.write(&line);
            let synced = if is_done { journal.file.sync_data() } else { Ok(()) };
            self.check(written.and(synced));
        }
    }
}

#[cfg(test)]
mod tests;
