//! Results of our engine alone, with llama-bench's field names and formats.

use super::super::failure::Failure;
use super::super::output::{count, say};
use super::super::table::Table;
use super::super::{interrupt, progress};
use super::comparison::Ours;
use super::meter::Meter;
use super::report::quoted;
use super::test::Test;
use super::turn::{Turn, per_token};
use serde::Serialize;
use trilut_runtime::Model;
use trilut_tuning::bandwidth::Bandwidth;

/// One test's result.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    /// Layers that were run.
    pub(super) n_layers: usize,
    /// Layers that the figures are projected to; none when they are measured.
    pub(super) projected_to: Option<usize>,
    build_version: &'static str,
    cpu_info: String,
    model_filename: String,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    backend: String,
    load: String,
    /// What keys and values are cached as.
    type_k: &'static str,
    type_v: &'static str,
    /// Bytes of the cache that the texts of the test fill.
    cache_bytes: usize,
    n_threads: usize,
    n_prompt: usize,
    n_gen: usize,
    /// Positions that each text holds before.
    n_depth: usize,
    /// Texts that run at once; speeds are of all of them together.
    n_sequences: usize,
    pub(super) test: String,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    median_ts: f64,
    pub(super) samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    /// Bytes of weights that one generated token reads.
    pub(super) bytes_per_token: usize,
    /// Read bandwidth measured in the same run, 10^9 bytes per second.
    bandwidth_gbps: f64,
    /// For generation: the part of the bandwidth that the median uses.
    bandwidth_share: Option<f64>,
    /// Energy of the whole machine, where it counts it.
    pub(super) joules_per_token: Option<f64>,
    /// CPU time over all threads.
    pub(super) cpu_seconds_per_token: Option<f64>,
}

/// What a result says of the model.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) ours: Ours,
    /// The model's name in its file.
    pub(super) name: String,
    pub(super) parameters: u64,
    /// Formats of the ternary layers, joined by `+`.
    pub(super) backend: String,
    /// Where the weights are kept.
    pub(super) load: String,
    /// What keys and values are cached as, and the bytes of a position.
    pub(super) cache: (&'static str, usize),
}

/// Runs a test `repetitions` times after a warm-up.
pub(super) fn measure(
    about: &About,
    model: &Model,
    test: Test,
    repetitions: u32,
    bandwidth: Bandwidth,
    meter: &Meter,
) -> Result<Measured, Failure> {
    let mut subject = test.subject(model)?;
    test.warm_up(&mut subject)?;
    let bar = progress::line();
    let mut turns = Vec::new();
    for repetition in 1..=repetitions {
        bar.set_message(format!("{} {repetition}/{repetitions}", test.name()));
        bar.tick();
        turns.push(Turn::ours(test, &mut subject, meter)?);
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
    }
    let (n_prompt, n_gen) = test.lengths();
    let mut measured = Measured {
        n_layers: model.config().layers,
        projected_to: None,
        build_version: env!("CARGO_PKG_VERSION"),
        cpu_info: about.ours.cpu_info.clone(),
        model_filename: about.ours.model_filename.clone(),
        model_type: about.name.clone(),
        model_size: about.ours.model_size,
        model_n_params: about.parameters,
        backend: about.backend.clone(),
        load: about.load.clone(),
        type_k: about.cache.0,
        type_v: about.cache.0,
        cache_bytes: about.cache.1 * test.all_positions(),
        n_threads: model.threads(),
        n_prompt,
        n_gen,
        n_depth: test.depth(),
        n_sequences: test.sequences(),
        test: test.name(),
        avg_ns: 0,
        stddev_ns: 0,
        avg_ts: 0.0,
        stddev_ts: 0.0,
        median_ts: 0.0,
        samples_ns: Vec::new(),
        samples_ts: Vec::new(),
        bytes_per_token: model.bytes_per_token(),
        bandwidth_gbps: bandwidth.gigabytes_per_second(),
        bandwidth_share: None,
        joules_per_token: per_token(&turns, test, |turn| turn.joules),
        cpu_seconds_per_token: per_token(&turns, test, |turn| turn.cpu_seconds),
    };
    measured.set_samples(turns.iter().map(|turn| turn.ns).collect(), test, bandwidth);
    Ok(measured)
}

