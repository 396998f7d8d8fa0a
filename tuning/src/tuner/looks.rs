//! Looks at the machine beside the races of a layer: how fast memory is read, and how fast the cores compute.

use crate::bench::Runner;
use crate::noise::Noise;
use crate::request::ShapeUse;
use trilut_presets::preset::Effort;

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Looks {
    is_watched: bool,
    is_streamed: bool,
    paces: Vec<f64>,
    rates: Vec<f64>,
}

impl Looks {
    /// None so far. An estimate has no time to look, and where weights are in the cache memory says nothing.
    pub(super) fn at(layer: &ShapeUse, effort: Effort) -> Self {
        let is_watched = effort > Effort::Estimate;
        let is_streamed = layer.is_streamed() && is_watched;
        Self { is_watched, is_streamed, paces: Vec::new(), rates: Vec::new() }
    }

    /// Looks once more.
    pub(super) fn look(&mut self, runner: &mut dyn Runner) {
        self.paces.extend(self.is_streamed.then(|| runner.memory()).flatten());
        self.rates.extend(self.is_watched.then(|| runner.cores()).flatten());
    }

    /// The noise with what was seen.
    pub(super) fn beside(&self, noise: Noise) -> Noise {
        noise.at(&self.paces).computing(&self.rates)
    }
}
