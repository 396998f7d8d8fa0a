//! What the tests of the `trilut` command share: a place of its own to run it in.

use assert_cmd::Command;
use std::path::PathBuf;
use std::process::Output;

/// A command with a cache directory and no settings of its own.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A file of the sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command with some arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("trilut").unwrap();
        command.args(args).env("XDG_CACHE_HOME", self.path("cache"));
        for name in ["TRILUT_PRESETS", "TRILUT_ISA", "TRILUT_THREADS"] {
            command.env_remove(name);
        }
        command
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
