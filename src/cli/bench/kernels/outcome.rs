//! How a comparison of layers' candidates is printed: as tables, as one line a layer, or as JSON lines.

use crate::cli::failure::Failure;
use crate::cli::output::{count, out, outln, say};
use crate::cli::table::Table;
use serde_json::json;
use std::time::Duration;
use trilut_presets::Tile;
use trilut_tuning::contest::Contest;
use trilut_tuning::{ShapeUse, median};

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Style {
    /// A table of the candidates of each layer.
    Table,
    /// One line a layer, in Markdown.
    Md,
    /// One JSON object a line: each layer with all its candidates, then the summary.
    Json,
}

/// One layer and what came of it.
pub(super) struct Compared {
    pub(super) layer: ShapeUse,
    pub(super) threads: usize,
    /// The pick.
    pub(super) kernel: String,
    /// Its bounds.
    pub(super) tile: Tile,
    /// Where it comes from.
    pub(super) origin: String,
    /// 10^9 bytes per second at which memory was read when the pick was found, if that was now.
    pub(super) memory: Option<f64>,
    pub(super) contest: Contest,
    /// With the search for the pick, if there was one.
    pub(super) took: Duration,
}

/// All layers.
pub(super) struct Summary {
    style: Style,
    regrets: Vec<f64>,
}

impl Summary {
    pub(super) fn new(style: Style) -> Self {
        Self { style, regrets: Vec::new() }
    }

    /// The regret of each layer, 0 where the pick is the fastest.
    pub(super) fn regrets(&self) -> impl Iterator<Item = f64> {
        self.regrets.iter().copied()
    }

    /// Prints a layer as soon as it is known; of a table at most so many rows, 0 for all.
    pub(super) fn tell(&mut self, compared: Compared, top: usize) -> Result<(), Failure> {
        let is_first = self.regrets.is_empty();
        self.regrets.push(compared.contest.regret.max(0.0));
        if let Some(warning) = &compared.contest.warning {
            say!("note: {}: {warning}", compared.layer);
        }
        match self.style {
            Style::Table => compared.table(top),
            Style::Json => compared.json(),
            Style::Md => {
                if is_first {
                    outln!(
                        "| layer | threads | pick | fastest other | pick / other | 95 % | GB/s | s |"
                    );
                    outln!("|---|---|---|---|---|---|---|---|");
                }
                compared.line()
            }
        }
    }

    /// Prints the median and the worst regret, and returns them.
    pub(super) fn end(&self) -> Result<(f64, f64), Failure> {
        let (middle, worst) =
            (median(&self.regrets), self.regrets.iter().copied().fold(0.0, f64::max));
        let picks = self.regrets.len();
        if self.style == Style::Json {
            outln!("{}", json!({ "picks": picks, "median_regret": middle, "worst_regret": worst }));
            return Ok((middle, worst));
        }
        if self.style == Style::Md {
            outln!();
        }
        let (median, largest) = (100.0 * middle, 100.0 * worst);
        outln!("regret of {}: median {median:.1} %, worst {largest:.1} %", count(picks, "pick"));
        Ok((middle, worst))
    }
}

impl Compared {
    fn line(&self) -> Result<(), Failure> {
        let Self { layer, threads, contest, .. } = self;
        let [low, high] = contest.interval.map(|end| 1.0 + end);
        outln!(
            "| {layer} | {threads} | {} ({}) | {} | {:.3} | {low:.3} - {high:.3} | {} | {:.1} |",
            self.kernel,
            self.tile.in_words(layer.phase),
            contest.best.map_or("-".to_owned(), |(kernel, tile)| format!(
                "{kernel} ({})",
                tile.in_words(layer.phase)
            )),
            1.0 + contest.regret,
            self.speeds(),
            self.took.as_secs_f64(),
        );
        Ok(())
    }

    /// How fast memory was read when the pick was found, and when it met the others.
    fn speeds(&self) -> String {
        let one = |speed: Option<f64>| speed.map(|speed| format!("{speed:.1}"));
        match [self.memory, self.contest.memory].map(one) {
            [Some(then), Some(now)] => format!("{then}, {now}"),
            [then, now] => then.or(now).unwrap_or_else(|| "-".to_owned()),
        }
    }

    fn json(&self) -> Result<(), Failure> {
        let Self { layer, threads, kernel, tile, origin, memory, contest, took } = self;
        let rows = contest.rows.iter().map(|row| {
            json!({
                "kernel": row.kernel,
                "tile": row.tile,
                "median_ns": row.median_ns,
                "samples": row.samples,
            })
        });
        outln!(
            "{}",
            json!({
                "phase": layer.phase,
                "shape": layer.shape,
                "threads": threads,
                "pick": { "kernel": kernel, "tile": tile, "origin": origin, "memory": memory },
                "best": contest.best.map(|(kernel, tile)| json!({ "kernel": kernel, "tile": tile })),
                "ratio": 1.0 + contest.regret,
                "interval": contest.interval.map(|end| 1.0 + end),
                "memory": contest.memory,
                "warning": contest.warning,
                "seconds": took.as_secs_f64(),
                "candidates": rows.collect::<Vec<_>>(),
            })
        );
        Ok(())
    }

    fn table(&self, top: usize) -> Result<(), Failure> {
        let Self { layer, threads, origin, contest, .. } = self;
        outln!("{layer}, {}; pick: {origin}", count(*threads, "thread"));
        let mut table = Table::new(&["kernel", "tile", "us", "x best", "samples", ""], 2);
        let best = contest.rows.first().map_or(1.0, |row| row.median_ns);
        let top = if top == 0 { usize::MAX } else { top };
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
}
