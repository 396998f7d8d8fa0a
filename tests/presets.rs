//! Presets that are broken, foreign, of the same name or in the way: nothing is lost, nothing hangs, and what
//! is passed over is said.

mod common;
#[path = "common/outcome.rs"]
mod outcome;

use common::{Sandbox, stderr};
use std::path::{Path, PathBuf};
use trilut::kernels::Cpu;
use trilut::presets::preset::{Effort, Provenance, Record, Weights};
use trilut::presets::{Format, Machine, Phase, Preset, Tile};

/// A kernel of every build.
const KERNEL: &str = "gemv_i2s_dot_r1u1_scalar";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A measured record of decoding with one thread.
fn record(shape: &str, kernel: &str) -> Record {
    Record {
        shape: shape.parse().unwrap(),
        phase: Phase::Decode,
        tokens: 1,
        threads: 1,
        format: Format::I2S,
        formats: vec![Format::I2S],
        space: 1,
        kernel: kernel.to_owned(),
        hash: 1,
        tile: Tile::default(),
        effort: Effort::Measure,
        weights: Weights::Cold,
        median_ns: 10,
        samples: vec![10],
        default_kernel: KERNEL.to_owned(),
        default_ns: 10,
        scalar_ns: None,
        confidence: None,
        from: None,
        evidence: None,
    }
}

/// A preset of a machine with the best ISA of this one.
fn preset(machine: Machine, records: Vec<Record>) -> Preset {
    let provenance = Provenance {
        trilut: "0.1.0".to_owned(),
        date: "2026-11-22T00:00:00Z".to_owned(),
        isa: Cpu::detect().best().isa(),
        effort: Effort::Measure,
        threads: 1,
        noise: Some(0.01),
    };
    Preset::new(provenance, machine, records)
}

fn here(shapes: &[&str]) -> Preset {
    preset(Machine::detect(), shapes.iter().map(|shape| record(shape, KERNEL)).collect())
}

impl Sandbox {
    /// A file with a preset.
    fn saved(&self, name: &str, preset: &Preset) -> PathBuf {
        let path = self.path(name);
        preset.save(&path).unwrap();
        path
    }

