//! `trilut chat`: a conversation at the terminal, or from a pipe.

use super::conversation::Conversation;
use super::failure::{Failure, printable};
use super::interrupt;
use super::model::Source;
use super::output::{count, outln, say};
use super::run::{Engine, Policy};
use super::sampling::{Limit, Sampling, Seed, TopK};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{BufRead, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use trilut_runtime::chat::ChatTemplate;
use trilut_runtime::{Sampler, SamplerOptions};

/// Chat with a model.
///
/// What begins with / is a command (/help lists them); """ begins and ends a message of several lines.
/// Ctrl-C stops an answer, Ctrl-D or /bye ends the program.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    #[arg(value_name = "MODEL")]
    path: Option<PathBuf>,
    /// Model file.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "path")]
    model: Option<PathBuf>,
    /// What the model is told before everything else.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// What happens when the context is full.
    #[arg(long, value_enum, value_name = "POLICY", default_value = "shift")]
    on_full: Policy,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    engine: Engine,
}

const HELP: &str = "\
/bye                 end (also Ctrl-D)
/clear               forget the conversation
/set system TEXT     what the model is told first; nothing without TEXT
/set NAME VALUE      temp, top_k, top_p, min_p, seed, n (tokens of an answer, 0 or -1: no limit),
                     on_full (stop, shift)
/show                the settings and how full the context is
/show messages       what was said
/save FILE           write the conversation as JSON
/load FILE           take a saved conversation up again
/help                this
\"\"\"                  begins and ends a message of several lines
Ctrl-C               stops an answer";

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let source = Source::new(args.model.or(args.path));
    converse(source, args.system, &args.sampling, args.on_full, &args.engine)
}

/// Opens a model and talks until the person has enough.
pub(crate) fn converse(
    source: Source,
    system: Option<String>,
    sampling: &Sampling,
    on_full: Policy,
    engine: &Engine,
) -> Result<(), Failure> {
    let options = sampling.options()?;
    let gguf = source.open()?;
    let template = ChatTemplate::from_gguf(&gguf)?.ok_or_else(|| {
        Failure::new("the model file carries no chat template")
            .hint("trilut run continues texts without one")
    })?;
    let model = engine.load(&gguf)?;
    let mut conversation =
        Conversation::new(&model, template, options, sampling.n_predict.and_then(limit), on_full)?;
    conversation.system = system.filter(|text| !text.is_empty());
    let mut input = Input::new();
    if input.is_terminal() {
        say!("{source}, context of {} positions; /help lists commands", model.context());
    }
    let (mut messages, mut failed) = (0, 0);
    loop {
        let line = match input.message()? {
            Said::Text(line) => line,
            Said::Nothing => continue,
            Said::End => break,
        };
        // What was pressed while nothing ran.
        interrupt::taken();
        let done = match line.strip_prefix('/') {
            Some(command) => match obey(&mut conversation, command) {
                Ok(Next::End) => break,
                Ok(Next::Go) => Ok(()),
                Err(failure) => Err(failure),
            },
            None => {
                messages += 1;
                let answered = conversation.answer(&line, &mut std::io::stdout());
                failed += usize::from(answered.is_err());
                answered.map(drop)
            }
        };
        // Nothing that goes wrong ends the program; what is left of the pipe is read on.
        if let Err(failure) = done {
            failure.report();
        }
    }
    // A person has seen it; who reads the output of a pipe looks at the exit code.
    if failed > 0 && !input.is_terminal() {
        let messages = count(messages, "message");
        return Err(Failure::new(format!("{failed} of {messages} got no answer")));
    }
    Ok(())
}

/// Whether the program goes on after a command.
enum Next {
    Go,
    End,
}

/// Does what a command asks.
fn obey(conversation: &mut Conversation, command: &str) -> Result<Next, Failure> {
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match name {
        "bye" | "exit" | "quit" => return Ok(Next::End),
        "clear" => conversation.clear(),
        "set" => set(conversation, rest)?,
        "show" => show(conversation, rest)?,
        "save" | "load" if rest.is_empty() => {
            return Err(Failure::usage(format!("/{name} needs a file")));
        }
        "save" => conversation.save(Path::new(rest))?,
        "load" => conversation.load(Path::new(rest))?,
        "help" | "?" => say!("{HELP}"),
        other => {
            return Err(Failure::usage(format!("there is no command /{}", printable(other)))
                .hint("/help lists commands"));
        }
    }
    Ok(Next::Go)
}

/// The most tokens of an answer: none makes no chat, so that 0 is no limit either.
fn limit(limit: Limit) -> Option<usize> {
    limit.0.filter(|&n| n > 0)
}

