//! `trilut chat` from a pipe and at a terminal.
#![cfg(target_os = "linux")]

mod common;

use common::{Sandbox, stderr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

impl Sandbox {
    /// What a chat says to some lines.
    fn chat(&self, args: &[&str], lines: &str) -> (String, String) {
        let args = [&["chat"], args].concat();
        let output = self.command(&args).write_stdin(lines).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    }

    /// A model of random weights with a chat template, whose answers do not end.
    fn endless(&self) -> String {
        let (dir, file) = (self.path("checkpoint"), self.path("endless.gguf"));
        let (dir, file) = (dir.to_str().unwrap(), file.to_str().unwrap());
        let dummy = ["dummy", "--model", "demo", "--safetensors", "packed", "-o", dir];
        self.command(&dummy).assert().success();
        self.command(&["convert", dir, file]).assert().success();
        file.to_owned()
    }
}

#[test]
fn a_conversation_goes_on_and_is_forgotten() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("saved.json");
    let save = format!("/save {}", file.display());
    let load = format!("/load {}", file.display());
    let lines = [
        "/set temp 0",
        "/set system Be kind.",
        "What is 7 + 8?",
        "",
        &save,
        "/clear",
        "/show",
        &load,
        "/show messages",
        "/bye",
        "never read",
    ];
    let (out, err) = sandbox.chat(&[], &lines.join("\n"));
    assert!(out.contains("temp     0\n") && out.contains("system   Be kind."), "{out}");
    assert!(out.contains("0 messages"), "{out}");
    assert!(out.contains("user: What is 7 + 8?\nassistant: "), "{out}");
    assert!(!out.contains("never read") && !err.contains("error"), "{out}{err}");
    let saved = std::fs::read_to_string(&file).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(saved["messages"].as_array().unwrap().len(), 2);
    // The answer is that of the template without a conversation.
    let run = ["run", "demo", "What is 7 + 8?", "--chat", "--temp", "0", "-n", "40"];
    let run = sandbox.command(&run).output().unwrap();
    let run = String::from_utf8(run.stdout).unwrap();
    let (plain, _) = sandbox.chat(&["--temp", "0", "-n", "40"], "What is 7 + 8?\n");
    assert_eq!(plain.trim(), run.trim());
}

#[test]
fn the_same_conversation_is_the_same_text() {
    let sandbox = Sandbox::new();
    let lines = "What is 2 + 3?\nTell me a story.\nWhat is 4 + 4?\n";
    let first = sandbox.chat(&["--seed", "5"], lines).0;
    assert_eq!(first.lines().count(), 3, "{first}");
    assert_eq!(sandbox.chat(&["--seed", "5", "-t", "1"], lines).0, first);
    // Also by the spelling of other engines.
    let args = ["run", "-m", "demo", "-cnv", "--seed", "5"];
    let output = sandbox.command(&args).write_stdin(lines).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), first);
}

#[test]
fn messages_of_several_lines_are_one() {
    let sandbox = Sandbox::new();
    let lines = "\"\"\"first\nsecond\n\"\"\"\n/show messages\n\"\"\"never closed\nbut sent";
    let (out, _) = sandbox.chat(&["-n", "4"], lines);
    assert!(out.contains("user: first\nsecond\n"), "{out}");
    let (out, _) = sandbox.chat(&["-n", "4"], "\"\"\"one\"\"\" and all\n/show messages\n");
    assert!(out.contains("user: one and all\n"), "{out}");
}

#[test]
fn what_goes_wrong_does_not_end_the_chat() {
    let sandbox = Sandbox::new();
    let lines =
        "/nonsense\n/set temp cold\n/set temp -1\n/set\n/save\n/load /nowhere\n/show x\n/show\n";
    let (out, err) = sandbox.chat(&[], lines);
    for word in ["/nonsense", "`cold`", "temperature", "cannot be set", "needs a file", "/nowhere"]
    {
        assert!(err.contains(word), "{word}: {err}");
    }
    assert!(out.contains("temp     0.8"), "{out}");
    let none = sandbox.path("plain.gguf");
    let none = none.to_str().unwrap();
    sandbox.command(&["dummy", "--model", "demo", "-o", none]).assert().success();
    let output = sandbox.command(&["chat", none]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no chat template"), "{}", stderr(&output));
}

#[test]
fn a_full_context_follows_the_policy() {
    let sandbox = Sandbox::new();
    let model = sandbox.endless();
    let args = [&model, "-c", "64", "-n", "100", "--temp", "0"];
    // The second message no longer fits, and gets no answer.
    let stop = [&["chat"][..], &args, &["--on-full", "stop"]].concat();
    let stopped = sandbox.command(&stop).write_stdin("hello\nhello again\n").output().unwrap();
    assert_eq!(stopped.status.code(), Some(1));
    let stopped = stderr(&stopped);
    assert!(stopped.contains("context of 64 positions is full"), "{stopped}");
    assert!(stopped.contains("/set on_full shift"), "{stopped}");
    let shift = [&args[..], &["--on-full", "shift"]].concat();
    let (_, shifted) = sandbox.chat(&shift, "hello\nhello again\n");
    assert!(shifted.contains("were dropped"), "{shifted}");
    assert!(shifted.contains("oldest 2 messages were dropped"), "{shifted}");
}

#[test]
fn a_pipe_whose_messages_get_no_answer_fails() {
    let sandbox = Sandbox::new();
    let lines = format!("{}\nhello\n/nonsense\n", "long ".repeat(100));
    let args = ["chat", "-c", "64", "-n", "4"];
    let output = sandbox.command(&args).write_stdin(lines).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("shorten the message"), "{said}");
    assert!(said.ends_with("error: 1 of 2 messages got no answer\n"), "{said}");
    // What could be answered was.
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
}

