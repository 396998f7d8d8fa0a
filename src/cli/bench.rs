//! `trilut bench`: prompt processing and generation speed of a model, in the manner of llama-bench.
//!
//! A test reads or generates a number of tokens from an empty context; tokenizer and sampling are left
//! out. Tests of several thread counts run one after the other, each after a warm-up.

use super::failure::{Failure, printable};
use super::model::{LoadMode, Source};
use super::output::{count, out, outln};
use super::run::Engine;
use super::table::Table;
use super::{environment, interrupt};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use trilut_kernels::pool::Pool;
use trilut_presets::Machine;
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{Load, Model, Session};
use trilut_tuning::bandwidth::{self, Bandwidth};

/// Passes of the bandwidth measurement; the best one counts.
const PASSES: usize = 5;

/// Measure tokens per second.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Prompt lengths, separated by commas; 0 for none.
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<usize>,
    /// Numbers of tokens to generate, separated by commas; 0 for none.
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "128")]
    n_gen: Vec<usize>,
    /// Numbers of threads, separated by commas; every core without it.
    #[arg(short, long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Repetitions of each test.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "md")]
    output: Output,
    /// Weight format to run in: i2_s, tl1, tl2; the preset's choice without it.
    #[arg(long)]
    format: Option<trilut_presets::Format>,
    /// Preset file to use before all others.
    #[arg(long, value_name = "FILE")]
    preset: Option<PathBuf>,
    /// Where the weights are kept.
    #[arg(long, value_enum, default_value = "map")]
    load: LoadMode,
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

/// One test's result, with llama-bench's field names.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    build_version: &'static str,
    cpu_info: String,
    model_filename: String,
    model_type: String,
    model_size: usize,
    model_n_params: u64,
    backend: String,
    load: String,
    n_threads: usize,
    n_prompt: usize,
    n_gen: usize,
    test: String,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    median_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    /// Bytes of weights that one generated token reads.
    bytes_per_token: usize,
    /// Read bandwidth measured in the same run, 10^9 bytes per second.
    bandwidth_gbps: f64,
    /// For generation: the part of the bandwidth that the median uses.
    bandwidth_share: Option<f64>,
}

/// One test: tokens to read, or tokens to generate.
#[derive(Debug, Clone, Copy)]
enum Test {
    Prompt(usize),
    Generate(usize),
}

impl Test {
    fn tokens(self) -> usize {
        match self {
            Self::Prompt(n) | Self::Generate(n) => n,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Prompt(n) => format!("pp{n}"),
            Self::Generate(n) => format!("tg{n}"),
        }
    }

    /// Runs it from an empty context; returns nanoseconds.
    fn run(self, session: &mut Session) -> Result<u64, Failure> {
        // Any tokens do: the time does not depend on them.
        let vocab = session.model().config().vocab;
        let token = |i: usize| (i * 7919 % vocab) as u32;
        session.clear();
        let began = Instant::now();
        match self {
            Self::Prompt(n) => session.append(&(0..n).map(token).collect::<Vec<_>>())?,
            Self::Generate(n) => {
                for i in 0..n {
                    session.append(&[token(i)])?;
                    if interrupt::asked() {
                        return Err(Failure::interrupted());
                    }
                }
            }
        }
        Ok(began.elapsed().as_nanos() as u64)
    }
}

pub(crate) fn bench(args: Args) -> Result<(), Failure> {
    let source = Source::new(args.model.clone());
    let gguf = source.open()?;
    let tests: Vec<Test> = args
        .n_prompt
        .iter()
        .map(|&n| Test::Prompt(n))
        .chain(args.n_gen.iter().map(|&n| Test::Generate(n)))
        .filter(|test| test.tokens() > 0)
        .collect();
    if tests.is_empty() {
        return Err(
            Failure::usage("there is nothing to measure").hint("trilut bench -p 512 -n 128")
        );
    }
    let machine = Machine::detect();
    let threads = match args.threads.as_slice() {
        [] => vec![environment::threads(None)?],
        given => given.iter().map(|&n| environment::threads(Some(n))).collect::<Result<_, _>>()?,
    };
    let mut results = Vec::new();
    for threads in threads {
        let engine = Engine::new(threads, args.format, args.preset.clone(), args.load);
        let model = engine.load(&gguf)?;
        let bandwidth = {
            let bytes = bandwidth::sensible_bytes(&machine);
            bandwidth::measure(&Pool::new(threads), bytes, PASSES)
        };
        for &test in &tests {
            let result = measure(&args, &gguf, &source, &machine, &model, test, bandwidth)?;
            if args.output == Output::Jsonl {
                outln!("{}", json(&result)?);
            }
            results.push(result);
        }
    }
    match args.output {
        Output::Md => {
            out!("{}", markdown(&results));
            footer(&results);
        }
        Output::Csv => out!("{}", csv(&results)),
        Output::Json => outln!(
            "{}",
            serde_json::to_string_pretty(&results).map_err(|error| Failure::of(&error))?
        ),
        Output::Jsonl => {}
    }
    Ok(())
}

