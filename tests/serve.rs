//! `trilut serve` as a user meets it: it says where it listens, answers, and ends in order.
#![cfg(unix)]

mod common;

use common::{Sandbox, stderr};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A running server that does not outlive its test.
struct Serving {
    child: Child,
    address: String,
    talk: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn start(sandbox: &Sandbox, extra: &[&str]) -> Self {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("trilut"));
        command.args(["serve", "--port", "0"]).args(extra);
        command.env("XDG_CACHE_HOME", sandbox.path("cache")).env("TRILUT_API_KEY", "");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut talk = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(talk.read_line(&mut line).unwrap() > 0, "the server ended");
            if let Some(rest) = line.strip_prefix("serving at http://") {
                break rest.split(' ').next().unwrap().to_owned();
            }
        };
        Self { child, address, talk }
    }

    fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    /// Sends a signal and waits for the end: the exit code and what was said.
    fn end(mut self, signal: i32) -> (Option<i32>, String) {
        let id = i32::try_from(self.child.id()).unwrap();
        // SAFETY: a signal to a child that was not waited for yet, so its number is still its own.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
        let mut rest = String::new();
        self.talk.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_and_ends_in_order() {
    let sandbox = Sandbox::new();
    for (signal, code) in [(libc::SIGTERM, 0), (libc::SIGINT, 130)] {
        let serving = Serving::start(&sandbox, &[]);
        assert!(serving.address.starts_with("127.0.0.1:"));
        assert!(serving.get("/health", "").contains("\"ok\""));
        assert!(serving.get("/v1/models", "").contains("\"demo\""));
        assert!(serving.get("/", "").contains("<title>trilut</title>"));
        let (ended, said) = serving.end(signal);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains("ended"), "{said}");
    }
}

#[test]
fn the_key_and_the_name_are_the_users() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox, &["--api-key", "secret", "--alias", "mine"]);
    assert!(serving.get("/v1/models", "").starts_with("HTTP/1.1 401"));
    let models = serving.get("/v1/models", "authorization: Bearer secret\r\n");
    assert!(models.contains("\"mine\""), "{models}");
    drop(serving);
}

#[test]
fn what_cannot_be_served_is_said() {
    let sandbox = Sandbox::new();
    let fails = |code: i32, args: &[&str]| {
        let args: Vec<&str> = std::iter::once("serve").chain(args.iter().copied()).collect();
        let output = sandbox.command(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        stderr(&output)
    };
    let serving = Serving::start(&sandbox, &[]);
    let port = serving.address.rsplit(':').next().unwrap().to_owned();
    let taken = fails(1, &["--port", &port]);
    assert!(taken.contains("cannot listen on") && taken.contains("hint:"), "{taken}");
    assert!(fails(1, &["-m", "missing.gguf"]).contains("missing.gguf"));
    assert!(fails(1, &["--host", "not a host"]).contains("not a host"));
    fails(2, &["--parallel", "0"]);
    fails(2, &["--port", "70000"]);
    fails(2, &["--speculate", "-1"]);
    assert!(fails(2, &["--api-key", ""]).contains("empty"));
    let origin = fails(2, &["--cors", "chat.example"]);
    assert!(origin.contains("no origin") && origin.contains("https://chat.example"), "{origin}");
}

/// What a benchmark prints as JSON.
fn measured(sandbox: &Sandbox, args: &[&str]) -> serde_json::Value {
    let output = sandbox.command(args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_server_is_measured_whether_it_is_our_own_or_runs_already() {
    let sandbox = Sandbox::new();
    let short = ["bench", "serve", "-r", "1", "-n", "8", "--clients", "1,3", "-o", "json"];
    let own = measured(&sandbox, &[&short[..], &["-t", "1", "--long", "300"]].concat());
    assert_eq!(own["clients"][1]["clients"], 3);
    assert!(own["clients"][1]["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(own["clients"][0]["http_share"].is_number(), "{own}");
    assert_eq!(own["beside"]["long_tokens"], 300);
    let turn = &own["second_turn"];
    let (reused, before) = (turn["reused_tokens"].as_u64(), turn["first_turn_tokens"].as_u64());
    assert!(reused > Some(100) && reused <= before, "{turn}");

    let serving = Serving::start(&sandbox, &["--api-key", "secret"]);
    let url = format!("http://{}", serving.address);
    let there = ["--url", &url, "--api-key", "secret", "--long", "0"];
    let other = measured(&sandbox, &[&short[..], &there].concat());
    assert!(other["clients"][0]["http_share"].is_null(), "{other}");
    assert_eq!(other["second_turn"]["reused_tokens"], turn["reused_tokens"]);
    let fails = |code: i32, args: &[&str]| {
        let output = sandbox.command(&[&["bench", "serve"], args].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(fails(1, &["--url", &url, "--api-key", "wrong"]).contains("401"));
    drop(serving);
    assert!(fails(1, &["--url", &url]).contains("hint: trilut serve"));
    assert!(fails(2, &["-n", "100000"]).contains("do not fit"));
}

#[test]
fn guesses_are_measured_and_change_nothing() {
    let sandbox = Sandbox::new();
    let args = ["bench", "speculate", "-r", "1", "-n", "32", "--speculate", "4", "-o", "json"];
    let rows = measured(&sandbox, &args);
    assert_eq!(rows.as_array().unwrap().len(), 8);
    assert_eq!((&rows[0]["guessed"], &rows[0]["speculate"]), (&0.into(), &0.into()));
    assert!(
        rows[1]["held"].as_u64() > Some(0)
            && rows[1]["guessed"].as_u64() >= rows[1]["held"].as_u64()
    );
}
