//! `trilut bench`: prompt processing and generation speed of a model, in the manner of llama-bench, alone
//! or against other engines.
//!
//! A test reads or generates a number of tokens, from an empty context or behind `--n-depth` positions;
//! tokenizer and sampling are left out. With `--batch` several texts are generated at once, as
//! llama-batched-bench does. Tests of several thread counts run one after the other, each after a warm-up.
//!
//! With `--baseline` other engines of the llama-bench family take turns with ours ([`comparison`] says how
//! and why that is fair), [`spelling`] reads what they print, [`agreement`] checks that they compute the
//! same before anything is compared, [`ratio`] judges, [`report`] prints and [`record`] keeps.
//! `bench kernels` is about one layer: every candidate against the pick ([`kernels`]). `bench serve` is about
//! a server ([`serve`]), `bench speculate` about guessing what comes next ([`speculate`]).
//! What a token costs comes from [`meter`]. Known engines are described in `benches/engines.toml`.

mod agreement;
mod baseline;
mod child;
mod comparison;
mod engine;
mod kernels;
mod meter;
mod plain;
mod projection;
mod rapl;
mod ratio;
mod record;
mod report;
mod serve;
mod speculate;
mod spelling;
mod test;
mod turn;
mod versus;

use super::environment;
use super::failure::{Failure, one_line};
use super::layouts::Layouts;
use super::model::{CacheMode, LoadMode, Source};
use super::output::{count, out, outln, say};
use super::run::Engine;
use comparison::Ours;
use meter::Meter;
use plain::About;
use std::path::{Path, PathBuf};
use test::Test;
use trilut_kernels::pool::Pool;
use trilut_presets::Machine;
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{Cache, Model};
use trilut_tuning::bandwidth;

/// Passes of the bandwidth measurement; the best one counts.
const PASSES: usize = 5;

/// Measure tokens per second.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Prompt lengths, separated by commas; 0 for none.
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<usize>,
    /// Numbers of tokens to generate, separated by commas; 0 for none.
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "128")]
    n_gen: Vec<usize>,
    /// Numbers of positions that the context holds before each test, separated by commas.
    #[arg(short = 'd', long, value_name = "N", value_delimiter = ',', default_value = "0")]
    n_depth: Vec<usize>,
    /// Numbers of texts that are generated at once, separated by commas; speeds are of all together.
    #[arg(short, long, value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: Vec<u16>,
    /// Numbers of threads, separated by commas; every core without it.
    #[arg(short, long, value_delimiter = ',', value_parser = environment::number_of_threads)]
    threads: Vec<usize>,
    /// Repetitions of each test; with --baseline, rounds in which every engine takes one turn.
    #[arg(short, long, visible_aliases = ["repeat", "rounds"], default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "md")]
    output: Output,
    /// Weight format to run in: i2_s, tl1, tl2, base3; the preset's choice without it.
    #[arg(long)]
    format: Option<trilut_presets::Format>,
    /// Preset file to use before all others.
    #[arg(long, value_name = "FILE")]
    preset: Option<PathBuf>,
    /// Where the weights are kept.
    #[arg(long, value_enum, default_value = "map")]
    load: LoadMode,
    /// What keys and values are cached as.
    #[arg(long, value_enum, default_value = "q16")]
    cache_type: CacheMode,
    /// Run the first N layers, and half of them, and project what all of them would take.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    layers: Option<u32>,
    #[command(flatten)]
    layouts: Layouts,
    #[command(flatten)]
    versus: versus::Options,
}

/// What is measured in place of a whole model.
#[derive(Debug, clap::Subcommand)]
enum Part {
    Kernels(kernels::Args),
    Serve(Box<serve::Args>),
    Speculate(Box<speculate::Args>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Markdown table.
    Md,
    /// Comma-separated values.
    Csv,
    /// JSON array.
    Json,
    /// One JSON object per line.
    Jsonl,
}

impl Args {
    fn tests(&self) -> Result<Vec<Test>, Failure> {
        let prompts = self.n_prompt.iter().map(|&n| Test::prompt(n));
        let generations = self.n_gen.iter().flat_map(|&tokens| {
            self.batch.iter().map(move |&texts| Test::generate(texts.into(), tokens))
        });
        let tests = prompts.chain(generations).filter(|test| test.tokens() > 0);
        let tests: Vec<Test> = tests
            .flat_map(|test| self.n_depth.iter().map(move |&depth| test.behind(depth)))
            .collect();
        if tests.is_empty() {
            return Err(
                Failure::usage("there is nothing to measure").hint("trilut bench -p 512 -n 128")
            );
        }
        Ok(tests)
    }

    fn threads(&self) -> Result<Vec<usize>, Failure> {
        match self.threads.as_slice() {
            [] => Ok(vec![environment::threads(None)?]),
            given => Ok(given.to_vec()),
        }
    }

