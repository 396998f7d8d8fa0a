//! The end-to-end gate: is the model as a whole faster with its tuned kernels?
//!
//! Layers are tuned one by one; what they do to each other (caches, prefetchers, the order of memory) shows
//! only in the model. Two models, both fully loaded, one with the default plan and one with the tuned one,
//! take turns, A B B A. Where the tuned one is not faster beyond the noise the default stays.
//!
//! This crate does not run models: the caller does, and hands in the times.

use crate::confirm::Confirmation;
use crate::request::ShapeUse;
use crate::statistics::median;
use std::time::Duration;
use trilut_kernels::{Format, Phase, Shape};
use trilut_presets::preset::{Evidence, Record};
use trilut_presets::{Preset, Tile};

/// The probability of error on each side of the interval at one look: 2.5 % over the three looks together.
const TAIL: f64 = 0.025 / 3.0;

/// Pairs after which it may be decided: the fewest for which such an interval exists.
pub const LEAST_PAIRS: usize = 7;

/// Pairs after which it is decided.
pub const MOST_PAIRS: usize = 28;

/// Which of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// With the tuned plan.
    Tuned,
    /// With the default plan.
    Default,
}

/// What became of a phase.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The tuned model's time over that of the default, pair by pair.
    pub ratio: f64,
    /// Its interval.
    pub interval: [f64; 2],
    /// The median time of the default in nanoseconds.
    pub default_ns: f64,
    /// The number of pairs.
    pub pairs: usize,
    /// Whether the tuned plan is used.
    pub is_kept: bool,
}

impl Verdict {
    /// Whether the time was up before enough pairs had been run to tell the two apart.
    pub fn is_open(&self) -> bool {
        let [low, high] = self.interval;
        low <= 1.0 && high >= 1.0 && self.pairs < MOST_PAIRS
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.interval;
        let speed = 1.0 / self.ratio;
        write!(f, "{speed:.3}x the speed of the default (time {low:.3} to {high:.3} of it")?;
        write!(f, ", {} pairs): ", self.pairs)?;
        f.write_str(match self.interval {
            _ if self.is_kept => "faster beyond the noise, the tuned kernels are used",
            [low, _] if low > 1.0 => "slower beyond the noise, the default stays",
            _ if self.is_open() => {
                "too little time to tell the two apart, the default stays (more time: --force --time-limit)"
            }
            _ => "no difference beyond the noise, the default stays",
        })
    }
}

/// Lets the two sides take turns: at least [`LEAST_PAIRS`] pairs, more while they decide nothing and there
/// is time. `time` runs one side and gives its time in nanoseconds, or `None` to stop; each side has one
/// run before, which is not counted.
pub fn gate(
    time: &mut dyn FnMut(Side) -> Option<f64>,
    mut is_late: impl FnMut() -> bool,
) -> Option<Verdict> {
    time(Side::Tuned)?;
    time(Side::Default)?;
    let (mut tuned, mut default) = (Vec::new(), Vec::new());
    let mut next = LEAST_PAIRS;
    loop {
        let order = match tuned.len().is_multiple_of(2) {
            true => [Side::Tuned, Side::Default],
            false => [Side::Default, Side::Tuned],
        };
        for side in order {
            match side {
                Side::Tuned => tuned.push(time(side)?),
                Side::Default => default.push(time(side)?),
            }
        }
        let is_cut_off = tuned.len() >= LEAST_PAIRS && is_late();
        if tuned.len() < next && !is_cut_off {
            continue;
        }
        let check = Confirmation::of_interval(tuned.clone(), default.clone(), TAIL);
        let is_decided = check.high < 1.0 || check.low > 1.0;
        if is_decided || tuned.len() >= MOST_PAIRS || is_cut_off {
            return Some(Verdict {
                ratio: check.ratio,
                interval: [check.low, check.high],
                default_ns: median(&check.default),
                pairs: tuned.len(),
                is_kept: check.high < 1.0,
            });
        }
        next *= 2;
    }
}

/// How many tokens of prompts go with how many that are generated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// Tokens of prompts.
    pub prompt: f64,
    /// Tokens generated.
    pub generated: f64,
}

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |text: &str| text.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
        let parts = text.split_once(':').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        match parts {
            Some((prompt, generated)) if prompt + generated > 0.0 => Ok(Self { prompt, generated }),
            _ => Err(format!("`{text}` is not like 512:128, prompt tokens : generated tokens")),
        }
    }
}