impl Measured {
    /// Takes the times of the repetitions, and what follows from them.
    pub(super) fn set_samples(&mut self, ns: Vec<u64>, test: Test, bandwidth: Bandwidth) {
        let ts: Vec<f64> = ns.iter().map(|&ns| test.rate(ns)).collect();
        let (avg_ns, stddev_ns) = moments(&ns.iter().map(|&ns| ns as f64).collect::<Vec<_>>());
        (self.avg_ns, self.stddev_ns) = (avg_ns as u64, stddev_ns as u64);
        (self.avg_ts, self.stddev_ts) = moments(&ts);
        self.median_ts = trilut_tuning::median(&ts);
        let share = bandwidth.share(self.median_ts * self.bytes_per_token as f64 / 1e9);
        self.bandwidth_share = test.is_decoding().then_some(share);
        (self.samples_ns, self.samples_ts) = (ns, ts);
    }
}

/// Mean and sample standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// One result as a line.
pub(super) fn line(result: &Measured) -> Result<String, Failure> {
    serde_json::to_string(result).map_err(|error| Failure::of(&error))
}

/// All results as a JSON array.
pub(super) fn array(results: &[Measured]) -> Result<String, Failure> {
    serde_json::to_string_pretty(results).map_err(|error| Failure::of(&error))
}

pub(super) fn markdown(results: &[Measured]) -> String {
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

/// What generation does with the memory, and what tokens cost, on stderr.
pub(super) fn footer(results: &[Measured], meter: &Meter) {
    for r in results {
        let threads = count(r.n_threads, "thread");
        if let Some(share) = r.bandwidth_share {
            say!(
                "{} with {threads} (load: {}) reads {:.0} MB per token: {:.0} % of the {:.1} GB/s measured in this run",
                r.test,
                r.load,
                r.bytes_per_token as f64 / 1e6,
                share * 100.0,
                r.bandwidth_gbps,
            );
        }
        let alone = results.iter().find(|one| {
            (one.n_sequences, one.n_threads, one.n_gen, one.n_depth)
                == (1, r.n_threads, r.n_gen, r.n_depth)
        });
        if let Some(one) = alone.filter(|_| r.n_sequences > 1) {
            say!(
                "{} with {threads} makes {:.2} times as many tokens per second as {}",
                r.test,
                r.median_ts / one.median_ts,
                one.test,
            );
        }
        if let Some(joules) = r.joules_per_token {
            say!("{} with {threads} costs {joules:.3} J per token", r.test);
        } else if let Some(seconds) = r.cpu_seconds_per_token {
            say!("{} with {threads} costs {:.3} CPU ms per token", r.test, seconds * 1e3);
        }
    }
    say!("cost: {}", meter.describe());
}

pub(super) fn csv(results: &[Measured]) -> String {
    let mut text = String::from(
        "model_type,model_size,model_n_params,backend,n_threads,test,avg_ts,stddev_ts,median_ts,\
         bytes_per_token,bandwidth_gbps,bandwidth_share,joules_per_token,cpu_seconds_per_token\n",
    );
    let real = |x: Option<f64>, digits: usize| x.map_or(String::new(), |x| format!("{x:.digits$}"));
    for r in results {
        text += &format!(
            "{},{},{},{},{},{},{:.3},{:.3},{:.3},{},{:.2},{},{},{}\n",
            quoted(&r.model_type),
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
            real(r.bandwidth_share, 3),
            real(r.joules_per_token, 6),
            real(r.cpu_seconds_per_token, 6),
        );
    }
    text
}
