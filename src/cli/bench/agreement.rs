//! Do two engines compute the same model? Their perplexities over a text, within a stated bound.
//!
//! Equal logits cannot be asked for: engines round activations in different places (int8 per token, int8
//! per group, not at all), sum in different orders and store the cache differently. What is asked for is
//! that the mean log-likelihoods of the scored tokens, which are the logarithms of the perplexities, differ
//! by at most [`BOUND`]. On the demo model and `benches/agreement.txt` (2032 scored tokens), ik_llama.cpp
//! differs from us by 0.004 (IQ2_BN, activations rounded in groups) and 0.006 (f16). Mistakes that were
//! made on purpose in a copy of the file differ by 0.05 (the weights of all attention sub-norms, or of all
//! feed-forward ones, left out), 0.08 (an epsilon of 1e-3 for 1e-5) and 0.14 (twice the rope base). The
//! bound lies between. What it does not see is a mistake in few layers or a small one: a sub-norm of one
//! layer left out differs by 0.01 to 0.02.
//!
//! A model of random weights predicts nothing, whoever runs it: there the comparison would say nothing,
//! and it is refused.

use super::super::failure::Failure;
use super::super::model::Source;
use super::super::{interrupt, progress};
use super::baseline::Baseline;
use super::child;
use super::meter::Meter;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trilut_runtime::perplexity::{Perplexity, PerplexityError, perplexity};
use trilut_runtime::{Config, Model};

/// The largest difference of the mean log-likelihoods, in nats: 2 % of the perplexity.
const BOUND: f64 = 0.02;

/// A model whose perplexity is more than this part of its vocabulary knows nothing of the text.
const KNOWS_NOTHING: f64 = 0.5;

/// Tokens of a chunk, where neither the user nor the model says less.
const CONTEXT: usize = 512;

/// What is compared on.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) text: PathBuf,
    /// Tokens of a chunk.
    pub(super) context: Option<usize>,
    /// Our model file for it.
    pub(super) model: Source,
    pub(super) threads: usize,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Agreement {
    pub(super) engine: String,
    pub(super) text: PathBuf,
    pub(super) context: usize,
    pub(super) chunks: usize,
    pub(super) scored: usize,
    pub(super) model: String,
    pub(super) baseline_model: PathBuf,
    /// Our perplexity.
    pub(super) ours: f64,
    /// That of the engine.
    pub(super) theirs: f64,
    /// Difference of the mean log-likelihoods, ours less theirs.
    pub(super) difference: f64,
    pub(super) bound: f64,
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "perplexity of {} ({} chunks of {}): {:.4} by trilut on {}, {:.4} by {} on {}; \
             logarithms differ by {:.4}, bound {}",
            self.text.display(),
            self.chunks,
            self.context,
            self.ours,
            self.model,
            self.theirs,
            self.engine,
            self.baseline_model.display(),
            self.difference.abs(),
            self.bound,
        )
    }
}

/// The text as the perplexity programs take it: without the line end of its last line.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::of(&error).context(format!("cannot read the text {}", path.display()))
    };
    let mut text = std::fs::read_to_string(path).map_err(cannot)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Our side of the check.
