//! One test: tokens to read, or tokens to generate, from an empty context.

use super::super::failure::Failure;
use super::super::interrupt;
use std::time::{Duration, Instant};
use trilut_runtime::{Model, Session};

/// The most tokens of the prompt that warms a prompt test up: the block that prompts are read in, so
/// that it touches every buffer that the test does.
const WARM_PROMPT: usize = 512;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// Tokens of a prompt, read at once.
    Prompt(usize),
    /// Tokens fed one by one.
    Generate(usize),
}

impl Test {
    pub(super) fn tokens(self) -> usize {
        match self {
            Self::Prompt(n) | Self::Generate(n) => n,
        }
    }

    /// The name as llama-bench writes it: `pp512`, `tg128`.
    pub(super) fn name(self) -> String {
        match self {
            Self::Prompt(n) => format!("pp{n}"),
            Self::Generate(n) => format!("tg{n}"),
        }
    }

    /// The lengths as llama-bench counts them: tokens of the prompt, tokens generated.
    pub(super) fn lengths(self) -> (usize, usize) {
        match self {
            Self::Prompt(n) => (n, 0),
            Self::Generate(n) => (0, n),
        }
    }

    /// Tokens per second.
    pub(super) fn rate(self, ns: u64) -> f64 {
        self.tokens() as f64 * 1e9 / ns as f64
    }

    /// A session of the model that has room for the test.
    pub(super) fn session(self, model: &Model) -> Result<Session, Failure> {
        let session = model.session()?;
        if self.tokens() > session.room() {
            return Err(Failure::usage(format!(
                "{} does not fit into the model's context of {}",
                self.name(),
                model.context()
            )));
        }
        Ok(session)
    }

    /// Pages in what the test touches.
    pub(super) fn warm_up(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Prompt(n) => Self::Prompt(n.min(WARM_PROMPT)).run(session)?,
            Self::Generate(_) => Self::Generate(1).run(session)?,
        };
        Ok(())
    }

    /// Runs it from an empty context.
    pub(super) fn run(self, session: &mut Session) -> Result<Duration, Failure> {
        // Any tokens do: the time does not depend on them.
        let vocab = session.model().config().vocab;
        let token = |i: usize| (i * 7919 % vocab) as u32;
        session.clear();
        let began = Instant::now();
        match self {
            Self::Prompt(n) => session.append(&(0..n).map(token).collect::<Vec<_>>())?,
            Self::Generate(n) => {
                for i in 0..n {
                    session.append(&[token(i)])?;
                    if interrupt::asked() {
                        return Err(Failure::interrupted());
                    }
                }
            }
        }
        Ok(began.elapsed())
    }
}
