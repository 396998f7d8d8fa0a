//! Whether a model file is read right: for the owner of a file that nobody here has seen.
//!
//! Codes, scales, tokenizer and graph are looked at one by one, and each finding is judged by what every
//! trained ternary model has in common. The last one is the strongest: a model that is read in a wrong
//! layout, with wrong scales, rope or activation, cannot predict plain English.

use crate::gguf::{Gguf, TernaryLayouts};
use crate::perplexity::surprise;
use crate::{Config, Error, Model, ModelOptions, Row};
use rayon::prelude::*;

/// Two texts that language models predict well; the better one counts. The first suits models of children's
/// stories.
const TEXTS: [&str; 2] = [
    "Once upon a time there was a fox named Max. One day he went to the lake to play. There he found a red \
     ball. Max was happy. On the way home he met a bird. Once upon a time, a clever hedgehog named Bubbles \
     lived in a small house. One spring day he ran to the forest to play. In the grass he found a green bell. \
     A duck came and looked at the bell. There was a loud noise, but Bubbles was brave.",
    "The Second World War ended in 1945. In the years that followed, the countries of Europe began to rebuild \
     their cities and their economies. The United States gave a large amount of money to help them. In 1949 \
     twelve countries signed a treaty in Washington, in which they promised to defend each other if one of \
     them was attacked. The capital of France is Paris, and the capital of Germany was moved from Bonn to \
     Berlin after the reunification of the country in 1990.",
];

/// Tokens at the start of a text that are not scored.
const CONTEXT: usize = 8;

/// Tokens that are read at once: each leaves a row of logits.
const BLOCK: usize = 64;

/// Fewer predicted tokens tell nothing.
const FEWEST: usize = 24;

/// Bits for a byte of plain English: what a model that is read right needs at most, and what one needs that
/// knows little more than which letters are frequent. Models of 2 billion weights need about 0.9; with a
/// wrong activation, 1.5.
const RIGHT: f64 = 1.3;
const WRONG: f64 = 2.0;

/// Texts that a tokenizer must give back as they were.
const ROUND_TRIPS: [&str; 5] = [
    "The quick brown fox jumps over the lazy dog.",
    "  two  spaces, a\ttab\nand lines\n\n\nof text ",
    "naïve café, Straße, Привет, 你好，世界, こんにちは, 😀👍🏽",
    "fn main() { println!(\"{}\", 12345 * 6.789e-10); }",
    "don't I'LL we've 1,000,000 x86_64 a_b-c",
];

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Unusual.
    Doubtful,
    /// Not what a trained model has.
    Bad,
}

/// One finding, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
}

/// The weights of the linear layers of one name, in all blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The name, such as `attn_q`.
    pub name: &'static str,
    /// How often -1, 0 and +1 are there.
    pub counts: [u64; 3],
    /// The smallest and the largest scale.
    pub scales: [f32; 2],
}

impl Layer {
    /// The parts of -1, 0 and +1.
    pub fn shares(&self) -> [f64; 3] {
        let all = self.counts.iter().sum::<u64>().max(1) as f64;
        self.counts.map(|count| count as f64 / all)
    }
}

/// Counts codes and scales of every ternary layer of a file.
///
/// # Errors
/// When the file is no model, or a tensor cannot be read.
pub fn layers(gguf: &Gguf, layouts: &TernaryLayouts) -> Result<Vec<Layer>, Error> {
    let config = Config::from_gguf(gguf)?;
    config
        .linears()
        .into_iter()
        .map(|(name, shape)| {
            let mut layer = Layer { name, counts: [0; 3], scales: [f32::INFINITY, 0.0] };
            for block in 0..config.layers {
                let tensor = format!("blk.{block}.{name}.weight");
                let ternary = gguf.ternary(&tensor, shape, layouts)?;
                let wrong =
                    |source| crate::gguf::GgufError::Codec { tensor: tensor.clone(), source };
                let counts = (0..shape.m)
                    .into_par_iter()
                    .map_init(
                        || vec![0i8; shape.k],
                        |weights, row| {
                            ternary.reader.row(row, weights)?;
                            let count = |t| weights.iter().filter(|w| **w == t).count() as u64;
                            Ok([count(-1), count(0), count(1)])
                        },
                    )
                    .try_reduce(|| [0; 3], |a, b| Ok([a[0] + b[0], a[1] + b[1], a[2] + b[2]]))
                    .map_err(wrong)?;
                layer.counts = [0, 1, 2].map(|i| layer.counts[i] + counts[i]);
                for &scale in ternary.scales.all() {
                    layer.scales = [layer.scales[0].min(scale), layer.scales[1].max(scale)];
                }
                gguf.release(ternary.range);
            }
            Ok(layer)
        })
        .collect()
}

