//! `trilut bench speculate`: what prompt lookup (`--speculate N`) is worth on text that repeats itself and on
//! text that does not, greedy and sampled, and that it changes no text.

use super::super::failure::Failure;
use super::super::model::Source;
use super::super::output::{count, out, outln, say};
use super::super::run::Engine as Loading;
use super::super::table::Table;
use super::super::{interrupt, progress};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use trilut_runtime::tokenizer::Tokenizer;
use trilut_runtime::{Model, SamplerOptions};
use trilut_server::engine::{Engine, EngineOptions, Event, Penalties, Request};
use trilut_tuning::median;

/// What goes on like this.
const REPETITIVE: &str = "the fox and the owl, the bear and the cat, ";
/// How often it has before the model goes on.
const TIMES: usize = 6;
/// What may go on in any way.
const FREE: &str = "Once upon a time there was a fox who";
/// The temperature of what is sampled.
const TEMPERATURE: f32 = 0.8;

/// Measure guessing from what the text has said before: tokens per second by the number of guesses.
///
/// Every answer is written without guesses too and must be the same; exit 3 when one is not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// The most tokens guessed at a time, separated by commas.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "2,4,8",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    speculate: Vec<u16>,
    /// Tokens of each answer.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(2..))]
    n_gen: u32,
    /// Rounds; the median counts.
    #[arg(short, long, visible_alias = "rounds", value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "md")]
    output: Output,
    #[command(flatten)]
    engine: Loading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Markdown table.
    Md,
    /// JSON array.
    Json,
}

/// One number of guesses on one text.
#[derive(Debug, Serialize)]
struct Measured {
    /// `repetitive` or `free`.
    text: &'static str,
    temperature: f32,
    speculate: usize,
    tokens: usize,
    tokens_per_second: f64,
    /// The speed over that without guesses.
    gain: f64,
    /// Tokens guessed, and guesses that held, in all rounds.
    guessed: u64,
    held: u64,
    samples: Vec<f64>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    text: String,
    tokens: usize,
    per_second: f64,
}

pub(super) fn bench(args: &Args) -> Result<(), Failure> {
    let source = Source::new(args.model.clone());
    let model = args.engine.load(&source.open()?)?;
    let repetitive = encoded(model.tokenizer(), &REPETITIVE.repeat(TIMES));
    let free = encoded(model.tokenizer(), FREE);
    let (most, context) = (repetitive.len() + args.n_gen as usize, model.context());
    if most > context {
        return Err(Failure::usage(format!(
            "{most} tokens do not fit into the context of {context}"
        ))
        .hint("choose a smaller -n"));
    }
    let numbers: Vec<usize> =
        std::iter::once(0).chain(args.speculate.iter().map(|&n| n.into())).collect();
    let engines = numbers.iter().map(|&n| start(&model, n)).collect::<Result<Vec<_>, _>>()?;
    let bar = progress::line();
    let mut all = Vec::new();
    for (text, prompt) in [("repetitive", &repetitive), ("free", &free)] {
        for temperature in [0.0, TEMPERATURE] {
            bar.set_message(format!("{text} at temperature {temperature}"));
            bar.tick();
            all.extend(measure(args, text, prompt, temperature, &model, &engines, &numbers)?);
        }
    }
    bar.finish_and_clear();
    match args.output {
        Output::Md => out!("{}", markdown(&all)),
        Output::Json => {
            let json = serde_json::to_string_pretty(&all).map_err(|error| Failure::of(&error))?;
            outln!("{json}");
        }
    }
    let (rounds, threads) =
        (count(args.repetitions as usize, "round"), count(model.threads(), "thread"));
    say!("{source}, {threads}; medians of {rounds}; all texts are as without guesses");
    Ok(())
}

fn start(model: &Model, speculate: usize) -> Result<Engine, Failure> {
    let options = EngineOptions { slots: 1, speculate, ..EngineOptions::default() };
    Engine::start(model.clone(), options).map_err(|error| Failure::of(&error))
}

