//! What is shown of records on stdout: a row for each layer, and one for each number of threads.

use super::super::failure::Failure;
use super::super::output::{count, outln};
use super::super::table::Table;
use trilut_presets::preset::Record;
use trilut_presets::{Phase, Preset};
use trilut_tuning::{Request, ShapeUse};

/// The records of a request's layers, in its order.
pub(super) fn records<'a>(preset: &'a Preset, request: &Request) -> Vec<&'a Record> {
    let find = |used: &ShapeUse| preset.record(used.shape, used.phase, request.threads);
    request.shapes.iter().filter_map(find).collect()
}

/// One row per layer that has a record.
pub(super) fn table(preset: &Preset, request: &Request) -> Table {
    let headings = [
        "phase",
        "shape",
        "format",
        "pick",
        "kernel",
        "tile",
        "time",
        "GB/s",
        "GMAC/s",
        "x default",
        "x scalar",
    ];
    let mut table = Table::new(&headings, 6);
    records(preset, request).into_iter().for_each(|record| table.row(row(record)));
    table
}

/// Whether something else than the default is picked, and if not, whether the check of the whole model put the
/// default in its place.
pub(super) fn pick(record: &Record) -> &'static str {
    let was_checked = record.evidence.as_ref().is_some_and(|evidence| evidence.model.is_some());
    match (record.is_default(), was_checked) {
        (false, _) => "tuned",
        (true, true) => "default (gate)",
        (true, false) => "default",
    }
}

/// The bounds of a pick, and where prompts take over.
pub(super) fn bounds(record: &Record) -> String {
    let tile = record.tile.in_words(record.phase);
    record.from.map_or(tile.clone(), |from| format!("{tile}, from {from} tokens"))
}

/// A record in words and numbers.
fn row(record: &Record) -> [String; 11] {
    let ns = record.median_ns.max(1) as f64;
    // Prompts are bound by their products, not by their weights.
    let gemv = trilut_kernels::find(&record.kernel).map(|kernel| kernel.layout);
    let batch = trilut_kernels::find_batch(&record.kernel).map(|kernel| kernel.layout);
    let layout = gemv.or(batch);
    let streamed = layout.map(|layout| layout.bytes(record.shape) as f64 / ns);
    let phase = match record.tokens {
        1 => record.phase.to_string(),
        tokens => format!("{} of {tokens}", record.phase),
    };
    let products = (record.shape.weights() * record.tokens) as f64;
    let decimal = |value: f64| format!("{value:.1}");
    [
        phase,
        record.shape.to_string(),
        record.format.to_string(),
        pick(record).to_owned(),
        record.kernel.clone(),
        bounds(record),
        format!("{:.1} us", ns / 1e3),
        streamed.map_or("-".to_owned(), decimal),
        decimal(products / ns),
        format!("{:.2}", record.default_ns as f64 / ns),
        record.scalar_ns.map_or("-".to_owned(), |scalar| decimal(scalar as f64 / ns)),
    ]
}

/// One row for each number of threads: what a token costs in the tuned layers.
pub(super) fn compare_threads(
    preset: &Preset,
    shapes: &[ShapeUse],
    threads: &[usize],
) -> Result<(), Failure> {
    let mut table = Table::new(&["threads", "decode ms/token", "prefill ms/token"], 0);
    // The least time by phase: only times of one phase can be compared.
    let mut best: [Option<(f64, usize)>; 2] = [None; 2];
    for &n in threads {
        let sum = |phase: Phase| -> Option<f64> {
            let uses = shapes.iter().filter(|used| used.phase == phase);
            let times: Option<Vec<f64>> = uses
                .map(|used| {
                    let record = preset.record(used.shape, phase, n)?;
                    let runs = used.count_per_token as f64 / record.tokens as f64;
                    Some(runs * record.median_ns as f64 / 1e6)
                })
                .collect();
            times.filter(|times| !times.is_empty()).map(|times| times.iter().sum())
        };
        let (decode, prefill) = (sum(Phase::Decode), sum(Phase::Prefill));
        let text = |time: Option<f64>| time.map_or("-".to_owned(), |ms| format!("{ms:.3}"));
        table.row([n.to_string(), text(decode), text(prefill)]);
        for (best, time) in best.iter_mut().zip([decode, prefill]) {
            if let Some(time) = time.filter(|time| best.is_none_or(|(least, _)| *time < least)) {
                *best = Some((time, n));
            }
        }
    }
    outln!("\n{}", table.plain().trim_end());
    // Most of what a model does is decoding.
    let [decode, prefill] = best;
    if let Some((_, n)) = decode.or(prefill) {
        outln!("fastest with {}", count(n, "thread"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trilut_presets::preset::{Effort, Evidence, Provenance, Weights};
    use trilut_presets::{Format, Isa, Machine, Shape, Tile};

    #[test]
    fn what_the_gate_put_back_is_told_from_what_nothing_beat() {
        let shape = Shape { m: 64, k: 128 };
        let record = Record {
            shape,
            phase: Phase::Decode,
            tokens: 1,
            threads: 1,
            format: Format::I2S,
            formats: vec![Format::I2S],
            space: 7,
            kernel: "fast".into(),
            hash: 1,
            tile: Tile::default(),
            effort: Effort::Measure,
            weights: Weights::Cold,
            median_ns: 1000,
            samples: vec![1000],
            default_kernel: "usual".into(),
            default_ns: 2000,
            scalar_ns: None,
            confidence: None,
            from: None,
            evidence: Some(Evidence { model: Some([0.9, 0.95]), ..Evidence::default() }),
        };
        let put_back = Record { kernel: "usual".into(), median_ns: 2000, ..record.clone() };
        let usual = Record { evidence: None, ..put_back.clone() };
        assert_eq!([&record, &put_back, &usual].map(pick), ["tuned", "default (gate)", "default"]);
        let provenance = Provenance {
            trilut: "0".into(),
            date: String::new(),
            isa: Isa::Scalar,
            effort: Effort::Measure,
            threads: 1,
            noise: None,
        };
        let preset = Preset::new(provenance, Machine::default(), vec![put_back.clone()]);
        let cpu = trilut_kernels::Cpu::capped(Some(Isa::Scalar));
        let request = Request {
            shapes: vec![ShapeUse { phase: Phase::Decode, shape, count_per_token: 1 }],
            formats: vec![Format::I2S],
            decoded: Vec::new(),
            threads: 1,
            effort: Effort::Measure,
            time_limit: std::time::Duration::ZERO,
            cpu,
            machine: Machine::default(),
            model_bytes: 0,
            prior: trilut_tuning::Prior::default(),
        };
        let shown = table(&preset, &request).plain();
        assert!(shown.contains("default (gate)  usual") && shown.contains("1.00"), "{shown}");
        assert!(records(&preset, &Request { threads: 2, ..request }).is_empty());
    }
}