/// Judges the codes: absmean of bell-shaped weights gives 31 % zeros, training moves it to 20 to 60 %, and
/// neither prefers a sign.
pub fn judge_codes(layers: &[Layer]) -> Finding {
    let odd = |layer: &&Layer| {
        let [minus, zero, plus] = layer.shares();
        !(0.1..=0.8).contains(&zero) || (minus - plus).abs() > 0.05
    };
    let wrong: Vec<&str> = layers.iter().filter(odd).map(|layer| layer.name).collect();
    if wrong.is_empty() {
        let text = "signs are balanced and zeros as frequent as training leaves them".to_owned();
        return Finding { verdict: Verdict::Good, text };
    }
    let text = format!(
        "{}: signs are not balanced, or zeros are rare or nearly all there is; codes are swapped or the \
         weights were never ternary",
        wrong.join(", ")
    );
    Finding { verdict: Verdict::Bad, text }
}

/// Scales beyond these are of no model: training keeps them above 1e-5, and at 1e4 what a layer of 64 inputs
/// of magnitude 1 makes is more than f16 holds.
const POSSIBLE_SCALES: std::ops::RangeInclusive<f32> = 1e-8..=1e4;

/// Judges the scales: means of the magnitudes of trained weights.
pub fn judge_scales(layers: &[Layer]) -> Finding {
    let least = layers.iter().map(|layer| layer.scales[0]).fold(f32::INFINITY, f32::min);
    let most = layers.iter().map(|layer| layer.scales[1]).fold(0.0, f32::max);
    let range = format!("scales are from {least:.3e} to {most:.3e}");
    let (verdict, text) = if least >= 1e-3 && most <= 10.0 {
        (Verdict::Good, format!("{range}, as means of magnitudes of weights are"))
    } else if !(POSSIBLE_SCALES.contains(&least) && POSSIBLE_SCALES.contains(&most)) {
        let text = format!(
            "{range}: no weights have such magnitudes, so the scales are damaged or stand for something else"
        );
        (Verdict::Bad, text)
    } else if least >= 5.0 {
        (Verdict::Bad, format!("{range}: these look like reciprocals of scales"))
    } else {
        (Verdict::Doubtful, format!("{range}: trained models have 0.001 to 10"))
    };
    Finding { verdict, text }
}

/// Encodes and decodes texts of many kinds.
pub fn judge_tokenizer(model: &Model) -> Finding {
    let tokenizer = model.tokenizer();
    let same = |text: &&&str| {
        let ids = tokenizer.encode(text, false);
        // A tokenizer that puts a space in front of every text gives it back.
        tokenizer.decode(&ids, false).trim_start() == text.trim_start()
    };
    let kept = ROUND_TRIPS.iter().filter(same).count();
    let bytes: usize = TEXTS.iter().map(|text| text.len()).sum();
    let tokens: usize = TEXTS.iter().map(|text| tokenizer.encode(text, false).len()).sum();
    let per_token = bytes as f64 / tokens.max(1) as f64;
    let text = format!(
        "{kept} of {} texts come back as they were; {per_token:.1} bytes of English for a token",
        ROUND_TRIPS.len()
    );
    let verdict = match kept == ROUND_TRIPS.len() {
        true if per_token >= 2.0 => Verdict::Good,
        true => Verdict::Doubtful,
        false => Verdict::Bad,
    };
    Finding { verdict, text }
}

/// How well a model predicts a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Perplexity by token.
    pub perplexity: f64,
    /// Bits for a byte of text, which do not depend on the vocabulary.
    pub bits_per_byte: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
}

/// The better of two predictions of plain English.
///
/// # Errors
/// When the model fails.
pub fn predict(model: &Model) -> Result<Prediction, Error> {
    let mut best: Option<Prediction> = None;
    for text in TEXTS {
        let prediction = predict_text(model, text)?;
        if best.is_none_or(|best| prediction.bits_per_byte < best.bits_per_byte) {
            best = Some(prediction);
        }
    }
    Ok(best.expect("there are texts"))
}

fn predict_text(model: &Model, text: &str) -> Result<Prediction, Error> {
    let tokenizer = model.tokenizer();
    let mut tokens = tokenizer.encode_text(text, false);
    tokens.truncate(model.context());
    let scored = |position: usize| position >= CONTEXT && position + 1 < tokens.len();
    let rows: Vec<Row> = (0..)
        .zip(&tokens)
        .map(|(position, &token)| Row { sequence: 0, position, token, logits: scored(position) })
        .collect();
    let (mut state, vocab) = (model.state(1)?, model.config().vocab);
    let mut nats = 0.0;
    for rows in rows.chunks(BLOCK) {
        let logits = model.forward(&mut state, rows)?.chunks_exact(vocab);
        for (row, logits) in rows.iter().filter(|row| row.logits).zip(logits) {
            nats += surprise(logits, tokens[row.position + 1] as usize);
        }
    }
    let predicted = tokens.get(CONTEXT + 1..).unwrap_or_default();
    let bytes = tokenizer.decode(predicted, true).len().max(1);
    Ok(Prediction {
        perplexity: libm::exp(nats / predicted.len().max(1) as f64),
        bits_per_byte: nats / std::f64::consts::LN_2 / bytes as f64,
        tokens: predicted.len(),
    })
}