fn encoded(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    bos.into_iter().chain(tokenizer.encode(text, false)).collect()
}

/// All numbers of guesses in turns.
fn measure(
    args: &Args,
    text: &'static str,
    prompt: &[u32],
    temperature: f32,
    model: &Model,
    engines: &[Engine],
    numbers: &[usize],
) -> Result<Vec<Measured>, Failure> {
    let counters = |engine: &Engine| {
        let metrics = engine.metrics();
        (metrics.drafted.load(Relaxed), metrics.accepted.load(Relaxed))
    };
    let before: Vec<_> = engines.iter().map(counters).collect();
    let mut samples = vec![Vec::new(); engines.len()];
    let mut plain: Option<Answer> = None;
    for _ in 0..args.repetitions {
        for ((engine, samples), n) in engines.iter().zip(&mut samples).zip(numbers) {
            if interrupt::asked() {
                return Err(Failure::interrupted());
            }
            let answer = ask(engine, model, prompt, temperature, args.n_gen as usize)?;
            samples.push(answer.per_second);
            if plain.as_ref().is_some_and(|plain| plain.text != answer.text) {
                return Err(Failure::check(format!(
                    "with {n} guesses the {text} text at temperature {temperature} is another one"
                )));
            }
            plain.get_or_insert(answer);
        }
    }
    let tokens = plain.map_or(0, |answer| answer.tokens);
    let alone = median(&samples[0]);
    let rows = engines.iter().zip(before).zip(samples).zip(numbers);
    Ok(rows
        .map(|(((engine, before), samples), &speculate)| {
            let after = counters(engine);
            let tokens_per_second = median(&samples);
            Measured {
                text,
                temperature,
                speculate,
                tokens,
                tokens_per_second,
                gain: tokens_per_second / alone,
                guessed: after.0 - before.0,
                held: after.1 - before.1,
                samples,
            }
        })
        .collect())
}

/// Has a prompt continued; the model may not end the answer.
fn ask(
    engine: &Engine,
    model: &Model,
    prompt: &[u32],
    temperature: f32,
    most: usize,
) -> Result<Answer, Failure> {
    let stops = model.tokenizer().stops();
    let request = Request {
        prompt: prompt.to_vec(),
        max_tokens: most,
        sampling: SamplerOptions { temperature, seed: 1, ..SamplerOptions::default() },
        penalties: Penalties::default(),
        bias: stops.iter().map(|&token| (token, f32::NEG_INFINITY)).collect(),
        stop: Vec::new(),
        logprobs: None,
        constraint: None,
    };
    let mut events = engine.submit(None, vec![request]).map_err(|error| Failure::of(&error))?;
    let mut text = String::new();
    while let Some((_, event)) = events.blocking_recv() {
        match event {
            Event::Started { .. } => {}
            Event::Piece { text: piece, .. } => text.push_str(&piece),
            Event::Done(done) => {
                let seconds = done.decode_time.as_secs_f64();
                // The first token comes with the prompt.
                let per_second = done.tokens.saturating_sub(1) as f64 / seconds;
                return Ok(Answer { text, tokens: done.tokens, per_second });
            }
            Event::Failed(error) => return Err(Failure::of(&error)),
        }
    }
    Err(Failure::new("the engine ended"))
}

fn markdown(all: &[Measured]) -> String {
    let headings = ["text", "temperature", "--speculate", "t/s", "x none", "guessed", "held"];
    let mut table = Table::new(&headings, 1);
    for row in all {
        let held = match row.guessed {
            0 => "-".to_owned(),
            guessed => format!("{:.0} %", 100.0 * row.held as f64 / guessed as f64),
        };
        table.row([
            row.text.to_owned(),
            row.temperature.to_string(),
            row.speculate.to_string(),
            format!("{:.1}", row.tokens_per_second),
            format!("{:.2}", row.gain),
            row.guessed.to_string(),
            held,
        ]);
    }
    table.markdown()
}
