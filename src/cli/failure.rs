//! What is printed when something fails: what, why, and the command to run.

use crate::cli::output::say;
use std::fmt::Display;
use std::process::ExitCode;
use trilut_runtime::dummy::DummyError;
use trilut_runtime::{Error, PerplexityError};

/// A failure on its way to the user.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed, then why, outermost first.
    chain: Vec<String>,
    hint: Option<String>,
    code: u8,
    /// Nobody is left to read a report, or the user knows already.
    silent: bool,
}

impl Failure {
    /// A failure in words.
    pub(crate) fn new(what: impl Display) -> Self {
        Self { chain: vec![what.to_string()], hint: None, code: 1, silent: false }
    }

    /// Wrong usage that the argument parser could not see.
    pub(crate) fn usage(what: impl Display) -> Self {
        Self { code: 2, ..Self::new(what) }
    }

    /// A check that did its work and says no.
    pub(crate) fn check(what: impl Display) -> Self {
        Self { code: 3, ..Self::new(what) }
    }

    /// The user interrupted.
    pub(crate) fn interrupted() -> Self {
        Self { code: super::interrupt::exit_status(), silent: true, ..Self::new("interrupted") }
    }

    /// An error with everything that caused it.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            chain.push(error.to_string());
            source = error.source();
        }
        // A wrapper that says no more than what it wraps is not worth a line.
        chain.dedup();
        Self { chain, ..Self::new("") }
    }

    /// Adds what to do about it, unless something more specific is there already.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }

    /// Puts what was being done in front.
    #[must_use]
    pub(crate) fn context(mut self, what: impl Display) -> Self {
        self.chain.insert(0, what.to_string());
        self
    }

    /// The same, as wrong usage.
    #[must_use]
    pub(crate) fn into_usage(self) -> Self {
        Self { code: 2, ..self }
    }

    /// The same, as a check that says no.
    #[must_use]
    pub(crate) fn into_check(self) -> Self {
        Self { code: 3, ..self }
    }

    /// Adds a cause at the end.
    #[must_use]
    pub(crate) fn because(mut self, why: impl Display) -> Self {
        self.chain.push(why.to_string());
        self
    }

    /// The report in one line, for a note about something that went on without it.
    pub(crate) fn summary(&self) -> String {
        self.chain.join(": ")
    }

    /// Prints the report and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if !self.silent {
            let mut chain = self.chain.iter();
            say!("error: {}", chain.next().map_or("unknown", String::as_str));
            chain.for_each(|cause| say!("  caused by: {cause}"));
            if let Some(hint) = &self.hint {
                say!("hint: {hint}");
            }
        }
        ExitCode::from(self.code)
    }
}

/// Text that may come from a file, with control characters shown instead of obeyed.
pub(crate) fn printable(text: &str) -> String {
    let show = |c: char| match c {
        '\n' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(show).collect()
}

/// The same in one line, for a cell of a table or a value within a note.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).replace('\n', " ")
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let silent = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { silent, ..Self::of(&error) }
    }
}

/// Errors of the workspace that know what to do about themselves, and which of them are wrong usage:
/// numbers that only a model shows to be out of range.
macro_rules! hinted {
    ($($error:ty $(where $usage:pat)?),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                let usage: &[bool] = &[$(matches!(error, $usage))?];
                let code = if usage.contains(&true) { 2 } else { 1 };
                Self { hint: error.hint(), code, ..Self::of(&error) }
            }
        }
    )*};
}

hinted!(
    Error where Error::Context { .. } | Error::Layers { .. },
    PerplexityError where PerplexityError::Context { .. },
    trilut_runtime::chat::ChatError,
    trilut_runtime::convert::ConvertError,
    DummyError where DummyError::Layers { .. },
    trilut_runtime::gguf::GgufError,
    trilut_presets::preset::PresetError,
    trilut_server::ServeError,
    trilut_tuning::JournalError,
    trilut_tuning::TuneError
);

impl From<trilut_codegen::Error> for Failure {
    fn from(error: trilut_codegen::Error) -> Self {
        Self { code: 2, ..Self::of(&error) }
    }
}
