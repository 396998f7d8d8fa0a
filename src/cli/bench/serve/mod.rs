//! `trilut bench serve`: what a server adds to the model it serves. Several clients at once, what HTTP
//! costs beside the engine alone, a short prompt beside a long one, the second turn of a chat.
//!
//! [`subject`] is the server, [`client`] speaks with it, [`passages`] makes prompts that no cache knows,
//! [`load`] measures, [`report`] prints and judges.

mod client;
mod load;
mod passages;
mod report;
mod subject;

use super::super::failure::{Failure, printable};
use super::super::model::Source;
use super::super::output::{out, outln, say};
use super::super::run::Engine;
use super::super::{environment, progress};
use load::Sizes;
use passages::Passages;
use report::Report;
use serde_json::Value;
use std::path::PathBuf;
use subject::Subject;
use trilut_server::engine::EngineOptions;

/// Measure a server: clients at once, first tokens, what HTTP costs, what second turns re-use.
///
/// A server of its own on a free port, or a running `trilut serve` with --url. With a server of its own the
/// same engine is asked without HTTP in turns with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "url")]
    model: Option<PathBuf>,
    /// A running server, such as http://127.0.0.1:8080, that is not used by others meanwhile.
    #[arg(long, value_name = "URL", conflicts_with_all = ["threads", "context", "format", "preset", "load",
          "cache_type", "i2s_layout", "tl_config", "tl_tile"])]
    url: Option<String>,
    /// Key of the running server; TRILUT_API_KEY without it.
    #[arg(long, value_name = "KEY", requires = "url")]
    api_key: Option<String>,
    /// Numbers of clients at once, separated by commas.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: Vec<u16>,
    /// Tokens of a client's prompt.
    #[arg(short = 'p', long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..))]
    n_prompt: u32,
    /// Tokens of each answer.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(2..))]
    n_gen: u32,
    /// Tokens of a long prompt beside which a short one waits for its first token; 0 leaves that out.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    long: u32,
    /// Rounds of each measurement.
    #[arg(short, long, visible_alias = "rounds", value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "md")]
    output: Output,
    /// Exit with code 3 when 4 clients have less than twice the speed of one, a first token beside the long
    /// prompt takes more than 3 times as long as alone, a second turn re-uses less than 95 % of its prompt,
    /// or HTTP adds more than 3 % to the time of a token: in the middle of all rounds, or in every round of a
    /// number of clients.
    #[arg(long)]
    assert: bool,
    #[command(flatten)]
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Markdown table.
    Md,
    /// One JSON object.
    Json,
}

pub(super) fn bench(args: &Args) -> Result<(), Failure> {
    let subject = match &args.url {
        Some(url) => {
            let key = args.api_key.clone().or_else(|| environment::value(environment::API_KEY));
            Subject::running(url, key)
        }
        None => own(args)?,
    };
    let props = subject.props()?;
    let number = |path: &str| props.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let text = |path: &str| {
        printable(props.pointer(path).and_then(Value::as_str).unwrap_or("unknown"))
            .trim()
            .to_owned()
    };
    let (slots, context) = (number("/total_slots"), number("/default_generation_settings/n_ctx"));
    let sizes = Sizes {
        prompt: args.n_prompt as usize,
        answer: args.n_gen as usize,
        long: fitting(args.long as usize, context as usize)?,
        rounds: args.repetitions as usize,
    };
    if (sizes.prompt + sizes.answer) as u64 > context {
        return Err(Failure::usage(format!(
            "{} prompt tokens and {} of the answer do not fit into the context of {context}",
            sizes.prompt, sizes.answer,
        ))
        .hint("choose smaller -p and -n, or a larger --ctx"));
    }
    let mut passages = Passages::new(subject.client.tokenize(Passages::TEXT)?, seed(args))?;
    let bar = progress::line();
    let show = |what: String| {
        bar.set_message(what);
        bar.tick();
    };
    load::warm_up(&subject, &mut passages, sizes)?;
    let mut report = Report {
        version: text("/version"),
        address: subject.address.clone(),
        model: args.url.as_ref().map_or_else(|| source(args).to_string(), |_| text("/model")),
        cpu: text("/machine/brand"),
        threads: number("/threads"),
        slots,
        context,
        prompt_tokens: sizes.prompt,
        answer_tokens: sizes.answer,
        rounds: sizes.rounds,
        clients: Vec::new(),
        beside: None,
        second_turn: None,
    };
    for &clients in &args.clients {
        show(format!("{clients} at once"));
        if u64::from(clients) > slots {
            say!("note: {clients} clients share {slots} slots: some wait for others to end");
        }
        let measured = load::clients(&subject, &mut passages, clients.into(), sizes)?;
        report.clients.push(measured);
    }
    if sizes.long > 0 {
        show(format!("beside a prompt of {}", sizes.long));
        report.beside = Some(load::beside(&subject, &mut passages, sizes)?);
    }
    show("second turn".to_owned());
    report.second_turn = Some(load::second_turn(&subject, &mut passages, sizes, &props)?);
    bar.finish_and_clear();
    match args.output {
        Output::Md => out!("{}", report.markdown()),
        Output::Json => {
            let json = serde_json::to_string_pretty(&report).map_err(|e| Failure::of(&e))?;
            outln!("{json}");
        }
    }
    let mut short = report.shortcomings().into_iter();
    match short.next() {
        Some(first) if args.assert => Err(short.fold(Failure::check(first), Failure::because)),
        _ => Ok(()),
    }
}

fn source(args: &Args) -> Source {
    Source::new(args.model.clone())
}

/// Where prompts begin: a server that runs already may remember those of an earlier run.
fn seed(args: &Args) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    args.url.as_ref().map_or(1, |_| now.map_or(1, |now| now.as_nanos() as u64))
}

/// A server of our own, with a slot for every client.
fn own(args: &Args) -> Result<Subject, Failure> {
    // The short prompt beside the long one needs a slot of its own.
    let slots = args.clients.iter().copied().max().unwrap_or(1).max(2);
    let options = EngineOptions {
        slots: slots.into(),
        queue: usize::from(slots).max(64),
        ..EngineOptions::default()
    };
    Subject::start(&source(args), &args.engine, options)
}

/// The length of the long prompt: what was asked for, or what the context has room for.
fn fitting(long: usize, context: usize) -> Result<usize, Failure> {
    let room = context.saturating_sub(16);
    if long > room {
        say!("note: the context has {context} tokens: the long prompt has {room}, not {long}");
    }
    Ok(long.min(room))
}
