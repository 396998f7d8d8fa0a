//! The analytic estimate: which candidates are worth timing, without running any.
//!
//! A kernel issues its instructions and waits for its weights, and the two overlap only in part: the faster of
//! two kernels that stream the same bytes is the one with less to compute, and a denser codec must not cost
//! more instructions than its bytes save. Recorded tables are ordered better by the sum of both than by the
//! larger one. The constants are typical, not measured: only the order of the estimates matters.

use crate::bench::Lab;
use crate::request::{Request, ShapeUse};
use crate::{AnyKernel, Candidate};
use crate::{cold, space};
use trilut_kernels::{GemmAlgorithm, Isa};
use trilut_presets::preset::Weights;
use trilut_presets::{Pick, Plan};

/// Cycles per nanosecond of a typical core.
const GHZ: f64 = 3.0;

/// Bytes per nanosecond that one core streams from memory, and that all cores together do.
const MEMORY: (f64, f64) = (20.0, 60.0);

/// Bytes per nanosecond that one core streams from the last-level cache.
const CACHE: f64 = 60.0;

/// Vector instructions that a typical core completes per cycle in a kernel's inner loop.
pub(crate) fn per_cycle(isa: Isa) -> f64 {
    match isa {
        Isa::Scalar => 3.0,
        Isa::Emulated => 0.05,
        // 512-bit operations have fewer ports than narrower ones on most cores.
        Isa::Avx512 | Isa::Avx512Vbmi => 1.8,
        Isa::Avx2 | Isa::AvxVnni | Isa::Neon | Isa::Dotprod | Isa::I8mm => 2.5,
    }
}

/// The part of [`per_cycle`] that a gemm kernel reaches. Each addition of a lookup has its operand in
/// memory, and cores load less than they add.
fn reached(algorithm: GemmAlgorithm) -> f64 {
    match algorithm {
        GemmAlgorithm::Dot { .. } | GemmAlgorithm::Madd { .. } | GemmAlgorithm::Mmla { .. } => 1.0,
        GemmAlgorithm::Mix { .. } => 0.7,
        GemmAlgorithm::Vlut { .. } => 0.4,
    }
}

/// What a kernel's time is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Nanoseconds to issue its instructions.
    pub compute_ns: f64,
    /// Nanoseconds to stream its weights.
    pub stream_ns: f64,
}

impl Bound {
    /// That of a kernel on a layer, all tokens together.
    pub fn of(kernel: &AnyKernel, layer: &ShapeUse, threads: usize, weights: Weights) -> Self {
        let threads = threads as f64;
        let count = layer.shape.weights() as f64;
        let (bytes, reached) = match kernel {
            AnyKernel::Gemv(kernel) => (kernel.kernel().cost.bytes_per_weight, 1.0),
            AnyKernel::Batch(kernel) => (kernel.kernel().cost.bytes_per_weight, 1.0),
            // The same bytes for all: panels are filled from one stored copy.
            AnyKernel::Gemm(kernel) => (0.25, reached(kernel.kernel().name.algorithm)),
        };
        let bandwidth = match weights {
            Weights::Cold => (MEMORY.0 * threads).min(MEMORY.1),
            Weights::Warm => CACHE * threads,
        };
        let issue = per_cycle(kernel.isa()) * reached * GHZ * threads;
        Self {
            compute_ns: count * layer.tokens() as f64 * kernel.instructions() / issue,
            stream_ns: count * bytes / bandwidth,
        }
    }

    /// Both together: the estimate.
    pub fn ns(self) -> f64 {
        self.compute_ns + self.stream_ns
    }
}

/// The kernels with their estimates, fastest first.
pub fn rank(
    kernels: Vec<AnyKernel>,
    layer: &ShapeUse,
    threads: usize,
    weights: Weights,
) -> Vec<(AnyKernel, Bound)> {
    let mut ranked: Vec<_> =
        kernels.into_iter().map(|k| (k, Bound::of(&k, layer, threads, weights))).collect();
    ranked.sort_by(|(_, a), (_, b)| a.ns().total_cmp(&b.ns()));
    ranked
}

/// The picks where no preset knows a layer: the best-ranked kernel of the first format with the default
/// tile. Runs nothing.
pub fn plan(lab: &dyn Lab, request: &Request) -> Plan {
    let weights = cold::state(request.model_bytes, &request.machine);
    let Some(&format) = request.formats.first() else { return Plan::default() };
    let picks = request.shapes.iter().filter_map(|layer| {
        let kernels = space::kernels(lab, layer, &[format]);
        let (kernel, _) = rank(kernels, layer, request.threads, weights).into_iter().next()?;
        let Candidate { kernel, tile } = Candidate::untuned(kernel);
        Some(Pick {
            shape: layer.shape,
            phase: layer.phase,
            threads: request.threads,
            format,
            kernel: kernel.name().to_owned(),
            tile,
            from: None,
            reason: "analytic estimate, nothing was measured".to_owned(),
        })
    });
    Plan { picks: picks.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake;
    use trilut_kernels::{Phase, Shape};

    const LAYER: ShapeUse =
        ShapeUse { phase: Phase::Decode, shape: Shape { m: 1024, k: 1024 }, count_per_token: 1 };

    #[test]
    fn fewer_bytes_win_when_streaming_and_fewer_instructions_when_computing() {
        let dense = fake::with_cost("r1u1", 0.4, 0.20);
        let plain = fake::with_cost("r2u1", 0.1, 0.25);
        let first = |weights| rank(vec![dense, plain], &LAYER, 1, weights)[0].0.name();
        assert_eq!(first(Weights::Cold), plain.name());
        let light = fake::with_cost("r1u1", 0.05, 0.20);
        let cold = rank(vec![plain, light], &LAYER, 1, Weights::Cold);
        assert_eq!(cold[0].0.name(), light.name());
        assert!(cold[0].1.ns() < cold[1].1.ns());
    }

    #[test]
    fn equal_streams_are_ordered_by_work() {
        let more = fake::with_cost("r1u1", 0.02, 0.25);
        let less = fake::with_cost("r2u1", 0.01, 0.25);
        let ranked = rank(vec![more, less], &LAYER, 1, Weights::Cold);
        assert_eq!(ranked[0].1.stream_ns, ranked[1].1.stream_ns);
        assert_eq!(ranked[0].0.name(), less.name());
    }

    #[test]
    fn prompts_are_bound_by_the_work_of_all_their_tokens() {
        let layer = ShapeUse { phase: Phase::Prefill, ..LAYER };
        let bound = Bound::of(&fake::exact_gemm("r1t4"), &layer, 1, Weights::Cold);
        assert!(bound.compute_ns > bound.stream_ns, "{bound:?}");
        let half = Bound::of(&fake::exact_gemm("r1t4"), &layer, 2, Weights::Cold);
        assert_eq!(half.compute_ns * 2.0, bound.compute_ns);
    }
}
