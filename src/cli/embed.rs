//! `trilut embed`: texts as vectors.

use super::failure::Failure;
use super::interrupt;
use super::model::Source;
use super::run::{Engine, read_text};
use crate::cli::output::{lost, say};
use std::io::Write;
use std::path::PathBuf;
use trilut_runtime::embedding::{Embedder, Pooling};

/// Turn texts into vectors of length 1.
///
/// Each argument is a text; with --file each line of the file is one. JSON is one object per text with its
/// `index`, `tokens` and `embedding`; raw is 32-bit little-endian floats, one vector after the other.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Texts.
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    texts: Vec<String>,
    /// File with a text in each line, after those of the arguments; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// How the states of a text's tokens become one; without it as the model file says. The embedded model
    /// was not made for embeddings and takes the mean.
    #[arg(long, value_enum)]
    pooling: Option<PoolingName>,
    /// What is put before each text, such as the instruction that a model wants before queries.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "json")]
    output: Form,
    #[command(flatten)]
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PoolingName {
    /// The mean of all tokens.
    Mean,
    /// The first token.
    First,
    /// The last token.
    Last,
}

impl From<PoolingName> for Pooling {
    fn from(name: PoolingName) -> Self {
        match name {
            PoolingName::Mean => Self::Mean,
            PoolingName::First => Self::First,
            PoolingName::Last => Self::Last,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// One object per text and line.
    Json,
    /// Floats.
    Raw,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut texts = args.texts;
    if let Some(file) = &args.file {
        texts.extend(read_text(file)?.lines().map(str::to_owned));
    }
    if texts.is_empty() {
        return Err(Failure::new("the file has no texts").hint("write one in each line"));
    }
    let source = Source::new(args.model);
    let gguf = source.open()?;
    let pooling = match args.pooling {
        Some(name) => name.into(),
        None if source == Source::Embedded => {
            say!(
                "note: the embedded model was not made for embeddings; the mean of its states is taken"
            );
            Pooling::Mean
        }
        None => Pooling::from_gguf(&gguf)?.ok_or_else(|| {
            Failure::new("the model file does not say how to make one vector of a text")
                .because("it has no pooling_type: it was not made for embeddings, or its converter lost it")
                .hint("choose with --pooling last or --pooling mean, as the model's page says")
        })?,
    };
    let mut embedder = Embedder::new(args.engine.load(&gguf)?, pooling)?;
    let mut out = std::io::stdout().lock();
    for (index, text) in texts.iter().enumerate() {
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
        let text = format!("{}{text}", args.prefix);
        let tokens = embedder.tokens(&text);
        let vector = embedder.embed_tokens(&tokens).map_err(|error| {
            Failure::from(error).context(format!("text {index} cannot be read"))
        })?;
        match args.output {
            Form::Raw => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                out.write_all(&bytes).map_err(lost)?;
            }
            Form::Json => {
                let tokens = tokens.len();
                let json =
                    serde_json::json!({"index": index, "tokens": tokens, "embedding": vector});
                writeln!(out, "{json}").map_err(lost)?;
            }
        }
    }
    out.flush().map_err(lost)
}