impl Mix {
    /// The time that the tuned model gains on the default one with this mix, in nanoseconds; negative when
    /// it loses. Both phases read one stored copy, so the format that decoding picks can cost prompts more
    /// than it gains. The verdicts come with the number of tokens of their runs.
    pub fn gain(self, prefill: (&Verdict, usize), decode: (&Verdict, usize)) -> f64 {
        let gain = |(verdict, tokens): (&Verdict, usize), share: f64| {
            share * verdict.default_ns / tokens.max(1) as f64 * (1.0 - verdict.ratio)
        };
        gain(prefill, self.prompt) + gain(decode, self.generated)
    }
}

/// The records of a model's layers, in a phase and with a number of threads, whose picks are not the
/// default: what the gate is about.
pub fn picks<'a>(
    preset: &'a Preset,
    layers: &'a [ShapeUse],
    phase: Phase,
    threads: usize,
) -> impl Iterator<Item = &'a Record> {
    preset.records().iter().filter(move |record| is_pick(record, layers, phase, threads))
}

fn is_pick(record: &Record, layers: &[ShapeUse], phase: Phase, threads: usize) -> bool {
    (record.phase, record.threads) == (phase, threads)
        && !record.is_default()
        && layers.iter().any(|layer| (layer.shape, layer.phase) == (record.shape, phase))
}

/// The layers but for those whose pick passed an earlier gate: what a later one that ends [open](Verdict::is_open)
/// says nothing against.
pub fn unproven(
    preset: &Preset,
    layers: &[ShapeUse],
    phase: Phase,
    threads: usize,
) -> Vec<ShapeUse> {
    let has_passed = |record: &&Record| {
        let model = record.evidence.as_ref().and_then(|evidence| evidence.model);
        model.is_some_and(|[_, high]| high < 1.0)
    };
    let proven: Vec<Shape> =
        picks(preset, layers, phase, threads).filter(has_passed).map(|r| r.shape).collect();
    let is_left = |layer: &&ShapeUse| layer.phase != phase || !proven.contains(&layer.shape);
    layers.iter().filter(is_left).copied().collect()
}

/// The same preset in which every such pick says what became of the model.
pub fn stated(
    preset: &Preset,
    layers: &[ShapeUse],
    phase: Phase,
    threads: usize,
    verdict: &Verdict,
) -> Preset {
    let state = |record: &Record| {
        let mut record = record.clone();
        if is_pick(&record, layers, phase, threads)
            && let Some(evidence) = &mut record.evidence
        {
            let interval = Some(verdict.interval).filter(|[low, _]| *low > 0.0);
            evidence.model = interval.map(|interval| interval.map(Evidence::rounded));
        }
        record
    };
    let records = preset.records().iter().map(state).collect();
    Preset::new(preset.provenance.clone(), preset.machine.clone(), records)
}

/// The same preset with the default in place of every such pick. `find` gives the format, as far as the
/// kernel has one, and the hash of a kernel; where it finds no default kernel the record is dropped, which
/// leaves the default as well. Small batches that were tuned for a format that decoding no longer reads
/// are dropped too.
pub fn without(
    preset: &Preset,
    layers: &[ShapeUse],
    phase: Phase,
    threads: usize,
    find: impl Fn(&str) -> Option<(Option<Format>, u64)>,
) -> Preset {
    let mut records = Vec::new();
    // What is read from now on, where that is known.
    let mut reset = Vec::new();
    for record in preset.records() {
        if !is_pick(record, layers, phase, threads) {
            records.push(record.clone());
            continue;
        }
        let found = find(&record.default_kernel);
        reset.push((record.shape, found.and_then(|(format, _)| format)));
        records.extend(found.map(|(format, hash)| defaulted(record, format, hash)));
    }
    if phase == Phase::Decode {
        records.retain(|record| {
            let is_stale = |(shape, format): &(Shape, Option<Format>)| {
                *shape == record.shape && *format != Some(record.format)
            };
            (record.phase, record.threads) != (Phase::SmallBatch, threads)
                || !reset.iter().any(is_stale)
        });
    }
    Preset::new(preset.provenance.clone(), preset.machine.clone(), records)
}

