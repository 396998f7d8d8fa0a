//! Runs that are killed between the search and the check of the model as a whole: nothing is lost, and nothing
//! stands unchecked.

mod common;

use common::{Sandbox, stderr};
use std::path::{Path, PathBuf};

/// More than any search takes, also on a busy machine: none is cut short.
const ENOUGH: [&str; 2] = ["--time-limit", "10m"];

/// Tunes for the embedded model, with its check at the end.
fn tune(sandbox: &Sandbox, file: &Path, more: &[&str]) -> String {
    let args = ["tune", "-t", "1", "--phase", "decode", "--format", "i2_s"];
    let args = [&args[..], &ENOUGH, &["-o", file.to_str().unwrap()], more].concat();
    let output = sandbox.command(&args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn log_of(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".trials");
    path.into()
}

/// What a run leaves that was killed before it could save anything.
fn kill_before_saving(file: &Path) {
    let log = std::fs::read_to_string(log_of(file)).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.iter().rposition(|line| *line == "\"saved\"").unwrap();
    assert_eq!(last, lines.len() - 1, "the last word of a run");
    std::fs::write(log_of(file), lines[..last].join("\n") + "\n").unwrap();
    std::fs::remove_file(file).unwrap();
}

/// The layers of which a preset has records.
fn shapes(file: &Path) -> Vec<String> {
    let saved = std::fs::read_to_string(file).unwrap();
    let shapes = saved.lines().filter(|line| line.starts_with("shape = "));
    shapes.map(str::to_owned).collect()
}

#[test]
fn a_run_killed_in_its_check_is_resumed_there() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("demo.toml");
    tune(&sandbox, &file, &[]);
    let before = shapes(&file);
    assert!(!before.is_empty());
    kill_before_saving(&file);
    let told = tune(&sandbox, &file, &[]);
    assert!(told.contains("resumed: ") && !told.contains("tuning "), "{told}");
    assert!(told.contains("saved to "), "{told}");
    assert_eq!(shapes(&file), before);
    // The picks that there are went through the check.
    let log = std::fs::read_to_string(log_of(&file)).unwrap();
    let is_checked = std::fs::read_to_string(&file).unwrap().contains("\nmodel = [");
    assert_eq!(told.contains("the model, decode"), is_checked, "{told}");
    assert!(log.ends_with("\"saved\"\n"), "{log}");
    let told = tune(&sandbox, &file, &[]);
    assert!(told.contains("nothing to do"), "{told}");
}

#[test]
fn the_check_says_what_it_compares_with_and_the_table_what_came_of_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("demo.toml");
    let args = ["tune", "-t", "1", "--phase", "decode", "--format", "tl1"];
    let pages = sandbox.path("pages");
    let more = ["-o", file.to_str().unwrap(), "--report", pages.to_str().unwrap()];
    let output = sandbox.command(&[&args[..], &ENOUGH, &more].concat()).output().unwrap();
    let (told, shown) = (stderr(&output), String::from_utf8(output.stdout.clone()).unwrap());
    assert!(output.status.success(), "{told}");
    let page = std::fs::read_to_string(pages.join("index.html")).unwrap();
    // What was picked, as opposed to what nothing beat, went through the check.
    let saved = std::fs::read_to_string(&file).unwrap();
    let is_checked = saved.contains("\nmodel = [");
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("the model, decode")).collect();
    assert_eq!(!lines.is_empty(), is_checked, "{told}");
    for line in lines {
        assert!(line.contains("against the default kernels for tl1"), "{line}");
        assert!(page.contains(&line.replace('>', "&gt;")), "{page}");
        assert_eq!(line.contains("the default stays"), shown.contains("default (gate)"), "{shown}");
    }
    assert!(!saved.contains("format = \"i2_s\""), "{saved}");
}

#[test]
fn what_waits_for_its_check_is_not_saved_by_runs_for_other_models() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("demo.toml");
    tune(&sandbox, &file, &[]);
    let before = shapes(&file);
    kill_before_saving(&file);
    let text = file.to_str().unwrap();
    let other = ["tune", "--shape", "64x512", "--phase", "decode", "--effort", "estimate"];
    for more in [&["--time-limit", "20s"][..], &["--force", "--time-limit", "20s"]] {
        let args = [&other[..], &["-t", "1", "-o", text], more].concat();
        let output = sandbox.command(&args).output().unwrap();
        let told = stderr(&output);
        assert!(output.status.success() && told.contains("wait for its check"), "{told}");
        assert_eq!(shapes(&file), ["shape = \"64x512\""], "{told}");
    }
    // Its own run checks it, without tuning anything again.
    let told = tune(&sandbox, &file, &[]);
    assert!(told.contains("resumed: ") && !told.contains("tuning "), "{told}");
    assert_eq!(shapes(&file).len(), before.len() + 1);
    let log = std::fs::read_to_string(log_of(&file)).unwrap();
    assert!(log.ends_with("\"saved\"\n"), "nothing waits any longer: {log}");
}

#[test]
fn who_forgoes_the_check_keeps_what_waited_for_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("demo.toml");
    tune(&sandbox, &file, &[]);
    let before = shapes(&file);
    kill_before_saving(&file);
    let told = tune(&sandbox, &file, &["--no-gate"]);
    assert!(told.contains("resumed: ") && !told.contains("the model, decode"), "{told}");
    assert_eq!(shapes(&file), before);
}
