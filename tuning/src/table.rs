//! Recorded measurements of one layer: every candidate of the grid, a few samples each, taken in turn.
//!
//! Tables let the search be run without hardware, fast and the same each time: what a strategy would have
//! picked, how far that is from the best, how many samples it took. `trilut tune --record DIR` makes them.
//!
//! The text is compact: a head, then for each kernel its analytic cost, and below it a line for each tile,
//! `rows_per_task prefetch: nanoseconds ...`.

use crate::bench::{Lab, Stage};
use crate::candidate::Candidate;
use crate::effort::GRID;
use crate::exactness::Gate;
use crate::observer::{Event, Observer};
use crate::request::{Request, ShapeUse, TuneError};
use crate::space;
use crate::statistics::median;
use std::fmt::Write;
use trilut_kernels::{Layout, Phase, Shape, Tile};
use trilut_presets::preset::Weights;

/// The first line.
const HEAD: &str = "trilut table 1";

/// A kernel with its tiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The kernel's name.
    pub kernel: String,
    /// Vector instructions per weight and token.
    pub instructions: f64,
    /// Bytes of weights streamed per weight; 0 for gemm kernels.
    pub bytes: f64,
    /// Tiles with their samples in nanoseconds, in the order they were taken.
    pub tiles: Vec<(Tile, Vec<u64>)>,
}

/// The measurements of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Where they were taken, for a person.
    pub machine: String,
    /// The part of inference.
    pub phase: Phase,
    /// The layer's size.
    pub shape: Shape,
    /// The number of threads.
    pub threads: usize,
    /// Where the weights were.
    pub weights: Weights,
    /// The kernel that runs without tuning.
    pub default: String,
    /// The kernels, in the order of the registry.
    pub entries: Vec<Entry>,
}

impl Table {
    /// The best median of all.
    pub fn best_ns(&self) -> f64 {
        let medians = self.entries.iter().flat_map(|e| &e.tiles).map(|(_, s)| middle(s));
        medians.fold(f64::INFINITY, f64::min)
    }

    /// The median of one point.
    pub fn median_ns(&self, kernel: &str, tile: Tile) -> Option<f64> {
        self.samples(kernel, tile).map(middle)
    }

    /// The samples of one point.
    pub fn samples(&self, kernel: &str, tile: Tile) -> Option<&[u64]> {
        let entry = self.entries.iter().find(|entry| entry.kernel == kernel)?;
        entry.tiles.iter().find(|(t, _)| *t == tile).map(|(_, samples)| &samples[..])
    }

    /// The number of points.
    pub fn points(&self) -> usize {
        self.entries.iter().map(|entry| entry.tiles.len()).sum()
    }

    /// The table as text; the same table always gives the same bytes.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let Self { machine, phase, shape, threads, weights, default, .. } = self;
        let head = format!("{phase} {shape} {threads} {} {default}", weights.name());
        writeln!(text, "{HEAD}\n{machine}\n{head}").expect("a string takes any text");
        for Entry { kernel, instructions, bytes, tiles } in &self.entries {
            writeln!(text, "{kernel} {instructions:.5} {bytes:.5}").expect("as above");
            for (tile, samples) in tiles {
                write!(text, "{} {}:", tile.rows_per_task, tile.prefetch).expect("as above");
                for sample in samples {
                    write!(text, " {sample}").expect("as above");
                }
                text.push('\n');
            }
        }
        text
    }

    /// Reads a table.
    ///
    /// # Errors
    /// In words, with the line, when the text is not one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let bad = |(at, line): (usize, &str)| format!("line {at} is no part of a table: `{line}`");
        let mut next = || lines.next().ok_or_else(|| "the table ends too early".to_owned());
        let first = next()?;
        if first.1 != HEAD {
            return Err(bad(first));
        }
        let machine = next()?.1.to_owned();
        let head = next()?;
        let parts: Vec<&str> = head.1.split(' ').collect();
        let &[phase, shape, threads, weights, default] = &parts[..] else { return Err(bad(head)) };
        let field = || bad(head);
        let mut table = Self {
            machine,
            phase: phase.parse().map_err(|_| field())?,
            shape: shape.parse().map_err(|_| field())?,
            threads: threads.parse().map_err(|_| field())?,
            weights: weights.parse().map_err(|_| field())?,
            default: default.to_owned(),
            entries: Vec::new(),
        };
        for line in lines {
            let is_read = match line.1.split_once(':') {
                Some((tile, samples)) => match (table.entries.last_mut(), point(tile, samples)) {
                    (Some(entry), Some(point)) => {
                        entry.tiles.push(point);
                        true
                    }
                    _ => false,
                },
                None => {
                    let entry = entry(line.1);
                    let is_entry = entry.is_some();
                    table.entries.extend(entry);
                    is_entry
                }
            };
            if !is_read {
                return Err(bad(line));
            }
        }
        match table.entries.iter().any(|entry| entry.tiles.is_empty()) || table.entries.is_empty() {
            true => Err("a kernel of the table has no times".to_owned()),
            false => Ok(table),
        }
    }
}

fn middle(samples: &[u64]) -> f64 {
    median(&samples.iter().map(|ns| *ns as f64).collect::<Vec<_>>())
}

fn entry(line: &str) -> Option<Entry> {
    let mut parts = line.split(' ');
    let kernel = parts.next()?.to_owned();
    let (instructions, bytes) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Entry { kernel, instructions, bytes, tiles: Vec::new() })
}

