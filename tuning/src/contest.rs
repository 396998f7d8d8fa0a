//! A pick against everything else: every point of the grid is timed, and the pick meets the fastest other
//! one in pairs.

use crate::bench::{Lab, Stage};
use crate::candidate::Candidate;
use crate::effort::GRID;
use crate::exactness::Gate;
use crate::observer::{Event, Observer};
use crate::race::{Limits, Turn, race};
use crate::request::{Request, ShapeUse, TuneError};
use crate::{runoff, space};
use std::time::Duration;
use trilut_kernels::{Layout, Tile};

/// Pairs of the last meeting.
const PAIRS: usize = 31;

/// How one candidate fared.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Its loop bounds.
    pub tile: Tile,
    /// The median of its samples in nanoseconds.
    pub median_ns: f64,
    /// The number of its samples; few where it fell behind early.
    pub samples: usize,
    /// Whether it is the pick.
    pub is_pick: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Contest {
    /// Every candidate, the fastest first.
    pub rows: Vec<Row>,
    /// The pick's time over that of the fastest other candidate, minus 1, from pairs; 0 or less where the
    /// pick is the fastest.
    pub regret: f64,
    /// The interval of the regret.
    pub interval: [f64; 2],
}

/// Times the whole grid of a layer and the pick, which is a kernel's name and its bounds. `None` when it
/// was cancelled.
///
/// # Errors
/// When there is no memory for it, or the pick cannot be run here.
pub fn contest(
    lab: &mut dyn Lab,
    request: &Request,
    layer: ShapeUse,
    pick: (&str, Tile),
    samples: usize,
    observer: &mut dyn Observer,
) -> Result<Option<Contest>, TuneError> {
    let (shape, formats) = (layer.shape, request.formats_of(&layer));
    let stored = lab.layout(formats[0], shape);
    let mut gate = Gate::new(shape, stored);
    let mut kernels = space::kernels(lab, &layer, formats);
    kernels.retain(|kernel| gate.check(kernel).is_ok());
    let Some(kernel) = kernels.iter().find(|kernel| kernel.name() == pick.0) else {
        return Err(TuneError::Pick { kernel: pick.0.to_owned(), layer });
    };
    let pick = Candidate { kernel: *kernel, tile: pick.1 };
    let mut layouts: Vec<Layout> = kernels.iter().map(|k| k.layout(stored)).collect();
    layouts.sort_unstable();
    layouts.dedup();
    let untuned: Vec<Candidate> = kernels.into_iter().map(Candidate::untuned).collect();
    let (grid, _) = space::grid(&untuned, shape, request.threads, GRID);
    // The first never leaves the race.
    let mut field = vec![pick];
    field.extend(grid.into_iter().filter(|candidate| !candidate.is(&pick)));
    let Stage { mut runner, .. } = lab.open(&layer, &layouts)?;
    let limits = Limits { samples, patience: 2, deadline: Duration::MAX };
    let turns = field.len() * samples;
    let (mut taken, mut is_cancelled) = (0usize, false);
    let (lanes, _) = race(&mut *runner, &field, limits, &mut |turn| {
        if let Turn::Sample(_) = turn {
            taken += 1;
            observer.event(&Event::Progress((taken as f64 / turns as f64).min(1.0)));
        }
        is_cancelled |= observer.should_stop();
        is_cancelled
    });
    if is_cancelled {
        return Ok(None);
    }
    let lanes: Vec<_> = lanes
        .into_iter()
        .filter(|lane| lane.failed.is_none() && !lane.samples.is_empty())
        .collect();
    let rows = lanes.iter().map(|lane| Row {
        kernel: lane.candidate.name(),
        tile: lane.candidate.tile,
        median_ns: lane.median(),
        samples: lane.samples.len(),
        is_pick: lane.candidate.is(&pick),
    });
    let rows: Vec<Row> = rows.collect();
    let Some(best) = lanes.iter().find(|lane| !lane.candidate.is(&pick)) else {
        return Ok(Some(Contest { rows, regret: 0.0, interval: [0.0; 2] }));
    };
    let check =
        runoff::pairs(&mut *runner, &pick, &best.candidate, PAIRS, Duration::MAX, &mut || {
            observer.should_stop()
        });
    let Some(check) = check else { return Ok(None) };
    let interval = [check.low - 1.0, check.high - 1.0];
    Ok(Some(Contest { rows, regret: check.ratio - 1.0, interval }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::{self, FakeLab, Script};
    use crate::{Prior, Silent};
    use trilut_kernels::{Cpu, Format, Isa, Phase, Shape};
    use trilut_presets::Machine;
    use trilut_presets::preset::Effort;

    fn run(pick: &str, prefetch: usize) -> Result<Option<Contest>, TuneError> {
        let layer =
            ShapeUse { phase: Phase::Decode, shape: Shape { m: 64, k: 128 }, count_per_token: 1 };
        let request = Request {
            shapes: vec![layer],
            formats: vec![Format::I2S],
            threads: 1,
            effort: Effort::Exhaustive,
            time_limit: Duration::MAX,
            cpu: Cpu::capped(Some(Isa::Scalar)),
            machine: Machine::default(),
            model_bytes: 0,
            prior: Prior::default(),
            decoded: Vec::new(),
        };
        let times = &[("r1u1", 100.0), ("r2u1", 80.0), ("r4u1", 200.0), ("r9u9", 1.0)];
        let mut kernels = ["r1u1", "r2u1", "r4u1"].map(fake::exact).to_vec();
        kernels.push(fake::wrong("r9u9"));
        let script = Script { times, prefetch: Some((1024, 0.9)), ..Script::default() };
        let mut lab = FakeLab::new(kernels, script);
        let pick = format!("gemv_i2s_madd_{pick}_scalar");
        let tile = Tile { rows_per_task: 0, prefetch };
        contest(&mut lab, &request, layer, (&pick, tile), 5, &mut Silent)
    }

    #[test]
    fn the_pick_is_found_among_all_and_its_regret_is_told() {
        let best = run("r2u1", 1024).unwrap().unwrap();
        assert!(best.rows[0].is_pick && best.regret < 0.0, "{best:?}");
        assert_eq!(best.rows.len(), 3 * 7, "every point but those of the wrong kernel");
        assert!(best.rows.is_sorted_by(|a, b| a.median_ns <= b.median_ns));
        let far = run("r1u1", 4096).unwrap().unwrap();
        assert!((far.regret - (100.0 / 72.0 - 1.0)).abs() < 1e-9, "{far:?}");
        assert_eq!(far.rows.iter().filter(|row| row.is_pick).count(), 1);
    }

    #[test]
    fn a_pick_that_is_wrong_or_unknown_is_an_error() {
        for pick in ["r9u9", "r3u3"] {
            let error = run(pick, 0).unwrap_err();
            assert!(error.to_string().contains(pick) && error.hint().is_some(), "{error}");
        }
    }
}
