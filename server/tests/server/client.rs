//! What the tests of the server share: a server in this process, and a client that shows what went over
//! the wire.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{Model, ModelOptions, embedded};
use trilut_server::{Ended, Served, Server, ServerOptions};

/// A server with the embedded model, on a port of its own.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Ended>>,
}

/// The embedded model.
pub(crate) fn model() -> Model {
    let gguf = Gguf::from_static(embedded::model()).unwrap();
    let options = ModelOptions { threads: Some(1), ..ModelOptions::default() };
    Model::open_with(&gguf, &options).unwrap()
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::with(ServerOptions::default())
    }

    pub(crate) fn with(options: ServerOptions) -> Self {
        Self::serving(options, |served| served)
    }

    pub(crate) fn serving(options: ServerOptions, change: fn(Served) -> Served) -> Self {
        Self::started("demo", options, change)
    }

    /// A server whose model has a name of its own.
    pub(crate) fn named(name: &str) -> Self {
        Self::started(name, ServerOptions::default(), |served| served)
    }

    fn started(name: &str, options: ServerOptions, change: fn(Served) -> Served) -> Self {
        let gguf = Gguf::from_static(embedded::model()).unwrap();
        let served = change(Served::new(&gguf, model(), name).unwrap());
        let server = Server::bind(served, "127.0.0.1", 0, options).unwrap();
        let address = server.address();
        let end = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&end);
        let run = move || server.run(|| asked.load(Ordering::Relaxed)).unwrap();
        Self { address, end, thread: Some(std::thread::spawn(run)) }
    }

    /// Ends the server and waits for it.
    pub(crate) fn stop(&mut self) -> Ended {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    /// Sends the bytes of a request.
    pub(crate) fn send(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request).unwrap();
        stream
    }

    /// Sends a request and returns the connection, to read from or to drop.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {length}\r\n{headers}\r\n"
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        Response::read(self.open(method, path, headers, body))
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, "", b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, "", body.to_string().as_bytes())
    }

    /// Waits until the server's slots are in a state.
    pub(crate) fn wait_for(&self, what: &str, ready: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let slots = self.get("/slots").json();
            if ready(&slots) {
                return slots;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{what} never came: {slots}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The text of a chat's answer.
    pub(crate) fn chat(&self, body: &Value) -> String {
        let response = self.post("/v1/chat/completions", body).ok();
        response["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

/// A response, its body without chunks.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line().split(' ').nth(1).expect("a status").parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
        let mut body = Vec::new();
        if chunked {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk).unwrap();
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..size]);
            }
        } else {
            reader.read_to_end(&mut body).unwrap();
        }
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The body of a response that must be a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The message of an error that must have a status.
    pub(crate) fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let error = self.json()["error"].clone();
        assert!(!error.is_null(), "{}", self.text());
        error
    }

    /// The values of a stream of events, and whether it ended as it must.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let lines = self.text().lines().filter_map(|line| line.strip_prefix("data: "));
        let mut lines: Vec<&str> = lines.collect();
        assert_eq!(lines.pop(), Some("[DONE]"));
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A chat of one message, answered greedily.
pub(crate) fn ask(text: &str) -> Value {
    json!({
        "model": "demo",
        "messages": [{ "role": "user", "content": text }],
        "temperature": 0,
        "max_tokens": 40,
    })
}

/// A value with some fields changed.
pub(crate) fn with(mut value: Value, fields: Value) -> Value {
    for (name, field) in fields.as_object().unwrap() {
        value[name] = field.clone();
    }
    value
}
