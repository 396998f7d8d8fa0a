//! Where output goes: stdout, and files that a user names.

use super::failure::Failure;
use std::path::Path;

/// `print!` that fails instead of panicking when stdout cannot take it (a full disk).
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write;
        write!(std::io::stdout(), $($text)*)?
    }};
}

/// `println!` that fails instead of panicking.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stdout(), $($text)*)?
    }};
}

pub(crate) use {out, outln};

/// A number of things: `1 thread`, `2 threads`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Refuses, before any work is done, a path that a file cannot be written to: a directory, a device, or
/// a place where nothing can be made. Missing parent directories are made.
pub(crate) fn check_file(path: &Path) -> Result<(), Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::new(format!("cannot write {}", path.display())).because(why)
    };
    match std::fs::metadata(path) {
        Ok(kind) if !kind.is_file() => return Err(cannot(&"it exists and is no regular file")),
        _ => {}
    }
    if path.file_name().is_none() {
        return Err(cannot(&"this is no file name"));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let probe = parent.join(format!(".trilut-{}.tmp", std::process::id()));
    let probed = std::fs::create_dir_all(parent).and_then(|()| std::fs::File::create(&probe));
    probed.map_err(|error| cannot(&error))?;
    // The probe did its work; one that stays behind is only untidy.
    let _ = std::fs::remove_file(&probe);
    Ok(())
}