/// A record with the default in place of its pick.
fn defaulted(record: &Record, format: Option<Format>, hash: u64) -> Record {
    let mut record = record.clone();
    // Where prompts take over was measured with the pick.
    record.from = record.from.filter(|_| record.kernel == record.default_kernel);
    record.kernel.clone_from(&record.default_kernel);
    record.format = format.unwrap_or(record.format);
    record.hash = hash;
    record.tile = Tile::default_for(record.phase);
    record.median_ns = record.default_ns;
    record.samples = vec![record.default_ns];
    // It was the pick's.
    record.confidence = None;
    if let Some(evidence) = &mut record.evidence {
        (evidence.interval, evidence.wins, evidence.regret) = (None, None, None);
    }
    record
}

/// The formats that a model's layers were read in by default when they were tuned: those of the kernels that the
/// picks of decoding had to beat. `find` is as for [`without`]; layers that it does not know are left out.
pub fn default_formats(
    preset: &Preset,
    layers: &[ShapeUse],
    threads: usize,
    find: impl Fn(&str) -> Option<(Option<Format>, u64)>,
) -> Vec<(Shape, Format)> {
    let is_own = |record: &&Record| {
        (record.phase, record.threads) == (Phase::Decode, threads)
            && layers.iter().any(|layer| layer.shape == record.shape)
    };
    let own = preset.records().iter().filter(is_own);
    own.filter_map(|record| Some((record.shape, find(&record.default_kernel)?.0?))).collect()
}

