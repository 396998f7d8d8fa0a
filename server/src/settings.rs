//! What both APIs let a client choose about an answer, checked and turned into engine requests.

use crate::app::App;
use crate::engine::{Penalties, Request};
use crate::error::ApiError;
use crate::grammar::Constraint;
use serde_json::Value;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::OnceLock;
use trilut_runtime::{Sampler, SamplerOptions};

/// What an answer must look like.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Format {
    #[default]
    Text,
    /// Any JSON object.
    Object,
    /// JSON after a schema.
    Schema(Value),
}

/// A client's choices; what it leaves out has a default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) max_tokens: Option<usize>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
    /// Without one, each answer has one of its own.
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Vec<String>,
    /// The model may not end the answer.
    pub(crate) endless: bool,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) repeat_penalty: Option<f32>,
    pub(crate) bias: Vec<(u32, f32)>,
    pub(crate) logprobs: Option<usize>,
    pub(crate) format: Format,
    /// What the format comes to, once it is compiled: for all prompts of a call.
    pub(crate) constraint: OnceLock<Option<Constraint>>,
}

/// A random number that cannot be guessed.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}

impl Settings {
    /// The requests for `answers` answers to a prompt.
    pub(crate) fn requests(
        &self,
        app: &App,
        prompt: Vec<u32>,
        answers: usize,
    ) -> Result<Vec<Request>, ApiError> {
        let limits = &app.limits;
        let bounded = |param: &str, value: usize, most: usize| {
            if value <= most {
                return Ok(());
            }
            Err(ApiError::field(param, format!("`{param}` is {value}; at most {most} is allowed")))
        };
        if answers == 0 {
            return Err(ApiError::field("n", "`n` is 0; at least 1 is needed"));
        }
        bounded("n", answers, limits.answers)?;
        bounded("stop", self.stop.len(), limits.stops)?;
        if let Some(longest) = self.stop.iter().map(String::len).max() {
            bounded("stop", longest, limits.stop_bytes)?;
        }
        bounded("top_logprobs", self.logprobs.unwrap_or(0), limits.top_logprobs)?;
        let prompt = self.fitting(app, prompt)?;
        let sampling = self.sampling()?;
        let penalties = Penalties {
            presence: penalty("presence_penalty", self.presence_penalty)?,
            frequency: penalty("frequency_penalty", self.frequency_penalty)?,
            repeat: self.repeat()?,
        };
        self.check_bias(app)?;
        let mut bias = self.bias.clone();
        if self.endless {
            let stops = app.model.tokenizer().stops();
            bias.extend(stops.iter().map(|&token| (token, f32::NEG_INFINITY)));
        }
        let constraint = match self.constraint.get() {
            Some(constraint) => constraint.clone(),
            None => {
                let constraint = self.compiled(app)?;
                self.constraint.get_or_init(|| constraint).clone()
            }
        };
        let max_tokens = self.max_tokens.unwrap_or(usize::MAX);
        let request = |answer: usize| Request {
            prompt: prompt.clone(),
            max_tokens,
            sampling: SamplerOptions {
                seed: sampling.seed.wrapping_add(answer as u64),
                ..sampling.clone()
            },
            penalties,
            bias: bias.clone(),
            stop: self.stop.clone(),
            logprobs: self.logprobs,
            constraint: constraint.clone(),
        };
        Ok((0..answers).map(request).collect())
    }

    /// What the format comes to.
    fn compiled(&self, app: &App) -> Result<Option<Constraint>, ApiError> {
        let constraint = match &self.format {
            Format::Text => return Ok(None),
            Format::Object => app.grammars.object(),
            Format::Schema(schema) => {
                let (bytes, most) = (schema.to_string().len(), app.limits.schema_bytes);
                if bytes > most {
                    let message =
                        format!("the schema has {bytes} bytes; at most {most} are allowed");
                    return Err(ApiError::field("schema", message));
                }
                app.grammars.schema(schema.clone())
            }
        };
        constraint.map(Some).map_err(ApiError::from)
    }

    /// The prompt, if it leaves room for an answer.
    fn fitting(&self, app: &App, prompt: Vec<u32>) -> Result<Vec<u32>, ApiError> {
        let (tokens, context) = (prompt.len(), app.model.context());
        if tokens == 0 {
            return Err(ApiError::bad("the prompt is empty"));
        }
        if tokens >= context {
            return Err(ApiError::bad(format!(
                "this model's context has {context} tokens and the prompt has {tokens}: shorten it \
                 to at most {}",
                context - 1,
            ))
            .code("context_length_exceeded"));
        }
        Ok(prompt)
    }

    fn sampling(&self) -> Result<SamplerOptions, ApiError> {
        let default = SamplerOptions::default();
        let options = SamplerOptions {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            // 0 is what some clients send for "the likeliest token alone".
            top_p: self
                .top_p
                .map_or(default.top_p, |p| if p == 0.0 { f32::MIN_POSITIVE } else { p }),
            min_p: self.min_p.unwrap_or(default.min_p),
            seed: self.seed.map_or_else(random, |seed| seed as u64),
        };
        match Sampler::new(options.clone()) {
            Ok(_) => Ok(options),
            Err(trilut_runtime::Error::Sampling { name, value, rule }) => {
                Err(ApiError::field(name, format!("`{name}` is {value}: it {rule}")))
            }
            Err(error) => Err(ApiError::bad(error.to_string())),
        }
    }

    fn repeat(&self) -> Result<f32, ApiError> {
        let value = self.repeat_penalty.unwrap_or(1.0);
        if value > 0.0 && value <= 10.0 {
            return Ok(value);
        }
        let message = format!("`repeat_penalty` is {value}: it must be above 0 and at most 10");
        Err(ApiError::field("repeat_penalty", message))
    }

    fn check_bias(&self, app: &App) -> Result<(), ApiError> {
        let (vocab, most) = (app.model.config().vocab, app.limits.biases);
        let refuse = |what: String| Err(ApiError::field("logit_bias", what));
        if self.bias.len() > most {
            return refuse(format!(
                "`logit_bias` has {} entries; at most {most} are allowed",
                self.bias.len()
            ));
        }
        for &(token, bias) in &self.bias {
            if token as usize >= vocab {
                return refuse(format!("`logit_bias` names token {token}; the model has {vocab}"));
            }
            if !(-100.0..=100.0).contains(&bias) {
                return refuse(format!(
                    "`logit_bias` of token {token} is {bias}: it must be -100 to 100"
                ));
            }
        }
        Ok(())
    }
}

fn penalty(name: &'static str, value: Option<f32>) -> Result<f32, ApiError> {
    let value = value.unwrap_or(0.0);
    if (-2.0..=2.0).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::field(name, format!("`{name}` is {value}: it must be -2 to 2")))
}
