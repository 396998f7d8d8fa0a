//! The search space: which knobs exist, and which candidates are legal for a layer.

use crate::bench::Lab;
use crate::hardware;
use crate::request::ShapeUse;
use crate::{AnyKernel, Candidate};
use std::collections::BTreeSet;
use trilut_kernels::pool::share;
use trilut_kernels::{Cpu, Format, Panel, Phase, Shape, Tile};

/// A run-time bound that the tuner varies.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Its name; in presets it is the field of [`Tile`] that holds it.
    pub name: &'static str,
    /// The parts of inference in which it is varied.
    pub phases: &'static [Phase],
    /// The values that are tried, from small to large; 0 stands for none, or for what the kernel takes by itself.
    pub values: &'static [usize],
    /// What it does.
    pub help: &'static str,
    /// Why these values, and when some are left out.
    pub reason: &'static str,
}

/// How far ahead of the loads weights are prefetched.
pub const PREFETCH: Knob = Knob {
    name: "prefetch",
    phases: &[Phase::Decode, Phase::SmallBatch],
    values: &[0, 256, 512, 1024, 2048, 4096, 8192],
    help: "bytes ahead of the load at which weights are prefetched, 0 for none",
    reason: "below a few lines it comes too late; hardware prefetchers stop at pages of 4096; kernels that \
             do not prefetch are tried with 0 alone",
};

/// How many rows a thread takes at a time.
pub const ROWS_PER_TASK: Knob = Knob {
    name: "rows_per_task",
    phases: &[Phase::Decode, Phase::SmallBatch],
    values: &[0, 32, 64, 128, 256, 512],
    help: "rows that a thread takes at a time, 0 for one even share per thread",
    reason: "formats group 32 rows; a task as large as a share would leave threads idle; with one thread \
             the split changes nothing",
};

/// How many rows a panel has: multiples of the row quanta of tiles and of panels alike.
pub const ROWS_PER_PANEL: Knob = Knob {
    name: "rows_per_task",
    phases: &[Phase::Prefill],
    values: &[0, 192, 480, 960, 1920, 3840],
    help: "rows of a panel at most, 0 for what the kernel takes by itself",
    reason: "multiples of every kernel's own quantum; panels beyond 32 MiB leave the caches; those that \
             cut a thread's share alike are tried once",
};

/// Every knob.
pub const KNOBS: &[Knob] = &[PREFETCH, ROWS_PER_TASK, ROWS_PER_PANEL];

/// The largest panel that is tried, in bytes: each thread has one, and far smaller ones leave its caches.
const MOST_PANEL_BYTES: usize = 32 << 20;

/// The kernels for a layer in any of the formats, in the order of the formats.
pub fn kernels(lab: &dyn Lab, layer: &ShapeUse, formats: &[Format]) -> Vec<AnyKernel> {
    distinct(formats.iter().flat_map(|&format| lab.kernels(layer, format)))
}

/// The kernels without repetitions: gemm kernels serve several formats.
pub(crate) fn distinct(kernels: impl Iterator<Item = AnyKernel>) -> Vec<AnyKernel> {
    let mut found: Vec<AnyKernel> = Vec::new();
    for kernel in kernels {
        if found.iter().all(|k| k.name() != kernel.name()) {
            found.push(kernel);
        }
    }
    found
}

/// How times are taken. Another number makes what was tuned before stale: 2 reads weights again at the distance of
/// the model, with those of all layouts among each other, where 1 read them again after three times the cache, each
/// layout in a place of its own.
const METHOD: u8 = 2;

/// Tells one set of kernels from another, whatever their order, and one way to time them from another (a hash of
/// names, hashes and the method).
pub fn fingerprint(kernels: &[AnyKernel]) -> u64 {
    let mut members: Vec<(&str, u64)> = kernels.iter().map(|k| (k.name(), k.hash())).collect();
    members.sort_unstable();
    let bytes = |(text, hash): &(&str, u64)| [text.as_bytes(), &[0], &hash.to_le_bytes()].concat();
    trilut_presets::hash(members.iter().flat_map(bytes).chain([METHOD]))
}

/// The kernels of a CPU for a layer in any of the formats.
pub fn of_cpu(cpu: &Cpu, layer: &ShapeUse, formats: &[Format]) -> Vec<AnyKernel> {
    distinct(formats.iter().flat_map(|&format| hardware::kernels(cpu, layer, format)))
}

