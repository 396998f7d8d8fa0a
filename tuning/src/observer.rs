//! What a tuning run tells while it works, and how it is asked to stop.

use crate::record::{Refused, ShapeReport, Trial};
use crate::request::ShapeUse;
use std::time::Duration;

/// Something that happened in a tuning run.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The run begins.
    Begin {
        /// The number of shapes to tune.
        shapes: usize,
        /// The number of threads.
        threads: usize,
        /// When the run will end at the latest.
        limit: Duration,
    },
    /// A statement about the run: where the weights are, how busy the machine is.
    Note(&'a str),
    /// Work on a shape begins.
    Shape {
        /// Its position, from 0.
        index: usize,
        /// The layer's size and phase.
        layer: ShapeUse,
        /// The number of kernels that will be timed.
        kernels: usize,
        /// Fingerprint of the kernels that there are to choose from.
        space: u64,
    },
    /// A kernel was refused: it will not be timed, or could not be.
    Refused(&'a Refused),
    /// A candidate fell behind and left the race.
    Dropped {
        /// The candidate, as text.
        candidate: &'a str,
        /// How many times as slow as the leader it was.
        behind: f64,
    },
    /// A new best candidate.
    Best {
        /// The candidate, as text.
        candidate: &'a str,
        /// Its median in nanoseconds.
        ns: f64,
    },
    /// How a candidate fared in a race that is over.
    Trial {
        /// The layer.
        layer: ShapeUse,
        /// Its times.
        trial: &'a Trial,
    },
    /// The part of the run that is over, from 0 to 1. It never falls.
    Progress(f64),
    /// A shape is done; once more when it was measured again in a calmer moment, or when it was found out from where on it
    /// takes over.
    Done(&'a ShapeReport),
}

/// Somebody who watches a tuning run.
pub trait Observer {
    /// Takes note of an event.
    fn event(&mut self, event: &Event<'_>);

    /// Whether to stop now; asked after every sample. What is finished is kept.
    fn should_stop(&mut self) -> bool {
        false
    }
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event<'_>) {}
}
