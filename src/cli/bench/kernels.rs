//! `trilut bench kernels`: every candidate for a layer, the fastest first, and how far off the pick is; of
//! several layers also the median and the worst of that.

mod outcome;

use super::super::failure::Failure;
use super::super::output::say;
use super::super::planning::Here;
use super::super::progress::Bar;
use super::super::{environment, interrupt};
use outcome::{Compared, Style, Summary};
use std::time::{Duration, Instant};
use trilut_presets::preset::Effort;
use trilut_presets::{Format, Pace, Phase, Shape, Tile};
use trilut_tuning::contest::{Contest, Holder, contest};
use trilut_tuning::{Candidate, Hardware, Lab, Request, ShapeReport, ShapeUse};

/// Time every candidate for layers of a size, the fastest first, and mark the pick.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Layer size, outputs x inputs; repeatable.
    #[arg(long, value_name = "MxK", required = true, allow_hyphen_values = true)]
    shape: Vec<Shape>,
    /// The part of inference: decode, batch, prefill; repeatable, decode and prefill without it.
    #[arg(long)]
    phase: Vec<Phase>,
    /// Weight format: i2_s, tl1, tl2, base3; all without it. Repeatable. Small batches take that of the
    /// pick, or the first.
    #[arg(long)]
    format: Vec<Format>,
    /// Number of threads; every fast core without it.
    #[arg(short, long, value_parser = environment::number_of_threads)]
    threads: Option<usize>,
    /// Preset file to take the pick from before all others.
    #[arg(long, value_name = "FILE", conflicts_with = "effort")]
    preset: Option<std::path::PathBuf>,
    /// Tune the layers now, with this effort, and take that pick; nothing is remembered.
    #[arg(long)]
    effort: Option<Effort>,
    /// How long each layer is tuned with --effort at most; without it a layer's part of what `trilut tune` takes
    /// for a model, and anew, for up to eight times as long, where that cuts the search short or something
    /// disturbs it.
    #[arg(long, value_name = "TIME", requires = "effort", value_parser = humantime::parse_duration)]
    time_limit: Option<Duration>,
    /// Samples of each candidate that does not fall behind.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(3..1000))]
    samples: u32,
    /// What to print: a table of the candidates of each layer, one line a layer, or JSON lines.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Style,
    /// Rows of each table that are printed; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Exit with code 3 when a pick is slower than the fastest candidate by more than the tolerance.
    #[arg(long)]
    assert: bool,
    /// The tolerance in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    tolerance: f64,
    /// The tolerance of the median of all picks in percent, where that is asserted as well.
    #[arg(long, value_name = "PERCENT", requires = "assert", value_parser = percent)]
    median_tolerance: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0);
    value.ok_or_else(|| "a tolerance is a number of percent, at least 0".to_owned())
}

/// How often a layer is tuned, at most, where something disturbs it or the time is too short.
const ATTEMPTS: u32 = 4;

/// How long to wait after the first disturbed attempt; as much longer after each further one.
const PAUSE: Duration = Duration::from_secs(1);

/// A pick and where it comes from.
struct Pick {
    kernel: String,
    tile: Tile,
    /// What a small batch reads.
    format: Format,
    /// 10^9 bytes per second at which memory was read while it was tuned; `None` where it was not tuned now, or that
    /// was not one speed.
    memory: Option<f64>,
    /// Nanoseconds that it took then.
    median_ns: Option<f64>,
    origin: String,
}