fn point(tile: &str, samples: &str) -> Option<(Tile, Vec<u64>)> {
    let (rows, prefetch) = tile.split_once(' ')?;
    let tile = Tile { rows_per_task: rows.parse().ok()?, prefetch: prefetch.parse().ok()? };
    let samples: Option<Vec<u64>> =
        samples.split_ascii_whitespace().map(|ns| ns.parse().ok().filter(|ns| *ns > 0)).collect();
    samples.filter(|samples| !samples.is_empty()).map(|samples| (tile, samples))
}

/// A point so many times as slow as the best gives no more samples: nothing picks it.
const HOPELESS: f64 = 3.0;

/// Measures the grid of a layer: one sample of each point that is thrown away, then `rounds` in turn, of
/// which the `kept` least are kept, in the order they were taken: with more rounds than that, the times are
/// those of a machine that was left alone in between. Candidates that are not exact or cannot be run are
/// left out. `None` when it was cancelled.
///
/// # Errors
/// When there is not enough memory.
pub fn record(
    lab: &mut dyn Lab,
    request: &Request,
    layer: ShapeUse,
    rounds: usize,
    kept: usize,
    observer: &mut dyn Observer,
) -> Result<Option<Table>, TuneError> {
    let (shape, formats) = (layer.shape, request.formats_of(&layer));
    let stored = lab.layout(formats[0], shape);
    let mut gate = Gate::new(shape, stored);
    let mut kernels = space::kernels(lab, &layer, formats);
    kernels.retain(|kernel| gate.check(kernel).is_ok());
    let default = lab.default_kernel(&layer, formats[0]);
    let mut layouts: Vec<Layout> = kernels.iter().map(|k| k.layout(stored)).collect();
    layouts.sort_unstable();
    layouts.dedup();
    let untuned: Vec<Candidate> = kernels.iter().copied().map(Candidate::untuned).collect();
    let (grid, _) = space::grid(&untuned, shape, request.threads, GRID);
    let Stage { mut runner, weights, .. } = lab.open(&layer, &layouts)?;
    let mut samples: Vec<Vec<u64>> = vec![Vec::new(); grid.len()];
    for round in 0..=rounds {
        let leasts = samples.iter().filter_map(|samples| samples.iter().min());
        let best = leasts.min().copied().unwrap_or(u64::MAX) as f64;
        for (candidate, samples) in grid.iter().zip(&mut samples) {
            let is_hopeless = |least: &u64| *least as f64 > best * HOPELESS;
            if samples.len() >= 3 && samples.iter().min().is_some_and(is_hopeless) {
                continue;
            }
            match runner.sample(candidate) {
                Ok(ns) if round > 0 => samples.push((ns.round() as u64).max(1)),
                _ => {}
            }
            if observer.should_stop() {
                return Ok(None);
            }
        }
        observer.event(&Event::Progress(round as f64 / rounds.max(1) as f64));
    }
    samples.iter_mut().for_each(|samples| quietest(samples, kept));
    let entries = kernels.iter().map(|kernel| {
        let tiles =
            grid.iter().zip(&samples).filter(|(c, s)| c.name() == kernel.name() && !s.is_empty());
        let bytes = match kernel {
            crate::AnyKernel::Gemv(kernel) => kernel.kernel().cost.bytes_per_weight,
            _ => 0.0,
        };
        Entry {
            kernel: kernel.name().to_owned(),
            instructions: kernel.instructions(),
            bytes,
            tiles: tiles.map(|(c, s)| (c.tile, s.clone())).collect(),
        }
    });
    Ok(Some(Table {
        machine: request.machine.to_string(),
        phase: layer.phase,
        shape,
        threads: request.threads,
        weights,
        default: default.name().to_owned(),
        entries: entries.filter(|entry| !entry.tiles.is_empty()).collect(),
    }))
}

/// Leaves the least of the samples, in their order.
fn quietest(samples: &mut Vec<u64>, kept: usize) {
    let mut sorted = samples.clone();
    sorted.sort_unstable();
    if let Some(&bound) = sorted.get(kept.max(1) - 1) {
        samples.retain(|sample| *sample <= bound);
        samples.truncate(kept.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "trilut table 1\na machine\ndecode 64x128 1 cold a\n\
        a 0.10000 0.25000\n0 0: 10 12 11\n0 4096: 9 9\nb 0.20000 0.20000\n0 0: 20\n";

    #[test]
    fn tables_survive_the_round_trip() {
        let table = Table::parse(TEXT).unwrap();
        assert_eq!(table.to_text(), TEXT);
        assert_eq!((table.points(), table.best_ns()), (3, 9.0));
        assert_eq!(table.median_ns("a", Tile { rows_per_task: 0, prefetch: 0 }), Some(11.0));
        assert_eq!(table.median_ns("c", Tile::default()), None);
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_line() {
        for (from, to, word) in [
            ("table 1", "table 2", "line 1"),
            ("64x128", "0x128", "line 3"),
            ("9 9", "9 0", "line 6"),
            ("0 0: 20", "", "line 8"),
            ("0 0: 20\n", "", "no times"),
            ("0.20000 0.20000", "0.2", "line 7"),
        ] {
            let error = Table::parse(&TEXT.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(Table::parse("").is_err());
    }

    #[test]
    fn the_quietest_samples_keep_their_order() {
        let mut samples = vec![9, 3, 7, 1, 3, 8];
        quietest(&mut samples, 3);
        assert_eq!(samples, [3, 1, 3]);
        quietest(&mut samples, 9);
        assert_eq!(samples.len(), 3);
    }
}