fn set(conversation: &mut Conversation, text: &str) -> Result<(), Failure> {
    fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
        value
            .parse()
            .map_err(|_| Failure::usage(format!("`{}` is no value of {name}", printable(value))))
    }
    let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let value = value.trim();
    let sampling = conversation.sampling.clone();
    let sampling = match name {
        "system" => {
            conversation.system = (!value.is_empty()).then(|| value.to_owned());
            return Ok(());
        }
        "n" => {
            conversation.limit = limit(number(name, value)?);
            return Ok(());
        }
        "on_full" => {
            conversation.on_full = match value {
                "stop" => Policy::Stop,
                "shift" => Policy::Shift,
                _ => return Err(Failure::usage("on_full is stop or shift")),
            };
            return Ok(());
        }
        "temp" => SamplerOptions { temperature: number(name, value)?, ..sampling },
        "top_k" => SamplerOptions { top_k: number::<TopK>(name, value)?.0, ..sampling },
        "top_p" => SamplerOptions { top_p: number(name, value)?, ..sampling },
        "min_p" => SamplerOptions { min_p: number(name, value)?, ..sampling },
        "seed" => SamplerOptions { seed: number::<Seed>(name, value)?.number(), ..sampling },
        other => {
            return Err(Failure::usage(format!("`{}` cannot be set", printable(other)))
                .hint("/help lists what can be set"));
        }
    };
    Sampler::new(sampling.clone())?;
    conversation.sampling = sampling;
    Ok(())
}

fn show(conversation: &Conversation, what: &str) -> Result<(), Failure> {
    match what {
        "messages" => {
            for message in &conversation.messages {
                outln!("{}: {}", message.role, printable(&message.content));
            }
        }
        "" => {
            let SamplerOptions { temperature, top_k, top_p, min_p, seed } = conversation.sampling;
            let (used, context) = conversation.used();
            let system = conversation.system.as_deref().unwrap_or("none");
            let n = conversation.limit.map_or("no limit".to_owned(), |n| n.to_string());
            let on_full = match conversation.on_full {
                Policy::Stop => "stop",
                Policy::Shift => "shift",
            };
            outln!("system   {}", printable(system));
            outln!("temp     {temperature}\ntop_k    {top_k}\ntop_p    {top_p}\nmin_p    {min_p}");
            outln!("seed     {seed}\nn        {n}\non_full  {on_full}");
            let messages = count(conversation.messages.len(), "message");
            outln!("context  {used} of {context} positions, {messages}");
        }
        other => {
            return Err(Failure::usage(format!("`{}` cannot be shown", printable(other)))
                .hint("/show or /show messages"));
        }
    }
    Ok(())
}

/// What came in.
enum Said {
    Text(String),
    /// An empty line, or one that was given up.
    Nothing,
    End,
}

/// Where messages come from: a line editor at a terminal, else the lines of standard input.
enum Input {
    Editor { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Pipe,
}

impl Input {
    fn new() -> Self {
        if !std::io::stdin().is_terminal() {
            return Self::Pipe;
        }
        let Ok(mut editor) = DefaultEditor::new() else { return Self::Pipe };
        let history = history();
        if let Some(path) = &history {
            // There is none the first time.
            let _ = editor.load_history(path);
        }
        Self::Editor { editor: Box::new(editor), history }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Editor { .. })
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>, ReadlineError> {
        match self {
            Self::Editor { editor, .. } => loop {
                return match editor.readline(prompt) {
                    Ok(line) => Ok(Some(line)),
                    Err(ReadlineError::Eof) => Ok(None),
                    Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                        say!("note: the line is no UTF-8 and is asked for again");
                        continue;
                    }
                    Err(error) => Err(error),
                };
            },
            Self::Pipe => {
                let mut line = Vec::new();
                match std::io::stdin().lock().read_until(b'\n', &mut line)? {
                    0 => Ok(None),
                    _ => Ok(Some(
                        String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned(),
                    )),
                }
            }
        }
    }

    /// A message or command, of several lines between """.
    fn message(&mut self) -> Result<Said, Failure> {
        let failed = |error: ReadlineError| Failure::of(&error).context("cannot read the message");
        let first = match self.line(">>> ") {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(Said::End),
            Err(ReadlineError::Interrupted) => {
                say!("(Ctrl-D or /bye ends)");
                return Ok(Said::Nothing);
            }
            Err(error) => return Err(failed(error)),
        };
        let text = match first.trim_start().strip_prefix("\"\"\"") {
            None => first,
            Some(rest) => {
                let mut text = rest.to_owned();
                while !text.contains("\"\"\"") {
                    match self.line("... ") {
                        Ok(Some(line)) => {
                            text.push('\n');
                            text.push_str(&line);
                        }
                        Ok(None) => break,
                        Err(ReadlineError::Interrupted) => return Ok(Said::Nothing),
                        Err(error) => return Err(failed(error)),
                    }
                }
                // What stands behind the end is not lost.
                text.replacen("\"\"\"", "", 1).trim_matches('\n').to_owned()
            }
        };
        if text.trim().is_empty() {
            return Ok(Said::Nothing);
        }
        self.remember(&text);
        Ok(Said::Text(text.trim().to_owned()))
    }

    fn remember(&mut self, text: &str) {
        if let Self::Editor { editor, history } = self {
            // A history that cannot be kept is no reason to fail.
            let _ = editor.add_history_entry(text);
            if let Some(path) = history {
                let _ = editor.save_history(path);
            }
        }
    }
}

/// The file of the lines that were typed, in the user's cache; `None` where that cannot be made.
fn history() -> Option<PathBuf> {
    let presets = trilut_presets::ladder::cache_dir()?;
    let directory = presets.parent()?;
    std::fs::create_dir_all(directory).ok()?;
    Some(directory.join("history"))
}
