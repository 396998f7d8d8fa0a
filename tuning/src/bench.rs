//! The seam between deciding and measuring.
//!
//! The tuner decides; a [`Lab`] knows which kernels exist and opens a [`Stage`] for a layer, on which a
//! [`Runner`] takes samples and tells the time. [`Hardware`](crate::Hardware) is the real one.

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod replay;

use crate::disturbance::Snapshot;
use crate::noise::CpuTimes;
use crate::request::{ShapeUse, Shortage, TuneError};
use crate::{AnyKernel, Candidate};
use std::time::{Duration, SystemTime};
use trilut_kernels::{Format, Layout, Shape};
use trilut_presets::preset::Weights;

/// Somebody who takes samples.
pub trait Runner {
    /// A clock that never goes back; its zero is arbitrary but the same as that of the [`Lab`].
    fn now(&self) -> Duration;

    /// Times a candidate: nanoseconds per product of the matrix with one token (decode) or with a prompt
    /// of [`PROMPT_TOKENS`](crate::PROMPT_TOKENS) tokens (prefill) or of a few at once (batch), or why it cannot be run.
    fn sample(&mut self, candidate: &Candidate) -> Result<f64, String>;

    /// 10^9 bytes per second at which all threads read weights right now; `None` where these are in the cache, or
    /// nobody can tell.
    fn memory(&mut self) -> Option<f64> {
        None
    }

    /// How fast all cores compute right now, in a unit of its own; `None` where nobody can tell.
    fn cores(&mut self) -> Option<f64> {
        None
    }

    /// How many tokens the next samples multiply, where the stage was made for [several](Lab::crossing).
    fn set_tokens(&mut self, _tokens: usize) {}
}

/// A layer that is ready to be timed.
pub struct Stage<'a> {
    /// Who takes the samples.
    pub runner: Box<dyn Runner + 'a>,
    /// Where the weights are during timing.
    pub weights: Weights,
    /// Statements about how it was set up.
    pub notes: Vec<String>,
}

/// Where kernels are found and timed.
pub trait Lab {
    /// The kernels that may run a layer whose weights are stored in a format.
    fn kernels(&self, layer: &ShapeUse, format: Format) -> Vec<AnyKernel>;

    /// The kernel that runs without tuning.
    fn default_kernel(&self, layer: &ShapeUse, format: Format) -> AnyKernel;

    /// How weights in a format are packed unless a kernel asks for more: what panels are filled from.
    fn layout(&self, format: Format, shape: Shape) -> Layout;

    /// A clock that never goes back.
    fn now(&self) -> Duration;

    /// The date, for provenance.
    fn date(&self) -> SystemTime;

    /// What the CPUs did so far, if the system tells.
    fn cpu_times(&self) -> Option<CpuTimes>;

    /// What may disturb the times, counted up to now.
    fn disturbance(&self) -> Snapshot {
        Snapshot::default()
    }

    /// Whether the times are real, so that another harness can be asked for them.
    fn is_real(&self) -> bool {
        false
    }

    /// Looks whether there is memory to time a layer in these layouts, before anything is done for it.
    ///
    /// # Errors
    /// When there is not.
    fn check_memory(&self, _shape: Shape, _layouts: &[Layout]) -> Result<(), Shortage> {
        Ok(())
    }

    /// Makes a layer ready to be timed, in these layouts; panels are filled from the first.
    ///
    /// # Errors
    /// When there is not enough memory for it.
    fn open(&mut self, layer: &ShapeUse, layouts: &[Layout]) -> Result<Stage<'_>, TuneError>;

    /// Makes a layer ready to be timed with any number of tokens up to `most`, by kernels of small batches and
    /// of prompts alike; `None` where this lab has no such times.
    ///
    /// # Errors
    /// As [`Lab::open`].
    fn crossing(
        &mut self,
        _shape: Shape,
        _layout: Layout,
        _most: usize,
    ) -> Result<Option<Stage<'_>>, TuneError> {
        Ok(None)
    }
}
