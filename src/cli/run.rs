//! `trilut run`: continues a prompt.

use super::failure::Failure;
use super::layouts::Layouts;
use super::model::{CacheMode, LoadMode, Source};
use super::output::{count, lost, outln, say};
use super::planning::Here;
use super::sampling::Sampling;
use super::{environment, interrupt, progress};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trilut_presets::Format;
use trilut_runtime::batch::{self, Completion, Progress};
use trilut_runtime::chat::{ChatTemplate, Message};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{Config, Finish, GenerateOptions, Generation, Model, ModelOptions, OnFull};

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
    /// Prompt; with -cnv the system prompt.
    #[arg(short, long)]
    prompt: Option<String>,
    /// Read the prompt from a file, with -cnv the system prompt; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Continue each line of a file, several at once; `-` is standard input. Prints one JSON object per
    /// prompt when its text and those before it have ended: `index`, `prompt`, `text`, `prompt_tokens`,
    /// `tokens`, `finish`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "file", "conversation"])]
    prompts: Option<PathBuf>,
    /// Prompts of --prompts that are continued at once.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "prompts",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Chat with the model, as `trilut chat` does; also -cnv.
    #[arg(long, conflicts_with_all = ["chat", "special", "keep", "speculate"])]
    conversation: bool,
    /// What happens when the context is full.
    #[arg(long, value_enum, value_name = "POLICY", default_value = "stop")]
    on_full: Policy,
    /// Tokens at the beginning that a full context keeps, 1 without it; with --on-full shift.
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Put the prompt into the model's chat template, as a user's message.
    #[arg(long)]
    chat: bool,
    /// Read the names of control tokens in the prompt, such as <|eot_id|>, as those tokens.
    #[arg(long, conflicts_with = "chat")]
    special: bool,
    /// Guess up to N tokens at a time from what the text has said before; changes speed, never text.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "prompts",
        value_parser = clap::value_parser!(u16).range(0..=64))]
    speculate: u16,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    engine: Engine,
}

/// What happens when the context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// The text ends; a prompt that does not fit is refused.
    Stop,
    /// The beginning and the newer half of the rest stay and are read again, the older half is dropped.
    Shift,
}

/// How the model is run; it changes speed, never text.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Engine {
    /// Number of threads; every core without it.
    #[arg(short, long, value_parser = environment::number_of_threads)]
    pub(crate) threads: Option<usize>,
    /// Positions of the context; the model's own number without it.
    #[arg(short, long = "ctx", alias = "ctx-size", value_name = "N")]
    pub(crate) context: Option<usize>,
    /// Weight format to run in: i2_s, tl1, tl2, base3; the preset's choice without it.
    #[arg(long)]
    format: Option<Format>,
    /// Preset file to use before all others.
    #[arg(long, value_name = "FILE")]
    preset: Option<PathBuf>,
    /// Where the weights are kept.
    #[arg(long, value_enum, default_value = "map")]
    load: LoadMode,
    /// What keys and values are cached as.
    #[arg(long, value_enum, default_value = "q16")]
    cache_type: CacheMode,
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
        cache_type: CacheMode,
        layouts: Layouts,
    ) -> Self {
        Self {
            threads: Some(threads),
            context: None,
            format,
            preset,
            load,
            cache_type,
            layouts,
            layers: None,
        }
    }

    /// The same with the first blocks alone, where a number is given.
    pub(crate) fn with_layers(self, layers: Option<usize>) -> Self {
        Self { layers, ..self }
    }

    /// Loads a model with the kernels that the ladder names.
    pub(crate) fn load(&self, gguf: &Gguf) -> Result<Model, Failure> {
        let threads = environment::threads(self.threads)?;
        let layouts = self.layouts.read(gguf)?;
        let here = Here::find(self.preset.clone())?;
        let plan = here.plan_for(&Config::from_gguf(gguf)?, threads, self.format)?;
        let options = ModelOptions {
            format: self.format,
            threads: Some(threads),
            plan: Some(&plan),
            cpu: Some(here.cpu),
            context: self.context,
            load: self.load.into(),
            cache: self.cache_type.into(),
            layouts,
            layers: self.layers,
        };
        let model = Model::open_with(gguf, &options)?;
        model.tokenizer().notes().iter().for_each(|note| say!("note: {note}"));
        Ok(model)
    }
}

