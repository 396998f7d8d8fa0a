//! Commands that write files: what is left when they are stopped, and what they say when they cannot.
#![cfg(target_os = "linux")]

mod common;

use common::{Sandbox, stderr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Whether the file system of a directory knows files without names.
fn has_unnamed_files(directory: &Path) -> bool {
    let file = trilut_presets::atomic_file::AtomicFile::create(&directory.join("probe")).unwrap();
    file.side().starts_with("/proc")
}

/// The end of a command that is writing a large file into a directory, by a signal.
fn end_while_writing(sandbox: &Sandbox, directory: &Path, signal: &str) -> Option<i32> {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("trilut"))
        .args(["dummy", "--model", "bitnet-2b-4t", "-o", text(&directory.join("model.gguf"))])
        .env("XDG_CACHE_HOME", sandbox.path("cache"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    // Whatever its name is, the file is open.
    let is_writing = || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .any(|file| file.starts_with(directory))
    };
    let began = Instant::now();
    while !is_writing() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    child.wait().unwrap().code()
}

#[test]
fn nothing_is_left_of_a_file_that_was_not_finished() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("models");
    std::fs::create_dir(&directory).unwrap();
    let directory = directory.canonicalize().unwrap();
    assert_eq!(end_while_writing(&sandbox, &directory, "-TERM"), Some(143));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    assert_eq!(end_while_writing(&sandbox, &directory, "-INT"), Some(130));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    if has_unnamed_files(&directory) {
        assert_eq!(end_while_writing(&sandbox, &directory, "-KILL"), None);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
}

/// A file that may not grow stands for a disk that is full.
#[test]
fn a_full_disk_is_told_with_the_file() {
    let sandbox = Sandbox::new();
    let trilut = assert_cmd::cargo::cargo_bin("trilut");
    let model = sandbox.path("full.gguf");
    for args in [
        ["dummy", "--model", "demo", "-o", text(&model)],
        ["convert", "demo", text(&model), "--head", "f32"],
    ] {
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh", text(&trilut)])
            .args(args)
            .env("XDG_CACHE_HOME", sandbox.path("cache"))
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cannot write {}", model.display())), "{said}");
        assert!(said.contains("caused by: File too large"), "{said}");
        assert!(!model.exists());
    }
}

#[test]
fn directories_that_are_made_are_said() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str]| {
        let output = sandbox.command(args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let [models, pages, checkpoint] =
        ["new/models", "pages", "checkpoint"].map(|n| sandbox.path(n));
    let model = models.join("model.gguf");
    let checkpoint_args =
        ["dummy", "--model", "demo", "-o", text(&checkpoint), "--safetensors", "packed"];
    for (args, made) in [
        (&["dummy", "--model", "demo", "-o", text(&model)][..], &models),
        (&["man", text(&pages)][..], &pages),
        (&checkpoint_args[..], &checkpoint),
    ] {
        let note = format!("note: made the directory {}", made.display());
        assert!(run(args).contains(&note), "{args:?}");
    }
    assert!(!run(&["man", text(&pages)]).contains("note: made"));
    let fails = |args: &[&str]| {
        let output = sandbox.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        stderr(&output)
    };
    // What a path only passes through is not made for it.
    let through = sandbox.path("absent/../model.gguf");
    let said = fails(&["dummy", "--model", "demo", "-o", text(&through)]);
    assert!(said.contains("leads back out of what is not there"), "{said}");
    assert!(!sandbox.path("absent").exists());
    let said = fails(&["dummy", "--model", "demo", "-o", "-"]);
    assert!(said.contains("hint: name a file"), "{said}");
    let long = sandbox.path(&"x".repeat(300));
    let said = fails(&["dummy", "--model", "demo", "-o", text(&long)]);
    assert!(said.contains("too long"), "{said}");
    let refused = sandbox.command(&checkpoint_args).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("holds a checkpoint already") && said.contains("hint: "), "{said}");
}

/// What is said beside the work goes to stderr; where that is full, the work goes on and its exit code stays.
#[test]
fn a_full_stderr_stops_nothing() {
    let sandbox = Sandbox::new();
    let preset = sandbox.path("here.toml");
    let tune = ["tune", "--effort", "estimate", "--shape", "256x256", "-t", "1", "-o"];
    for (args, code) in [
        (&["presets", "list"][..], 0),
        (&["presets", "path"], 0),
        (&["doctor"], 0),
        (&[&tune[..], &[text(&preset)]].concat(), 0),
        (&["presets", "show", "no-such-preset"], 1),
        (&["run", "no-such-file.gguf"], 1),
        (&["codegen", "--shape", "0x1"], 2),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(assert_cmd::cargo::cargo_bin("trilut"))
            .args(args)
            .env("XDG_CACHE_HOME", sandbox.path("cache"))
            .stderr(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
    assert!(preset.exists());
}

/// A full stdout is an error, which says what it is about.
#[test]
fn a_full_stdout_is_told() {
    let sandbox = Sandbox::new();
    for args in [
        &["presets", "show", "x86_64/zen3"][..],
        &["presets", "list"],
        &["doctor"],
        &["completions", "bash"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(assert_cmd::cargo::cargo_bin("trilut"))
            .args(args)
            .env("XDG_CACHE_HOME", sandbox.path("cache"))
            .stdout(full)
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error: cannot write to the standard output\n"), "{said}");
        assert!(said.contains("caused by: No space left on device"), "{said}");
    }
}