fn json(result: &Measured) -> Result<String, Failure> {
    serde_json::to_string(result).map_err(|error| Failure::of(&error))
}

fn measure(
    args: &Args,
    gguf: &Gguf,
    source: &Source,
    machine: &Machine,
    model: &Model,
    test: Test,
    bandwidth: Bandwidth,
) -> Result<Measured, Failure> {
    let mut session = model.session()?;
    if test.tokens() > session.room() {
        return Err(Failure::usage(format!(
            "{} does not fit into the model's context of {}",
            test.name(),
            model.context()
        )));
    }
    // Warm-up: page in what the test touches.
    match test {
        Test::Prompt(n) => Test::Prompt(n.min(64)).run(&mut session)?,
        Test::Generate(_) => Test::Generate(1).run(&mut session)?,
    };
    // Hidden where stderr is not a terminal.
    let bar = indicatif::ProgressBar::new_spinner();
    let mut ns = Vec::new();
    for repetition in 1..=args.repetitions {
        bar.set_message(format!("{} {repetition}/{}", test.name(), args.repetitions));
        bar.tick();
        ns.push(test.run(&mut session)?);
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
    }
    bar.finish_and_clear();
    let ts: Vec<f64> = ns.iter().map(|&ns| test.tokens() as f64 * 1e9 / ns as f64).collect();
    let (avg_ns, stddev_ns) = moments(&ns.iter().map(|&ns| ns as f64).collect::<Vec<_>>());
    let (avg_ts, stddev_ts) = moments(&ts);
    let median_ts = trilut_tuning::median(&ts);
    let bytes = model.bytes_per_token();
    let (n_prompt, n_gen) = match test {
        Test::Prompt(n) => (n, 0),
        Test::Generate(n) => (0, n),
    };
    let share = bandwidth.share(median_ts * bytes as f64 / 1e9);
    let mut formats: Vec<&str> =
        model.kernels().map(|(_, choice)| choice.kernel.kernel().name.format.name()).collect();
    formats.sort_unstable();
    formats.dedup();
    Ok(Measured {
        build_version: env!("CARGO_PKG_VERSION"),
        cpu_info: machine.brand.trim().to_owned(),
        model_filename: source.to_string(),
        model_type: printable(gguf.opt_str("general.name")?.unwrap_or("unnamed"))
            .replace('\n', " "),
        model_size: gguf.file_len(),
        model_n_params: gguf.tensors().iter().map(|tensor| tensor.elements()).sum(),
        backend: formats.join("+"),
        load: Load::from(args.load).to_string(),
        n_threads: model.threads(),
        n_prompt,
        n_gen,
        test: test.name(),
        avg_ns: avg_ns as u64,
        stddev_ns: stddev_ns as u64,
        avg_ts,
        stddev_ts,
        median_ts,
        samples_ns: ns,
        samples_ts: ts,
        bytes_per_token: bytes,
        bandwidth_gbps: bandwidth.gigabytes_per_second(),
        bandwidth_share: matches!(test, Test::Generate(_)).then_some(share),
    })
}

/// Mean and sample standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

fn markdown(results: &[Measured]) -> String {
    let headings = ["model", "size", "params", "backend", "threads", "test", "t/s"];
    let mut table = Table::new(&headings, 1);
    for r in results {
        table.row([
            r.model_type.clone(),
            format!("{:.2} MiB", r.model_size as f64 / f64::from(1 << 20)),
            format!("{:.2} M", r.model_n_params as f64 / 1e6),
            format!("CPU {}", r.backend),
            r.n_threads.to_string(),
            r.test.clone(),
            format!("{:.2} ± {:.2}", r.avg_ts, r.stddev_ts),
        ]);
    }
    table.markdown()
}

/// What generation does with the memory, on stderr.
fn footer(results: &[Measured]) {
    for r in results {
        if let Some(share) = r.bandwidth_share {
            eprintln!(
                "{} with {} (load: {}) reads {:.0} MB per token: {:.0} % of the {:.1} GB/s measured in this run",
                r.test,
                count(r.n_threads, "thread"),
                r.load,
                r.bytes_per_token as f64 / 1e6,
                share * 100.0,
                r.bandwidth_gbps,
            );
        }
    }
}

fn csv(results: &[Measured]) -> String {
    let mut text = String::from(
        "model_type,model_size,model_n_params,backend,n_threads,test,avg_ts,stddev_ts,median_ts,\
         bytes_per_token,bandwidth_gbps,bandwidth_share\n",
    );
    for r in results {
        // The only free text is the model's name.
        let name = r.model_type.replace('"', "\"\"");
        let share = r.bandwidth_share.map_or(String::new(), |share| format!("{share:.3}"));
        text += &format!(
            "\"{name}\",{},{},{},{},{},{:.3},{:.3},{:.3},{},{:.2},{share}\n",
            r.model_size,
            r.model_n_params,
            r.backend,
            r.n_threads,
            r.test,
            r.avg_ts,
            r.stddev_ts,
            r.median_ts,
            r.bytes_per_token,
            r.bandwidth_gbps,
        );
    }
    text
}
