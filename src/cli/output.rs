//! Where output goes: data to stdout and to files that a user names, talk to stderr.

use super::failure::{Failure, printable};
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use trilut_presets::atomic_file::AtomicFile;

/// `print!` that fails instead of panicking when stdout cannot take it (a full disk).
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write;
        write!(std::io::stdout(), $($text)*).map_err($crate::cli::output::lost)?
    }};
}

/// `println!` that fails instead of panicking.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stdout(), $($text)*).map_err($crate::cli::output::lost)?
    }};
}

/// `eprintln!` that does not panic when stderr cannot take it: what is said beside the work never stops it.
/// What it quotes may come from a file, so that control characters are shown instead of obeyed.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::output::talk(format_args!($($text)*))
    };
}

pub(crate) use {out, outln, say};

/// Why stdout could not take something, as a failure.
pub(crate) fn lost(error: std::io::Error) -> Failure {
    Failure::from(error).context("cannot write to the standard output")
}

/// What [`say!`] does.
pub(crate) fn talk(text: std::fmt::Arguments<'_>) {
    let line = printable(&text.to_string()) + "\n";
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A number of things: `1 thread`, `2 threads`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// What to do about a file that cannot be written.
pub(crate) const ELSEWHERE: &str = "name a file in a directory that you can write to";

/// Refuses, before any work is done, a path that a file cannot be written to: a directory, a device, anything else
/// by which the system hands out devices and open files, a link to nothing, whose place the file would take, a name
/// that is too long, or a place where nothing can be made; and `-`, for which others write to the standard output.
/// Missing parent directories are made, which is said.
pub(crate) fn check_file(path: &Path) -> Result<(), Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::new(format!("cannot write {}", path.display())).because(why).hint(ELSEWHERE)
    };
    if path == Path::new("-") {
        return Err(Failure::new(
            "cannot write to `-`: it does not stand for the standard output here",
        )
        .hint("name a file; ./- is one of that name"));
    }
    let target = std::fs::read_link(path).ok();
    if is_of_the_system(path) || target.is_some_and(|target| is_of_the_system(&target)) {
        return Err(cannot(&"it would take the place of one of the system's own files"));
    }
    match std::fs::metadata(path) {
        Ok(kind) if !kind.is_file() => return Err(cannot(&"it exists and is no regular file")),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::InvalidFilename => return Err(cannot(&error)),
        Err(_) => refuse_dangling(path)?,
    }
    if path.file_name().is_none() {
        return Err(cannot(&"this is no file name"));
    }
    if let Some(parent) = path.parent() {
        make_directory(parent).map_err(|error| cannot(&error))?;
    }
    // Never gets its name.
    AtomicFile::create(path).map(drop).map_err(|error| Failure::from(error).hint(ELSEWHERE))
}

/// Whether a path leads to one of the files by which the system hands out devices and open files.
fn is_of_the_system(path: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let is_shared_memory = path.starts_with("/dev/shm");
    path.starts_with("/proc") || path.starts_with("/dev") && !is_shared_memory
}

fn refuse_dangling(path: &Path) -> Result<(), Failure> {
    let Ok(target) = std::fs::read_link(path) else { return Ok(()) };
    let why = format!("it is a link to {}, which is not there", target.display());
    Err(Failure::new(format!("cannot write {}", path.display()))
        .because(why)
        .hint("name the file itself, or remove the link"))
}

/// Makes a directory that something is to be written to, with those that it is in. A path that was mistyped
/// shows by what is said then. One that leads back out of what is not there is refused: what is passed through
/// would have to be made as well.
pub(crate) fn make_directory(path: &Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let mut through = PathBuf::new();
    for part in path.components() {
        let is_there = through.as_os_str().is_empty() || through.is_dir();
        through.push(part);
        if part == Component::ParentDir && !is_there {
            let rule = format!("{} leads back out of what is not there", through.display());
            return Err(std::io::Error::new(ErrorKind::NotFound, rule));
        }
    }
    std::fs::create_dir_all(path)?;
    say!("note: made the directory {}", path.display());
    Ok(())
}