/// The spelling that the argument parser knows of one that other engines have: one dash, many letters.
pub(crate) fn known_spelling(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-cnv") => "--conversation".into(),
        Some("-temp") => "--temp".into(),
        _ => argument,
    }
}

/// Texts of a generation when no number of tokens is given.
const TOKENS: usize = 256;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let (source, prompt) = words(&args)?;
    if prompt.is_some() && (args.file.is_some() || args.prompts.is_some()) {
        let file = if args.file.is_some() { "--file" } else { "--prompts" };
        return Err(
            Failure::usage(format!("a prompt was given and {file}")).hint("leave one of them out")
        );
    }
    if args.keep.is_some() && args.on_full == Policy::Stop {
        return Err(Failure::usage("--keep changes nothing here")
            .because("a context that is full ends the text")
            .hint("--on-full shift drops what is old, and keeps the first tokens"));
    }
    if args.conversation {
        let system = match &args.file {
            Some(file) => Some(prompt_of(file)?),
            None => prompt,
        };
        return super::chat::converse(source, system, &args.sampling, args.on_full, &args.engine);
    }
    let sampling = args.sampling.options()?;
    let gguf = source.open()?;
    let prompts = match (&args.prompts, prompt, &args.file) {
        (Some(file), ..) => read_text(file)?.lines().map(str::to_owned).collect(),
        (None, Some(prompt), _) => vec![prompt],
        (None, None, Some(file)) => vec![prompt_of(file)?],
        (None, None, None) if !std::io::stdin().is_terminal() => vec![piped()?],
        (None, None, None) => vec![STORY.to_owned()],
    };
    let model = args.engine.load(&gguf)?;
    let options = GenerateOptions {
        max_tokens: match args.sampling.n_predict {
            Some(limit) => limit.0.unwrap_or(usize::MAX),
            None => TOKENS,
        },
        sampling,
        // Names of control tokens in a person's prompt stay text; in a template they are meant.
        parse_special: args.chat || args.special,
        speculate: args.speculate.into(),
        on_full: match args.on_full {
            Policy::Stop => OnFull::Stop,
            Policy::Shift => OnFull::Shift { keep: args.keep.unwrap_or(1) },
        },
    };
    let texts = match args.chat {
        true => {
            prompts.iter().map(|prompt| chat(&gguf, &model, prompt)).collect::<Result<_, _>>()?
        }
        false => prompts.clone(),
    };
    if args.prompts.is_some() {
        return many(&model, &prompts, &texts, &options, args.parallel.into());
    }
    let generation = tell(&model, &texts[0], !args.chat, &options)?;
    say!("{}", figures(&generation));
    match generation.finish {
        Finish::Cancelled => Err(Failure::interrupted()),
        _ => Ok(()),
    }
}