    /// Loads a model with the kernels that the ladder names for a number of threads.
    fn load(&self, gguf: &Gguf, threads: usize, layers: Option<usize>) -> Result<Model, Failure> {
        let (preset, layouts) = (self.preset.clone(), self.layouts.clone());
        let engine = Engine::new(threads, self.format, preset, self.load, self.cache_type, layouts);
        engine.with_layers(layers).load(gguf)
    }
}

pub(crate) fn bench(args: Args) -> Result<(), Failure> {
    match &args.part {
        Some(Part::Kernels(args)) => return kernels::bench(args),
        Some(Part::Serve(args)) => return serve::bench(args),
        Some(Part::Speculate(args)) => return speculate::bench(args),
        None => {}
    }
    let (tests, threads) = (args.tests()?, args.threads()?);
    let source = Source::new(args.model.clone());
    let meter = Meter::new(Path::new(rapl::ROOT));
    if args.versus.is_asked() {
        if args.batch != [1] {
            return Err(Failure::usage("other engines are compared with one text at a time")
                .hint("trilut bench --batch 1,2,4,8 without --baseline"));
        }
        if args.layers.is_some() {
            return Err(Failure::usage(
                "--layers projects, and --baseline compares what is measured",
            )
            .hint("leave out one of them"));
        }
        return versus::bench(&args, &source, &tests, &threads, &meter);
    }
    let gguf = source.open()?;
    let machine = Machine::detect();
    let mut results = Vec::new();
    for threads in threads {
        let layers = args.layers.map(|n| n as usize);
        let model = args.load(&gguf, threads, layers)?;
        // With half of the layers, and how many the model has.
        let half = match layers {
            Some(n) => Some((args.load(&gguf, threads, Some(n / 2))?, projection::all(&gguf)?)),
            None => None,
        };
        let about = about(&gguf, &source, &machine, &model)?;
        if args.output == Output::Md {
            tell_kernels(&model);
        }
        let bandwidth = {
            let bytes = bandwidth::sensible_bytes(&machine);
            bandwidth::measure(&Pool::new(threads), bytes, PASSES)
        };
        for &test in &tests {
            let measure =
                |model| plain::measure(&about, model, test, args.repetitions, bandwidth, &meter);
            let mut result = measure(&model)?;
            if let Some((half, all)) = &half {
                result = projection::project(result, &measure(half)?, test, *all, bandwidth);
            }
            if args.output == Output::Jsonl {
                outln!("{}", plain::line(&result)?);
            }
            results.push(result);
        }
    }
    match args.output {
        Output::Md => {
            out!("{}", plain::markdown(&results));
            plain::footer(&results, &meter);
        }
        Output::Csv => out!("{}", plain::csv(&results)),
        Output::Json => outln!("{}", plain::array(&results)?),
        Output::Jsonl => {}
    }
    Ok(())
}

/// The kernels that the model runs by, on stderr.
fn tell_kernels(model: &Model) {
    let decode = model.kernels().map(|(layer, choice)| (layer, choice.kernel.kernel().text));
    let prompts = model.prefill_kernels().map(|(stack, pick)| (stack, pick.kernel.kernel().text));
    let threads = count(model.threads(), "thread");
    let batches = model.kernels().map(|(layer, choice)| {
        let one_by_one = choice.kernel.kernel().text;
        (layer, choice.batch.kernel.map_or(one_by_one, |kernel| kernel.kernel().text))
    });
    say!("tokens with {threads}: {}", by_kernel(decode));
    say!("small batches with {threads}: {}", by_kernel(batches));
    say!("prompts with {threads}: {}", by_kernel(prompts));
}

/// Each kernel with its layers, in the order of their first use.
fn by_kernel<'a>(layers: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut kernels: Vec<(&str, Vec<&str>)> = Vec::new();
    for (layer, kernel) in layers {
        match kernels.iter_mut().find(|(known, _)| *known == kernel) {
            Some((_, layers)) => layers.push(layer),
            None => kernels.push((kernel, vec![layer])),
        }
    }
    let words = kernels.iter().map(|(kernel, layers)| format!("{kernel} ({})", layers.join(", ")));
    words.collect::<Vec<_>>().join(", ")
}

/// What results say of the model.
fn about(gguf: &Gguf, source: &Source, machine: &Machine, model: &Model) -> Result<About, Failure> {
    let mut formats: Vec<&str> =
        model.kernels().map(|(_, choice)| choice.kernel.kernel().name.format.name()).collect();
    formats.sort_unstable();
    formats.dedup();
    let name = gguf.opt_str("general.name")?.unwrap_or("unnamed");
    let name = one_line(name);
    let backend = formats.join("+");
    // Without a head of its own, the embedding is the head.
    let head = ["output.weight", "token_embd.weight"]
        .into_iter()
        .find_map(|head| gguf.tensors().iter().find(|tensor| tensor.name() == head));
    let head = head.map_or(String::new(), |head| format!(", head {}", head.type_name()));
    let ours = Ours {
        model_filename: source.to_string(),
        model_type: format!("{name} {backend}{head}"),
        model_size: gguf.file_len() as u64,
        cpu_info: machine.brand.trim().to_owned(),
    };
    let cache =
        (model.cache_type().name(), Cache::bytes_per_position(model.config(), model.cache_type()));
    let parameters = gguf.tensors().iter().map(|tensor| tensor.elements()).sum();
    let load = model.load().to_string();
    Ok(About { ours, name, parameters, backend, load, cache })
}

#[cfg(test)]
mod tests {
    #[test]
    fn layers_are_told_by_kernel() {
        let layers = [("q", "a"), ("k", "b"), ("v", "a")];
        assert_eq!(super::by_kernel(layers.into_iter()), "a (q, v), b (k)");
    }
}