#[test]
fn the_settings_of_other_engines_are_understood() {
    let sandbox = Sandbox::new();
    let settings = "/set n -1\n/set top_k -1\n/set seed -1\n/show\n/set seed -2\n";
    let (out, err) = sandbox.chat(&["-n", "4", "--seed", "-1"], settings);
    assert!(out.contains("top_k    0") && out.contains("n        no limit"), "{out}");
    // The seed that is shown is the one that was told.
    assert_eq!(err.matches("note: the seed is ").count(), 2, "{err}");
    let told = err.lines().filter_map(|line| line.strip_prefix("note: the seed is ")).next_back();
    assert!(out.contains(&format!("seed     {}", told.unwrap())), "{out}{err}");
    assert!(err.contains("`-2` is no value of seed"), "{err}");
    assert!(sandbox.chat(&["-n", "0"], "/show").0.contains("n        no limit"));
    let file = sandbox.path("system.txt");
    std::fs::write(&file, "Be kind.\n").unwrap();
    let args = ["run", "-m", "demo", "-cnv", "-f", file.to_str().unwrap()];
    let output = sandbox.command(&args).write_stdin("/show\n").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("system   Be kind.\n"), "{shown}");
}

/// Waits until something holds; the test fails when it never does.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a reader has given so far.
fn collect(mut reader: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let shared = all.clone();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut part) {
            shared.lock().unwrap().extend(&part[..n]);
        }
    });
    all
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned()
}

fn chat_command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let program = assert_cmd::cargo::cargo_bin("trilut");
    let mut command = Command::new(program);
    command.arg("chat").args(args).env("XDG_CACHE_HOME", sandbox.path("cache"));
    for name in ["TRILUT_PRESETS", "TRILUT_ISA", "TRILUT_THREADS"] {
        command.env_remove(name);
    }
    command
}

fn ends_well(mut child: Child) {
    let mut status = None;
    wait("the chat ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn an_interrupt_stops_the_answer_and_not_the_chat() {
    let sandbox = Sandbox::new();
    let model = sandbox.endless();
    let mut child = chat_command(&sandbox, &[&model, "--temp", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let out = collect(child.stdout.take().unwrap());
    let err = collect(child.stderr.take().unwrap());
    for round in 1..=2 {
        let before = text(&out).len();
        writeln!(stdin, "hello {round}").unwrap();
        wait("an answer begins", || text(&out).len() > before);
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
        wait("the answer ends", || text(&err).matches("note: stopped").count() == round);
    }
    writeln!(stdin, "/show messages").unwrap();
    wait("the chat goes on", || text(&out).contains("user: hello 2"));
    drop(stdin);
    ends_well(child);
}

#[test]
fn keys_at_a_terminal_edit_stop_and_end() {
    let sandbox = Sandbox::new();
    let model = sandbox.endless();
    let (mut master, mut slave) = (0, 0);
    use std::ptr::{null, null_mut};
    // SAFETY: the two places are written; the other arguments may be null.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, null_mut(), null(), null()) };
    assert_eq!(opened, 0);
    // SAFETY: both are open and belong to nobody else.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    let mut command = chat_command(&sandbox, &[&model, "--temp", "0"]);
    command.env("TERM", "xterm");
    let end = || Stdio::from(slave.try_clone().unwrap());
    command.stdin(end()).stdout(end()).stderr(end());
    // SAFETY: two system calls, which a child may make before it becomes the program.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn().unwrap();
    drop(slave);
    drop(command);
    let screen = collect(master.try_clone().unwrap());
    wait("it asks", || text(&screen).contains(">>> "));
    // A mistake, taken back, and an interrupt that gives the line up.
    master.write_all(b"/shoo\x7f\x7fow\r").unwrap();
    wait("it obeys", || text(&screen).contains("on_full  shift"));
    master.write_all(b"never sent\x03").unwrap();
    wait("it says how to end", || text(&screen).contains("/bye ends"));
    master.write_all(b"hello\r").unwrap();
    let before = text(&screen).len();
    wait("an answer begins", || text(&screen).len() > before + 40);
    master.write_all(b"\x03").unwrap();
    wait("the answer ends", || text(&screen).contains("note: stopped"));
    // The line before comes back with the arrow.
    master.write_all(b"\x1b[A\x15/show messages\r").unwrap();
    wait("the chat goes on", || text(&screen).contains("user: hello"));
    // Lines that come at once, as those of a paste do, and a line in another encoding.
    master.write_all(b"/set n 77\r/show\r").unwrap();
    wait("it obeys both", || text(&screen).contains("n        77"));
    master.write_all(b"caf\xE9 \r").unwrap();
    wait("it asks again", || text(&screen).contains("no UTF-8"));
    master.write_all(b"\x15/set n 78\r").unwrap();
    master.write_all(b"/show\r").unwrap();
    wait("the chat goes on", || text(&screen).contains("n        78"));
    master.write_all(b"\x04").unwrap();
    ends_well(child);
    assert!(!text(&screen).contains("user: never sent"));
    let history = std::fs::read_to_string(sandbox.path("cache/trilut/history")).unwrap();
    assert!(history.contains("hello"), "{history}");
}