/// The values of a knob that are tried for a shape with any of the kernels.
pub fn useful(knob: &Knob, kernels: &[AnyKernel], shape: Shape, threads: usize) -> Vec<usize> {
    let is_prefetch = knob.name == PREFETCH.name;
    let variants = |candidate: Candidate| -> Vec<Candidate> {
        match candidate.kernel {
            _ if is_prefetch => prefetch_variants(candidate).collect(),
            AnyKernel::Gemm(_) => panel_variants(candidate, shape, threads),
            _ => split_variants(candidate, shape, threads).collect(),
        }
    };
    let value = |tile: Tile| if is_prefetch { tile.prefetch } else { tile.rows_per_task };
    let tried: BTreeSet<usize> = kernels
        .iter()
        .flat_map(|kernel| variants(Candidate::untuned(*kernel)))
        .map(|candidate| value(candidate.tile))
        .collect();
    knob.values.iter().copied().filter(|value| tried.contains(value)).collect()
}

/// The candidate with every prefetch distance; with none alone if its kernel does not prefetch.
pub fn prefetch_variants(candidate: Candidate) -> impl Iterator<Item = Candidate> {
    let reads = candidate.kernel.prefetches();
    let values = PREFETCH.values.iter().filter(move |distance| reads || **distance == 0);
    values
        .map(move |&prefetch| Candidate { tile: Tile { prefetch, ..candidate.tile }, ..candidate })
}

/// The candidate without prefetching and with the shortest distance; none if its kernel does not prefetch.
pub(crate) fn short_prefetches(candidate: Candidate) -> impl Iterator<Item = Candidate> {
    let shortest = PREFETCH.values.iter().copied().find(|distance| *distance > 0).unwrap_or(0);
    let reads = candidate.kernel.prefetches();
    prefetch_variants(candidate).filter(move |own| reads && own.tile.prefetch <= shortest)
}

/// The candidate with every row split that differs from the others: with one thread the split changes
/// nothing, and a task above an even share would leave threads idle.
pub fn split_variants(
    candidate: Candidate,
    shape: Shape,
    threads: usize,
) -> impl Iterator<Item = Candidate> {
    let share = shape.m.div_ceil(threads);
    let useful = move |rows: usize| rows == 0 || (threads > 1 && rows < share);
    ROWS_PER_TASK.values.iter().filter(move |rows| useful(**rows)).map(move |&rows_per_task| {
        Candidate { tile: Tile { rows_per_task, ..candidate.tile }, ..candidate }
    })
}

/// The candidate with every number of rows per panel that cuts the largest share of a thread in another
/// way than those before it; alone if it has no panels.
pub fn panel_variants(candidate: Candidate, shape: Shape, threads: usize) -> Vec<Candidate> {
    let AnyKernel::Gemm(kernel) = candidate.kernel else { return vec![candidate] };
    let shares = (0..threads).map(|index| share(shape.m, Panel::ROW_QUANTUM, index, threads).len());
    let share = shares.max().unwrap_or(0);
    let mut steps = Vec::new();
    let mut variants = Vec::new();
    for &rows_per_task in ROWS_PER_PANEL.values {
        let tile = Tile { rows_per_task, ..candidate.tile };
        let step = Panel::step(share, 1, kernel.panel_rows(tile));
        let is_too_large = kernel.form().panel_bytes(step, shape.k) > MOST_PANEL_BYTES;
        if !steps.contains(&step) && (rows_per_task == 0 || !is_too_large) {
            steps.push(step);
            variants.push(Candidate { tile, ..candidate });
        }
    }
    variants
}

