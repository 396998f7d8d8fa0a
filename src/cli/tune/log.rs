//! The trial log beside a preset, as the command line uses it: what an interrupted run found is taken over,
//! and what still waits for a check of its model waits on.

use super::super::failure::Failure;
use super::super::{output, planning};
use crate::cli::output::say;
use std::path::Path;
use trilut_presets::Preset;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::Record;
use trilut_tuning::{Journal, JournalError, Prior, Recovered, Request, ShapeUse};

/// What the command was asked to do, as far as it decides what becomes of earlier runs.
pub(super) struct Task<'a> {
    /// The layers, on this machine.
    pub(super) request: &'a Request,
    /// All numbers of threads.
    pub(super) threads: &'a [usize],
    /// Whether the model as a whole is checked at the end.
    pub(super) has_gate: bool,
    /// Whether somebody said that it shall not be.
    pub(super) forgoes_gate: bool,
    /// Whether everything is tuned anew.
    pub(super) force: bool,
}

impl Task<'_> {
    /// Whether a record is of what is to be tuned.
    fn covers(&self, record: &Record) -> bool {
        let is_layer = |used: &ShapeUse| (used.shape, used.phase) == (record.shape, record.phase);
        self.threads.contains(&record.threads) && self.request.shapes.iter().any(is_layer)
    }
}

/// Some records of a preset.
fn part(preset: &Preset, is_in: impl Fn(&Record) -> bool) -> Preset {
    let records = preset.records().iter().filter(|record| is_in(record)).cloned().collect();
    Preset::new(preset.provenance.clone(), preset.machine.clone(), records)
}

/// The same, `None` if there are none.
fn some(preset: Option<&Preset>, is_in: impl Fn(&Record) -> bool) -> Option<Preset> {
    preset.map(|all| part(all, is_in)).filter(|some| !some.records().is_empty())
}

/// Whether what an interrupted run found has since been found again by a run that was no less thorough and that
/// saved it.
fn is_outdated(record: &Record, found: Option<&Preset>, saved: Option<&Preset>) -> bool {
    let (Some(found), Some(saved)) = (found, saved) else { return false };
    let newer = saved.record(record.shape, record.phase, record.threads);
    let date = |preset: &Preset, record: &Record| {
        record.evidence.clone().unwrap_or_else(|| preset.evidence()).date
    };
    // Dates are written so that text sorts them.
    newer.is_some_and(|newer| {
        newer.effort >= record.effort && date(saved, newer) > date(found, record)
    })
}

/// The trial log of a run, if one can be kept, and what it took over from an interrupted one.
pub(super) struct Log {
    pub(super) journal: Option<Journal>,
    /// Its preset is what this run is to check and save.
    recovered: Recovered,
}

