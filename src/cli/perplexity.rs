//! `trilut perplexity`: how well a model predicts a text.

use super::failure::Failure;
use super::interrupt;
use super::model::Source;
use super::output::{count, outln, say};
use super::run::{Engine, read_text};
use indicatif::{ProgressBar, ProgressStyle};
use std::ops::ControlFlow;
use std::path::PathBuf;
use trilut_runtime::{Perplexity, PerplexityError, perplexity};

/// Tokens of a chunk when nothing else is asked for, as in llama-perplexity.
const CHUNK: usize = 512;

/// Measure how well a model predicts a text, by the method of llama-perplexity.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Text file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// `-c` is the number of tokens of a chunk, 512 without it.
    #[command(flatten)]
    engine: Engine,
}

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    let chunk = args.engine.context.unwrap_or(CHUNK);
    // What no model can score is refused with the model's own limit.
    args.engine.context = Some(chunk).filter(|chunk| *chunk >= perplexity::LEAST_CONTEXT);
    let text = read_text(&args.file)?;
    let model = args.engine.load(&Source::new(args.model).open()?)?;
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("[{bar:24}] chunk {pos} of {len}  left {eta}");
    bar.set_style(style.expect("the template is well-formed").progress_chars("=> "));
    let measured = perplexity(&model, &text, chunk, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let found = match measured {
        Err(PerplexityError::Cancelled) => return Err(Failure::interrupted()),
        measured => measured?,
    };
    let Perplexity { context, chunks, scored, mean, error } = found;
    if args.json {
        let json = serde_json::json!({
            "perplexity": found.value(), "error": found.value_error(), "mean_nats": mean,
            "mean_nats_error": error, "context": context, "chunks": chunks, "tokens": scored,
        });
        outln!("{json}");
    } else {
        outln!("perplexity {:.4} +/- {:.4}", found.value(), found.value_error());
        say!(
            "{} of {context} tokens, {} scored, {mean:.5} nats each",
            count(chunks, "chunk"),
            count(scored, "token")
        );
    }
    Ok(())
}
