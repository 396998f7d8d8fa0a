//! Which layers of a checkpoint see only the last positions of a text, by its `config.json`.

use super::ConvertError;
use super::architecture::{Family, float};
use crate::gguf::GgufWriter;
use serde_json::Value;

/// The period of Gemma 3 where a configuration does not say it.
const GEMMA_PERIOD: u64 = 6;

/// Layers that see only the last positions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    /// Positions that a token sees there.
    positions: u32,
    /// Of each layer, whether it is such a one.
    layers: Vec<bool>,
    /// Base of the rope frequencies there; `None` where it is that of the others.
    theta: Option<f32>,
}

impl Window {
    /// Reads `config.json` of a model of `layers` layers.
    ///
    /// The embedding models of BitNet, whose linear layers have norms of their own, have a window only
    /// where their configuration says in which layers: the converter that came with them
    /// (utils/convert-bitnet-embedding-to-gguf.py of microsoft/BitNet) writes none.
    pub(super) fn read(
        config: &Value,
        family: Family,
        inner_norms: bool,
        layers: usize,
    ) -> Result<Option<Self>, ConvertError> {
        let key = "sliding_window";
        let positions = match &config[key] {
            Value::Null => return Ok(None),
            value => value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
                ConvertError::config(key, value, "must be a number of positions below 2^32")
            })?,
        };
        if positions == 0 || config["use_sliding_window"].as_bool() == Some(false) {
            return Ok(None);
        }
        let of_period = |period: u64| match period {
            0 => vec![true; layers],
            period => (0..layers as u64).map(|layer| layer % period != period - 1).collect(),
        };
        let local = match (&config["layer_types"], &config["sliding_window_pattern"]) {
            (Value::Null, Value::Null) => match family {
                _ if inner_norms => return Ok(None),
                Family::Gemma3 => of_period(GEMMA_PERIOD),
                _ => {
                    let context = config["max_position_embeddings"].as_u64();
                    if context.is_none_or(|context| u64::from(positions) < context) {
                        let rule = "is shorter than the context, and `layer_types` does not say in \
                                    which layers";
                        return Err(ConvertError::config(key, positions, rule));
                    }
                    return Ok(None);
                }
            },
            (Value::Null, pattern) => {
                let rule = "must be a period of layers";
                let period = pattern.as_u64();
                of_period(
                    period.ok_or_else(|| {
                        ConvertError::config("sliding_window_pattern", pattern, rule)
                    })?,
                )
            }
            (types, _) => layer_types(types, layers)?,
        };
        if !local.contains(&true) {
            return Ok(None);
        }
        let rope = &config["rope_parameters"]["sliding_attention"];
        let theta = float(&config["rope_local_base_freq"], "rope_local_base_freq")?
            .or(float(&rope["rope_theta"], "rope_theta")?);
        Ok(Some(Self { positions, layers: local, theta }))
    }

    /// Sets the keys of an architecture's file.
    pub(super) fn write(&self, architecture: &str, writer: &mut GgufWriter) {
        let key = |key: &str| format!("{architecture}.{key}");
        writer
            .u32(&key("attention.sliding_window"), self.positions)
            .bools(&key("attention.sliding_window_pattern"), &self.layers);
        if let Some(theta) = self.theta {
            writer.f32(&key("rope.freq_base_swa"), theta);
        }
    }
}

/// Of each layer, whether it has the window.
fn layer_types(types: &Value, layers: usize) -> Result<Vec<bool>, ConvertError> {
    let wrong = |found: &Value| {
        let rule = format!(
            "must be `sliding_attention` or `full_attention` for each of the {layers} layers"
        );
        ConvertError::config("layer_types", found, rule)
    };
    let list = types.as_array().filter(|list| list.len() == layers).ok_or_else(|| wrong(types))?;
    let is_local = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(wrong(kind)),
    };
    list.iter().map(is_local).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value, family: Family, inner: bool) -> Result<Option<Window>, ConvertError> {
        Window::read(&config, family, inner, 7)
    }

    #[test]
    fn layers_are_told_by_their_types_or_a_period() {
        let local = |config, inner| {
            read(config, Family::Gemma3, inner).unwrap().map(|window| window.layers)
        };
        let sixth = vec![true, true, true, true, true, false, true];
        assert_eq!(local(json!({"sliding_window": 512}), false), Some(sixth.clone()));
        assert_eq!(local(json!({"sliding_window": 512}), true), None);
        let pattern = json!({"sliding_window": 512, "sliding_window_pattern": 6});
        assert_eq!(local(pattern, true), Some(sixth));
        let mut types = vec!["full_attention"; 7];
        assert_eq!(local(json!({"sliding_window": 512, "layer_types": types}), false), None);
        types[2] = "sliding_attention";
        let typed = json!({"sliding_window": 512, "layer_types": types});
        assert_eq!(local(typed.clone(), true).unwrap().iter().position(|x| *x), Some(2));
        assert!(read(typed, Family::Llama, false).unwrap().is_some());
        let unused = json!({"sliding_window": 4096, "use_sliding_window": false});
        assert_eq!(read(unused, Family::Qwen3, false).unwrap(), None);
    }

    #[test]
    fn what_does_not_say_its_layers_is_refused() {
        let cases = [
            (Family::Llama, json!({"sliding_window": 16, "max_position_embeddings": 64})),
            (Family::Gemma3, json!({"sliding_window": "long"})),
            (Family::Gemma3, json!({"sliding_window": 16, "layer_types": ["full_attention"]})),
            (Family::Gemma3, json!({"sliding_window": 16, "layer_types": vec!["other"; 7]})),
            (Family::Gemma3, json!({"sliding_window": 16, "sliding_window_pattern": "LLLG"})),
        ];
        for (family, config) in cases {
            assert!(read(config.clone(), family, false).is_err(), "{config}");
        }
        let whole = json!({"sliding_window": 64, "max_position_embeddings": 64});
        assert_eq!(read(whole, Family::Llama, false).unwrap(), None);
    }
}
