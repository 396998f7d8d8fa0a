//! `trilut completions`: what shells know of the command, made from its own description, so that nothing has
//! to be kept in step and the build stays as it is.

use super::failure::Failure;
use super::output::lost;
use clap::Command;
use std::io::Write;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub(crate) fn completions(args: &Args, mut command: Command) -> Result<(), Failure> {
    // In one piece, because the generator cannot fail where stdout can.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "trilut", &mut text);
    std::io::stdout().write_all(&text).map_err(lost)
}
