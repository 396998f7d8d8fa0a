//! One test: tokens to read, or tokens to generate, behind what a context holds already; of one text, or of
//! several at once.

use super::super::failure::Failure;
use super::super::interrupt;
use std::ops::Range;
use std::time::{Duration, Instant};
use trilut_runtime::{Model, Row, Session, State};

/// The most tokens of the prompt that warms a prompt test up: the block that prompts are read in, so
/// that it touches every buffer that the test does.
const WARM_PROMPT: usize = 512;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    work: Work,
    /// Positions of each text that are filled before the time is taken.
    depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
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
    /// A prompt of some tokens.
    pub(super) fn prompt(tokens: usize) -> Self {
        Self { work: Work::Prompt(tokens), depth: 0 }
    }

    /// Generation of some texts at once.
    pub(super) fn generate(sequences: usize, tokens: usize) -> Self {
        let work = match sequences {
            1 => Work::Generate(tokens),
            _ => Work::Together { sequences, tokens },
        };
        Self { work, depth: 0 }
    }

    /// The same behind `depth` positions.
    pub(super) fn behind(self, depth: usize) -> Self {
        Self { depth, ..self }
    }

    /// Positions that are filled before.
    pub(super) fn depth(self) -> usize {
        self.depth
    }

    /// Tokens of all texts.
    pub(super) fn tokens(self) -> usize {
        self.sequences().saturating_mul(self.positions())
    }

    /// Texts that run at once.
    pub(super) fn sequences(self) -> usize {
        match self.work {
            Work::Prompt(_) | Work::Generate(_) => 1,
            Work::Together { sequences, .. } => sequences,
        }
    }

    /// Tokens of a text.
    fn positions(self) -> usize {
        match self.work {
            Work::Prompt(n) | Work::Generate(n) | Work::Together { tokens: n, .. } => n,
        }
    }

    /// Whether it streams the weights once for each token.
    pub(super) fn is_decoding(self) -> bool {
        matches!(self.work, Work::Generate(_))
    }

    /// Positions that all texts hold at the end.
    pub(super) fn all_positions(self) -> usize {
        self.sequences() * (self.depth + self.positions())
    }

    /// The name as llama-bench writes it: `pp512`, `tg128`, `pp512 @ d2048`; of several texts `tg128x4`.
    pub(super) fn name(self) -> String {
        let name = match self.work {
            Work::Prompt(n) => format!("pp{n}"),
            Work::Generate(n) => format!("tg{n}"),
            Work::Together { sequences, tokens } => format!("tg{tokens}x{sequences}"),
        };
        match self.depth {
            0 => name,
            depth => format!("{name} @ d{depth}"),
        }
    }

    /// The lengths as llama-bench counts them: tokens of the prompt, tokens generated.
    pub(super) fn lengths(self) -> (usize, usize) {
        match self.work {
            Work::Prompt(n) => (n, 0),
            Work::Generate(n) | Work::Together { tokens: n, .. } => (0, n),
        }
    }

    /// Tokens per second, of all texts.
    pub(super) fn rate(self, ns: u64) -> f64 {
        self.tokens() as f64 * 1e9 / ns as f64
    }

    /// A text, or texts, of the model with room for the test.
    pub(super) fn subject(self, model: &Model) -> Result<Subject, Failure> {
        if self.positions().saturating_add(self.depth) > model.context() {
            return Err(Failure::usage(format!(
                "{} does not fit into the model's context of {}",
                self.name(),
                model.context()
            ))
            .hint("lower -p, -n or -d"));
        }
        Ok(match self.work {
            Work::Together { sequences, .. } => {
                Subject::Texts(model.clone(), model.state(sequences)?)
            }
            _ => Subject::Text(model.session()?),
        })
    }

    /// Fills the positions before the test, and pages in what it touches.
    pub(super) fn warm_up(self, subject: &mut Subject) -> Result<(), Failure> {
        let work = match self.work {
            Work::Prompt(n) => Work::Prompt(n.min(WARM_PROMPT)),
            Work::Generate(_) => Work::Generate(1),
            Work::Together { sequences, .. } => Work::Together { sequences, tokens: 1 },
        };
        Self { work, ..self }.run(subject).map(|_| ())
    }

    /// Runs it behind the positions that are filled.
    pub(super) fn run(self, subject: &mut Subject) -> Result<Duration, Failure> {
        let depth = self.depth;
        match subject {
            Subject::Text(session) => {
                let vocab = session.model().config().vocab;
                if session.tokens().len() < depth {
                    session.clear();
                    for block in tokens(0..depth, vocab).chunks(WARM_PROMPT) {
                        session.append(block)?;
                        stop_if_asked()?;
                    }
                }
                session.truncate(depth);
                let tokens = tokens(depth..depth + self.positions(), vocab);
                let began = Instant::now();
                if let Work::Prompt(_) = self.work {
                    session.append(&tokens)?;
                    return Ok(began.elapsed());
                }
                for token in tokens {
                    session.append(&[token])?;
                    stop_if_asked()?;
                }
                Ok(began.elapsed())
            }
            Subject::Texts(model, state) => {
                let (vocab, sequences) = (model.config().vocab, self.sequences());
                if state.cache().len(0) < depth {
                    fill(model, state, &tokens(0..depth, vocab))?;
                }
                for sequence in 0..sequences {
                    state.truncate(sequence, depth);
                    if state.cache().len(sequence) < depth {
                        state.copy(0, sequence, depth);
                    }
                }
                let began = Instant::now();
                for position in depth..depth + self.positions() {
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

/// Some token: any do, since the time does not depend on them.
fn token(index: usize, vocab: usize) -> u32 {
    (index * 7919 % vocab) as u32
}

fn tokens(positions: Range<usize>, vocab: usize) -> Vec<u32> {
    positions.map(|i| token(i, vocab)).collect()
}

/// Lets the first sequence hold some tokens.
fn fill(model: &Model, state: &mut State, tokens: &[u32]) -> Result<(), Failure> {
    state.truncate(0, 0);
    for block in tokens.chunks(WARM_PROMPT) {
        let start = state.cache().len(0);
        let row = |(position, &token)| Row { sequence: 0, position, token, logits: false };
        model.forward(state, &(start..).zip(block).map(row).collect::<Vec<_>>())?;
        stop_if_asked()?;
    }
    Ok(())
}

fn stop_if_asked() -> Result<(), Failure> {
    if interrupt::asked() { Err(Failure::interrupted()) } else { Ok(()) }
}