pub(super) fn ours(check: &Check, model: &Model) -> Result<Perplexity, Failure> {
    let context = check.context.unwrap_or(CONTEXT.min(model.context()));
    let bar = progress::line();
    let found = perplexity(model, &text(&check.text)?, context, |done, chunks| {
        bar.set_message(format!("perplexity {done}/{chunks}"));
        bar.tick();
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let found = match found {
        Err(PerplexityError::Cancelled) => return Err(Failure::interrupted()),
        found => found?,
    };
    knows(&found, model.config())?;
    Ok(found)
}

/// Refuses a model that says nothing of the text.
fn knows(found: &Perplexity, config: &Config) -> Result<(), Failure> {
    let most = KNOWS_NOTHING * config.vocab as f64;
    if found.value() <= most {
        return Ok(());
    }
    Err(Failure::check(format!(
        "agreement on this model and text would say nothing: the perplexity is {:.0}, a guess among all \
         tokens has {}",
        found.value(),
        config.vocab
    ))
    .hint(
        "check on a trained model and a text of its kind: --agree-model demo --agree-baseline-model FILE",
    ))
}

/// Their side, and whether the two agree.
///
/// # Errors
/// When the program fails or prints no perplexity, and, as a check that says no, when they disagree.
pub(super) fn check(
    check: &Check,
    ours: &Perplexity,
    baseline: &Baseline,
    meter: &Meter,
) -> Result<Agreement, Failure> {
    let program = baseline.perplexity_program()?;
    let (context, threads) = (ours.context.to_string(), check.threads.to_string());
    let (model, text) = (baseline.model.to_string_lossy(), check.text.to_string_lossy());
    // A batch of one chunk: each is read from an empty cache in the order of the text.
    let own = ["-m", &model, "-f", &text, "-c", &context, "-b", &context, "-t", &threads];
    let own = own.iter().map(|&word| word.to_owned());
    let args: Vec<String> = own.chain(baseline.perplexity_args.iter().cloned()).collect();
    let finished = child::run(&program, &args, baseline.timeout, meter)?;
    let printed = format!("{}\n{}", finished.stdout, finished.stderr);
    let theirs = estimate(&printed).ok_or_else(|| {
        Failure::new(format!("{} printed no final perplexity", program.display()))
            .hint(format!("try it by hand: {}", child::by_hand(&program, &args)))
    })?;
    let agreement = Agreement {
        engine: baseline.name(),
        text: check.text.clone(),
        context: ours.context,
        chunks: ours.chunks,
        scored: ours.scored,
        model: check.model.to_string(),
        baseline_model: baseline.model.clone(),
        ours: ours.value(),
        theirs,
        difference: ours.mean - theirs.ln(),
        bound: BOUND,
    };
    let disagree = || {
        Failure::check(format!("trilut and {} disagree: no speeds are compared", agreement.engine))
            .because(&agreement)
    };
    match chunks(&printed) {
        Some(chunks) if chunks != ours.chunks => Err(disagree().because(format!(
            "it cuts the text into {chunks} chunks: its tokenizer makes other tokens of it"
        ))),
        _ if agreement.difference.abs() <= BOUND => Ok(agreement),
        _ => Err(disagree()),
    }
}

/// The number after the last ` = ` of `Final estimate: PPL over 16 chunks for n_ctx=256 = 3.3855 +/- 0.2`
/// or `Final estimate: PPL = 3.3855 +/- 0.2`; it must be a possible perplexity.
fn estimate(printed: &str) -> Option<f64> {
    let line = printed.lines().rfind(|line| line.contains("Final estimate: PPL"))?;
    let (_, value) = line.rsplit_once(" = ")?;
    let value: f64 = value.split_ascii_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 1.0).then_some(value)
}

/// The number of chunks in `calculating perplexity over 16 chunks, n_ctx=256`.
fn chunks(printed: &str) -> Option<usize> {
    let (_, after) = printed.split_once("perplexity over ")?;
    after.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_estimate_are_read() {
        let ik = "[1]3.66,[2]4.12,\nFinal estimate: PPL over 16 chunks for n_ctx=256 = 3.3855 +/- 0.21528\n";
        assert_eq!(estimate(ik), Some(3.3855));
        assert_eq!(estimate("0.01 I Final estimate: PPL = 8.25 +/- 0.06\n"), Some(8.25));
        for bad in ["", "Final estimate: PPL = nan +/- 1", "Final estimate: PPL = 0.5", "PPL = 3"] {
            assert_eq!(estimate(bad), None, "{bad}");
        }
    }

    #[test]
    fn chunks_are_read() {
        assert_eq!(
            chunks("perplexity: calculating perplexity over 16 chunks, n_ctx=256"),
            Some(16)
        );
        assert_eq!(chunks("nothing"), None);
    }
}
