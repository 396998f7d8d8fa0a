//! One test: tokens to read, or tokens to generate, from an empty context; of one text, or of several at once.

use super::super::failure::Failure;
use super::super::interrupt;
use std::time::{Duration, Instant};
use trilut_runtime::{Model, Row, Session, State};

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
    /// The same of several texts at once, a token of each at a time.
    Together {
        /// The texts.
        sequences: usize,
        /// Tokens of each.
        tokens: usize,
    },
}

/// What a test runs on.
#[derive(Debug)]
pub(super) enum Subject {
    /// One text.
    Text(Session),
    /// Several.
    Texts(Model, State),
}

impl Test {
    /// Generation of some texts at once.
    pub(super) fn generate(sequences: usize, tokens: usize) -> Self {
        match sequences {
            1 => Self::Generate(tokens),
            _ => Self::Together { sequences, tokens },
        }
    }

    /// Tokens of all texts.
    pub(super) fn tokens(self) -> usize {
        self.sequences() * self.positions()
    }

    /// Texts that run at once.
    pub(super) fn sequences(self) -> usize {
        match self {
            Self::Prompt(_) | Self::Generate(_) => 1,
            Self::Together { sequences, .. } => sequences,
        }
    }

    /// Tokens of a text.
    pub(super) fn positions(self) -> usize {
        match self {
            Self::Prompt(n) | Self::Generate(n) | Self::Together { tokens: n, .. } => n,
        }
    }

    /// The name as llama-bench writes it: `pp512`, `tg128`; of several texts `tg128x4`.
    pub(super) fn name(self) -> String {
        match self {
            Self::Prompt(n) => format!("pp{n}"),
            Self::Generate(n) => format!("tg{n}"),
            Self::Together { sequences, tokens } => format!("tg{tokens}x{sequences}"),
        }
    }

    /// The lengths as llama-bench counts them: tokens of the prompt, tokens generated.
    pub(super) fn lengths(self) -> (usize, usize) {
        match self {
            Self::Prompt(n) => (n, 0),
            Self::Generate(n) | Self::Together { tokens: n, .. } => (0, n),
        }
    }

    /// Tokens per second, of all texts.
    pub(super) fn rate(self, ns: u64) -> f64 {
        self.tokens() as f64 * 1e9 / ns as f64
    }

    /// A text, or texts, of the model with room for the test.
    pub(super) fn subject(self, model: &Model) -> Result<Subject, Failure> {
        if self.positions() > model.context() {
            return Err(Failure::usage(format!(
                "{} does not fit into the model's context of {}",
                self.name(),
                model.context()
            )));
        }
        Ok(match self {
            Self::Together { sequences, .. } => {
                Subject::Texts(model.clone(), model.state(sequences)?)
            }
            _ => Subject::Text(model.session()?),
        })
    }

    /// Pages in what the test touches.
    pub(super) fn warm_up(self, subject: &mut Subject) -> Result<(), Failure> {
        let less = match self {
            Self::Prompt(n) => Self::Prompt(n.min(WARM_PROMPT)),
            Self::Generate(_) => Self::Generate(1),
            Self::Together { sequences, .. } => Self::Together { sequences, tokens: 1 },
        };
        less.run(subject).map(|_| ())
    }

    /// Runs it from an empty context.
    pub(super) fn run(self, subject: &mut Subject) -> Result<Duration, Failure> {
        // Any tokens do: the time does not depend on them.
        let token = |i: usize, vocab: usize| (i * 7919 % vocab) as u32;
        match subject {
            Subject::Text(session) => {
                let vocab = session.model().config().vocab;
                session.clear();
                let began = Instant::now();
                if let Self::Prompt(n) = self {
                    session.append(&(0..n).map(|i| token(i, vocab)).collect::<Vec<_>>())?;
                    return Ok(began.elapsed());
                }
                for i in 0..self.positions() {
                    session.append(&[token(i, vocab)])?;
                    stop_if_asked()?;
                }
                Ok(began.elapsed())
            }
            Subject::Texts(model, state) => {
                let (vocab, sequences) = (model.config().vocab, self.sequences());
                (0..sequences).for_each(|sequence| state.truncate(sequence, 0));
                let began = Instant::now();
                for position in 0..self.positions() {
                    let row = |sequence| {
                        let token = token(position * sequences + sequence, vocab);
                        Row { sequence, position, token, logits: true }
                    };
                    model.forward(state, &(0..sequences).map(row).collect::<Vec<_>>())?;
                    stop_if_asked()?;
                }
                Ok(began.elapsed())
            }
        }
    }
}

fn stop_if_asked() -> Result<(), Failure> {
    if interrupt::asked() { Err(Failure::interrupted()) } else { Ok(()) }
}