    /// The file in which tuning is remembered, in a directory that is there.
    fn cached(&self) -> PathBuf {
        let path = PathBuf::from(self.ok(&["presets", "path"]).trim());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

/// The names of a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn an_estimate_leaves_alone_what_it_cannot_read() {
    let sandbox = Sandbox::new();
    let cached = sandbox.cached();
    let newer = here(&["64x128"]).to_text().replace("schema = 1", "schema = 9");
    for (kept, why) in [(&newer[..], "schema 9 is newer"), ("my diary", "line 1 is not valid")] {
        std::fs::write(&cached, kept).unwrap();
        let output = sandbox.run(&["run", "x", "-n", "2"]);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        assert_eq!(std::fs::read_to_string(&cached).unwrap(), kept);
        assert_eq!(names(cached.parent().unwrap()).len(), 1, "{said}");
        let note = |start: &str| said.lines().any(|l| l.starts_with(start) && l.contains(why));
        assert!(note("note: passed over: preset "), "{said}");
        assert!(note("note: the records are not kept: preset "), "{said}");
    }
    std::fs::remove_file(&cached).unwrap();
    std::fs::create_dir(&cached).unwrap();
    let output = sandbox.run(&["run", "x", "-n", "2"]);
    assert!(output.status.success() && cached.is_dir());
    assert!(stderr(&output).contains("it is a directory"), "{}", stderr(&output));
}

/// Another build has measured with a kernel that this one lacks; both use the cache.
#[test]
fn an_estimate_does_not_replace_what_another_build_has_measured() {
    let sandbox = Sandbox::new();
    let cached = sandbox.cached();
    let run = || {
        let output = sandbox.run(&["run", "x", "-n", "1", "-t", "1"]);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        said
    };
    run();
    let estimated = Preset::load(&cached).unwrap();
    let layer = estimated.records()[0].shape.to_string();
    let measured = record(&layer, "gemv_of_another_build");
    preset(Machine::detect(), vec![measured.clone()]).save(&cached).unwrap();
    let said = run();
    assert!(said.contains("note: 1 of the records are not kept: "), "{said}");
    let both = Preset::load(&cached).unwrap();
    assert_eq!(both.records().len(), estimated.records().len());
    let kept = both.record(measured.shape, measured.phase, 1).unwrap();
    assert_eq!((&kept.kernel, kept.effort), (&measured.kernel, Effort::Measure));
}

/// One for another CPU counts on a rung further down.
#[test]
fn a_file_of_which_something_is_used_is_not_called_in_vain() {
    let sandbox = Sandbox::new();
    let mut sibling = here(&["64x128"]);
    sibling.machine.model += 1;
    let file = sandbox.saved("sibling.toml", &sibling);
    let said = || {
        let mut command = sandbox.command(&["presets", "path"]);
        let output = command.env("TRILUT_PRESETS", &file).output().unwrap();
        assert!(output.status.success());
        stderr(&output)
    };
    assert!(!said().contains("note: "), "{}", said());
    // What was measured on this CPU is all that is used.
    here(&["64x128"]).save(&sandbox.cached()).unwrap();
    assert!(said().contains("note: nothing of TRILUT_PRESETS is used: "), "{}", said());
}

#[test]
fn the_list_shows_the_efforts_of_the_records() {
    let sandbox = Sandbox::new();
    let cached = sandbox.cached();
    let with = |efforts: &[Effort]| {
        let records = efforts.iter().zip(["64x128", "64x256", "64x384"]);
        let records = records.map(|(&effort, at)| Record { effort, ..record(at, KERNEL) });
        let mut preset = preset(Machine::detect(), records.collect());
        preset.provenance.effort = Effort::Estimate;
        preset.save(&cached).unwrap();
        let list = sandbox.ok(&["presets", "list"]);
        let line = list.lines().find(|line| line.contains(text(&cached))).unwrap();
        line.split("  ").filter(|cell| !cell.is_empty()).nth(4).unwrap().trim().to_owned()
    };
    assert_eq!(with(&[Effort::Measure, Effort::Measure]), "measure");
    let mixed = with(&[Effort::Measure, Effort::Estimate, Effort::Patient]);
    assert_eq!(mixed, "estimate - patient");
    assert_eq!(with(&[]), "estimate");
}

/// Also where another preset would do: who keeps a file there expects it to be used.
#[test]
fn files_that_cannot_be_read_are_told_wherever_they_are() {
    let sandbox = Sandbox::new();
    let cached = sandbox.cached();
    std::fs::write(cached.with_file_name("broken.toml"), "schema = \"one\"").unwrap();
    here(&["64x128"]).save(&cached).unwrap();
    let output = sandbox.run(&["presets", "list"]);
    let said = stderr(&output);
    assert_eq!(said.matches("note: ").count(), 1, "{said}");
    assert!(said.contains("broken.toml, line 1 is not valid: ") && said.contains("trilut tune"));
    // Once, although it is also what the variable comes to.
    let mut command = sandbox.command(&["presets", "list"]);
    let given = command.env("TRILUT_PRESETS", cached.with_file_name("broken.toml"));
    let said = stderr(&given.output().unwrap());
    assert_eq!(said.matches("note: ").count(), 2, "{said}");
    assert!(said.contains("note: nothing of TRILUT_PRESETS is used: "), "{said}");
}

#[test]
fn a_preset_without_a_kernel_of_this_build_is_not_the_one_in_use() {
    let sandbox = Sandbox::new();
    let cached = sandbox.cached();
    let later = record("64x128", "gemv_of_a_later_build");
    preset(Machine::detect(), vec![later.clone()]).save(&cached).unwrap();
    let marked = || {
        let report = sandbox.ok(&["doctor"]);
        let lines = report.lines().filter(|line| line.contains("<--"));
        let marked: Vec<String> = lines.map(str::to_owned).collect();
        assert_eq!(marked.len(), 1, "{report}");
        assert!(report.contains("none of which can be used"), "{report}");
        marked[0].clone()
    };
    assert!(!marked().contains("user cache"), "{}", marked());
    let mut sources = sandbox.command(&["doctor"]);
    let given = sandbox.saved("given.toml", &here(&["64x128"]));
    let report = sources.env("TRILUT_PRESETS", &given).output().unwrap();
    let report = String::from_utf8(report.stdout).unwrap();
    let line = report.lines().find(|line| line.contains("<--")).unwrap();
    assert!(line.contains("given.toml"), "{report}");
    // One of two is enough.
    preset(Machine::detect(), vec![later, record("64x256", KERNEL)]).save(&cached).unwrap();
    let report = sandbox.ok(&["doctor"]);
    let line = report.lines().find(|line| line.contains("<--")).unwrap();
    assert!(line.contains("user cache") && line.contains("1 of them for kernels that"), "{line}");
}

#[test]
fn names_are_understood_as_they_are_printed() {
    let sandbox = Sandbox::new();
    let shown = sandbox.ok(&["presets", "show", "x86_64/zen3"]);
    for name in ["shipped x86_64/zen3", "x86_64/zen3.toml", "zen3", "shipped zen3.toml"] {
        assert_eq!(sandbox.ok(&["presets", "show", name]), shown, "{name}");
    }
    let cached = sandbox.cached();
    here(&["64x128"]).save(&cached).unwrap();
    let own = std::fs::read_to_string(&cached).unwrap();
    let stem = cached.file_stem().unwrap().to_str().unwrap();
    assert_eq!(sandbox.ok(&["presets", "show", stem]), own);
    let list = sandbox.ok(&["presets", "list"]);
    for line in list.lines().skip(1) {
        let name = line.split("  ").next().unwrap();
        sandbox.ok(&["presets", "show", name]);
    }
    assert!(list.contains(text(&cached)) && !list.contains("shipped x86_64"), "{list}");

    let told = sandbox.fails(1, &["presets", "diff", "zen4711", "zen3"]);
    assert!(told.contains("zen4711") && told.contains("hint: trilut presets list"), "{told}");
    // A file of the name is another one that may be meant; with its ending it is the one.
    std::fs::write(sandbox.path("zen3.toml"), &own).unwrap();
    let show = |name: &str| {
        let mut command = sandbox.command(&["presets", "show", name]);
        command.current_dir(sandbox.path("")).output().unwrap()
    };
    assert_eq!(show("zen3.toml").stdout, own.as_bytes());
    let unclear = show("zen3");
    assert_eq!(unclear.status.code(), Some(1));
    assert!(stderr(&unclear).contains("may be any of x86_64/zen3, zen3.toml"));
}

#[test]
fn merging_into_a_file_loses_nothing() {
    let sandbox = Sandbox::new();
    let a = sandbox.saved("a.toml", &here(&["64x128"]));
    let b = sandbox.saved("b.toml", &here(&["64x256"]));
    let other = sandbox.saved("other.toml", &here(&["64x384"]));
    let merge =
        |output: &Path| sandbox.run(&["presets", "merge", text(&a), text(&b), "-o", text(output)]);
    let diary = sandbox.path("diary.txt");
    std::fs::write(&diary, "dear").unwrap();
    let told = stderr(&merge(&diary));
    assert!(
        told.contains("is there already, and is no preset") && told.contains("hint: "),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&diary).unwrap(), "dear");