/// Every kernel with values of every knob that are of use to the shape, `most` points at most: where
/// there are more, each kernel keeps as many of its points, evenly taken from all, with its usual bounds
/// among them. Also the number of points that are left out.
pub fn grid(
    kernels: &[Candidate],
    shape: Shape,
    threads: usize,
    most: usize,
) -> (Vec<Candidate>, usize) {
    let points = |candidate: &Candidate| -> Vec<Candidate> {
        let mut points = vec![*candidate];
        let varied = match candidate.kernel {
            AnyKernel::Gemm(_) => panel_variants(*candidate, shape, threads),
            _ => split_variants(*candidate, shape, threads).flat_map(prefetch_variants).collect(),
        };
        points.extend(varied.into_iter().filter(|point| !point.is(candidate)));
        points
    };
    let all: Vec<Vec<Candidate>> = kernels.iter().map(points).collect();
    let count: usize = all.iter().map(Vec::len).sum();
    let share = (most / kernels.len().max(1)).max(1);
    let mut kept: Vec<Candidate> = all
        .into_iter()
        .flat_map(|points| match count > most {
            true => points.iter().copied().step_by(points.len().div_ceil(share)).collect(),
            false => points,
        })
        .collect();
    kept.truncate(most);
    let left_out = count - kept.len();
    (kept, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake;

    #[test]
    fn every_value_of_every_knob_is_legal() {
        for &prefetch in PREFETCH.values {
            for &rows_per_task in ROWS_PER_TASK.values.iter().chain(ROWS_PER_PANEL.values) {
                assert!(Tile { prefetch, rows_per_task }.is_legal());
            }
        }
        assert!(KNOBS.iter().all(|k| k.values[0] == 0 && k.values.is_sorted()));
        assert!(ROWS_PER_PANEL.values.iter().all(|rows| rows.is_multiple_of(Panel::ROW_QUANTUM)));
    }

    #[test]
    fn a_fingerprint_depends_on_the_members_alone() {
        let [a, b] = ["r1u1", "r2u1"].map(fake::exact);
        assert_eq!(fingerprint(&[a, b]), fingerprint(&[b, a]));
        assert_ne!(fingerprint(&[a, b]), fingerprint(&[a]));
        assert_ne!(fingerprint(&[a]), fingerprint(&[b]));
        assert_eq!(distinct([a, b, a].into_iter()).len(), 2);
    }

    fn rows(candidates: impl IntoIterator<Item = Candidate>) -> Vec<usize> {
        candidates.into_iter().map(|c| c.tile.rows_per_task).collect()
    }

    #[test]
    fn splits_that_leave_threads_idle_are_left_out() {
        let shape = Shape::new(256, 128).unwrap();
        let candidate = Candidate::untuned(fake::exact("r1u1"));
        assert_eq!(rows(split_variants(candidate, shape, 1)), [0]);
        assert_eq!(rows(split_variants(candidate, shape, 2)), [0, 32, 64]);
        assert_eq!(rows(split_variants(candidate, shape, 64)), [0]);
    }

    #[test]
    fn panels_that_cut_a_share_alike_are_tried_once() {
        // A register tile takes 480 rows by itself.
        let candidate = Candidate::untuned(fake::exact_gemm("r1t4"));
        let shape = |m, k| Shape { m, k };
        assert_eq!(rows(panel_variants(candidate, shape(4096, 128), 1)), [0, 192, 960, 1920, 3840]);
        assert_eq!(rows(panel_variants(candidate, shape(960, 128), 1)), [0, 192, 960]);
        assert_eq!(rows(panel_variants(candidate, shape(960, 128), 2)), [0, 192]);
        assert_eq!(rows(panel_variants(candidate, shape(96, 128), 64)), [0]);
        // Codes of 4096 rows with so many inputs are too large.
        assert_eq!(rows(panel_variants(candidate, shape(4096, 1 << 15), 1)), [0, 192, 960]);
        assert_eq!(
            panel_variants(Candidate::untuned(fake::exact("r1u1")), shape(9, 9), 1).len(),
            1
        );
    }

    #[test]
    fn a_kernel_that_does_not_prefetch_has_no_short_distance() {
        let short = |kernel| -> Vec<usize> {
            short_prefetches(Candidate::untuned(kernel)).map(|own| own.tile.prefetch).collect()
        };
        assert_eq!(short(fake::exact("r1u1")), [0, 256]);
        assert!(short(fake::exact_gemm("r1t4")).is_empty());
    }

    #[test]
    fn the_values_of_use_are_those_that_are_tried() {
        let (gemv, gemm) = ([fake::exact("r1u1")], [fake::exact_gemm("r1t4")]);
        let shape = |m| Shape { m, k: 128 };
        assert_eq!(useful(&ROWS_PER_TASK, &gemv, shape(256), 1), [0]);
        assert_eq!(useful(&ROWS_PER_TASK, &gemv, shape(256), 2), [0, 32, 64]);
        assert_eq!(useful(&PREFETCH, &gemv, shape(256), 2), PREFETCH.values);
        assert_eq!(useful(&ROWS_PER_PANEL, &gemm, shape(960), 1), [0, 192, 960]);
    }

    #[test]
    fn the_grid_has_every_point_or_says_how_many_it_leaves_out() {
        let shape = Shape { m: 1024, k: 128 };
        let gemv = ["r1u1", "r2u1"].map(|micro| Candidate::untuned(fake::exact(micro)));
        let (all, none) = grid(&gemv, shape, 2, 400);
        // 0 and four splits below the share of 512 rows, seven distances each.
        assert_eq!((all.len(), none), (2 * 5 * 7, 0));
        for (at, point) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| !other.is(point)), "{point} twice");
        }
        let (few, left_out) = grid(&gemv, shape, 2, 10);
        assert_eq!((few.len(), left_out), (10, 60));
        assert!(gemv.iter().all(|usual| few.iter().any(|point| point.is(usual))));
        let gemm = [Candidate::untuned(fake::exact_gemm("r1t4"))];
        assert_eq!(grid(&gemm, Shape { m: 4096, k: 128 }, 1, 400).0.len(), 5);
        assert!(grid(&[], shape, 1, 400).0.is_empty());
    }
}
