//! `trilut bench kernels`: every candidate for a layer, the fastest first, and how far off the pick is.

use super::super::failure::Failure;
use super::super::output::{count, out, outln};
use super::super::planning::Here;
use super::super::progress::Bar;
use super::super::table::Table;
use super::super::{environment, interrupt};
use std::time::Duration;
use trilut_presets::preset::Effort;
use trilut_presets::{Format, Phase, Shape, Tile};
use trilut_tuning::contest::{Contest, contest};
use trilut_tuning::{Candidate, Hardware, Lab, Request, ShapeUse, median};

/// Time every candidate for layers of a size, the fastest first, and mark the pick.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Layer size, outputs x inputs; repeatable.
    #[arg(long, value_name = "MxK", required = true, allow_hyphen_values = true)]
    shape: Vec<Shape>,
    /// The part of inference: decode, prefill; both without it.
    #[arg(long)]
    phase: Option<Phase>,
    /// Weight format: i2_s, tl1, tl2, base3; all without it. Repeatable.
    #[arg(long)]
    format: Vec<Format>,
    /// Number of threads; every fast core without it.
    #[arg(short, long)]
    threads: Option<usize>,
    /// Preset file to take the pick from before all others.
    #[arg(long, value_name = "FILE", conflicts_with = "effort")]
    preset: Option<std::path::PathBuf>,
    /// Tune the layers now, with this effort, and take that pick; nothing is remembered.
    #[arg(long)]
    effort: Option<Effort>,
    /// Samples of each candidate that does not fall behind.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(3..1000))]
    samples: u32,
    /// Rows that are printed; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Exit with code 3 when a pick is slower than the fastest candidate by more than the tolerance.
    #[arg(long)]
    assert: bool,
    /// The tolerance in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    tolerance: f64,
}

fn percent(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0);
    value.ok_or_else(|| "a tolerance is a number of percent, at least 0".to_owned())
}

/// A pick and where it comes from.
struct Pick {
    kernel: String,
    tile: Tile,
    origin: String,
}

pub(super) fn bench(args: &Args) -> Result<(), Failure> {
    let threads = environment::threads(args.threads)?;
    let here = Here::find(args.preset.clone())?;
    let formats = if args.format.is_empty() { Format::ALL.to_vec() } else { args.format.clone() };
    let phases = match args.phase {
        Some(Phase::SmallBatch) => {
            return Err(Failure::usage("kernels of small batches cannot be compared yet")
                .hint("--phase decode or --phase prefill"));
        }
        Some(phase) => vec![phase],
        None => vec![Phase::Decode, Phase::Prefill],
    };
    let mut regrets: Vec<f64> = Vec::new();
    for &shape in &args.shape {
        for &phase in &phases {
            let layer = ShapeUse { phase, shape, count_per_token: 1 };
            let request = here.request(
                vec![layer],
                u64::MAX,
                formats.clone(),
                threads,
                args.effort.unwrap_or(Effort::Exhaustive),
                Duration::from_secs(60),
            );
            let pick = match args.effort {
                Some(_) => tuned(&request)?,
                None => known(&here, &request, layer),
            };
            let mut lab = Hardware::new(&Request { effort: Effort::Measure, ..request.clone() });
            let mut bar = Bar::new();
            let samples = args.samples as usize;
            let contest =
                contest(&mut lab, &request, layer, (&pick.kernel, pick.tile), samples, &mut bar)?;
            drop(bar);
            let Some(contest) = contest.filter(|_| !interrupt::asked()) else {
                return Err(Failure::interrupted());
            };
            regrets.push(contest.regret.max(0.0));
            report(args, &layer, &contest, &pick, threads)?;
        }
    }
    let worst = regrets.iter().copied().fold(0.0, f64::max);
    outln!(
        "regret of {} picks: median {:.1} %, worst {:.1} %",
        regrets.len(),
        100.0 * median(&regrets),
        100.0 * worst,
    );
    let off = regrets.iter().filter(|regret| **regret * 100.0 > args.tolerance).count();
    if args.assert && off > 0 {
        let tolerance = args.tolerance;
        return Err(Failure::check(format!("{off} picks are more than {tolerance} % off"))
            .hint("trilut tune --force --effort patient"));
    }
    Ok(())
}

/// The pick of the ladder, or the default kernel.
fn known(here: &Here, request: &Request, layer: ShapeUse) -> Pick {
    let plan = here.plan();
    let found = plan.find(layer.shape, layer.phase, request.threads);
    match found
        .filter(|pick| layer.phase == Phase::Prefill || request.formats.contains(&pick.format))
    {
        Some(pick) => {
            Pick { kernel: pick.kernel.clone(), tile: pick.tile, origin: pick.reason.clone() }
        }
        None => {
            let lab = Hardware::new(request);
            let default = Candidate::untuned(lab.default_kernel(&layer, request.formats[0]));
            Pick {
                kernel: default.name().to_owned(),
                tile: default.tile,
                origin: "the default: no preset knows this layer".to_owned(),
            }
        }
    }
}

/// The pick of a search that is made now.
fn tuned(request: &Request) -> Result<Pick, Failure> {
    let mut bar = Bar::new();
    let outcome = trilut_tuning::tune(request, &mut bar)?;
    drop(bar);
    let Some(report) = outcome.shapes.first() else {
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
        return Err(Failure::new("the time was too short to tune the layer"));
    };
    let took = outcome.took.as_secs_f64();
    Ok(Pick {
        kernel: report.record.kernel.clone(),
        tile: report.record.tile,
        origin: format!("tuned now with {} in {took:.1} s", request.effort),
    })
}

fn report(
    args: &Args,
    layer: &ShapeUse,
    contest: &Contest,
    pick: &Pick,
    threads: usize,
) -> Result<(), Failure> {
    outln!("{layer}, {}; pick: {}", count(threads, "thread"), pick.origin);
    let mut table = Table::new(&["kernel", "tile", "us", "x best", "samples", ""], 2);
    let best = contest.rows.first().map_or(1.0, |row| row.median_ns);
    let top = if args.top == 0 { usize::MAX } else { args.top };
    for (at, row) in contest.rows.iter().enumerate() {
        if at < top || row.is_pick {
            table.row([
                row.kernel.to_owned(),
                row.tile.in_words(layer.phase),
                format!("{:.2}", row.median_ns / 1e3),
                format!("{:.3}", row.median_ns / best),
                row.samples.to_string(),
                if row.is_pick { "<--".to_owned() } else { String::new() },
            ]);
        }
    }
    out!("{}", table.plain());
    let hidden = contest.rows.len().saturating_sub(top);
    if hidden > 0 {
        outln!("{hidden} more rows: --top 0 shows all");
    }
    outln!(
        "regret {:.1} % (95 %: {:.1} to {:.1}), from pairs with the fastest other candidate\n",
        100.0 * contest.regret,
        100.0 * contest.interval[0],
        100.0 * contest.interval[1],
    );
    Ok(())
}
