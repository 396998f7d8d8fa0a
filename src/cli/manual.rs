//! `trilut man`: man pages, made from the command's own description, one for each subcommand.

use super::failure::Failure;
use super::output;
use crate::cli::output::say;
use clap::Command;
use std::path::PathBuf;

/// Write man pages, one for each command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory, made if missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn man(args: &Args, command: Command) -> Result<(), Failure> {
    let directory = &args.directory;
    let written = output::make_directory(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory));
    let cannot = |error| {
        Failure::of(&error).context(format!("cannot write man pages to {}", directory.display()))
    };
    written.map_err(cannot)?;
    say!("man pages in {}", directory.display());
    Ok(())
}
