//! `trilut bench --baseline`: what the user asked for, checked before anything runs, then agreement,
//! comparison, report, record and verdict.

use super::super::failure::Failure;
use super::super::model::Source;
use super::super::output::{out, outln, say};
use super::agreement::{self, Agreement, Check};
use super::baseline::{self, Baseline};
use super::comparison::{Comparison, Engines};
use super::meter::Meter;
use super::ratio::{self, Assertion, Judged};
use super::record::{Record, Settings};
use super::report;
use super::test::Test;
use super::{Output, about};
use std::path::PathBuf;
use std::time::Duration;
use trilut_presets::Machine;

/// Compare with other engines.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Comparison with other engines")]
pub(super) struct Options {
    /// Bench programs of other engines that speak llama-bench's JSON, separated by commas, each taking
    /// turns with ours. A bare name is a file in this directory before it is a program of the PATH. With
    /// NAME, one of benches/engines.toml, come its usual arguments.
    #[arg(long, value_name = "[NAME=]PATH", value_delimiter = ',')]
    baseline: Vec<String>,
    /// Model files of the baselines: one for all, or one for each; ours without it.
    #[arg(long, value_name = "FILE", value_delimiter = ',', requires = "baseline")]
    baseline_model: Vec<PathBuf>,
    /// Further arguments of the bench programs, quoted as for a shell: once for all, or for each in turn.
    #[arg(long, value_name = "ARGS", requires = "baseline", allow_hyphen_values = true)]
    baseline_args: Vec<String>,
    /// The longest that one turn of a baseline may take, loading included.
    #[arg(long, value_name = "TIME", requires = "baseline", default_value = "10min",
          value_parser = humantime::parse_duration)]
    baseline_timeout: Duration,
    /// Compare perplexities over a text first; what disagrees is not compared (exit code 3).
    #[arg(long, value_name = "TEXTFILE", requires = "baseline")]
    agree: Option<PathBuf>,
    /// Tokens of a chunk of the text; 512, or the model's context if that is less, without it.
    #[arg(long, value_name = "N", requires = "agree")]
    agree_context: Option<usize>,
    /// Our model for the agreement, in place of -m: `demo` is the embedded one.
    #[arg(long, value_name = "FILE", requires = "agree", requires = "agree_baseline_model")]
    agree_model: Option<PathBuf>,
    /// The baselines' models for the agreement: one for all, or one for each.
    #[arg(long, value_name = "FILE", value_delimiter = ',', requires = "agree_model")]
    agree_baseline_model: Vec<PathBuf>,
    /// Perplexity programs: one for all, or one for each; llama-perplexity next to the bench program
    /// without it.
    #[arg(long, value_name = "PATH", value_delimiter = ',', requires = "agree")]
    baseline_perplexity: Vec<PathBuf>,
    /// Further arguments of the perplexity programs: once for all, or for each in turn.
    #[arg(long, value_name = "ARGS", requires = "agree", allow_hyphen_values = true)]
    baseline_perplexity_args: Vec<String>,
    /// Fail with exit code 3 when a ratio is lower: tg128=1.3,pp512=2.0.
    #[arg(long, value_name = "TEST=RATIO", value_delimiter = ',', requires = "baseline")]
    assert_ratio: Vec<Assertion>,
    /// Add the results to DIR/<cpu>/<date>.jsonl.
    #[arg(long, value_name = "DIR", requires = "baseline")]
    record: Option<PathBuf>,
}

impl Options {
    pub(super) fn is_asked(&self) -> bool {
        !self.baseline.is_empty()
    }

    /// The baselines, for the comparison, with everything that belongs to each.
    fn baselines(&self, source: &Source) -> Result<Vec<Baseline>, Failure> {
        let n = self.baseline.len();
        let models = each("--baseline-model", &self.baseline_model, n)?;
        let bench_args = each("--baseline-args", &self.baseline_args, n)?;
        let programs = each("--baseline-perplexity", &self.baseline_perplexity, n)?;
        let perplexity_args =
            each("--baseline-perplexity-args", &self.baseline_perplexity_args, n)?;
        let make = |index: usize, text: &str| {
            let (engine, program) = Baseline::named(text)?;
            let model = match (models[index], source) {
                (Some(path), _) => path.clone(),
                (None, Source::File(path)) => path.clone(),
                (None, Source::Embedded) => {
                    return Err(Failure::usage("no other engine can read the embedded model")
                        .hint("give it a file: --baseline-model FILE"));
                }
            };
            // What the user says takes the place of what the description says.
            let usual = engine.as_ref();
            let bench_args = words(bench_args[index], usual.map(|engine| &engine.bench_args))?;
            let perplexity_args =
                words(perplexity_args[index], usual.map(|engine| &engine.perplexity_args))?;
            let perplexity = programs[index].map(baseline::program);
            let timeout = self.baseline_timeout;
            Ok(Baseline {
                program,
                perplexity,
                model,
                bench_args,
                perplexity_args,
                engine,
                timeout,
            })
        };
        self.baseline.iter().enumerate().map(|(index, text)| make(index, text)).collect()
    }

