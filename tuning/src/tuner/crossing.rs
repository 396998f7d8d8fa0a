//! Where small batches hand over to prompts: from how many tokens on the gemm kernel of a stack is faster than
//! the kernel of small batches.
//!
//! The weights are as decoding reads them, for both: a prompt fills its panels from that copy. The numbers of
//! tokens are searched by halving, each decided by pairs.

use super::Watch;
use crate::bench::{Lab, Stage};
use crate::candidate::Candidate;
use crate::race::Turn;
use crate::record::ShapeReport;
use crate::request::{Request, ShapeUse};
use crate::{AnyKernel, runoff, space};
use trilut_kernels::{Format, MOST_SMALL_BATCH, Phase, Shape};
use trilut_presets::preset::Record;

/// The least and the largest number of tokens that are tried, and the step between two; where even the largest
/// is better off with the kernel of small batches, anything beyond is a prompt.
const TRIED: (usize, usize, usize) = (4, MOST_SMALL_BATCH, 2);

/// Pairs that decide between the two.
const PAIRS: usize = 9;

/// The tokens from which on a stack is run as a prompt by the kernel that was found for it; `None` when there
/// was no time to find out, or the lab cannot tell.
pub(super) fn crossing(
    lab: &mut dyn Lab,
    request: &Request,
    found: &[ShapeReport],
    prompt: &ShapeReport,
    watch: &mut Watch<'_>,
) -> Option<usize> {
    let deadline = watch.end();
    let shape = prompt.layer.shape;
    let few = few(lab, request, found, shape);
    let prompt = prompt.winner.candidate;
    let stored = lab.layout(few.kernel.format().unwrap_or(request.formats[0]), shape);
    let (least, most, step) = TRIED;
    let points: Vec<usize> = (least..=most).step_by(step).collect();
    // Without the memory for it the layer's pick is as good as it was.
    let stage = lab.crossing(shape, few.kernel.layout(stored), most).ok().flatten()?;
    let Stage { mut runner, .. } = stage;
    let (mut low, mut high) = (0, points.len());
    while low < high {
        let middle = (low + high) / 2;
        runner.set_tokens(points[middle]);
        // The first samples pay for cold pages.
        runner.sample(&prompt).ok()?;
        runner.sample(&few).ok()?;
        let check = runoff::pairs(&mut *runner, &prompt, &few, PAIRS, deadline, &mut || {
            watch.turn(Turn::Sample(deadline))
        });
        let check = check.filter(|check| check.winner.len() == PAIRS)?;
        if check.ratio < 1.0 { high = middle } else { low = middle + 1 }
    }
    Some(points.get(low).copied().unwrap_or(most + 1))
}

/// The same as an earlier run found it, if the prompt's pick is the one that it was found for, and if what this run
/// has picked for the layers of the stack is what they had then.
pub(super) fn known(
    request: &Request,
    found: &[ShapeReport],
    prompt: &ShapeReport,
) -> Option<usize> {
    let stack = prompt.layer.shape;
    let earlier = |report: &ShapeReport| request.prior.incumbent(&report.layer, request.threads);
    let is_same =
        |report: &ShapeReport| earlier(report).is_some_and(|old| old.is_same_pick(&report.record));
    let is_part = |report: &&ShapeReport| {
        let shape = report.layer.shape;
        report.layer.phase != Phase::Prefill && shape.k == stack.k && shape.m <= stack.m
    };
    let is_unchanged = is_same(prompt) && found.iter().filter(is_part).all(is_same);
    earlier(prompt).filter(|_| is_unchanged)?.from
}

/// What runs small batches of the layers of a stack: the pick of the largest of them if one is known, else the
/// default for the format that decoding reads.
fn few(lab: &dyn Lab, request: &Request, found: &[ShapeReport], stack: Shape) -> Candidate {
    let is_part = |shape: Shape| shape.k == stack.k && shape.m <= stack.m;
    let earlier = request.prior.incumbents.iter().flat_map(|preset| preset.records());
    let earlier = earlier.filter(|record| record.threads == request.threads);
    let records: Vec<&Record> = earlier.chain(found.iter().map(|report| &report.record)).collect();
    let largest = |phase: Phase| {
        let own = records.iter().filter(|r| r.phase == phase && is_part(r.shape));
        own.max_by_key(|record| record.shape.m)
    };
    let decoded = request.decoded.iter().filter(|(shape, _)| is_part(*shape));
    let decoded = decoded.max_by_key(|(shape, _)| shape.m).map(|(_, format)| *format);
    let format: Format = decoded.unwrap_or(request.formats[0]);
    let layer = ShapeUse { phase: Phase::SmallBatch, shape: stack, count_per_token: 1 };
    let known = largest(Phase::SmallBatch).filter(|record| record.format == format);
    let known = known.and_then(|record| {
        let all: Vec<AnyKernel> = space::kernels(lab, &layer, &[format]);
        let kernel = all.into_iter().find(|kernel| kernel.name() == record.kernel)?;
        Some(Candidate { kernel, tile: record.tile })
    });
    known.unwrap_or_else(|| Candidate::untuned(lab.default_kernel(&layer, format)))
}