/// Judges a prediction.
pub fn judge_prediction(prediction: Prediction) -> Finding {
    let Prediction { perplexity, bits_per_byte, tokens } = prediction;
    if tokens < FEWEST {
        let text = format!("only {tokens} tokens of plain English were predicted: nothing follows");
        return Finding { verdict: Verdict::Doubtful, text };
    }
    let found =
        format!("perplexity {perplexity:.1} on plain English, {bits_per_byte:.2} bits a byte");
    let (verdict, text) = match bits_per_byte {
        bits if bits <= RIGHT => (Verdict::Good, format!("{found}: it knows the language")),
        bits if bits <= WRONG => (
            Verdict::Doubtful,
            format!("{found}: a small model, another language, or read in part"),
        ),
        _ => (Verdict::Bad, format!("{found}: it does not know the language")),
    };
    Finding { verdict, text }
}

/// Whether the model was made for embeddings: such a model need not predict anything.
///
/// # Errors
/// When the file does not say its architecture, or its pooling is no number.
pub fn is_embedder(gguf: &Gguf) -> Result<bool, Error> {
    Ok(gguf.opt_arch_u32("pooling_type")?.is_some_and(|kind| kind != 0))
}

/// Loads and predicts with other layouts of the ternary weights, for a file that is not read right as it is;
/// the best layout that makes it right, if one does.
pub fn other_layouts(
    gguf: &Gguf,
    options: &ModelOptions<'_>,
    others: &[TernaryLayouts],
) -> Option<(usize, Prediction)> {
    let predictions = others.iter().enumerate().filter_map(|(index, layouts)| {
        let options = ModelOptions { layouts: layouts.clone(), ..options.clone() };
        let model = Model::open_with(gguf, &options).ok()?;
        Some((index, predict(&model).ok()?))
    });
    let right = predictions.filter(|(_, p)| p.bits_per_byte <= RIGHT);
    right.min_by(|a, b| a.1.bits_per_byte.total_cmp(&b.1.bits_per_byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded;
    use crate::ternary::I2sLayout;

    fn demo() -> Gguf {
        Gguf::from_static(embedded::model()).unwrap()
    }

    #[test]
    fn the_demo_model_is_read_right() {
        let (gguf, model) = (demo(), Model::embedded().unwrap());
        let layers = layers(&gguf, &TernaryLayouts::default()).unwrap();
        assert_eq!(layers.len(), 7);
        let config = model.config();
        for (layer, (name, shape)) in layers.iter().zip(config.linears()) {
            assert_eq!(layer.name, name);
            assert_eq!(layer.counts.iter().sum::<u64>() as usize, shape.weights() * config.layers);
        }
        let prediction = predict(&model).unwrap();
        let findings = [
            judge_codes(&layers),
            judge_scales(&layers),
            judge_tokenizer(&model),
            judge_prediction(prediction),
        ];
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Good), "{findings:?}");
    }

    #[test]
    fn a_wrong_layout_is_seen_and_the_right_one_found() {
        let gguf = demo();
        let layouts = |i2s| TernaryLayouts { i2s, ..TernaryLayouts::default() };
        let options = |i2s| ModelOptions { layouts: layouts(i2s), ..ModelOptions::default() };
        let all = [I2sLayout::X86, I2sLayout::Arm, I2sLayout::Rows];
        for wrong in &all[1..] {
            let options = options(*wrong);
            let model = Model::open_with(&gguf, &options).unwrap();
            let prediction = predict(&model).unwrap();
            assert_eq!(judge_prediction(prediction).verdict, Verdict::Bad, "{prediction:?}");
            let others = all.map(layouts);
            assert_eq!(other_layouts(&gguf, &options, &others).map(|found| found.0), Some(0));
        }
    }

    #[test]
    fn odd_codes_and_scales_are_told() {
        let layer = |counts, scales| Layer { name: "attn_q", counts, scales };
        let codes = |counts| judge_codes(&[layer(counts, [0.5; 2])]).verdict;
        assert_eq!(codes([30, 40, 30]), Verdict::Good);
        for odd in [[0, 50, 50], [50, 0, 50], [40, 20, 30], [2, 96, 2], [0, 0, 0]] {
            assert_eq!(codes(odd), Verdict::Bad, "{odd:?}");
        }
        let scales = |scales| judge_scales(&[layer([1; 3], scales)]).verdict;
        assert_eq!(scales([0.02, 3.0]), Verdict::Good);
        assert_eq!(scales([20.0, 90.0]), Verdict::Bad);
        assert_eq!(scales([1e-7, 1.0]), Verdict::Doubtful);
        for impossible in [[0.5, 1e30], [1e30, 1e30], [1e-30, 0.5], [0.5, 2e4], [0.0, 1.0]] {
            assert_eq!(scales(impossible), Verdict::Bad, "{impossible:?}");
        }
    }
}