    /// What agreement is checked on, with the baselines' models for it.
    fn check(
        &self,
        source: &Source,
        baselines: &[Baseline],
        threads: usize,
    ) -> Result<Option<(Check, Vec<Baseline>)>, Failure> {
        let Some(text) = &self.agree else { return Ok(None) };
        let mut baselines = baselines.to_vec();
        let mut model = source.clone();
        if let Some(path) = &self.agree_model {
            model = Source::new(Some(path.clone()));
            let models =
                each("--agree-baseline-model", &self.agree_baseline_model, baselines.len())?;
            for (baseline, path) in baselines.iter_mut().zip(models) {
                baseline.model = path.expect("clap requires a model").clone();
            }
        }
        // Both are missed before our own side has taken its time.
        agreement::text(text)?;
        for baseline in &baselines {
            baseline.perplexity_program()?;
        }
        let check = Check { text: text.clone(), context: self.agree_context, model, threads };
        Ok(Some((check, baselines)))
    }
}

/// One value for all, or one for each of `n`; none for anybody if there are none.
fn each<'a, T>(option: &str, values: &'a [T], n: usize) -> Result<Vec<Option<&'a T>>, Failure> {
    match values {
        [] => Ok(vec![None; n]),
        [one] => Ok(vec![Some(one); n]),
        all if all.len() == n => Ok(all.iter().map(Some).collect()),
        all => Err(Failure::usage(format!(
            "{option} is given {} times for {n} baselines: once or {n} times is right",
            all.len()
        ))),
    }
}

/// The words of a quoted text, or of the usual one.
fn words(given: Option<&String>, usual: Option<&String>) -> Result<Vec<String>, Failure> {
    let Some(text) = given.or(usual) else { return Ok(Vec::new()) };
    shlex::split(text)
        .ok_or_else(|| Failure::usage(format!("the quotes in `{text}` are not closed")))
}

/// Everything that the user asked for.
pub(super) fn bench(
    args: &super::Args,
    source: &Source,
    tests: &[Test],
    threads: &[usize],
    meter: &Meter,
) -> Result<(), Failure> {
    let asked = &args.versus;
    let baselines = asked.baselines(source)?;
    for assertion in &asked.assert_ratio {
        if tests.iter().all(|test| test.name() != assertion.test) {
            let names: Vec<String> = tests.iter().map(|test| test.name()).collect();
            return Err(Failure::usage(format!("--assert-ratio names {}", assertion.test))
                .because(format!("measured are {}", names.join(", "))));
        }
    }
    let machine = Machine::detect();
    let settings =
        Settings { rounds: args.repetitions, format: args.format, preset: args.preset.clone() };
    let record = asked.record.as_deref().map(|dir| Record::open(dir, &machine, settings));
    let record = record.transpose()?;
    let agreements = agree(args, source, &baselines, threads[0], meter)?;

    let (mut done, record) = (Vec::new(), record.as_ref());
    let versus = Versus { args, source, tests, threads, machine: &machine, meter };
    let outcome = versus.run(&baselines, &agreements, record, &mut done);
    // What was measured is told, however it ended.
    if !done.is_empty() {
        out!("{}", report::whole(args.output, &done)?);
        report::footer(&done);
        if let Some(record) = record {
            say!("recorded in {}", record.path().display());
        }
    }
    outcome?;
    let judged: Vec<Judged<'_>> = done.iter().flat_map(judged).collect();
    ratio::judge(&asked.assert_ratio, &judged)
}

/// What is measured, and with what.
struct Versus<'a> {
    args: &'a super::Args,
    source: &'a Source,
    tests: &'a [Test],
    threads: &'a [usize],
    machine: &'a Machine,
    meter: &'a Meter,
}

impl Versus<'_> {
    /// Compares test by test; what is finished is in `done` and in the record, even after a failure.
    fn run(
        &self,
        baselines: &[Baseline],
        agreements: &[Agreement],
        record: Option<&Record>,
        done: &mut Vec<Comparison>,
    ) -> Result<(), Failure> {
        let Self { args, source, tests, threads, machine, meter } = *self;
        let gguf = source.open()?;
        for &threads in threads {
            let model = args.load(&gguf, threads, None)?;
            let ours = about(&gguf, source, machine, &model)?.ours;
            let engines = Engines { ours: &ours, model: &model, baselines, agreements };
            for &test in tests {
                let (comparison, outcome) = engines.compare(test, args.repetitions, meter);
                if let Some(comparison) = comparison {
                    if args.output == Output::Jsonl {
                        outln!("{}", report::line(&comparison)?);
                    }
                    if let Some(record) = record {
                        record.add(&comparison)?;
                    }
                    done.push(comparison);
                }
                outcome?;
            }
        }
        Ok(())
    }
}

/// Checks every baseline, if that was asked for; one for each then, in their order.
fn agree(
    args: &super::Args,
    source: &Source,
    baselines: &[Baseline],
    threads: usize,
    meter: &Meter,
) -> Result<Vec<Agreement>, Failure> {
    let Some((check, baselines)) = args.versus.check(source, baselines, threads)? else {
        return Ok(Vec::new());
    };
    let ours = {
        let model = args.load(&check.model.open()?, threads, None)?;
        agreement::ours(&check, &model)?
    };
    baselines.iter().map(|baseline| agreement::check(&check, &ours, baseline, meter)).collect()
}

fn judged(comparison: &Comparison) -> impl Iterator<Item = Judged<'_>> {
    comparison.baselines.iter().map(|against| Judged {
        test: &comparison.test,
        engine: &against.side.engine,
        threads: comparison.n_threads,
        ratio: &against.ratio,
    })
}
