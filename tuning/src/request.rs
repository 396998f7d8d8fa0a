//! What the tuner is asked to do, and what can stop it from beginning.

use crate::exactness::Inexact;
use crate::prior::Prior;
use std::time::Duration;
use trilut_kernels::{Cpu, Format, Isa, Phase, Shape};
use trilut_presets::preset::Effort;
use trilut_presets::{MOST_THREADS, Machine, Preset};

/// Tokens of the prompt that prefill is tuned for: several tiles of every kernel, so that panels are used
/// again, and short enough to be common.
pub const PROMPT_TOKENS: usize = 128;

/// Tokens that small batches are tuned for: a few chats at once.
pub const BATCH_TOKENS: usize = 4;

/// A layer shape of the model in a part of inference, and how often it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShapeUse {
    /// The part of inference.
    pub phase: Phase,
    /// The layer's size; in prefill that of a stack of layers with one input, as one matrix.
    pub shape: Shape,
    /// How many such layers one token runs through; shapes of a phase share its time by their work.
    pub count_per_token: usize,
}

impl ShapeUse {
    /// Tokens that are multiplied at once.
    pub fn tokens(&self) -> usize {
        match self.phase {
            Phase::Prefill => PROMPT_TOKENS,
            Phase::SmallBatch => BATCH_TOKENS,
            Phase::Decode => 1,
        }
    }

    /// What one run of the model does with layers of this shape: the measure by which shapes share time.
    pub(crate) fn work(&self) -> f64 {
        (self.count_per_token.max(1) * self.shape.weights()) as f64
    }

    /// Whether its time depends on how fast memory is read; prompts are bound by what they compute.
    pub(crate) fn is_streamed(&self) -> bool {
        self.phase != Phase::Prefill
    }
}

impl std::fmt::Display for ShapeUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{} {}", self.phase, self.shape))
    }
}

/// One tuning run.
#[derive(Debug, Clone)]
pub struct Request {
    /// The model's layer shapes, each once in each phase.
    pub shapes: Vec<ShapeUse>,
    /// The codecs that may be used, the model's own one first: its default kernel is the one to beat.
    /// Several are raced against each other in decode; in prefill panels are filled from the first. Small
    /// batches read what decoding reads.
    pub formats: Vec<Format>,
    /// The codecs that decoding of some shapes is known to read; a run adds what it finds itself.
    pub decoded: Vec<(Shape, Format)>,
    /// The number of threads that decoding will use, at least 1.
    pub threads: usize,
    /// How much to do.
    pub effort: Effort,
    /// When to stop. [`Effort::Estimate`] never takes more than [`Request::ESTIMATE_LIMIT`], and nothing more
    /// than [`Request::LONGEST`].
    pub time_limit: Duration,
    /// What may run here.
    pub cpu: Cpu,
    /// What this machine is.
    pub machine: Machine,
    /// Bytes of weights that one token reads, over all layers: decides whether they are cold.
    pub model_bytes: u64,
    /// What earlier runs leave to this one.
    pub prior: Prior,
}

impl Request {
    /// The upper end of what [`Effort::Estimate`] takes for a model: two seconds with what a command does besides.
    pub const ESTIMATE_LIMIT: Duration = Duration::from_millis(1800);

    /// A year stands for all longer limits: no run comes near it, and shares of it are far from what a
    /// [`Duration`] can hold.
    pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// The time limit with the effort taken into account.
    pub fn limit(&self) -> Duration {
        self.time_limit.min(match self.effort {
            Effort::Estimate => Self::ESTIMATE_LIMIT,
            _ => Self::LONGEST,
        })
    }

    /// The codecs that are raced for a layer.
    pub fn formats_of(&self, layer: &ShapeUse) -> &[Format] {
        let first = &self.formats[..self.formats.len().min(1)];
        match layer.phase {
            Phase::Prefill => first,
            Phase::Decode => &self.formats,
            Phase::SmallBatch => {
                let known = self.decoded.iter().rfind(|(shape, _)| *shape == layer.shape);
                known.map_or(first, |(_, format)| std::slice::from_ref(format))
            }
        }
    }

    /// The same request with the codecs that decoding reads by the records of a preset.
    #[must_use]
    pub fn knowing(&self, preset: &Preset) -> Self {
        let decoded = preset
            .records()
            .iter()
            .filter(|record| record.phase == Phase::Decode && record.threads == self.threads);
        Self { decoded: decoded.map(|r| (r.shape, r.format)).collect(), ..self.clone() }
    }

    /// The best ISA that may be used: what records are marked with.
    pub fn isa(&self) -> Isa {
        self.cpu.best().isa()
    }

    /// Checks that there is something to do and that it can be done.
    pub(crate) fn check(&self) -> Result<(), TuneError> {
        if self.shapes.is_empty() {
            return Err(TuneError::NoShapes);
        }
        if self.formats.is_empty() {
            return Err(TuneError::NoFormats);
        }
        if !(1..=MOST_THREADS).contains(&self.threads) {
            return Err(TuneError::Threads { given: self.threads });
        }
        Ok(())
    }
}

/// A tuning run that cannot be done. (A run that is cut short is no error: see
/// [`Outcome::stopped`](crate::Outcome::stopped).)
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The request names no shapes.
    #[error("there are no layer shapes to tune")]
    NoShapes,
    /// The request allows no format.
    #[error("there are no weight formats to tune")]
    NoFormats,
    /// The number of threads is out of range.
    #[error("cannot tune for {given} threads: 1 to {MOST_THREADS} are possible")]
    Threads {
        /// The number that was asked for.
        given: usize,
    },
    /// The kernel that runs without tuning is wrong: nothing may be built on it.
    #[error("the default kernel for {layer} is not exact on this CPU")]
    DefaultInexact {
        /// The layer's size and phase.
        layer: ShapeUse,
        /// What differed.
        source: Inexact,
    },
    /// A pick that is to be compared is no exact kernel of this CPU.
    #[error("the pick {kernel} for {layer} cannot be run here")]
    Pick {
        /// The kernel's name.
        kernel: String,
        /// The layer's size and phase.
        layer: ShapeUse,
    },
    /// The memory for cold weights is not there.
    #[error(transparent)]
    Memory(#[from] Shortage),
}

/// A shape is too large for the memory that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed} bytes of memory are needed to time {shape}, a quarter of {free} free bytes may be used"
)]
pub struct Shortage {
    /// The layer's size.
    pub shape: Shape,
    /// The bytes of its weights, once as they are and once for each way in which they are packed.
    pub needed: u64,
    /// The bytes that are free, of which the tuner takes a quarter at most.
    pub free: u64,
}

impl TuneError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoShapes => Some("name a model: `trilut tune -m MODEL.gguf`".into()),
            Self::NoFormats => Some("name a format: `trilut tune --format i2_s`".into()),
            Self::Threads { .. } => Some("run `trilut tune --threads 2`".into()),
            Self::DefaultInexact { .. } => {
                Some("run with TRILUT_ISA=scalar and report `trilut doctor --json`".into())
            }
            Self::Pick { .. } => {
                Some("run `trilut doctor` to see where the pick comes from".into())
            }
            Self::Memory(_) => Some("close other programs, or tune a smaller model".into()),
        }
    }
}
