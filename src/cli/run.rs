//! `trilut run`: continues a prompt.

use super::failure::Failure;
use super::layouts::Layouts;
use super::model::{LoadMode, Source};
use super::planning::Here;
use super::{environment, interrupt};
use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trilut_presets::Format;
use trilut_runtime::chat::{ChatTemplate, Message};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{
    Config, Finish, GenerateOptions, Generation, Model, ModelOptions, Sampler, SamplerOptions,
};

/// The prompt when none is given.
pub(crate) const STORY: &str = "Once upon a time";

/// Continue a prompt.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file, and the prompt. A single argument that is no file is the prompt, for the embedded
    /// model. Without a prompt: standard input if it is piped, else a story.
    #[arg(value_name = "MODEL] [PROMPT")]
    words: Vec<String>,
    /// Model file.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Prompt.
    #[arg(short, long)]
    prompt: Option<String>,
    /// Put the prompt into the model's chat template, as a user's message.
    #[arg(long)]
    chat: bool,
    /// Read the names of control tokens in the prompt, such as <|eot_id|>, as those tokens.
    #[arg(long, conflicts_with = "chat")]
    special: bool,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    engine: Engine,
}

/// How the next token is chosen.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sampling {
    /// The most tokens to generate.
    #[arg(short, long = "n-predict", value_name = "N", default_value_t = 256)]
    n_predict: usize,
    /// Temperature; 0 takes the most likely token always.
    #[arg(long, default_value_t = 0.8)]
    temp: f32,
    /// Keep the K most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Keep the most likely tokens whose probabilities reach this sum.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Keep tokens at least this likely, relative to the most likely one.
    #[arg(long, default_value_t = 0.05)]
    min_p: f32,
    /// Random seed; the same seed gives the same text.
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
}

/// How the model is run; it changes speed, never text.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Engine {
    /// Number of threads; every core without it.
    #[arg(short, long)]
    pub(crate) threads: Option<usize>,
    /// Positions of the context; the model's own number without it.
    #[arg(short, long = "ctx", value_name = "N")]
    context: Option<usize>,
    /// Weight format to run in: i2_s, tl1, tl2, base3; the preset's choice without it.
    #[arg(long)]
    format: Option<Format>,
    /// Preset file to use before all others.
    #[arg(long, value_name = "FILE")]
    preset: Option<PathBuf>,
    /// Where the weights are kept.
    #[arg(long, value_enum, default_value = "map")]
    load: LoadMode,
    #[command(flatten)]
    layouts: Layouts,
    /// Blocks to run; all without it.
    #[arg(skip)]
    layers: Option<usize>,
}

impl Engine {
    /// An engine with the model's own context.
    pub(crate) fn new(
        threads: usize,
        format: Option<Format>,
        preset: Option<PathBuf>,
        load: LoadMode,
    ) -> Self {
        let layouts = Layouts::default();
        Self { threads: Some(threads), context: None, format, preset, load, layouts, layers: None }
    }

    /// The same with the first blocks alone, where a number is given.
    pub(crate) fn with_layers(self, layers: Option<usize>) -> Self {
        Self { layers, ..self }
    }

