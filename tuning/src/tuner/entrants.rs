//! Who takes part in the races of a layer.

use super::Watch;
use crate::bench::Lab;
use crate::effort::{self, Vary};
use crate::estimate;
use crate::exactness::Gate;
use crate::record::Refused;
use crate::request::{Request, ShapeUse, TuneError};
use crate::{AnyKernel, Candidate};
use crate::{cold, space};
use trilut_kernels::{Format, Isa, Layout};
use trilut_presets::preset::Effort;

/// Who was behind by no more than this with the usual distance of prefetching meets the finalists
/// [without it and with the shortest](space::short_prefetches): some kernels take half the time then.
pub(super) const SECOND_CHANCE: f64 = 2.0;

/// The exact kernels of a layer that are worth timing, and those who are in every race.
pub(super) struct Entrants {
    /// What runs without tuning, with its usual bounds.
    pub(super) default: Candidate,
    /// The pick of an earlier run.
    pub(super) incumbent: Option<Candidate>,
    /// The yardstick of reports.
    pub(super) scalar: Option<AnyKernel>,
    /// The kernels to time, the best estimate first, without the default one.
    pub(super) kernels: Vec<AnyKernel>,
    /// How the weights must lie for all of them.
    pub(super) layouts: Vec<Layout>,
    /// Fingerprint of the kernels that there were to choose from.
    pub(super) space: u64,
    /// Those that are not timed, with reasons.
    pub(super) refused: Vec<Refused>,
}

impl Entrants {
    /// Those of a layer.
    ///
    /// # Errors
    /// When the default is not exact, or there is no memory to time it.
    pub(super) fn gather(
        lab: &dyn Lab,
        request: &Request,
        layer: &ShapeUse,
        watch: &mut Watch<'_>,
    ) -> Result<Self, TuneError> {
        let shape = layer.shape;
        let formats = request.formats_of(layer);
        let stored = lab.layout(formats[0], shape);
        let mut refused = Vec::new();
        let mut gate = Gate::new(shape, stored);

        let default = Candidate::untuned(lab.default_kernel(layer, formats[0]));
        lab.check_memory(shape, &[stored])?;
        gate.check(&default.kernel)
            .map_err(|source| TuneError::DefaultInexact { layer: *layer, source })?;
        let all = space::kernels(lab, layer, formats);
        let space = space::fingerprint(&all);
        let scalar = scalar_kernel(&all, formats[0]).filter(|k| gate.check(k).is_ok());
        let incumbent = incumbent(&all, request, layer).filter(|c| gate.check(&c.kernel).is_ok());
        let kernels = choose(all, &default, layer, request, |kernel| {
            let verdict = gate.check(kernel);
            if let Err(why) = &verdict {
                watch.refuse(&mut refused, kernel.name(), why.to_string());
            }
            verdict.is_ok()
        });
        let own = [Some(default.kernel), scalar, incumbent.map(|c| c.kernel)].into_iter().flatten();
        let mut layouts: Vec<Layout> =
            kernels.iter().copied().chain(own).map(|k| k.layout(stored)).collect();
        layouts.sort_unstable();
        layouts.dedup();
        Ok(Self { default, incumbent, scalar, kernels, layouts, space, refused })
    }

    /// The candidates of a stage, the default first, then the incumbent; without those that an interrupted run has
    /// seen fall behind, unless by so little that they have a second chance: those race again with their usual
    /// bounds, and whom that brings among the finalists stays. Then how many points the grid had no room for.
    pub(super) fn of(
        &self,
        stage: Vary,
        request: &Request,
        layer: &ShapeUse,
        (finalists, outsiders): (&[Candidate], &[Candidate]),
    ) -> (Vec<Candidate>, usize) {
        let (shape, threads) = (layer.shape, request.threads);
        let (varied, left_out) = match stage {
            Vary::Kernels | Vary::Nothing => (finalists.to_vec(), 0),
            Vary::Prefetch => {
                let all = finalists.iter().flat_map(|c| space::prefetch_variants(*c));
                let short = outsiders.iter().flat_map(|c| space::short_prefetches(*c));
                (all.chain(short).collect(), 0)
            }
            Vary::Split => {
                let first = finalists.iter().take(2);
                (first.flat_map(|c| space::split_variants(*c, shape, threads)).collect(), 0)
            }
            Vary::Panels => {
                let each = finalists.iter();
                (each.flat_map(|c| space::panel_variants(*c, shape, threads)).collect(), 0)
            }
            Vary::Grid => space::grid(finalists, shape, threads, effort::GRID),
        };
        let mut field = vec![self.default];
        field.extend(self.incumbent.filter(|c| !c.is(&self.default)));
        let has_chances = request.effort > Effort::Estimate;
        let is_out = |candidate: &Candidate| {
            let own = (self.space, threads);
            let behind = request.prior.behind(layer, own, &candidate.to_string());
            behind.is_some_and(|behind| match stage {
                Vary::Kernels => {
                    let is_near = has_chances && behind <= SECOND_CHANCE;
                    !(is_near && candidate.kernel.prefetches())
                }
                Vary::Grid => true,
                _ => finalists.iter().all(|own| !own.is(candidate)),
            })
        };
        for candidate in varied {
            let is_known = field.iter().any(|c| c.is(&candidate));
            if !is_known && !is_out(&candidate) {
                field.push(candidate);
            }
        }
        (field, left_out)
    }
}

/// The exact kernels worth timing, best estimate first, without the default one.
fn choose(
    kernels: Vec<AnyKernel>,
    default: &Candidate,
    layer: &ShapeUse,
    request: &Request,
    mut is_exact: impl FnMut(&AnyKernel) -> bool,
) -> Vec<AnyKernel> {
    let weights = cold::state(request.model_bytes, &request.machine);
    let ranked = estimate::rank(kernels, layer, request.threads, weights);
    let Some(best) = ranked.first().map(|(_, bound)| bound.ns()) else { return Vec::new() };
    let is_exhaustive = request.effort == Effort::Exhaustive;
    let prune = effort::prune(request.effort, layer.phase);
    ranked
        .into_iter()
        .filter(|(kernel, bound)| {
            // Of the default kernel, too, every tile belongs to the grid.
            bound.ns() <= best * prune && (is_exhaustive || kernel.name() != default.name())
        })
        .map(|(kernel, _)| kernel)
        .filter(|kernel| request.prior.admits(layer, kernel.name()) && is_exact(kernel))
        .take(effort::most_kernels(request.effort, layer.phase))
        .collect()
}

/// The pick of an earlier run, if there still is such a kernel.
fn incumbent(kernels: &[AnyKernel], request: &Request, layer: &ShapeUse) -> Option<Candidate> {
    let record = request.prior.incumbent(layer, request.threads)?;
    let kernel = kernels.iter().find(|kernel| kernel.name() == record.kernel)?;
    Some(Candidate { kernel: *kernel, tile: record.tile })
}

/// The portable kernel of the model's own format with the least work: the yardstick of reports.
fn scalar_kernel(kernels: &[AnyKernel], format: Format) -> Option<AnyKernel> {
    let own = |k: &&AnyKernel| k.format().is_none_or(|own| own == format);
    kernels
        .iter()
        .filter(|k| k.isa() == Isa::Scalar)
        .filter(own)
        .copied()
        .min_by(|a, b| a.instructions().total_cmp(&b.instructions()))
}
