//! What earlier runs leave to a run.

use crate::request::{Request, ShapeUse};
use std::collections::BTreeMap;
use trilut_presets::Preset;
use trilut_presets::preset::{Effort, Record};

/// What is known before anything is timed.
#[derive(Debug, Clone, Default)]
pub struct Prior {
    /// Records whose picks are raced with the others and stay unless something is faster beyond the noise.
    pub incumbents: Option<Preset>,
    /// Candidates that an interrupted run has seen fall behind, by layer.
    pub fallen: BTreeMap<ShapeUse, Fallen>,
    /// Time only kernels that the incumbents' records name as finalists, for whatever number of threads.
    pub finalists_only: bool,
}

/// The losers of a race.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fallen {
    /// Fingerprint of the kernels that there were to choose from.
    pub space: u64,
    /// The number of threads that they were timed with: with another one others may win.
    pub threads: usize,
    /// The candidates, as text, and how many times as long as the leader they took; infinity where nobody knows.
    pub candidates: BTreeMap<String, f64>,
}

impl Prior {
    /// The incumbent's record for a layer.
    pub(crate) fn incumbent(&self, layer: &ShapeUse, threads: usize) -> Option<&Record> {
        self.incumbents.as_ref()?.record(layer.shape, layer.phase, threads)
    }

    /// How many times as long as the leader a candidate took when it left a race of these kernels with so many
    /// threads; `None` if none did.
    pub(crate) fn behind(
        &self,
        layer: &ShapeUse,
        (space, threads): (u64, usize),
        candidate: &str,
    ) -> Option<f64> {
        let is_own = |fallen: &&Fallen| (fallen.space, fallen.threads) == (space, threads);
        self.fallen.get(layer).filter(is_own)?.candidates.get(candidate).copied()
    }

    /// The effort that a race may claim: where only finalists are timed, that of the most thorough search for
    /// another number of threads, as theirs they are.
    pub(crate) fn most_effort(&self, layer: &ShapeUse, request: &Request) -> Effort {
        if !self.finalists_only {
            return request.effort;
        }
        let records = self.incumbents.iter().flat_map(|preset| preset.records());
        let others = records.filter(|record| {
            (record.shape, record.phase) == (layer.shape, layer.phase)
                && record.threads != request.threads
        });
        others.map(|record| record.effort).max().unwrap_or(Effort::Estimate)
    }

    /// Whether a kernel may be timed for a layer.
    pub(crate) fn admits(&self, layer: &ShapeUse, kernel: &str) -> bool {
        if !self.finalists_only {
            return true;
        }
        let records = self.incumbents.iter().flat_map(|preset| preset.records());
        let mut same = records.filter(|r| (r.shape, r.phase) == (layer.shape, layer.phase));
        same.any(|record| {
            let finalists = record.evidence.iter().flat_map(|evidence| &evidence.finalists);
            record.kernel == kernel || finalists.into_iter().any(|finalist| finalist == kernel)
        })
    }
}
