//! The autotuner: finds the fastest exact kernel and tile for every layer of a model on this machine, for
//! one token at a time (decode), for a few at once (batch) and for prompts (prefill).
//!
//! [`tune`] is the way in. It takes the declared search [`space`], refuses every kernel that is not
//! bit-exact ([`exactness`]), ranks the rest without running them ([`mod@estimate`]), times them on
//! weights that are as cold as in real decoding ([`cold`], [`mod@bench`]) in a round-robin [`mod@race`],
//! and lets the winner prove itself against the default pair by pair ([`mod@confirm`]). What it says
//! about its own reliability comes from [`noise`].
//!
//! All timing goes through [`Runner`], so the decisions are tested on recorded and synthetic times.

pub mod bandwidth;
pub mod bench;
pub mod candidate;
pub mod cold;
pub mod confirm;
pub mod estimate;
mod hardware;
pub mod needed;
pub mod noise;
pub mod observer;
pub mod race;
pub mod record;
pub mod request;
pub mod space;
mod statistics;
mod tuner;

pub use bench::{Lab, Runner};
pub use candidate::Candidate;
pub use hardware::Hardware;
pub use needed::needed;
pub use observer::{Event, Observer, Silent};
pub use record::{Outcome, Refused, ShapeReport, Stopped};
pub use request::{BATCH_TOKENS, PROMPT_TOKENS, Request, ShapeUse, TuneError};
pub use statistics::median;
pub use trilut_kernels::{AnyKernel, exactness};
pub use tuner::{tune, tune_in};
