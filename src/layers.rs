//! What of a model the tuner works on.

use crate::runtime::{Config, Engine};
use crate::tuning::{Prior, Request, ShapeUse};
use std::time::Duration;
use trilut_presets::preset::Effort;
use trilut_presets::{Format, Machine, Phase};

/// A tuning request for all layers of a model with the kernels of an engine, its own ones and those that
/// were added: decode in any format, and prompts. What is found goes to
/// [`EngineBuilder::tuned`](crate::EngineBuilder::tuned).
pub fn request(engine: &Engine, config: &Config, effort: Effort, limit: Duration) -> Request {
    Request {
        shapes: shapes(config, &[Phase::Decode, Phase::Prefill]),
        formats: Format::ALL.to_vec(),
        decoded: Vec::new(),
        threads: engine.threads(),
        effort,
        time_limit: limit,
        cpu: engine.cpu().clone(),
        machine: Machine::detect(),
        model_bytes: bytes(config),
        prior: Prior::default(),
    }
}

/// The distinct layer shapes of a model in some phases, with how often one token runs through each: the
/// linear layers in decode, stacks of those that share an input in prefill.
pub fn shapes(config: &Config, phases: &[Phase]) -> Vec<ShapeUse> {
    let mut uses: Vec<ShapeUse> = Vec::new();
    for &phase in phases {
        let (linears, stacks) = (config.linears(), config.stacks());
        let layers = if phase == Phase::Prefill { &stacks[..] } else { &linears[..] };
        for &(_, shape) in layers {
            match uses.iter_mut().find(|used| (used.phase, used.shape) == (phase, shape)) {
                Some(used) => used.count_per_token += config.layers,
                None => uses.push(ShapeUse { phase, shape, count_per_token: config.layers }),
            }
        }
    }
    uses
}

/// Bytes of ternary weights at two bits each, which decide whether a model streams from memory.
pub fn bytes(config: &Config) -> u64 {
    let block: usize = config.linears().iter().map(|(_, shape)| shape.weights()).sum();
    block as u64 / 4 * config.layers as u64
}
