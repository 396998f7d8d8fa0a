//! Layers that see only the last positions of a text, between others that see all of it, as Gemma 3 has
//! them; and rope, which turns by other frequencies there.

use super::config::Config;
use super::family::Family;
use crate::Error;
use crate::gguf::{Gguf, Value};
use trilut_kernels::float::rope::Rope;
use trilut_presets::models::WindowSpec;

/// The layers of a model that see only the last positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Positions that a token sees there, itself included.
    pub positions: usize,
    /// Base of the rope frequencies there.
    pub rope_base: f64,
    /// Of each layer, whether it is such a one.
    pub layers: Vec<bool>,
}

/// How the layers of a family alternate where its file gives a window and does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternation {
    /// Of so many layers the last one sees all positions.
    pub period: usize,
    /// Base of the rope frequencies of the others.
    pub rope_base: u32,
}

/// The key of the window, without the architecture.
const LENGTH: &str = "attention.sliding_window";
/// The key of which layers have it: one truth value each, or a period.
const PATTERN: &str = "attention.sliding_window_pattern";

impl Window {
    /// The window of a file, of `layers` layers and with `rope_base` in those that see everything.
    ///
    /// # Errors
    /// When a value is of an unexpected type or out of range, or nothing says which layers have the window.
    pub(super) fn from_gguf(
        gguf: &Gguf,
        family: &Family,
        layers: usize,
        rope_base: f64,
    ) -> Result<Option<Self>, Error> {
        let positions = match gguf.opt_arch_u32(LENGTH)? {
            None | Some(0) => return Ok(None),
            Some(positions) => positions as usize,
        };
        let refuse = |key, value: String, rule| Err(Error::Config { key, value, rule });
        let of_period = |period: usize| (0..layers).map(|layer| !is_last(layer, period)).collect();
        let key = gguf.arch_key(PATTERN)?;
        let pattern: Vec<bool> = match (gguf.value(&key), family.alternation) {
            (Some(Value::Array(array)), _) => {
                let truth = |value| match value {
                    Value::Bool(truth) => Some(truth),
                    Value::Int(number) => Some(number != 0),
                    _ => None,
                };
                let pattern: Vec<bool> = array.iter().filter_map(truth).collect();
                if pattern.len() != array.len() || pattern.len() != layers {
                    let value = format!("an array of {} {}", array.len(), array.type_name());
                    return refuse(PATTERN, value, "must have one truth value for each layer");
                }
                pattern
            }
            (Some(_), _) => match gguf.u32(&key)? as usize {
                0 => vec![true; layers],
                period => of_period(period),
            },
            (None, Some(alternation)) => of_period(alternation.period),
            // Whichever layers have it, they see all the same.
            (None, None) if positions >= gguf.arch_u32("context_length")? as usize => {
                return Ok(None);
            }
            (None, None) => {
                let rule = "is shorter than the context, and nothing says which layers have it";
                return refuse(LENGTH, positions.to_string(), rule);
            }
        };
        let usual = family.alternation.map_or(rope_base, |known| f64::from(known.rope_base));
        let rope_base = gguf.opt_arch_f32("rope.freq_base_swa")?.map_or(usual, f64::from);
        Ok(Some(Self { positions, rope_base, layers: pattern }))
    }

    /// The window of a known model of `layers` layers.
    pub(super) fn from_spec(spec: &WindowSpec, layers: usize) -> Self {
        Self {
            positions: spec.positions,
            rope_base: f64::from(spec.rope_theta),
            layers: (0..layers).map(|layer| !is_last(layer, spec.period)).collect(),
        }
    }
}

fn is_last(layer: usize, period: usize) -> bool {
    layer % period == period - 1
}

/// The rope tables of a model's layers.
#[derive(Debug)]
pub(crate) struct Ropes {
    all: Rope,
    /// Of layers with a window.
    local: Option<Rope>,
}

impl Ropes {
    /// Empty tables.
    pub(super) fn new(config: &Config) -> Self {
        let rope = |base| Rope::new(0, config.rope_dims, base).form(config.family.rope);
        let local = config.window.as_ref().map(|window| rope(window.rope_base));
        Self { all: rope(config.rope_base), local }
    }

    /// Adds what is missing up to `positions` positions.
    pub(super) fn grow(&mut self, positions: usize) {
        self.all.grow(positions);
        self.local.iter_mut().for_each(|rope| rope.grow(positions));
    }

    /// The tables of a layer.
    pub(super) fn of(&self, config: &Config, layer: usize) -> &Rope {
        match &self.local {
            Some(local) if config.is_local(layer) => local,
            _ => &self.all,
        }
    }
}