pub(super) fn bench(args: &Args) -> Result<(), Failure> {
    let threads = environment::threads(args.threads)?;
    let here = Here::find(args.preset.clone())?;
    let formats = if args.format.is_empty() { Format::ALL.to_vec() } else { args.format.clone() };
    let phases = match &args.phase[..] {
        [] => &[Phase::Decode, Phase::Prefill][..],
        given => given,
    };
    let mut layers: Vec<ShapeUse> = Vec::new();
    for (&shape, &phase) in args.shape.iter().flat_map(|s| phases.iter().map(move |p| (s, p))) {
        let layer = ShapeUse { phase, shape, count_per_token: 1 };
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    let mut summary = Summary::new(args.output);
    for &layer in &layers {
        let began = Instant::now();
        let effort = args.effort.unwrap_or(Effort::Measure);
        let limit = args.time_limit.unwrap_or(share_of_a_layer(effort, layer));
        let request = here.request(vec![layer], u64::MAX, formats.clone(), threads, effort, limit);
        let pick = match args.effort {
            Some(_) => tuned(request.clone(), args.time_limit.is_none())?,
            None => known(&here, &request, layer),
        };
        let contest = meet(&request, layer, &pick, args.samples as usize)?;
        let Pick { origin, kernel, tile, memory, .. } = pick;
        let took = began.elapsed();
        let compared = Compared { layer, threads, kernel, tile, origin, memory, contest, took };
        summary.tell(compared, args.top)?;
    }
    let (median, worst) = summary.end()?;
    if !args.assert {
        return Ok(());
    }
    let hint = "trilut tune --force --effort patient";
    let off = summary.regrets().filter(|regret| regret * 100.0 > args.tolerance).count();
    if off > 0 {
        let tolerance = args.tolerance;
        let why = format!("the worst is {:.1} % off", 100.0 * worst);
        return Err(Failure::check(format!("{off} picks are more than {tolerance} % off"))
            .because(why)
            .hint(hint));
    }
    if let Some(tolerance) = args.median_tolerance.filter(|t| median * 100.0 > *t) {
        let median = 100.0 * median;
        return Err(Failure::check(format!(
            "the median pick is {median:.1} % off, more than {tolerance} %"
        ))
        .hint(hint));
    }
    Ok(())
}

/// The contest of a pick with all others.
fn meet(
    request: &Request,
    layer: ShapeUse,
    pick: &Pick,
    samples: usize,
) -> Result<Contest, Failure> {
    let decoded = vec![(layer.shape, pick.format)];
    let request = Request { effort: Effort::Measure, decoded, ..request.clone() };
    let mut lab = Hardware::new(&request);
    let mut bar = Bar::new();
    let Pick { tile, memory, median_ns, .. } = *pick;
    let holder = Holder { kernel: &pick.kernel, tile, memory, median_ns };
    let contest = contest(&mut lab, &request, layer, holder, samples, &mut bar)?;
    drop(bar);
    contest.filter(|_| !interrupt::asked()).ok_or_else(Failure::interrupted)
}

/// The largest layer of BitNet b1.58 2B-4T, in weights.
const USUAL: f64 = 6912.0 * 2560.0;

/// What a run for a model of four layer sizes in three phases has for each of them; as much more for larger layers, which
/// have a larger part of a run.
fn share_of_a_layer(effort: Effort, layer: ShapeUse) -> Duration {
    let usual = match effort {
        Effort::Estimate => Request::ESTIMATE_LIMIT / 8,
        Effort::Measure => Duration::from_secs(5),
        Effort::Patient => Duration::from_secs(50),
        Effort::Exhaustive => Duration::from_secs(300),
    };
    usual.mul_f64((layer.shape.weights() as f64 / USUAL).max(1.0))
}

/// The pick of the ladder, or the default kernel.
fn known(here: &Here, request: &Request, layer: ShapeUse) -> Pick {
    let plan = here.plan();
    let found = plan.find(layer.shape, layer.phase, request.threads);
    match found
        .filter(|pick| layer.phase == Phase::Prefill || request.formats.contains(&pick.format))
    {
        Some(pick) => Pick {
            kernel: pick.kernel.clone(),
            tile: pick.tile,
            format: pick.format,
            memory: None,
            median_ns: None,
            origin: pick.reason.clone(),
        },
        None => {
            let lab = Hardware::new(request);
            let format = request.formats[0];
            let default = Candidate::untuned(lab.default_kernel(&layer, format));
            Pick {
                kernel: default.name().to_owned(),
                tile: default.tile,
                format,
                memory: None,
                median_ns: None,
                origin: "the default: no preset knows this layer".to_owned(),
            }
        }
    }
}

/// The pick of a search that is made now. Where the time may be extended, it is as thorough as the effort demands,
/// and undisturbed if the machine grants that: else the calmest of several.
fn tuned(mut request: Request, may_extend: bool) -> Result<Pick, Failure> {
    let attempts = if may_extend { ATTEMPTS } else { 1 };
    let mut best: Option<(ShapeReport, Duration)> = None;
    for attempt in 1..=attempts {
        let mut bar = Bar::new();
        let outcome = trilut_tuning::tune(&request, &mut bar)?;
        drop(bar);
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
        let Some(report) = outcome.shapes.into_iter().next() else { break };
        let why = report.noise.warning();
        let (layer, is_cut_short) = (report.layer, report.is_cut_short);
        if best.as_ref().is_none_or(|(known, _)| report.is_better_than(known)) {
            best = Some((report, outcome.took));
        }
        if attempt == attempts || (why.is_none() && !is_cut_short) {
            break;
        }
        if is_cut_short {
            request.time_limit *= 2;
            let limit = humantime::format_duration(request.time_limit);
            say!("note: {layer}: the search was cut short: once more, for {limit}");
        }
        if let Some(why) = why {
            say!("note: {layer}: {why}: tuned once more");
            pause(PAUSE * attempt)?;
        }
    }
    let Some((report, took)) = best else {
        return Err(Failure::new("the time was too short to tune the layer")
            .hint("give it more: --time-limit 20s"));
    };
    let took = took.as_secs_f64();
    // Estimates and disturbed searches know no time that lasts.
    let is_calm = request.effort > Effort::Estimate && report.noise.warning().is_none();
    Ok(Pick {
        kernel: report.record.kernel.clone(),
        tile: report.record.tile,
        format: report.record.format,
        memory: report.noise.memory.filter(|pace| pace.is_steady()).map(Pace::middle),
        median_ns: is_calm.then_some(report.record.median_ns as f64),
        origin: format!("tuned now with {} in {took:.1} s", request.effort),
    })
}

/// Waits for what disturbs the machine to pass.
fn pause(time: Duration) -> Result<(), Failure> {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
