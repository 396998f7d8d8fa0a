//! The server as its clients meet it: a server in this process with the embedded model, over the wire.

mod batching;
mod client;
mod ollama;
mod openai;
mod safety;