    let before = std::fs::read(&other).unwrap();
    let told = stderr(&merge(&other));
    assert!(told.contains("was moved to"), "{told}");
    assert_eq!(std::fs::read(sandbox.path("other.toml.old")).unwrap(), before);
    let merged = std::fs::read(&other).unwrap();
    // The same again, and in the place of a source, moves nothing.
    assert!(merge(&other).status.success() && merge(&a).status.success());
    assert_eq!(std::fs::read(&a).unwrap(), merged);
    let left = ["a.toml", "b.toml", "diary.txt", "other.toml", "other.toml.old"];
    assert_eq!(names(&sandbox.path("")), left);
}

/// It is the one that ships which is merged, so that a file of the same name is none of the two.
#[test]
fn a_file_with_the_name_of_a_shipped_preset_is_kept() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("x86_64")).unwrap();
    let file = sandbox.saved("x86_64/zen3", &here(&["64x128"]));
    let before = std::fs::read(&file).unwrap();
    let mut command =
        sandbox.command(&["presets", "merge", "x86_64/zen3", "x86_64/zen3", "-o", "x86_64/zen3"]);
    let output = command.current_dir(sandbox.path("")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read(sandbox.path("x86_64/zen3.old")).unwrap(), before);
    let shipped = sandbox.ok(&["presets", "show", "x86_64/zen3"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), shipped);
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_not_replaced() {
    use std::os::unix::fs::symlink;
    let sandbox = Sandbox::new();
    let a = sandbox.saved("a.toml", &here(&["64x128"]));
    let refused = |link: &Path, args: &[&str]| {
        let told = sandbox.fails(1, args);
        assert!(told.contains("gone.toml, which is not there"), "{told}");
        assert!(told.contains("hint: name the file itself"), "{told}");
        assert!(link.is_symlink() && !link.exists());
    };
    let link = sandbox.path("link.toml");
    symlink("gone.toml", &link).unwrap();
    refused(&link, &["presets", "merge", text(&a), text(&a), "-o", text(&link)]);
    // Two files are exported, and the link is in the place of the second.
    let cached = sandbox.cached();
    let mut sibling = here(&["64x384"]);
    sibling.machine.stepping += 1;
    here(&["64x128"]).save(&cached).unwrap();
    sibling.save(&cached.with_file_name("sibling.toml")).unwrap();
    let out = sandbox.path("out");
    let export = ["presets", "export", text(&out), "--force"];
    let files = sandbox.ok(&export);
    let files: Vec<&Path> = files.lines().map(Path::new).collect();
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    symlink("gone.toml", files[1]).unwrap();
    refused(files[1], &export);
    assert!(!files[0].exists(), "nothing is written before");
}