/// The time that a gate should have of a run's limit: two fifths, at most half a minute.
pub fn share_of(limit: Duration) -> Duration {
    (limit / 5 * 2).min(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::{self, FakeLab, Script};
    use crate::exactness::Random;
    use crate::{Prior, Request, Silent, tune_in};
    use trilut_kernels::{Cpu, Isa};
    use trilut_presets::Machine;
    use trilut_presets::preset::Effort;

    /// The verdict on sides that take so long, with noise up to a share and a drift with each run.
    fn run(tuned: f64, default: f64, noise: f64, drift: f64) -> (Verdict, usize) {
        let (mut random, mut runs) = (Random::new(3), 0usize);
        let verdict = gate(
            &mut |side| {
                runs += 1;
                let wobble = f64::from(random.next_u32()) / f64::from(u32::MAX);
                let ns = if side == Side::Tuned { tuned } else { default };
                Some(ns * (1.0 + noise * wobble) * (1.0 + drift * runs as f64))
            },
            || false,
        );
        (verdict.unwrap(), runs)
    }

    #[test]
    fn a_clear_gain_is_kept_after_the_fewest_pairs() {
        let (verdict, runs) = run(90.0, 100.0, 0.02, 0.0);
        assert!(verdict.is_kept && verdict.pairs == LEAST_PAIRS, "{verdict}");
        assert_eq!(runs, 2 + 2 * LEAST_PAIRS);
        assert!(
            verdict.to_string().contains("faster beyond the noise, the tuned kernels are used")
        );
        const { assert!(LEAST_PAIRS >= 5) };
    }

    #[test]
    fn a_gain_inside_the_noise_leaves_the_default_and_says_so() {
        let (verdict, _) = run(99.8, 100.0, 0.3, 0.0);
        assert!(!verdict.is_kept && verdict.pairs == MOST_PAIRS, "{verdict}");
        assert!(verdict.to_string().contains("no difference beyond the noise, the default stays"));
        let (slower, _) = run(110.0, 100.0, 0.02, 0.0);
        assert!(!slower.is_kept && slower.pairs == LEAST_PAIRS, "{slower}");
        assert!(slower.to_string().contains("slower beyond the noise, the default stays"));
    }

    #[test]
    fn a_format_that_costs_prompts_more_than_it_gains_depends_on_the_mix() {
        // Prompts 10 % slower, tokens 20 % faster, and a prompt token has a tenth of the cost.
        let (prefill, decode) = (run(110.0, 100.0, 0.0, 0.0).0, run(80.0, 100.0, 0.0, 0.0).0);
        let gain = |mix: &str| mix.parse::<Mix>().unwrap().gain((&prefill, 10), (&decode, 1));
        assert!(gain("1:1") > 0.0 && gain("100:1") < 0.0 && gain("0:1") > 0.0);
        assert!((gain("1:0") + 1.0).abs() < 1e-9);
        for bad in ["", "1", "1:", "0:0", "-1:2", "a:b", "nan:1", "1:inf"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn drift_decides_nothing() {
        assert!(!run(100.0, 100.0, 0.0, 0.01).0.is_kept);
        assert!(run(90.0, 100.0, 0.0, 0.01).0.is_kept);
    }

    #[test]
    fn it_ends_when_it_is_late_or_asked_to() {
        let mut same = |_| Some(100.0);
        assert_eq!(gate(&mut same, || true).unwrap().pairs, LEAST_PAIRS);
        assert_eq!(gate(&mut |_| None, || false), None);
    }

    #[test]
    fn too_little_time_is_not_called_no_difference() {
        let mut ran = 0;
        // Sides that take turns to be ahead.
        let mut even = |_| {
            ran += 1;
            Some(if ran % 2 == 0 { 100.0 } else { 90.0 })
        };
        let open = gate(&mut even, || true).unwrap();
        assert!(open.is_open() && !open.is_kept, "{open}");
        let told = open.to_string();
        assert!(
            told.contains("too little time to tell") && !told.contains("no difference"),
            "{told}"
        );
        let whole = gate(&mut even, || false).unwrap();
        assert!(!whole.is_open() && whole.to_string().contains("no difference"), "{whole}");
        // What can be told in little time is.
        let slower = |side| Some(if side == Side::Tuned { 110.0 } else { 100.0 });
        let slower = gate(&mut { slower }, || true).unwrap();
        assert!(!slower.is_open() && slower.to_string().contains("slower beyond"), "{slower}");
    }

    fn layer(m: usize) -> ShapeUse {
        ShapeUse { phase: Phase::Decode, shape: Shape { m, k: 128 }, count_per_token: 1 }
    }

    /// Picks that beat the default in decoding.
    fn tuned(layers: &[ShapeUse]) -> Preset {
        let request = Request {
            shapes: layers.to_vec(),
            formats: vec![Format::I2S],
            threads: 1,
            effort: Effort::Measure,
            time_limit: Duration::from_secs(60),
            cpu: Cpu::capped(Some(Isa::Scalar)),
            machine: Machine::default(),
            model_bytes: 1 << 40,
            prior: Prior::default(),
            decoded: Vec::new(),
        };
        let kernels = ["r1u1", "r2u1"].map(fake::exact).to_vec();
        let times = &[("r1u1", 100.0), ("r2u1", 80.0)];
        let mut lab = FakeLab::new(kernels, Script { times, ..Script::default() });
        tune_in(&mut lab, &request, &mut Silent).unwrap().preset
    }

    #[test]
    fn what_does_not_pass_gives_way_to_the_default() {
        let layers = [layer(64)];
        let preset = tuned(&layers);
        let picks =
            |preset: &Preset, threads| picks(preset, &layers, Phase::Decode, threads).count();
        assert_eq!((picks(&preset, 1), picks(&preset, 2)), (1, 0));
        let find = |_: &str| Some((Some(Format::I2S), 7));
        let plain = without(&preset, &layers, Phase::Decode, 1, find);
        let record = &plain.records()[0];
        assert!(record.kernel.contains("r1u1") && record.hash == 7);
        assert_eq!((record.median_ns, record.tile), (100, Tile::default()));
        assert_eq!(picks(&plain, 1), 0);
        assert_eq!(Preset::parse(&plain.to_text(), "x").unwrap(), plain);
        assert_eq!(without(&preset, &layers, Phase::Prefill, 1, |_| None), preset);
    }

    #[test]
    fn picks_and_what_was_put_in_their_place_say_what_became_of_the_model() {
        let layers = [layer(64)];
        let (verdict, _) = run(99.8, 100.0, 0.3, 0.0);
        let stated = stated(&tuned(&layers), &layers, Phase::Decode, 1, &verdict);
        let find = |_: &str| Some((Some(Format::I2S), 7));
        let plain = without(&stated, &layers, Phase::Decode, 1, find);
        for preset in [stated, plain] {
            let model = preset.records()[0].evidence.as_ref().unwrap().model;
            assert_eq!(model, Some(verdict.interval.map(Evidence::rounded)));
            assert_eq!(Preset::parse(&preset.to_text(), "x").unwrap(), preset);
        }
    }

    #[test]
    fn what_an_earlier_gate_let_pass_is_told_from_the_rest() {
        let layers = [layer(64), layer(96)];
        let mut preset = tuned(&layers[..1]);
        let (passed, _) = run(90.0, 100.0, 0.0, 0.0);
        preset = stated(&preset, &layers, Phase::Decode, 1, &passed);
        preset.merge(tuned(&layers[1..]));
        assert_eq!(unproven(&preset, &layers, Phase::Decode, 1), [layer(96)]);
        assert_eq!(unproven(&preset, &layers, Phase::Decode, 2), layers);
        assert_eq!(unproven(&preset, &layers, Phase::Prefill, 1), layers);
        // A verdict is open while more pairs might still decide.
        let open = gate(&mut |_| Some(100.0), || true).unwrap();
        assert!(open.is_open() && !passed.is_open());
        assert!(
            !run(99.8, 100.0, 0.3, 0.0).0.is_open() && !run(110.0, 100.0, 0.0, 0.0).0.is_open()
        );
    }

    #[test]
    fn what_is_left_undecided_goes_back_and_what_passed_does_not() {
        let layers = [layer(64), layer(96)];
        let mut preset = tuned(&layers[..1]);
        let (passed, _) = run(90.0, 100.0, 0.0, 0.0);
        preset = stated(&preset, &layers, Phase::Decode, 1, &passed);
        preset.merge(tuned(&layers[1..]));
        let left = unproven(&preset, &layers, Phase::Decode, 1);
        let find = |_: &str| Some((Some(Format::I2S), 7));
        let plain = without(&preset, &left, Phase::Decode, 1, find);
        let is_default =
            layers.map(|layer| plain.record(layer.shape, layer.phase, 1).map(Record::is_default));
        assert_eq!(is_default, [Some(false), Some(true)]);
    }

    #[test]
    fn what_the_picks_had_to_beat_is_known_by_its_format() {
        let (own, other) = ([layer(64)], [layer(128)]);
        let mut preset = tuned(&own);
        preset.merge(tuned(&other));
        let formats =
            |threads, format| default_formats(&preset, &own, threads, |_: &str| Some((format, 7)));
        assert_eq!(formats(1, Some(Format::Tl1)), [(layer(64).shape, Format::Tl1)]);
        assert_eq!(formats(2, Some(Format::Tl1)), []);
        assert_eq!(formats(1, None), []);
        assert_eq!(default_formats(&preset, &own, 1, |_: &str| None), []);
    }

    #[test]
    fn a_default_that_is_not_found_leaves_no_record() {
        let layers = [layer(64)];
        let plain = without(&tuned(&layers), &layers, Phase::Decode, 1, |_| None);
        assert_eq!(plain.records(), []);
    }

    #[test]
    fn picks_of_another_model_are_left_alone() {
        let (own, other) = ([layer(64), layer(96)], [layer(128), layer(160)]);
        let mut preset = tuned(&own);
        preset.merge(tuned(&other));
        let picks =
            |preset: &Preset, layers: &[ShapeUse]| picks(preset, layers, Phase::Decode, 1).count();
        assert_eq!((picks(&preset, &own), picks(&preset, &other)), (2, 2));
        for find in [|_: &str| Some((Some(Format::I2S), 7)), |_: &str| None] {
            let plain = without(&preset, &own, Phase::Decode, 1, find);
            assert_eq!((picks(&plain, &own), picks(&plain, &other)), (0, 2));
            for layer in other {
                let record = |preset: &Preset| preset.record(layer.shape, layer.phase, 1).cloned();
                assert_eq!(record(&plain), record(&preset));
            }
        }
        // The same sizes in another phase are no layers of the request.
        let prompts = own.map(|layer| ShapeUse { phase: Phase::Prefill, ..layer });
        assert_eq!(without(&preset, &prompts, Phase::Decode, 1, |_| None), preset);
    }

    #[test]
    fn small_batches_go_with_the_format_that_decoding_read() {
        let layers = [layer(64), layer(96)];
        let decode = tuned(&layers);
        let batch = |m, threads, format| {
            let record = decode.record(layer(64).shape, Phase::Decode, 1).unwrap().clone();
            Record { shape: layer(m).shape, phase: Phase::SmallBatch, threads, format, ..record }
        };
        let small = [
            batch(64, 1, Format::Tl2),
            batch(64, 2, Format::Tl2),
            batch(96, 1, Format::I2S),
            batch(128, 1, Format::Tl2),
        ];
        let all = decode.records().iter().chain(&small).cloned().collect();
        let preset = Preset::new(decode.provenance.clone(), decode.machine.clone(), all);
        let left = |found: Option<(Option<Format>, u64)>| {
            let plain = without(&preset, &layers, Phase::Decode, 1, |_| found);
            small.each_ref().map(|small| plain.records().contains(small))
        };
        assert_eq!(left(Some((Some(Format::I2S), 7))), [false, true, true, true]);
        // What decoding reads then is not known.
        assert_eq!(left(None), [false, true, false, true]);
    }
}
