//! The tuner and its presets as a user meets them, with everything that can go wrong.

mod common;

use common::{Sandbox, stderr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Output {
    sandbox.command(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn ok(sandbox: &Sandbox, args: &[&str]) -> String {
    let output = run(sandbox, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

/// Runs a command that must fail with `code`; returns its stderr.
fn fails(sandbox: &Sandbox, code: i32, args: &[&str]) -> String {
    let output = run(sandbox, args);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
    assert!(code == 130 || told.contains("error: "), "{told}");
    told
}

/// Runs a command until it comes to what is asked for: on a busy machine an estimate has no time for all of its
/// layers, and the next run goes on from there.
fn until(sandbox: &Sandbox, args: &[&str], is_there: impl Fn(&Output) -> bool) -> Output {
    for _ in 0..10 {
        let output = run(sandbox, args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        if is_there(&output) {
            return output;
        }
    }
    panic!("the machine is too busy for {args:?}");
}

/// A preset of some shapes, made quickly.
fn quick(sandbox: &Sandbox, name: &str, shapes: &[&str]) -> std::path::PathBuf {
    let file = sandbox.path(name);
    let mut args =
        vec!["tune", "--effort", "estimate", "--time-limit", "20s", "-t", "1", "-o", text(&file)];
    shapes.iter().for_each(|shape| args.extend(["--shape", shape]));
    until(sandbox, &args, |output| !stderr(output).contains("untuned"));
    file
}

/// A run that takes a while: many shapes, at leisure.
fn long(file: &Path) -> Vec<String> {
    let mut args: Vec<String> =
        ["tune", "--effort", "measure", "-t", "1", "--phase", "decode"].map(str::to_owned).to_vec();
    args.extend(["--time-limit".into(), "60s".into(), "-o".into(), text(file).into()]);
    for n in 1..=8 {
        args.extend(["--shape".into(), format!("{}x512", 32 * n)]);
    }
    args
}

/// Starts a long run and waits until its log says that a layer is finished.
fn begun(sandbox: &Sandbox, file: &Path) -> std::process::Child {
    let args = long(file);
    let mut command = Command::new(env!("CARGO_BIN_EXE_trilut"));
    command.args(&args).env("XDG_CACHE_HOME", sandbox.path("cache"));
    for name in ["TRILUT_PRESETS", "TRILUT_ISA", "TRILUT_THREADS"] {
        command.env_remove(name);
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (begin, log) = (Instant::now(), log_of(file));
    loop {
        let written = std::fs::read_to_string(&log).unwrap_or_default();
        if written.contains("{\"done\"") {
            return child;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        assert!(begin.elapsed() < Duration::from_secs(120), "nothing is finished: {written}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn log_of(file: &Path) -> std::path::PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".trials");
    path.into()
}

#[test]
fn a_killed_run_is_resumed() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("killed.toml");
    let mut child = begun(&sandbox, &file);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!file.exists(), "nothing was saved before the end");
    // A moment is enough to take over what was finished.
    let mut args = long(&file);
    let limit = args.iter().position(|arg| arg == "60s").unwrap();
    args[limit] = "1ms".to_owned();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let again = run(&sandbox, &args);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(stderr(&again).contains("resumed: "), "{}", stderr(&again));
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(saved.contains("[[record]]") && saved.contains("[record.evidence]"), "{saved}");
    // Taken over once, not again.
    assert!(!stderr(&run(&sandbox, &args)).contains("resumed"));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_is_finished() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("interrupted.toml");
    let child = begun(&sandbox, &file);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("finished and kept"), "{}", stderr(&output));
    let saved = std::fs::read_to_string(&file).unwrap();
    let finished = saved.matches("[[record]]").count();
    assert!((1..8).contains(&finished), "{finished}");
}

#[test]
fn two_tuners_at_once_do_not_spoil_each_other() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("shared.toml");
    let mut child = begun(&sandbox, &file);
    let args = ["tune", "--shape", "64x256", "-t", "1", "-o", text(&file)];
    let told = fails(&sandbox, 1, &args);
    assert!(told.contains("another `trilut tune`") && told.contains("hint: "), "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock goes with the process that held it.
    ok(&sandbox, &[&args[..], &["--effort", "estimate"]].concat());
}

#[test]
fn nothing_is_tuned_twice_but_by_force_and_what_is_stale() {
    let sandbox = Sandbox::new();
    let file = quick(&sandbox, "a.toml", &["64x256", "96x256"]);
    let args = ["tune", "--effort", "estimate", "-t", "1", "--shape", "64x256", "--shape"];
    let args = [&args[..], &["96x256", "-o", text(&file)]].concat();
    assert!(stderr(&run(&sandbox, &args)).contains("nothing to do"));
    let forced = run(&sandbox, &[&args[..], &["--force"]].concat());
    assert!(stderr(&forced).contains("tuning 6 shapes"), "{}", stderr(&forced));
    // What it had no time for may be stale by what it found.
    quick(&sandbox, "a.toml", &["64x256", "96x256"]);
    // Another microcode than one record of decoding was made with: that one alone is stale, and the small
    // batches that run in its format.
    let saved = std::fs::read_to_string(&file).unwrap();
    let Some(at) = saved.find("microcode = ").filter(|_| saved.contains("[record.evidence]"))
    else {
        return;
    };
    let in_record = saved[at..].find("[record.evidence]").map(|next| at + next).unwrap();
    let changed = saved[..in_record].to_owned()
        + &saved[in_record..].replacen("microcode = \"", "microcode = \"0xold", 1);
    std::fs::write(&file, changed).unwrap();
    let one = run(&sandbox, &args);
    assert!(stderr(&one).contains("tuning 2 shapes for"), "{}", stderr(&one));
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_leaves_the_earlier_preset() {
    let sandbox = Sandbox::new();
    let file = quick(&sandbox, "full.toml", &["64x256"]);
    let before = std::fs::read(&file).unwrap();
    // Files of this process may have a kilobyte: writes beyond it fail as on a full disk.
    let script = format!(
        "trap '' XFSZ; ulimit -f 1; exec '{}' tune --shape 128x256 --effort estimate -t 1 -o '{}'",
        env!("CARGO_BIN_EXE_trilut"),
        text(&file),
    );
    // A run that had no time to find anything has nothing to write.
    let run = || {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("XDG_CACHE_HOME", sandbox.path("cache"));
        command.output().unwrap()
    };
    let mut runs = std::iter::repeat_with(run).take(10);
    let output = runs.find(|output| !output.status.success()).expect("a run that finds something");
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error: cannot write the preset") && told.contains("hint: "), "{told}");
    // What was found is at least seen.
    assert!(stdout(&output).contains("128x256"), "{}", stdout(&output));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let directory = file.parent().unwrap();
    let sides = std::fs::read_dir(directory).unwrap().flatten();
    let sides: Vec<_> =
        sides.filter(|e| e.file_name().to_string_lossy().ends_with(".tmp")).collect();
    assert!(sides.is_empty(), "{sides:?}");
}

#[test]
fn a_place_that_cannot_be_written_is_found_before_any_work() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("file"), "").unwrap();
    let under = sandbox.path("file/a.toml");
    let begin = Instant::now();
    let told = fails(&sandbox, 1, &["tune", "--shape", "64x256", "-o", text(&under)]);
    assert!(told.contains("cannot write") && begin.elapsed() < Duration::from_secs(20), "{told}");
    assert!(fails(&sandbox, 2, &["tune", "--shape", "64x256", "-t", "0"]).contains("--threads"));
    assert!(fails(&sandbox, 2, &["tune", "--effort", "heroic"]).contains("exhaustive"));
    let told = fails(&sandbox, 1, &["tune", "-m", text(&sandbox.path("no.gguf"))]);
    assert!(told.contains("no.gguf"), "{told}");
    // A known model's name that was mistyped.
    let told = fails(&sandbox, 1, &["tune", "bitnet-2b-4"]);
    assert!(told.contains("trilut tune -m bitnet-2b-4t"), "{told}");
}

#[test]
fn several_numbers_of_threads_are_compared() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("threads.toml");
    let args =
        ["tune", "--shape", "64x256", "--effort", "estimate", "-t", "2,1", "-o", text(&file)];
    let shown = until(&sandbox, &args, |output| !stderr(output).contains("untuned"));
    let shown = stdout(&shown);
    assert!(shown.contains("decode ms/token") && shown.contains("fastest with"), "{shown}");
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(saved.contains("\nthreads = 1\n") && saved.contains("\nthreads = 2\n"), "{saved}");
}

#[test]
fn the_space_is_listed_with_reasons() {
    let sandbox = Sandbox::new();
    let listed = ok(&sandbox, &["tune", "--list-space"]);
    for word in
        ["reason", "prefetch", "rows_per_task", "3840", "threads idle", "400 points", "here"]
    {
        assert!(listed.contains(word), "{word}: {listed}");
    }
}

#[test]
fn the_space_is_listed_for_the_layers_that_are_asked_for() {
    let sandbox = Sandbox::new();
    let args = ["tune", "--list-space", "--phase", "decode", "--shape", "64x256", "-t"];
    let listed = |threads: &str| ok(&sandbox, &[&args[..], &[threads]].concat());
    let one = listed("1");
    let rows = |word: &str| one.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((rows("decode  64x256"), rows("batch  "), rows("prefill  ")), (3, 0, 0), "{one}");
    // A single thread takes all rows; of two, each may take them in halves of its share.
    let splits = |listed: &str| {
        let line = listed.lines().find(|line| line.contains("rows_per_task")).unwrap();
        line.split("rows_per_task").nth(1).unwrap().trim_start().to_owned()
    };
    assert!(splits(&one).starts_with("0  "), "{one}");
    assert!(!splits(&ok(&sandbox, &["tune", "--list-space"])).starts_with("0  "));
    let wide = ["tune", "--list-space", "--phase", "decode", "--shape", "256x256", "-t", "2"];
    assert!(splits(&ok(&sandbox, &wide)).starts_with("0 32 64  "));
}

#[test]
fn what_the_time_cuts_short_is_an_estimate_and_taken_up_again() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("short.toml");
    let args = ["tune", "--shape", "64x256", "--phase", "decode", "-t", "1", "-o", text(&file)];
    let tune = |more: &[&str]| run(&sandbox, &[&args[..], more].concat());
    // Time to begin, and far from enough to take a sample at each point of the grid.
    let short = ["--effort", "exhaustive", "--time-limit", "200ms"];
    let first = tune(&short);
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stderr(&first).contains("cut the search of 1 shape short"), "{}", stderr(&first));
    let saved = || std::fs::read_to_string(&file).unwrap();
    let has = |effort: &str| saved().contains(&format!("effort = \"{effort}\""));
    assert!(has("estimate") && !has("exhaustive"), "{}", saved());
    assert!(!stderr(&tune(&short)).contains("nothing to do"));
    // What a whole search found stays.
    ok(&sandbox, &[&args[..], &["--time-limit", "10m"]].concat());
    assert!(has("measure"), "{}", saved());
    let (before, again) = (saved(), tune(&short));
    assert!(stderr(&again).contains("of more effort, stays"), "{}", stderr(&again));
    assert_eq!(saved(), before);
    assert!(stdout(&again).contains("decode"), "{}", stdout(&again));
}

#[test]
fn a_shape_larger_than_the_memory_is_an_error_that_says_so() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("large.toml");
    let args =
        ["tune", "--shape", "16777216x1048576", "--phase", "decode", "-t", "1", "-o", text(&file)];
    let told = fails(&sandbox, 1, &args);
    assert!(told.contains("bytes of memory are needed to time 16777216x1048576"), "{told}");
    assert!(told.contains("hint: ") && !told.contains("time limit") && !file.exists(), "{told}");
    // Beside one that fits, that one is kept.
    let told =
        fails(&sandbox, 1, &[&args[..], &["--shape", "64x256", "--effort", "estimate"]].concat());
    assert!(told.contains("error: 1 shape could not be tuned"), "{told}");
    assert!(told.contains("needed to time 16777216x1048576"), "{told}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("shape = \"64x256\"").count(), 1);
}

#[test]
fn the_page_is_written_whatever_there_is_to_do() {
    let sandbox = Sandbox::new();
    let (file, pages) = (sandbox.path("a.toml"), sandbox.path("pages"));
    let args =
        ["tune", "--shape", "64x256", "--phase", "decode", "--effort", "estimate", "-t", "1"];
    let args = [&args[..], &["-o", text(&file)]].concat();
    let report = ["--report", text(&pages)];
    let page = || {
        let args = [&args[..], &report].concat();
        let told = until(&sandbox, &args, |output| !stderr(output).contains("untuned"));
        assert!(stderr(&told).contains("report: "), "{}", stderr(&told));
        std::fs::read_to_string(pages.join("index.html")).unwrap()
    };
    let first = page();
    assert_eq!((first.matches("<section>").count(), first.matches("<tr><td>").count()), (1, 1));
    let second = page();
    assert_eq!((second.matches("<section>").count(), second.matches("<tr><td>").count()), (0, 1));
    assert!(second.contains("tuned by an earlier run"));
    // Where it cannot be written, nothing is done.
    std::fs::write(sandbox.path("file"), "").unwrap();
    let other = sandbox.path("b.toml");
    let args = ["tune", "--shape", "64x256", "-t", "1", "-o", text(&other)];
    let told =
        fails(&sandbox, 1, &[&args[..], &["--report", text(&sandbox.path("file"))]].concat());
    assert!(told.contains("cannot write") && !told.contains("tuning "), "{told}");
    assert!(!other.exists());
}

#[test]
fn odd_arguments_are_taken_or_refused_clearly() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("odd.toml");
    let args = ["tune", "--shape", "64x256", "--effort", "estimate", "-o", text(&file)];
    let told = fails(&sandbox, 2, &[&args[..], &["--time-limit", "-5s"]].concat());
    assert!(told.contains("a time cannot be negative"), "{told}");
    for (odd, says) in [
        (&["--time-limit", "0s"][..], "in no time nothing is tuned"),
        (&["-t", "2,"], "not 1 to 1024"),
        (&["-t", "9999"], "not 1 to 1024"),
        (&["bitnet-2b-4t"], "cannot be used with"),
    ] {
        let told = fails(&sandbox, 2, &[&args[..], odd].concat());
        assert!(told.contains(says), "{odd:?}: {told}");
    }
    let told = fails(&sandbox, 2, &["tune", "--shape", "64x256", "--rounds", "5"]);
    assert!(told.contains("--record"), "{told}");
    let named = ok(&sandbox, &["tune", "bitnet-2b-4t", "--list-space"]);
    assert!(named.contains("6912x2560"), "{named}");
    assert_eq!(named, ok(&sandbox, &["tune", "-m", "bitnet-2b-4t", "--list-space"]));
    // A number of threads that is given twice is one.
    let twice = run(&sandbox, &[&args[..], &["-t", "1,1", "--time-limit", "20s"]].concat());
    assert!(twice.status.success(), "{}", stderr(&twice));
    assert_eq!(stdout(&twice).matches("phase  ").count(), 1, "{}", stdout(&twice));
    assert_eq!(stderr(&twice).matches("tuning 3 shapes").count(), 1, "{}", stderr(&twice));
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_not_replaced() {
    let sandbox = Sandbox::new();
    let link = sandbox.path("link.toml");
    std::os::unix::fs::symlink(sandbox.path("gone.toml"), &link).unwrap();
    let args = ["tune", "--shape", "64x256", "--effort", "estimate", "-t", "1", "-o", text(&link)];
    let told = fails(&sandbox, 1, &args);
    assert!(told.contains("gone.toml, which is not there") && told.contains("hint: "), "{told}");
    assert!(link.is_symlink());
    // One to a file is written through.
    quick(&sandbox, "gone.toml", &["96x256"]);
    until(&sandbox, &args, |output| !stderr(output).contains("untuned"));
    assert!(link.is_symlink());
    assert!(std::fs::read_to_string(sandbox.path("gone.toml")).unwrap().contains("64x256"));
    // So is one to an empty file, which is not set aside as a broken preset.
    std::fs::write(sandbox.path("gone.toml"), "").unwrap();
    until(&sandbox, &args, |output| !stderr(output).contains("untuned"));
    assert!(link.is_symlink());
    assert!(std::fs::read_to_string(sandbox.path("gone.toml")).unwrap().contains("64x256"));
}

#[cfg(unix)]
#[test]
fn a_preset_does_not_take_the_place_of_a_file_of_the_system() {
    let sandbox = Sandbox::new();
    let file = std::fs::File::create(sandbox.path("redirected")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trilut"))
        .args(["tune", "--shape", "64x256", "--effort", "estimate", "-o", "/dev/stdout"])
        .env("XDG_CACHE_HOME", sandbox.path("cache"))
        .stdout(file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("the system's own files"), "{}", stderr(&output));
}

#[test]
fn presets_are_compared_merged_exported_and_found() {
    let sandbox = Sandbox::new();
    let a = quick(&sandbox, "a.toml", &["64x256", "96x256"]);
    let b = quick(&sandbox, "b.toml", &["96x256", "128x256"]);
    let same = run(&sandbox, &["presets", "diff", text(&a), text(&a)]);
    assert!(same.status.success() && stderr(&same).contains("say the same"));
    let diff = ok(&sandbox, &["presets", "diff", text(&a), text(&b)]);
    for word in ["64x256", "128x256", "+", "-"] {
        assert!(diff.contains(word), "{word}: {diff}");
    }
    let merged = ok(&sandbox, &["presets", "merge", text(&a), text(&b)]);
    assert_eq!(merged, ok(&sandbox, &["presets", "merge", text(&b), text(&a)]), "in any order");
    for shape in ["64x256", "96x256", "128x256"] {
        assert_eq!(merged.matches(&format!("shape = \"{shape}\"")).count(), 3, "{merged}");
    }
    let out = sandbox.path("merged.toml");
    ok(&sandbox, &["presets", "merge", text(&a), text(&b), "-o", text(&out)]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), merged);
    let foreign = sandbox.path("foreign.toml");
    std::fs::write(&foreign, merged.replace("family = ", "family = 9")).unwrap();
    let told = fails(&sandbox, 1, &["presets", "merge", text(&a), text(&foreign)]);
    assert!(told.contains("different CPUs"), "{told}");

    let path = ok(&sandbox, &["presets", "path"]);
    assert!(path.trim().ends_with(".toml") && path.contains("presets"), "{path}");
    let told = fails(&sandbox, 1, &["presets", "export", text(&sandbox.path("out"))]);
    assert!(told.contains("nothing was tuned here"), "{told}");
    let cached = Path::new(path.trim());
    std::fs::create_dir_all(cached.parent().unwrap()).unwrap();
    std::fs::copy(&a, cached).unwrap();
    let exported = ok(&sandbox, &["presets", "export", text(&sandbox.path("out"))]);
    let exported = Path::new(exported.trim());
    assert_eq!(std::fs::read(exported).unwrap(), std::fs::read(&a).unwrap());
    ok(&sandbox, &["presets", "export", text(&sandbox.path("out"))]);
    std::fs::copy(&b, cached).unwrap();
    let told = fails(&sandbox, 1, &["presets", "export", text(&sandbox.path("out"))]);
    assert!(told.contains("is there already") && told.contains("--force"), "{told}");
    ok(&sandbox, &["presets", "export", text(&sandbox.path("out")), "--force"]);
}

#[test]
fn verify_tells_claims_that_hold_from_those_that_do_not() {
    let sandbox = Sandbox::new();
    let file = quick(&sandbox, "a.toml", &["64x256"]);
    let held = ok(&sandbox, &["presets", "verify", text(&file), "--sample", "0"]);
    assert!(held.contains("exact"), "{held}");
    let good = std::fs::read_to_string(&file).unwrap();
    let changed = |from: &str, to: &str| {
        let bad = sandbox.path("bad.toml");
        let lines = good.lines().map(|line| match line.starts_with(from) {
            true => format!("{to}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(&bad, lines.collect::<String>()).unwrap();
        bad
    };
    // A kernel that this build lacks.
    let lacking = changed("kernel = ", "kernel = \"my_own_kernel\"");
    let told = fails(&sandbox, 3, &["presets", "verify", text(&lacking)]);
    assert!(told.contains("can be checked here"), "{told}");
    // A preset that claims nothing, and one whose samples differed.
    let nothing = sandbox.path("nothing.toml");
    std::fs::write(&nothing, good.split("[[record]]").next().unwrap()).unwrap();
    let told = fails(&sandbox, 3, &["presets", "verify", text(&nothing)]);
    assert!(told.contains("has no records"), "{told}");
    let quiet = changed("noise = ", "noise = 0.0500");
    let told = run(&sandbox, &["presets", "verify", text(&quiet), "--sample", "0"]);
    let is_said = stderr(&told).contains("samples differed");
    assert!(told.status.success() && !is_said, "{}", stderr(&told));
    let noisy = changed("noise = ", "noise = 0.5744");
    let told = run(&sandbox, &["presets", "verify", text(&noisy), "--sample", "0"]);
    assert!(told.status.success() && stderr(&told).contains("57 % at most"), "{}", stderr(&told));
    // A claim to be far faster than the default, which may be the pick itself.
    let bad = sandbox.path("boast.toml");
    let boast = good
        .lines()
        .map(|line| match line {
            _ if line.starts_with("default_ns") => "default_ns = 4000000000\n".to_owned(),
            _ if line.starts_with("median_ns") => "median_ns = 1\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect::<String>();
    std::fs::write(&bad, &boast).unwrap();
    assert!(fails(&sandbox, 3, &["presets", "verify", text(&bad)]).contains("do not hold"));
    // A preset of another CPU is checked for exactness alone.
    let moved = changed("stepping = ", "stepping = 99");
    let elsewhere = run(&sandbox, &["presets", "verify", text(&moved)]);
    assert!(elsewhere.status.success(), "{}", stderr(&elsewhere));
    assert!(stdout(&elsewhere).contains("times are of another CPU"), "{}", stdout(&elsewhere));
}

#[test]
fn presets_that_cannot_be_read_are_explained_by_every_command() {
    let sandbox = Sandbox::new();
    let good = quick(&sandbox, "good.toml", &["64x256"]);
    let original = std::fs::read_to_string(&good).unwrap();
    let bad = sandbox.path("bad.toml");
    // In a name: a file that ends behind a whole line may be a shorter preset.
    let middle = original.rfind("kernel = \"").unwrap() + 12;
    for (broken, word) in [
        (original.replace("schema = 1", "schema = 7"), "schema 7 is newer"),
        (original[..middle].to_owned(), "bad.toml"),
        (original.replace("median_ns = ", "median_ns = -"), "line"),
        (original.replace("shape = \"64x256\"", "shape = \"banana\""), "banana"),
        (String::new(), "schema"),
    ] {
        std::fs::write(&bad, &broken).unwrap();
        for args in [
            &["presets", "show", text(&bad)][..],
            &["presets", "verify", text(&bad)],
            &["presets", "diff", text(&good), text(&bad)],
            &["presets", "merge", text(&bad), text(&good)],
        ] {
            let told = fails(&sandbox, 1, args);
            assert!(told.contains(word) && told.contains("hint: "), "{word}: {told}");
        }
        // The tuner sets it aside and says so.
        let args =
            ["tune", "--shape", "64x256", "--effort", "estimate", "-t", "1", "-o", text(&bad)];
        until(&sandbox, &args, |output| stderr(output).contains("was moved to"));
    }
    // What never was a preset keeps its name.
    std::fs::write(&bad, "127.0.0.1 localhost\n").unwrap();
    let args = ["tune", "--shape", "64x256", "--effort", "estimate", "-o", text(&bad)];
    assert!(fails(&sandbox, 1, &args).contains("is no preset"));
    assert_eq!(std::fs::read_to_string(&bad).unwrap(), "127.0.0.1 localhost\n");
}

#[test]
fn kernels_are_ranked_and_the_pick_is_marked() {
    let sandbox = Sandbox::new();
    let args = ["bench", "kernels", "--shape", "64x256", "--phase", "decode", "-t", "1"];
    let quick = ["--samples", "3", "--format", "i2_s"];
    let table = ok(&sandbox, &[&args[..], &quick].concat());
    assert_eq!(table.matches("<--").count(), 1, "{table}");
    assert!(table.contains("regret of 1 pick:") && table.contains("more rows"), "{table}");
    // A preset that picks the portable kernel is far off.
    let file = sandbox.path("slow.toml");
    let tune =
        ["tune", "--phase", "decode", "--shape", "64x256", "--effort", "estimate", "-t", "1"];
    let tune = [&tune[..], &["-o", text(&file)]].concat();
    until(&sandbox, &tune, |output| !stderr(output).contains("untuned"));
    let saved = std::fs::read_to_string(&file).unwrap();
    let isa = saved.lines().find(|line| line.starts_with("isa = ")).unwrap().to_owned();
    if isa.contains("scalar") {
        return;
    }
    let slow: String = saved
        .lines()
        .map(|line| match line.starts_with("kernel = \"gemv") {
            true => "kernel = \"gemv_i2s_madd_r1u1_scalar\"\n".to_owned(),
            false if line.starts_with("format = ") => "format = \"i2_s\"\n".to_owned(),
            false => format!("{line}\n"),
        })
        .collect();
    std::fs::write(&file, slow).unwrap();
    let asserted = ["--preset", text(&file), "--assert", "--tolerance", "5"];
    let output = run(&sandbox, &[&args[..], &quick, &asserted].concat());
    assert_eq!(output.status.code(), Some(3), "{} {}", stdout(&output), stderr(&output));
    assert!(stderr(&output).contains("more than 5 % off"), "{}", stderr(&output));
    assert!(fails(&sandbox, 2, &["bench", "kernels"]).contains("--shape"));
    assert!(fails(&sandbox, 2, &[&args[..], &["--tolerance=-3"]].concat()).contains("tolerance"));
}
