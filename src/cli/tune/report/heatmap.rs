//! Every candidate of a layer in a grid: kernels by tiles, coloured by their distance from the best.

use super::escaped;
use std::collections::BTreeMap;
use std::fmt::Write;
use trilut_presets::{Phase, Tile};
use trilut_tuning::{ShapeReport, Trial};

/// The fastest kernels, which are drawn; the others only where they are the pick or the default.
const ROWS: usize = 16;

const CELL: (usize, usize) = (76, 24);

/// The width of a character, for names of kernels to have room.
const CHARACTER: usize = 7;

/// Where the grid begins: room for the names of tiles.
const TOP: usize = 40;

/// A distance from the best that has the palest colour.
const FAR: f64 = 1.5;

pub(super) fn svg(report: &ShapeReport) -> String {
    // Of several races of one candidate the last one knows most.
    let mut trials: BTreeMap<(&str, Tile), &Trial> = BTreeMap::new();
    for trial in &report.trials {
        trials.insert((&trial.kernel, trial.tile), trial);
    }
    let best = trials.values().map(|trial| trial.median_ns).fold(f64::INFINITY, f64::min);
    let mut tiles: Vec<Tile> = trials.keys().map(|(_, tile)| *tile).collect();
    tiles.sort_unstable();
    tiles.dedup();
    let mut kernels: Vec<(&str, f64)> = Vec::new();
    for ((kernel, _), trial) in &trials {
        match kernels.iter_mut().find(|(name, _)| name == kernel) {
            Some((_, least)) => *least = least.min(trial.median_ns),
            None => kernels.push((kernel, trial.median_ns)),
        }
    }
    kernels.sort_by(|a, b| a.1.total_cmp(&b.1));
    // Whatever their place, the pick and the default are there to be compared.
    let marked = [&report.winner, &report.default].map(|timed| timed.candidate.name());
    let mut place = 0;
    kernels.retain(|(kernel, _)| {
        place += 1;
        place <= ROWS || marked.contains(kernel)
    });
    let (width, height) = (CELL.0, CELL.1);
    let longest = kernels.iter().map(|(kernel, _)| kernel.len()).max().unwrap_or(0);
    let left = longest * CHARACTER + 20;
    let (all_wide, all_high) = (left + tiles.len() * width + 10, TOP + kernels.len() * height + 8);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {all_wide} {all_high}\" width=\"{all_wide}\" role=\"img\" \
         aria-label=\"times of {} kernels with {} tiles\">",
        kernels.len(),
        tiles.len(),
    );
    let out = &mut svg;
    for (column, tile) in tiles.iter().enumerate() {
        let x = left + column * width + width / 2;
        let [above, below] = heading(*tile, report.layer.phase);
        text(out, x, 14, "middle", &above);
        text(out, x, 28, "middle", &below);
    }
    for (row, (kernel, _)) in kernels.iter().enumerate() {
        let y = TOP + row * height;
        text(out, left - 8, y + height / 2 + 4, "end", kernel);
        for (column, tile) in tiles.iter().enumerate() {
            let x = left + column * width;
            let rect = format!("x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
            let Some(trial) = trials.get(&(*kernel, *tile)) else {
                put(out, &format!("<rect class=\"cell empty\" {rect}/>"));
                continue;
            };
            let behind = trial.median_ns / best;
            let share = (100.0 * (1.0 - (behind - 1.0) / (FAR - 1.0))).clamp(0.0, 100.0).round();
            put(
                out,
                &format!(
                    "<rect class=\"cell\" {rect} style=\"fill:color-mix(in oklab,var(--good) {share}%,\
                     var(--poor))\"><title>{} {tile}: {:.1} us, {} samples</title></rect>",
                    escaped(kernel),
                    trial.median_ns / 1e3,
                    trial.samples,
                ),
            );
            let ink = if share > 55.0 { " style=\"fill:var(--paper)\"" } else { "" };
            let is = |timed: &trilut_tuning::record::Timed| {
                timed.candidate.name() == *kernel && timed.candidate.tile == *tile
            };
            let (is_pick, is_default) = (is(&report.winner), is(&report.default));
            let mark = match (is_pick, is_default) {
                (true, true) => " P D",
                (true, false) => " P",
                (false, true) => " D",
                _ => "",
            };
            let (at_x, at_y) = (x + width / 2, y + height / 2 + 4);
            put(
                out,
                &format!(
                    "<text x=\"{at_x}\" y=\"{at_y}\" text-anchor=\"middle\"{ink}>{behind:.2}{mark}</text>"
                ),
            );
            if is_pick || is_default {
                let (x, y, w, h) = (x + 2, y + 2, width - 4, height - 4);
                put(
                    out,
                    &format!(
                        "<rect class=\"mark\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"/>"
                    ),
                );
            }
        }
    }
    svg + "</svg>"
}

/// A tile in two lines: of prompts the rows of a panel, else the rows of a task and how far ahead weights are
/// prefetched.
fn heading(tile: Tile, phase: Phase) -> [String; 2] {
    let rows = |usual: &str| match tile.rows_per_task {
        0 => usual.to_owned(),
        rows => format!("{rows} rows"),
    };
    match phase {
        Phase::Prefill => ["panels:".to_owned(), rows("the kernel's")],
        Phase::Decode | Phase::SmallBatch => {
            [rows("even rows"), format!("ahead {}", tile.prefetch)]
        }
    }
}

fn put(out: &mut String, text: &str) {
    out.push_str(text);
}

fn text(out: &mut String, x: usize, y: usize, anchor: &str, text: &str) {
    let text = escaped(text);
    write!(out, "<text class=\"soft\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>")
        .expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_told_by_what_they_mean_in_their_phase() {
        let tile = |rows_per_task, prefetch| Tile { rows_per_task, prefetch };
        assert_eq!(heading(tile(0, 0), Phase::Decode), ["even rows", "ahead 0"]);
        assert_eq!(heading(tile(64, 512), Phase::SmallBatch), ["64 rows", "ahead 512"]);
        assert_eq!(heading(tile(0, 0), Phase::Prefill), ["panels:", "the kernel's"]);
        assert_eq!(heading(tile(960, 0), Phase::Prefill), ["panels:", "960 rows"]);
    }
}
