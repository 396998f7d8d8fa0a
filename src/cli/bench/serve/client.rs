//! What the load says to a server and hears from it, with the times at which it hears it.

use super::super::super::failure::Failure;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};
use ureq::Agent;

/// The longest that a server may keep silent.
const PATIENCE: Duration = Duration::from_secs(600);

/// Speaks with one server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: Agent,
    /// `http://host:port`
    base: String,
    key: Option<String>,
}

/// How a streamed answer came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// When its first text came.
    pub(super) first: Instant,
    /// When it was over.
    pub(super) end: Instant,
    /// Its tokens.
    pub(super) tokens: usize,
}

impl Client {
    /// A client of the server at `base`.
    pub(super) fn new(base: &str, key: Option<String>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_idle_connections_per_host(64)
            .build();
        Self { agent: config.into(), base: base.trim_end_matches('/').to_owned(), key }
    }

    /// What the server says at a path.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.json(path, request.call())
    }

    /// What the server answers to a body.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(path, self.send(path, body))
    }

    fn send(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("content-type", "application/json");
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
        .send(body.to_string())
    }

    fn json(
        &self,
        path: &str,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Failure> {
        let mut response = self.answered(path, response)?;
        let text = response.body_mut().read_to_string().map_err(|error| self.lost(path, &error))?;
        serde_json::from_str(&text).map_err(|error| self.lost(path, &error))
    }

    /// The response, if it is a success.
    fn answered(
        &self,
        path: &str,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let mut response = response.map_err(|error| {
            self.lost(path, &error)
                .hint("trilut serve -m MODEL serves one; without --url it is started")
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let body = response.body_mut().read_to_string().unwrap_or_default();
        let value: Value = serde_json::from_str(&body).unwrap_or_default();
        let why = value.pointer("/error/message").and_then(Value::as_str).unwrap_or(&body);
        let what = format!("{}{path} answered {}", self.base, response.status());
        Err(Failure::new(what).because(why.trim()))
    }

    fn lost(&self, path: &str, why: &dyn std::error::Error) -> Failure {
        Failure::new(format!("{}{path} cannot be used", self.base)).because(why)
    }

    /// The tokens of a text.
    pub(super) fn tokenize(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let value = self.post("/tokenize", &json!({ "content": text, "parse_special": false }))?;
        serde_json::from_value(value["tokens"].clone())
            .map_err(|error| self.lost("/tokenize", &error))
    }

    /// Has a prompt continued by `most` tokens, greedily, and listens.
    pub(super) fn listen(&self, prompt: &[u32], most: usize) -> Result<Heard, Failure> {
        const PATH: &str = "/v1/completions";
        let body = json!({
            "prompt": prompt, "max_tokens": most, "temperature": 0, "ignore_eos": true,
            "stream": true, "stream_options": { "include_usage": true },
        });
        let response = self.answered(PATH, self.send(PATH, &body))?;
        let (mut first, mut tokens, mut over) = (None, 0, false);
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|error| self.lost(PATH, &error))?;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                over = true;
                break;
            }
            let chunk: Value =
                serde_json::from_str(data).map_err(|error| self.lost(PATH, &error))?;
            if let Some(message) = chunk.pointer("/error/message").and_then(Value::as_str) {
                return Err(Failure::new(format!("{}{PATH} failed", self.base)).because(message));
            }
            let text = chunk.pointer("/choices/0/text").and_then(Value::as_str).unwrap_or("");
            if !text.is_empty() {
                first.get_or_insert_with(Instant::now);
            }
            let counted = chunk.pointer("/usage/completion_tokens").and_then(Value::as_u64);
            tokens = counted.map_or(tokens, |n| n as usize);
        }
        let end = Instant::now();
        match first {
            Some(first) if over && tokens > 0 => Ok(Heard { first, end, tokens }),
            _ => Err(Failure::new(format!("{}{PATH} broke off", self.base))),
        }
    }
}