/// Continues many prompts at once; `texts` are what is read for them.
fn many(
    model: &Model,
    prompts: &[String],
    texts: &[String],
    options: &GenerateOptions,
    width: usize,
) -> Result<(), Failure> {
    if options.on_full != OnFull::Stop {
        return Err(Failure::usage("--on-full shift does not go with --prompts")
            .hint("leave it out: each text ends where the context does"));
    }
    if prompts.is_empty() {
        return Err(Failure::new("the file has no prompts").hint("write one in each line"));
    }
    check_lengths(model, texts, options)?;
    let began = std::time::Instant::now();
    let line = progress::line();
    let (mut ended, mut next) = (0, 0);
    let mut waiting: BTreeMap<usize, Completion> = BTreeMap::new();
    let print = |index: usize, completion: &Completion| -> Result<(), Failure> {
        let Completion { text, prompt_tokens, tokens, finish } = completion;
        let object = serde_json::json!({
            "index": index, "prompt": prompts[index], "text": text, "prompt_tokens": prompt_tokens,
            "tokens": tokens, "finish": finish.name(),
        });
        line.suspend(|| {
            outln!("{object}");
            Ok(())
        })
    };
    let mut printed = Ok(());
    let all = batch::complete(model, texts, options, width, |progress| {
        if let Progress::Done(index, completion) = progress {
            ended += 1;
            line.set_message(format!("{ended} of {} prompts", texts.len()));
            line.tick();
            waiting.insert(index, completion.clone());
            // In the order of the file.
            while let Some(completion) = waiting.remove(&next).filter(|_| printed.is_ok()) {
                printed = print(next, &completion);
                next += 1;
            }
        }
        if interrupt::asked() || printed.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    line.finish_and_clear();
    printed?;
    // What was finished before an earlier one is not lost when the work is broken off.
    waiting.iter().try_for_each(|(index, completion)| print(*index, completion))?;
    let all = all?;
    if all.len() < prompts.len() {
        return Err(Failure::interrupted());
    }
    let tokens: usize = all.iter().map(|one| one.tokens).sum();
    let seconds = began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    say!(
        "{}, {width} at once: {tokens} tokens generated, {:.1} t/s",
        count(prompts.len(), "prompt"),
        tokens as f64 / seconds
    );
    Ok(())
}

/// Refuses texts that are empty or longer than the context, before any of them is read.
fn check_lengths(
    model: &Model,
    texts: &[String],
    options: &GenerateOptions,
) -> Result<(), Failure> {
    let context = model.context();
    for (line, text) in (1..).zip(texts) {
        match model.tokenizer().encode_text(text, options.parse_special).len() {
            0 => return Err(Failure::new(format!("line {line} of the prompts is empty"))),
            tokens if tokens > context => {
                let long = count(tokens, "token");
                return Err(Failure::new(format!("line {line} of the prompts has {long}"))
                    .because(format!("the context holds {context}"))
                    .hint("--ctx changes the context; no prompt was read"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// How standard input is asked for where files are.
const STDIN: &str = "-";

/// The most bytes of a text: far more than any context holds, and few enough for any machine. Some files,
/// such as /dev/zero, never end.
const MOST_TEXT: u64 = 256 << 20;

/// The text of a file, `-` being standard input.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let is_stdin = path == Path::new(STDIN);
    let mut bytes = Vec::new();
    let read = if is_stdin {
        std::io::stdin().take(MOST_TEXT + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MOST_TEXT + 1).read_to_end(&mut bytes))
    };
    let cannot = || match is_stdin {
        true => "cannot read standard input".to_owned(),
        false => format!("cannot read {}", path.display()),
    };
    read.map_err(|error| {
        Failure::of(&error).context(cannot()).hint("give a text file, or `-` for standard input")
    })?;
    if bytes.len() as u64 > MOST_TEXT {
        return Err(Failure::new(cannot()).because("it has more than 256 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        Failure::of(&error).context(cannot()).hint("texts must be UTF-8; iconv converts others")
    })
}

/// The text of a file without the line end that editors put there.
fn prompt_of(file: &Path) -> Result<String, Failure> {
    Ok(read_text(file)?.trim_end_matches(['\r', '\n']).to_owned())
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
    let path = Path::new(word);
    // A directory is no model either, but more likely meant as one than to be continued.
    word == super::model::EMBEDDED || word.ends_with(".gguf") || path.is_file() || path.is_dir()
}

/// Everything on standard input, without the line end that `echo` puts there; a story if it is empty.
fn piped() -> Result<String, Failure> {
    let text = prompt_of(Path::new(STDIN))?;
    Ok(if text.is_empty() { STORY.to_owned() } else { text })
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
    written.and_then(|()| writeln!(out, "{lead}")).map_err(lost)?;
    if generation.dropped > 0 {
        let dropped = count(generation.dropped, "token");
        say!(
            "note: the context of {} was full: the oldest {dropped} behind the first ones were \
             dropped, and the rest was read again (--on-full stop ends the text there)",
            count(model.context(), "position")
        );
    }
    if generation.finish == Finish::Context {
        let shift = match options.on_full {
            OnFull::Stop => ", --on-full shift goes on",
            // There was nothing left to drop.
            OnFull::Shift { .. } => "",
        };
        say!(
            "note: the context of {} is full, the text ends here (--ctx changes it{shift})",
            count(model.context(), "position")
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
        "prompt: {}, {:.1} t/s; generated: {}, {:.1} t/s ({})",
        count(*prompt_tokens, "token"),
        rate(*prompt_tokens, prompt_time),
        count(*tokens, "token"),
        rate(*tokens, decode_time),
        finish.name(),
    )
}
