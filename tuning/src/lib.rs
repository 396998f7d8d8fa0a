//! The autotuner: finds the fastest exact kernel and tile for every layer of a model on this machine, for
//! one token at a time (decode), for a few at once (batch) and for prompts (prefill).
//!
//! [`tune`] is the way in. It takes the declared search [`space`], refuses every kernel that is not
//! bit-exact ([`exactness`]), ranks the rest without running them ([`mod@estimate`]), times them on
//! weights that are as cold as in real decoding ([`cold`], [`mod@bench`]) in round-robin races ([`mod@race`]),
//! the last of which is that of those who lead, and lets the winner meet an earlier pick ([`mod@runoff`]) and
//! the default ([`mod@confirm`]) in pairs, at greater [`mod@effort`] the default also before criterion
//! ([`second_opinion`]). What it says about its own reliability comes from [`noise`], with the
//! [pace](trilut_presets::Pace) of memory, which what is fastest depends on; what it has found so far is in its [`mod@journal`].
//!
//! All timing goes through [`Runner`], so the decisions are tested on recorded and synthetic times.

pub mod bandwidth;
pub mod bench;
pub mod candidate;
pub mod clock;
pub mod cold;
pub mod confirm;
pub mod contest;
pub mod copies;
mod cores;
pub mod disturbance;
pub mod effort;
pub mod end_to_end;
pub mod estimate;
mod hardware;
pub mod journal;
pub mod needed;
pub mod noise;
pub mod observer;
pub mod prior;
pub mod race;
pub mod record;
pub mod request;
pub mod runoff;
pub mod second_opinion;
pub mod space;
mod statistics;
pub mod table;
mod tuner;
pub mod verify;

pub use bench::{Lab, Runner};
pub use candidate::Candidate;
pub use hardware::Hardware;
pub use journal::{Journal, JournalError, Logged, Recovered};
pub use needed::needed;
pub use observer::{Event, Observer, Silent};
pub use prior::{Fallen, Prior};
pub use record::{Outcome, Refused, ShapeReport, Stopped, Trial};
pub use request::{BATCH_TOKENS, PROMPT_TOKENS, Request, ShapeUse, Shortage, TuneError};
pub use statistics::median;
pub use trilut_kernels::{AnyKernel, exactness};
pub use tuner::{tune, tune_in};
