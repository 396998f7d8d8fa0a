//! `trilut serve`: the OpenAI and Ollama APIs and a web page.

use super::embed::PoolingName;
use super::failure::Failure;
use super::model::{EMBEDDED, Source};
use super::run::Engine;
use super::{environment, interrupt};
use crate::cli::output::say;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use trilut_server::engine::EngineOptions;
use trilut_server::{Served, Server, ServerOptions};

/// Serve a model: the OpenAI and Ollama APIs, and a page to chat with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Address to listen on. Other machines can reach it only when it is not a loopback address.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Key that clients must send as a bearer token; TRILUT_API_KEY without it.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Name by which clients ask for the model; the file's own name without it.
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Answers that are written at once; each has a context of its own.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Requests that may wait for their turn.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    queue: u16,
    /// Guess up to N tokens of each answer from what is in the text already; 0 does not guess.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    speculate: u16,
    /// Another origin whose web pages may use the server, such as https://chat.example; * for any.
    #[arg(long, value_name = "ORIGIN")]
    cors: Option<String>,
    /// Give embeddings, pooled so; a model that was made for them says how in its file.
    #[arg(long, value_enum, value_name = "POOLING")]
    pooling: Option<PoolingName>,
    #[command(flatten)]
    engine: Engine,
}

/// Lets all threads allocate from one heap, which must be said before the first of them is started. glibc
/// would give each one of its own, and what was freed in one heap serves no other: requests wander over
/// threads, so every heap grows on its own to the most that was ever needed there, for minutes under load.
pub(crate) fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: sets a parameter of the allocator; refused, it stays what it was.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

pub(crate) fn serve(args: Args) -> Result<(), Failure> {
    interrupt::outlive_closed_pipes();
    let api_key = args.api_key.or_else(|| environment::value(environment::API_KEY));
    if api_key.as_deref() == Some("") {
        return Err(Failure::usage("--api-key is empty").hint("leave it out to need no key"));
    }
    if let Some(cors) = args.cors.as_deref().filter(|cors| *cors != "*" && !is_origin(cors)) {
        return Err(Failure::usage(format!("--cors `{cors}` is no origin"))
            .hint("write it as browsers do: https://chat.example, in lower case, without a path"));
    }
    let name = args.alias.unwrap_or_else(|| name(args.model.as_deref()));
    let gguf = Source::new(args.model).open()?;
    let mut served = Served::new(&gguf, args.engine.load(&gguf)?, name)?;
    if let Some(pooling) = args.pooling {
        served = served.with_embeddings(pooling.into());
    }
    if !served.can_chat() {
        say!("note: the model file carries no chat template: completions work, chats do not");
    }
    let options = ServerOptions {
        engine: EngineOptions {
            slots: args.parallel.into(),
            queue: args.queue.into(),
            speculate: args.speculate.into(),
            ..EngineOptions::default()
        },
        api_key,
        cors: args.cors,
        ..ServerOptions::default()
    };
    let open = options.api_key.is_none();
    let server = Server::bind(served, &args.host, args.port, options)?;
    let address = server.address();
    if open && !address.ip().to_canonical().is_loopback() {
        say!("note: anybody who reaches {address} may use the model: --api-key asks for a key");
    }
    say!("serving at http://{address} (Ctrl-C ends)");
    server.run(interrupt::asked)?;
    say!("ended");
    if interrupt::asked() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// Whether a text is an origin as browsers send it: `scheme://host[:port]`.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| lower(c) || "-._".contains(c)),
    };
    let is_port = |port: &str| !port.starts_with('+') && port.parse::<u16>().is_ok();
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| lower(c) || "+-.".contains(c))
        && is_host
        && port.is_none_or(is_port)
}

/// What a model is called: its file's name without the ending.
fn name(path: Option<&Path>) -> String {
    let stem = path.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    stem.filter(|stem| !stem.is_empty()).unwrap_or_else(|| EMBEDDED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_a_host_and_nothing_behind() {
        for origin in [
            "https://chat.example",
            "http://localhost:3000",
            "http://127.0.0.1:80",
            "http://[::1]",
            "http://[::1]:8080",
            "chrome-extension://abcdef",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for other in [
            "",
            "chat.example",
            "null",
            "https://",
            "://chat.example",
            "https://chat.example/",
            "https://Chat.example",
            "https://user@chat.example",
            "https://chat.example:",
            "https://chat.example:port",
            "https://chat.example:70000",
            "https://chat.example:+80",
            "https://a.example https://b.example",
            "https://*.example",
            "http://[::1",
            "http://::1",
        ] {
            assert!(!is_origin(other), "{other}");
        }
    }
}