    /// Loads a model with the kernels that the ladder names.
    pub(crate) fn load(&self, gguf: &Gguf) -> Result<Model, Failure> {
        let threads = environment::threads(self.threads)?;
        let here = Here::find(self.preset.clone())?;
        let plan = here.plan_for(&Config::from_gguf(gguf)?, threads, self.format)?;
        let options = ModelOptions {
            format: self.format,
            threads: Some(threads),
            plan: Some(&plan),
            cpu: Some(here.cpu),
            context: self.context,
            load: self.load.into(),
            layouts: self.layouts.read()?,
            layers: self.layers,
        };
        let model = Model::open_with(gguf, &options)?;
        model.tokenizer().notes().iter().for_each(|note| eprintln!("note: {note}"));
        Ok(model)
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let (source, prompt) = words(&args)?;
    let Sampling { n_predict, temp, top_k, top_p, min_p, seed } = args.sampling;
    let sampling = SamplerOptions { temperature: temp, top_k, top_p, min_p, seed };
    Sampler::new(sampling.clone()).map_err(|error| Failure::from(error).into_usage())?;
    let gguf = source.open()?;
    let prompt = match prompt {
        Some(prompt) => prompt,
        None if !std::io::stdin().is_terminal() => piped()?,
        None => STORY.to_owned(),
    };
    let model = args.engine.load(&gguf)?;
    let options = GenerateOptions {
        max_tokens: n_predict,
        sampling,
        // Names of control tokens in a person's prompt stay text; in a template they are meant.
        parse_special: args.chat || args.special,
    };
    let (prompt, echo) =
        if args.chat { (chat(&gguf, &model, &prompt)?, false) } else { (prompt, true) };
    let generation = tell(&model, &prompt, echo, &options)?;
    eprintln!("{}", figures(&generation));
    match generation.finish {
        Finish::Cancelled => Err(Failure::interrupted()),
        _ => Ok(()),
    }
}

/// The model and the prompt among the arguments.
fn words(args: &Args) -> Result<(Source, Option<String>), Failure> {
    let mut words = args.words.iter();
    let mut model = args.model.clone();
    if model.is_none()
        && let Some(first) = words.as_slice().first()
        && (args.words.len() > 1 || args.prompt.is_some() || is_model(first))
    {
        model = words.next().map(PathBuf::from);
    }
    let prompt = args.prompt.clone().or_else(|| words.next().cloned());
    if let Some(extra) = words.next() {
        return Err(Failure::usage(format!("unexpected argument `{extra}`"))
            .hint("put the prompt in quotes: trilut run MODEL \"PROMPT\""));
    }
    Ok((Source::new(model), prompt))
}

/// Whether a single argument names a model rather than a prompt.
fn is_model(word: &str) -> bool {
    word == super::model::EMBEDDED || word.ends_with(".gguf") || Path::new(word).is_file()
}

/// Everything on standard input, without the line end that `echo` puts there; a story if it is empty.
fn piped() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::of(&error).context("cannot read the prompt from standard input")
    })?;
    let text = text.trim_end_matches(['\r', '\n']);
    Ok(if text.is_empty() { STORY } else { text }.to_owned())
}

/// The prompt as a user's message in the model's own template. What the user writes cannot end its turn.
fn chat(gguf: &Gguf, model: &Model, prompt: &str) -> Result<String, Failure> {
    let template = ChatTemplate::from_gguf(gguf)?.ok_or_else(|| {
        Failure::new("the model file carries no chat template").hint("leave out --chat")
    })?;
    let message = Message::new("user", model.tokenizer().without_control(prompt));
    Ok(template.render(&[message], true)?)
}

/// Generates to stdout as it comes; Ctrl-C ends the text.
pub(crate) fn tell(
    model: &Model,
    prompt: &str,
    echo: bool,
    options: &GenerateOptions,
) -> Result<Generation, Failure> {
    let mut out = std::io::stdout().lock();
    let mut session = model.session()?;
    // The prompt appears when it was accepted and read.
    let mut lead = if echo { prompt } else { "" };
    let mut written = Ok(());
    let generation = session.generate(prompt, options, |piece| {
        written = write!(out, "{}{piece}", std::mem::take(&mut lead)).and_then(|()| out.flush());
        if written.is_err() || interrupt::asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    written?;
    writeln!(out, "{lead}")?;
    if generation.finish == Finish::Context {
        eprintln!(
            "note: the context of {} positions is full, the text ends here (--ctx changes it)",
            model.context()
        );
    }
    Ok(generation)
}

/// Counts and speeds of a generation, in one line.
pub(crate) fn figures(generation: &Generation) -> String {
    let Generation { prompt_tokens, tokens, finish, prompt_time, decode_time, .. } = generation;
    let rate = |count: usize, time: &std::time::Duration| {
        count as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
    };
    format!(
        "prompt: {prompt_tokens} tokens, {:.1} t/s; generated: {tokens} tokens, {:.1} t/s ({})",
        rate(*prompt_tokens, prompt_time),
        rate(*tokens, decode_time),
        finish.name(),
    )
}
