//! What one request may ask for. Every size that a client chooses is bounded here.

use std::num::NonZeroU16;
use std::time::Duration;

/// Limits of requests and connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Bodies of more than some kilobytes that are in memory at once; others wait for their turn.
    pub large_bodies: usize,
    /// Answers to one request.
    pub answers: usize,
    /// Stop texts.
    pub stops: usize,
    /// Bytes of each.
    pub stop_bytes: usize,
    /// Bytes of a JSON schema.
    pub schema_bytes: usize,
    /// Entries of `logit_bias`.
    pub biases: usize,
    /// Likeliest tokens reported with each token.
    pub top_logprobs: usize,
    /// Messages of a conversation.
    pub messages: usize,
    /// Bytes of a text that is only encoded.
    pub text: usize,
    /// Tokens of a text that is only encoded or decoded.
    pub tokens: usize,
    /// Connections at once.
    pub connections: NonZeroU16,
    /// Time for a request's head; also how long an idle connection is kept.
    pub head_time: Duration,
    /// Time for a request's body.
    pub body_time: Duration,
    /// Time for which a client may take nothing of its answer.
    pub write_time: Duration,
    /// Time after which a stream without news says that it is alive.
    pub keep_alive: Duration,
    /// Time that answers at work get when the server ends.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4 << 20,
            large_bodies: 64,
            answers: 16,
            stops: 16,
            stop_bytes: 256,
            schema_bytes: 64 << 10,
            biases: 1024,
            top_logprobs: 20,
            messages: 4096,
            text: 1 << 20,
            tokens: 64 << 10,
            connections: const { NonZeroU16::new(1024).unwrap() },
            head_time: Duration::from_secs(20),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            keep_alive: Duration::from_secs(5),
            grace: Duration::from_secs(10),
        }
    }
}