impl Log {
    /// Opens the log beside the preset, and saves what an interrupted run had finished but for what awaits
    /// a gate: this run's, or, for other layers, that of a run to come.
    pub(super) fn open(path: &Path, task: &Task<'_>) -> Result<Self, Failure> {
        let opened = Journal::open(&Journal::path_for(path), task.request);
        let (mut journal, mut found) = match opened {
            Ok((journal, recovered)) => (Some(journal), recovered),
            Err(error @ JournalError::Busy { .. }) => return Err(error.into()),
            Err(error) => {
                say!("note: {}", Failure::from(error).summary());
                (None, Recovered::default())
            }
        };
        if let Some(journal) = &mut journal {
            journal.set_gated(task.has_gate);
        }
        if found.unreadable > 0 {
            let lines = output::count(found.unreadable, "line");
            say!("note: passed over for being unreadable: {lines} of the trial log");
        }
        let is_of_here = |saved: &Preset| {
            let Request { machine, .. } = task.request;
            saved.likeness(machine, task.request.isa()) == Likeness::SameCpu
        };
        let saved = Preset::load(path).ok().filter(is_of_here);
        let current = |found: Option<Preset>| {
            some(found.as_ref(), |record| !is_outdated(record, found.as_ref(), saved.as_ref()))
        };
        let (free, gated) = (current(found.preset.take()), current(found.waiting.take()));
        let (free, gated) = (free.as_ref(), gated.as_ref());
        let is_resumed = |record: &Record| task.covers(record) && !task.force;
        let mut recovered = Recovered {
            waiting: some(gated, |record| match task.covers(record) {
                true => !task.force && !task.has_gate && !task.forgoes_gate,
                false => true,
            }),
            ..Recovered::default()
        };
        if !task.force {
            recovered.fallen = found.fallen;
        }
        // Of this command's own layers what was found is checked here, if anything is.
        let (own_free, own_gated) = (some(free, is_resumed), some(gated, is_resumed));
        let own = match (own_free, own_gated) {
            (Some(mut free), Some(gated)) => {
                free.merge(gated);
                Some(free)
            }
            (free, gated) => free.or(gated),
        };
        let mut passed = vec![some(free, |record| !task.covers(record))];
        let is_waiting = |record: &Record| {
            let waiting = recovered.waiting.as_ref();
            waiting
                .is_some_and(|all| all.record(record.shape, record.phase, record.threads).is_some())
        };
        if task.has_gate {
            recovered.preset = own;
        } else {
            passed.push(some(own.as_ref(), |record| !is_waiting(record)));
        }
        let passed: Vec<Preset> = passed.into_iter().flatten().collect();
        let kept = recovered.preset.iter().chain(&passed).map(|some| some.records().len());
        let kept: usize = kept.sum();
        for preset in passed {
            planning::save(preset, path)?;
        }
        if kept > 0 {
            let records = output::count(kept, "shape");
            say!("resumed: {records} finished by an interrupted run");
        }
        if let Some(waiting) = &recovered.waiting {
            let records = output::count(waiting.records().len(), "shape");
            say!(
                "note: left to wait for its check: {records} that an interrupted run finished for other layers \
                 (that run's own command keeps what was found)"
            );
        }
        if kept > 0
            && recovered.preset.is_none()
            && let Some(journal) = &mut journal
        {
            journal.saved(recovered.waiting.as_ref())?;
        }
        Ok(Self { journal, recovered })
    }

    /// What the interrupted run leaves to the run with a number of threads, which is to save it.
    pub(super) fn prior(&mut self, threads: usize) -> Prior {
        let found = self.recovered.preset.take();
        let with =
            |is_own: bool| some(found.as_ref(), |record| (record.threads == threads) == is_own);
        self.recovered.preset = with(false);
        let fallen = self.recovered.fallen.clone();
        Prior { incumbents: with(true), fallen, ..Prior::default() }
    }

    /// All that was found is in the preset, unless runs with other numbers of threads are still to save
    /// theirs. A log that does not say so costs nothing but being read again.
    pub(super) fn saved(&mut self) {
        if self.recovered.preset.is_some() {
            return;
        }
        let waiting = self.recovered.waiting.as_ref();
        if let Some(Err(error)) = self.journal.as_mut().map(|journal| journal.saved(waiting)) {
            say!("note: the trial log cannot be written: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trilut_presets::preset::{Effort, Evidence};

    #[test]
    fn what_was_found_again_since_is_not_brought_back() {
        let (name, text) = trilut_shipped::SHIPPED[0];
        let known = Preset::parse(text, name).unwrap();
        let dated = |date: &str, effort: Effort| {
            let mut record = known.records()[0].clone();
            record.evidence = Some(Evidence { date: date.into(), ..Evidence::default() });
            record.effort = effort;
            Preset::new(known.provenance.clone(), known.machine.clone(), vec![record])
        };
        let (old, new) = ("2026-01-02T00:00:00Z", "2026-01-10T00:00:00Z");
        let is_outdated = |found: &Preset, saved: &Preset| {
            is_outdated(&found.records()[0], Some(found), Some(saved))
        };
        let found = dated(old, Effort::Measure);
        assert!(is_outdated(&found, &dated(new, Effort::Measure)));
        assert!(is_outdated(&found, &dated(new, Effort::Patient)));
        assert!(!is_outdated(&found, &dated(new, Effort::Estimate)));
        assert!(!is_outdated(&found, &dated(old, Effort::Patient)));
        assert!(!is_outdated(&dated(new, Effort::Measure), &dated(old, Effort::Measure)));
        // Of another layer it says nothing.
        let mut other = dated(new, Effort::Measure).records()[0].clone();
        other.threads += 1;
        let other = Preset::new(known.provenance.clone(), known.machine.clone(), vec![other]);
        assert!(!is_outdated(&found, &other));
    }
}
