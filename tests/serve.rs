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