#[cfg(unix)]
#[test]
fn a_merge_that_cannot_be_written_says_so_once() {
    let sandbox = Sandbox::new();
    let a = sandbox.saved("a.toml", &here(&["64x128"]));
    let b = sandbox.saved("b.toml", &here(&["64x256"]));
    let out = sandbox.path("out.toml");
    // Files of this process may have a kilobyte: writes beyond it fail as on a full disk.
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_trilut"), "presets", "merge", text(&a), text(&b)])
        .args(["-o", text(&out)])
        .env("XDG_CACHE_HOME", sandbox.path("cache"))
        .output()
        .unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.matches(text(&out)).count(), 1, "{told}");
    assert!(told.contains("caused by: File too large") && told.contains("hint: name a"), "{told}");
    let under = a.join("out.toml");
    let told = sandbox.fails(1, &["presets", "merge", text(&a), text(&b), "-o", text(&under)]);
    assert!(told.contains("hint: name a file"), "{told}");
}

#[test]
fn two_cpus_of_one_kind_are_exported_apart() {
    let sandbox = Sandbox::new();
    let cached = sandbox.cached();
    here(&["64x128"]).save(&cached).unwrap();
    // The same CPU again is no other file.
    here(&["64x256"]).save(&cached.with_file_name("again.toml")).unwrap();
    let out = sandbox.path("out");
    let export = |more: &[&str]| sandbox.run(&[&["presets", "export", text(&out)], more].concat());
    let files = |output: &std::process::Output| -> Vec<PathBuf> {
        assert!(output.status.success(), "{}", stderr(output));
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        printed.lines().map(PathBuf::from).collect()
    };
    let one = export(&[]);
    let [file] = &files(&one)[..] else { panic!("{}", stderr(&one)) };
    assert_eq!(Preset::load(file).unwrap().records().len(), 2);
    assert!(stderr(&one).contains("are for the same CPU"), "{}", stderr(&one));

    let mut sibling = here(&["64x384"]);
    sibling.machine.stepping += 1;
    sibling.save(&cached.with_file_name("sibling.toml")).unwrap();
    for more in [&[][..], &["--force"]] {
        let both = export(more);
        let files = files(&both);
        assert_eq!(files.len(), 2, "{}", stderr(&both));
        assert_ne!(files[0], files[1]);
        let mut records: Vec<usize> =
            files.iter().map(|file| Preset::load(file).unwrap().records().len()).collect();
        records.sort_unstable();
        assert_eq!(records, [1, 2]);
        assert!(stderr(&both).contains("named by its CPU"), "{}", stderr(&both));
    }
}

/// Nobody writes to the pipe: it must not be opened.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_preset() {
    let sandbox = Sandbox::new();
    let pipe = sandbox.path("pipe.toml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [text(&pipe), "/dev/zero"] {
        for args in [
            &["presets", "show", path][..],
            &["run", "x", "-n", "1", "--preset", path],
            &["presets", "merge", path, path],
        ] {
            let told = sandbox.fails(1, args);
            assert!(told.contains("it is no regular file"), "{told}");
        }
        let mut command = sandbox.command(&["presets", "path"]);
        let output = command.env("TRILUT_PRESETS", path).output().unwrap();
        assert!(output.status.success());
        assert!(stderr(&output).contains("it is no regular file"), "{}", stderr(&output));
    }
}

#[test]
fn what_a_preset_says_does_not_reach_the_terminal_as_a_command() {
    let sandbox = Sandbox::new();
    let mut machine = Machine::detect();
    machine.brand = "\u{1b}[31mred\nerror: false".to_owned();
    let mut evil = preset(machine, vec![record("64x128", "kernel\u{1b}]0;title\u{7}")]);
    evil.provenance.date = "\u{1b}[2J".to_owned();
    let file = sandbox.saved("e\u{1b}[7mvil.toml", &evil);
    let plain = sandbox.saved("plain.toml", &here(&["64x128"]));
    for args in [
        &["presets", "list"][..],
        &["presets", "show"],
        &["presets", "show", text(&file)],
        &["presets", "diff", text(&file), text(&plain)],
        &["presets", "verify", text(&file), "--sample", "0"],
        &["doctor"],
        &["presets", "merge", text(&file), text(&plain)],
        &["run", "x", "-n", "1", "--preset", text(&file)],
    ] {
        let mut command = sandbox.command(args);
        let output = command.env("TRILUT_PRESETS", &file).output().unwrap();
        let all = [&output.stdout[..], &output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!all.contains(control), "{args:?}: {all:?}");
    }
}

#[test]
fn a_model_is_not_loaded_where_the_preset_picks_nothing_for_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.saved("a.toml", &here(&["64x128"]));
    let args = ["presets", "verify", text(&file), "--sample", "0", "-m", "demo", "-t", "1"];
    let output = sandbox.run(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("the model is not compared"), "{}", stderr(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!printed.contains("x default"), "{printed}");
}
