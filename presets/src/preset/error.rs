//! What can be wrong with a preset file.

use std::io::ErrorKind;
use std::path::PathBuf;

/// A preset that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// The file cannot be read at all.
    #[error("cannot read the preset {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was written by a newer version.
    #[error(
        "preset {origin}, line {line}: schema {schema} is newer than {}, the newest that this version reads",
        super::SCHEMA
    )]
    Newer {
        /// The file or embedded name.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The schema it asks for.
        schema: u32,
    },
    /// The contents are not a preset.
    #[error("preset {origin}, line {line} is not valid")]
    Invalid {
        /// The file or embedded name.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The rule that is broken.
        source: Rule,
    },
    /// The file is a preset of another CPU, to which nothing can be added.
    #[error("the preset {} is for another CPU or instruction set: {made_on}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// The CPU and the instruction set.
        made_on: String,
    },
    /// The file cannot be written; what was there before is untouched, or its new name is said.
    #[error("cannot write the preset {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A rule of the file format, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rule(pub String);

impl PresetError {
    /// What is wrong and why, in one line.
    pub(crate) fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(why) => format!("{self}: {why}"),
            None => self.to_string(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => {
                Some("run `trilut doctor` to see where presets are looked for".into())
            }
            Self::Newer { .. } => Some(
                "update trilut, or run `trilut tune` to make a preset with this version".into(),
            ),
            Self::Invalid { .. } | Self::Other { .. } => {
                Some("run `trilut tune -o FILE` to write a new preset to another file".into())
            }
            Self::Write { source, .. } => Some(match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "free space on that disk, or name a file on another: trilut tune -o FILE".into()
                }
                _ => "name a file in a directory that you can write to: trilut tune -o FILE".into(),
            }),
        }
    }
}
