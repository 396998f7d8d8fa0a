//! `trilut bench --baseline` against fake engines: small shell scripts that print what an engine might.
#![cfg(unix)]

mod common;

use assert_cmd::Command;
use common::{Sandbox, stderr};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

/// Reads llama-bench's arguments into shell variables: `$p`, `$n`, `$t`, `$m`, and `$ns` for a test that
/// takes a millisecond.
const ARGUMENTS: &str = r#"#!/bin/sh
p=512; n=128; t=1; m=none; f=none; c=0; r=5; extra=
while [ $# -gt 0 ]; do
    case "$1" in
        -p) p=$2; shift;;
        -n) n=$2; shift;;
        -t) t=$2; shift;;
        -m) m=$2; shift;;
        -f) f=$2; shift;;
        -c) c=$2; shift;;
        -r) r=$2; shift;;
        -o|-b) shift;;
        *) extra="$extra $1";;
    esac
    shift
done
[ "$r" = 1 ] || [ "$f" != none ] || exit 9
ns=1000000
rate=$(( (p + n) * 1000 ))
"#;

/// ik_llama.cpp: an array with log lines in it.
const IK: &str = r#"
echo "llama_model_load: noise" >&2
echo "["
echo "============ Repacked 211 tensors"
cat <<END
  {
    "build_commit": "8337e4cd3", "build_number": 4211, "cuda": false, "rpc": "0",
    "cpu_info": "Some CPU", "model_filename": "$m", "model_type": "bitnet IQ2_BN",
    "model_size": 1048576, "model_n_params": 4103296, "n_threads": $t, "ser": "-1,0",
    "n_prompt": $p, "n_gen": $n, "avg_ns": $ns, "stddev_ns": 0,
    "avg_ts": $rate.0, "stddev_ts": 0.0, "test": "x", "extra": "$extra",
    "samples_ns": [ $ns ],
    "samples_ts": [ $rate ]
  }
]
END
"#;

/// bitnet.cpp: one line, no samples.
const BITNET: &str = r#"
echo "warning: something"
echo "{\"build_commit\": \"40ed0f29\", \"model_filename\": \"$m\", \"model_type\": \"I2_S\", \"n_threads\": $t, \"n_prompt\": $p, \"n_gen\": $n, \"avg_ns\": $ns, \"avg_ts\": $rate.0}"
"#;

/// llama.cpp: an array with depths, and a second result that nobody asked for.
const LLAMA: &str = r#"
echo "[{\"build_number\": 6000, \"n_threads\": $t, \"n_depth\": 64, \"n_prompt\": $p, \"n_gen\": $n, \"samples_ns\": [7]},"
echo " {\"build_number\": 6000, \"n_threads\": $t, \"n_depth\": 0, \"n_prompt\": $p, \"n_gen\": $n, \"samples_ns\": [$ns]}]"
"#;

impl Sandbox {
    /// An engine's program, and the path as text.
    fn script(&self, name: &str, body: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, format!("{ARGUMENTS}{body}")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `trilut bench` of a short test against a baseline that is given some model file.
    fn bench(&self, baseline: &str, args: &[&str]) -> Command {
        let mut command = self.command(&["bench", "--baseline-model", "theirs.gguf"]);
        command.args(["--baseline", baseline]);
        for (flag, value) in [("-p", "0"), ("-n", "4"), ("-t", "1"), ("-r", "2")] {
            let given = args.iter().any(|arg| *arg == flag || (flag == "-r" && *arg == "--rounds"));
            if !given {
                command.args([flag, value]);
            }
        }
        command.args(args);
        command
    }

    fn run(&self, baseline: &str, args: &[&str]) -> Output {
        self.bench(baseline, args).output().unwrap()
    }

    fn ok(&self, baseline: &str, args: &[&str]) -> (String, String) {
        let output = self.run(baseline, args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    }

    fn fails(&self, code: i32, baseline: &str, args: &[&str]) -> String {
        let output = self.run(baseline, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        stderr(&output)
    }

    fn json(&self, baseline: &str, args: &[&str]) -> serde_json::Value {
        let (text, _) = self.ok(baseline, &[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn every_spelling_is_read() {
    let sandbox = Sandbox::new();
    for (name, body, build) in
        [("ik", IK, "8337e4cd3 4211"), ("bitnet", BITNET, "40ed0f29"), ("llama", LLAMA, "6000")]
    {
        let found = sandbox.json(&sandbox.script(name, body), &["-p", "8", "-t", "1,2"]);
        assert_eq!(found.as_array().unwrap().len(), 4, "{name}: 2 tests with 2 numbers of threads");
        for (index, one) in found.as_array().unwrap().iter().enumerate() {
            let (side, tokens) = (&one["baselines"][0], if index % 2 == 0 { 8.0 } else { 4.0 });
            assert_eq!(side["engine"], name);
            assert_eq!(side["build"], build);
            assert_eq!(side["samples_ns"], serde_json::json!([1_000_000, 1_000_000]));
            assert_eq!(side["median_ts"], tokens * 1000.0);
            assert_eq!((&one["rounds"], &one["interrupted"]), (&2.into(), &false.into()));
            assert_eq!(one["n_threads"], 1 + index / 2);
            let ratio = one["baselines"][0]["ratio"]["rounds"][1].as_f64().unwrap();
            let ours = one["trilut"]["samples_ns"][1].as_f64().unwrap();
            assert!((ratio - 1e6 / ours).abs() < 1e-9);
            assert!(one["baselines"][0]["agreement"].is_null());
        }
    }
}

#[test]
fn the_turns_alternate() {
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let note = |name: &str| format!("echo {name} >> {}\n{IK}", log.display());
    let (a, b) = (sandbox.script("a", &note("a")), sandbox.script("b", &note("b")));
    let found = sandbox.json(&format!("{a},{b}"), &["--rounds", "3"]);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "a\nb\na\nb\na\nb\n");
    assert_eq!(found[0]["baselines"][1]["engine"], "b");
    assert_eq!(found[0]["baselines"][1]["ratio"]["rounds"].as_array().unwrap().len(), 3);
}

#[test]
fn every_format_names_both_sides() {
    let sandbox = Sandbox::new();
    let engine = sandbox.script("ik", IK);
    let (table, notes) = sandbox.ok(&engine, &[]);
    assert!(table.contains("ratio, unchecked (min..max)"), "{table}");
    assert!(table.contains("| trilut ") && table.contains("| ik 8337e4cd3 4211 |"), "{table}");
    assert!(table.contains("bitnet IQ2_BN") && table.contains("i2_s, head F16"), "{table}");
    assert!(table.contains(" 1.0 MiB "), "{table}");
    assert!(notes.contains("ik runs theirs.gguf") && notes.contains("unchecked"), "{notes}");
    assert!(notes.contains("cost: "), "{notes}");
    let (csv, _) = sandbox.ok(&engine, &["-o", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[2].starts_with("\"ik\",\"8337e4cd3 4211\",\"theirs.gguf\""), "{csv}");
    assert!(lines[2].ends_with(",false"), "{csv}");
    assert_eq!(lines[2].split(',').count(), lines[0].split(',').count(), "{csv}");
    let (jsonl, _) = sandbox.ok(&engine, &["-o", "jsonl", "-p", "8"]);
    assert_eq!(jsonl.lines().count(), 2);
    for line in jsonl.lines() {
        let one: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(one["baselines"][0]["model_type"], "bitnet IQ2_BN");
    }
}

#[test]
fn arguments_reach_the_engine_as_they_were_quoted() {
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let engine = sandbox.script("e", &format!("echo \"$extra\" >> {}\n{IK}", log.display()));
    sandbox.ok(&engine, &["--baseline-args", "-fa 0 'two words'", "-r", "1"]);
    sandbox.ok(&format!("ik_llama.cpp={engine}"), &["-r", "1"]);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), " -fa 0 two words\n -fa 0 -rtr 1\n");
    assert!(sandbox.fails(2, &engine, &["--baseline-args", "'open"]).contains("not closed"));
    assert!(sandbox.fails(2, &format!("nobody={engine}"), &[]).contains("ik_llama.cpp"));
    let twice = sandbox.fails(2, &engine, &["--baseline-args", "-a", "--baseline-args", "-b"]);
    assert!(twice.contains("2 times for 1 baselines"), "{twice}");
}

#[test]
fn engines_that_fail_are_explained() {
    let sandbox = Sandbox::new();
    let missing = sandbox.fails(1, "/nowhere/llama-bench", &[]);
    assert!(missing.contains("cannot start /nowhere/llama-bench"), "{missing}");
    assert!(missing.contains("No such file") && missing.contains("hint: "), "{missing}");

    let plain = sandbox.script("plain", IK);
    std::fs::set_permissions(&plain, Permissions::from_mode(0o644)).unwrap();
    let error = sandbox.fails(1, &plain, &[]);
    assert!(error.contains("Permission denied") && error.contains("chmod +x"), "{error}");

    // Text that a shell would run, by its bare name, which is not looked up on the PATH.
    let here = sandbox.path("");
    std::fs::write(here.join("cat"), "touch ran\n").unwrap();
    std::fs::set_permissions(here.join("cat"), Permissions::from_mode(0o755)).unwrap();
    let output = sandbox.bench("cat", &[]).current_dir(&here).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("./cat is no program"), "{}", stderr(&output));
    assert!(!here.join("ran").exists());

    for (name, body, says) in [
        ("exits", "echo 'error: cannot open model' >&2; exit 4", "ended with exit code 4"),
        ("exits2", "echo 'error: cannot open model' >&2; exit 4", "said: error: cannot open model"),
        (
            "crashes",
            "echo 'x.cpp:3: GGML_ASSERT(k) failed' >&2; kill -ABRT $$",
            "ended by signal 6",
        ),
        ("silent", "exit 1", "it said nothing on stderr"),
        ("empty", "exit 0", "printed nothing on stdout"),
        ("garbage", "echo '| model | t/s |'", "no JSON result"),
        ("cut", "echo '[{\"n_prompt\": 0, \"n_gen\": 4,'", "no JSON result"),
        ("other", "n=99\nMARK", "measured 0 + 99"),
        ("threads", "t=7\nMARK", "used 7"),
        ("zero", "ns=0\nMARK", "no time that a test can take"),
    ] {
        let engine = sandbox.script(name, &body.replace("MARK", IK));
        let error = sandbox.fails(1, &engine, &[]);
        assert!(error.starts_with("error: ") && error.contains(says), "{name}: {error}");
        assert!(error.contains("hint: "), "{name}: {error}");
    }
}

#[test]
fn an_engine_that_hangs_is_ended_with_its_children() {
    let sandbox = Sandbox::new();
    let pid = sandbox.path("pid");
    let engine = sandbox.script("hangs", &format!("sleep 300 & echo $! > {}; wait", pid.display()));
    let began = Instant::now();
    let error = sandbox.fails(1, &engine, &["--baseline-timeout", "1s"]);
    assert!(error.contains("did not finish within 1s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60), "it did not wait for the child");
    assert_gone(&pid);
}

/// The process whose number is in the file ends soon, or is already a zombie.
fn assert_gone(pid: &Path) {
    let pid = std::fs::read_to_string(pid).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    for _ in 0..200 {
        match std::fs::read_to_string(&stat) {
            Ok(text) if !text.contains(") Z ") => std::thread::sleep(Duration::from_millis(20)),
            _ => return,
        }
    }
    panic!("process {pid} still runs");
}

#[test]
fn an_interrupt_ends_the_engine_and_keeps_what_was_measured() {
    let sandbox = Sandbox::new();
    let (pid, count) = (sandbox.path("pid"), sandbox.path("count"));
    // The third turn never ends.
    let body = format!(
        "echo x >> {count}\n\
         if [ $(wc -l < {count}) -ge 3 ]; then echo $$ > {pid}.part; mv {pid}.part {pid}; sleep 300; fi\n{IK}",
        count = count.display(),
        pid = pid.display(),
    );
    let engine = sandbox.script("slow", &body);
    let record = sandbox.path("record");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("trilut"))
        .args(["bench", "-p", "0", "-n", "4", "-t", "1", "-r", "9", "-o", "json"])
        .args(["--baseline-model", "theirs.gguf", "--baseline", &engine])
        .args(["--record", record.to_str().unwrap()])
        .env("XDG_CACHE_HOME", sandbox.path("cache"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !pid.exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "the third turn never came");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    let number = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &number]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found[0]["rounds"], &found[0]["interrupted"]), (&2.into(), &true.into()));
    assert_eq!(found[0]["trilut"]["samples_ns"].as_array().unwrap().len(), 2);
    assert_gone(&pid);
    assert_eq!(recorded(&record).len(), 1);
}

/// The lines of the only record in a directory.
fn recorded(directory: &Path) -> Vec<serde_json::Value> {
    let only = |directory: &Path| {
        let mut entries = std::fs::read_dir(directory).unwrap();
        let entry = entries.next().unwrap().unwrap();
        assert!(entries.next().is_none());
        entry.path()
    };
    let file = only(&only(directory));
    assert!(file.extension().is_some_and(|extension| extension == "jsonl"), "{}", file.display());
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn records_grow() {
    let sandbox = Sandbox::new();
    let engine = format!("ik_llama.cpp={}", sandbox.script("ik", IK));
    let directory = sandbox.path("some/record");
    for _ in 0..2 {
        sandbox.ok(&engine, &["-r", "3", "--record", directory.to_str().unwrap()]);
    }
    let lines = recorded(&directory);
    assert_eq!(lines.len(), 2);
    let line = &lines[1];
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    assert!(line["machine"]["arch"].is_string() && line["cost"].is_string());
    assert_eq!(line["settings"]["rounds"], 3);
    assert_eq!(line["baselines"][0]["description"]["name"], "ik_llama.cpp");
    assert_eq!(line["baselines"][0]["args"], serde_json::json!(["-fa", "0", "-rtr", "1"]));
    assert!(line["trilut"]["samples_ns"].as_array().unwrap().len() == 3);
    assert_eq!(line["baselines"][0]["program"], "ik");
    let file = sandbox.path("file");
    std::fs::write(&file, "").unwrap();
    let error = sandbox.fails(1, &engine, &["--record", file.to_str().unwrap()]);
    assert!(error.contains("cannot write"), "{error}");
}

#[test]
fn asserted_ratios_decide_the_exit_code() {
    let sandbox = Sandbox::new();
    // A token in an hour, and one in a nanosecond.
    let slow = sandbox.script("slow", &format!("ns=14400000000000; rate=0\n{LLAMA}"));
    let fast = sandbox.script("fast", &format!("ns=4\n{LLAMA}"));
    sandbox.ok(&slow, &["--assert-ratio", "tg4=1000"]);
    let output = sandbox.run(&fast, &["--assert-ratio", "tg4=0.5"]);
    assert_eq!(output.status.code(), Some(3));
    let error = stderr(&output);
    assert!(error.contains("tg4 with 1 thread is 0.000 times fast"), "{error}");
    assert!(error.contains("below the 0.5 asked for"), "{error}");
    assert!(String::from_utf8(output.stdout).unwrap().contains(" tg4 |"), "the table is printed");
    let error = sandbox.fails(2, &fast, &["--assert-ratio", "pp512=1"]);
    assert!(error.contains("pp512") && error.contains("measured are tg4"), "{error}");
    assert!(sandbox.fails(2, &fast, &["--assert-ratio", "fast"]).contains("tg128=1.3"));
}

const STORY: &str = "Once upon a time there was a fox named Max. One day he went to the lake to play. \
                     There he found a red ball. Max was happy. On the way home he met a bird.\n";

/// A perplexity program that prints a value over the number of chunks that ours finds as well.
fn perplexity(value: &str, chunks: usize) -> String {
    format!(
        "echo \"perplexity: calculating perplexity over {chunks} chunks, n_ctx=$c\" >&2\n\
         echo \"[1]4.0,[2]4.1,\"\necho\n\
         echo \"Final estimate: PPL over {chunks} chunks for n_ctx=$c = {value} +/- 0.2\"\n"
    )
}

/// Our perplexity and number of chunks, as a disagreement tells them.
fn told(error: &str) -> (f64, usize) {
    let between = |before: &str, after: &str| {
        let (_, rest) = error.split_once(before).unwrap();
        rest.split_once(after).unwrap().0.to_owned()
    };
    let ours = between(" chunks of ", " by trilut");
    let (_, ours) = ours.split_once("): ").unwrap();
    (ours.parse().unwrap(), between("story.txt (", " chunks").parse().unwrap())
}

#[test]
fn agreement_is_checked_before_speeds_are_compared() {
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let engine = sandbox.script("llama-bench", &format!("echo x >> {}\n{IK}", log.display()));
    let text = sandbox.path("story.txt");
    std::fs::write(&text, STORY).unwrap();
    let text = text.to_str().unwrap();
    let args = ["--agree", text, "--agree-context", "16", "-r", "1"];
    assert!(sandbox.fails(1, &engine, &args).contains("--baseline-perplexity"));

    // Ours, as a wrong answer makes it tell.
    sandbox.script("llama-perplexity", &perplexity("100000.0", 3));
    let error = sandbox.fails(3, &engine, &args);
    assert!(error.contains("disagree") && error.contains("bound 0.02"), "{error}");
    assert!(!log.exists(), "no speed was measured");
    let (ours, chunks) = told(&error);
    assert!(ours > 1.0 && ours < 100.0 && chunks >= 2, "{error}");

    for (factor, code) in [(1.0, 0), (1.015, 0), (0.985, 0), (1.03, 3), (0.97, 3)] {
        let value = format!("{:.4}", ours * factor);
        sandbox.script("llama-perplexity", &perplexity(&value, chunks));
        let output = sandbox.run(&engine, &args);
        assert_eq!(output.status.code(), Some(code), "{factor}: {}", stderr(&output));
        if code == 0 {
            let table = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(table.contains("  ratio (min..max) |"), "{table}");
            assert!(stderr(&output).contains(&format!("{value} by llama-bench")));
        }
    }
    sandbox.script("llama-perplexity", &perplexity(&ours.to_string(), chunks + 1));
    assert!(sandbox.fails(3, &engine, &args).contains("tokenizer"));
    sandbox.script("llama-perplexity", "echo nothing");
    assert!(sandbox.fails(1, &engine, &args).contains("printed no final perplexity"));

    let elsewhere = sandbox.script("ppl", &perplexity(&ours.to_string(), chunks));
    let named = [&args[..], &["--baseline-perplexity", &elsewhere]].concat();
    let found = sandbox.json(&engine, &named);
    let agreement = &found[0]["baselines"][0]["agreement"];
    assert_eq!((&agreement["bound"], &agreement["context"]), (&0.02.into(), &16.into()));
    assert_eq!(agreement["chunks"], chunks);
}

#[test]
fn agreement_on_random_weights_says_nothing() {
    let sandbox = Sandbox::new();
    let engine = sandbox.script("llama-bench", IK);
    sandbox.script("llama-perplexity", &perplexity("1280.0", 3));
    let (dummy, text) = (sandbox.path("dummy.gguf"), sandbox.path("story.txt"));
    std::fs::write(&text, STORY.repeat(12)).unwrap();
    let mut make = Command::cargo_bin("trilut").unwrap();
    make.args(["dummy", "--model", "demo", "-o"]).arg(&dummy).assert().success();
    let (dummy, text) = (dummy.to_str().unwrap(), text.to_str().unwrap());
    let args = ["-m", dummy, "--agree", text, "--agree-context", "64", "-r", "1"];
    let error = sandbox.fails(3, &engine, &args);
    assert!(error.contains("would say nothing") && error.contains("--agree-model"), "{error}");

    // A trained model stands in for it.
    let demo = ["--agree-model", "demo", "--agree-baseline-model", "demo-theirs.gguf"];
    let error = sandbox.fails(3, &engine, &[&args[..], &demo].concat());
    assert!(
        error.contains("on the embedded model") && error.contains("demo-theirs.gguf"),
        "{error}"
    );
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    let sandbox = Sandbox::new();
    let bench = |args: &[&str]| {
        let mut command = Command::cargo_bin("trilut").unwrap();
        let output = command.arg("bench").args(args).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    assert_eq!(bench(&["--assert-ratio", "tg4=1"]).0, Some(2));
    assert_eq!(bench(&["--record", "x"]).0, Some(2));
    let (code, error) = bench(&["--baseline", &sandbox.script("ik", IK)]);
    assert_eq!(code, Some(2));
    assert!(error.contains("--baseline-model"), "{error}");
}
