//! `trilut check`: whether a model file is read right.

use super::failure::Failure;
use super::layouts::Layouts;
use super::model::Source;
use super::output::{out, outln};
use super::table::Table;
use super::{environment, interrupt};
use std::path::PathBuf;
use trilut_runtime::check::{
    self, Finding, Layer, Verdict, is_embedder, judge_codes, judge_prediction, judge_scales,
    judge_tokenizer, other_layouts, predict,
};
use trilut_runtime::gguf::{Gguf, TensorKind, TernaryLayouts};
use trilut_runtime::ternary::I2sLayout;
use trilut_runtime::{Config, Error, Model, ModelOptions};

/// Positions of the model that predicts the texts, which are shorter.
const CONTEXT: usize = 512;

/// The layouts of I2_S, and how they are asked for.
const I2S: [(I2sLayout, &str); 3] =
    [(I2sLayout::X86, "x86"), (I2sLayout::Arm, "arm"), (I2sLayout::Rows, "rows")];

/// Find out whether a model file is read right: codes, scales, tokenizer, and how well it predicts plain
/// English. Exit status 3 when it is not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    model: Option<PathBuf>,
    /// Number of threads; every core without it.
    #[arg(short, long, value_parser = environment::number_of_threads)]
    threads: Option<usize>,
    #[command(flatten)]
    layouts: Layouts,
}

pub(crate) fn check(args: &Args) -> Result<(), Failure> {
    let threads = environment::threads(args.threads)?;
    let source = Source::new(args.model.clone());
    let gguf = source.open()?;
    let layouts = args.layouts.read(&gguf)?;
    let config = Config::from_gguf(&gguf)?;
    outln!(
        "{source}: {}, {} layers of {} x {}, {} tokens",
        gguf.architecture()?,
        config.layers,
        config.hidden,
        config.ffn,
        config.vocab
    );
    let context = Some(config.context.min(CONTEXT));
    let options =
        ModelOptions { threads: Some(threads), context, layouts, ..ModelOptions::default() };
    let findings = findings(&gguf, &options)?;
    for Finding { verdict, text } in &findings {
        let mark = match verdict {
            Verdict::Good => "good    ",
            Verdict::Doubtful => "doubtful",
            Verdict::Bad => "BAD     ",
        };
        outln!("{mark}  {text}");
    }
    match findings.iter().map(|finding| finding.verdict).max() {
        Some(Verdict::Bad) => {
            let hint = match right_layout(&gguf, &options) {
                Some(hint) => hint,
                None => "compare the file's checksum with the publisher's; if it agrees, the file is of a kind \
                         that is not known here, or the model was never trained"
                    .to_owned(),
            };
            Err(Failure::check("the model is not read right, or is no trained model").hint(hint))
        }
        Some(Verdict::Doubtful) => {
            outln!("verdict: probably read right; see what is doubtful");
            Ok(())
        }
        _ => {
            outln!("verdict: read right");
            Ok(())
        }
    }
}

/// Everything that was found; what makes the model unreadable is a finding as well.
fn findings(gguf: &Gguf, options: &ModelOptions<'_>) -> Result<Vec<Finding>, Failure> {
    let unreadable = |error: Error| {
        let text = Failure::from(error).summary();
        Finding { verdict: Verdict::Bad, text }
    };
    let mut findings = Vec::new();
    match check::layers(gguf, &options.layouts) {
        Ok(layers) => {
            out!("\n{}\n", table(&layers).plain());
            findings.extend([judge_codes(&layers), judge_scales(&layers)]);
        }
        Err(error) => return Ok(vec![unreadable(error)]),
    }
    if interrupt::asked() {
        return Err(Failure::interrupted());
    }
    let model = match Model::open_with(gguf, options) {
        Ok(model) => model,
        Err(error) => {
            findings.push(unreadable(error));
            return Ok(findings);
        }
    };
    findings.push(judge_tokenizer(&model));
    if is_embedder(gguf)? {
        let text =
            "made for embeddings, which text does not test: compare some with the publisher's";
        findings.push(Finding { verdict: Verdict::Doubtful, text: text.to_owned() });
    } else {
        findings.push(match predict(&model) {
            Ok(prediction) => judge_prediction(prediction),
            Err(error) => unreadable(error),
        });
    }
    if interrupt::asked() {
        return Err(Failure::interrupted());
    }
    Ok(findings)
}

fn table(layers: &[Layer]) -> Table {
    let mut table = Table::new(&["layers", "-1", "0", "+1", "least scale", "largest"], 1);
    for layer in layers {
        let shares = layer.shares().map(|share| format!("{:.1} %", share * 100.0));
        let scales = layer.scales.map(|scale| format!("{scale:.3e}"));
        table.row([layer.name.to_owned()].into_iter().chain(shares).chain(scales));
    }
    table
}

/// For a file of I2_S tensors: the layout in which it is read right, as advice.
fn right_layout(gguf: &Gguf, options: &ModelOptions<'_>) -> Option<String> {
    let is_i2s = gguf.tensors().iter().any(|tensor| tensor.kind() == TensorKind::I2S);
    let others: Vec<_> = I2S.iter().filter(|(i2s, _)| *i2s != options.layouts.i2s).collect();
    let layouts: Vec<TernaryLayouts> = others
        .iter()
        .map(|(i2s, _)| TernaryLayouts { i2s: *i2s, ..options.layouts.clone() })
        .filter(|_| is_i2s)
        .collect();
    let (index, prediction) = other_layouts(gguf, options, &layouts)?;
    let name = others[index].1;
    Some(format!(
        "give --i2s-layout {name} with this file: so read, its perplexity is {:.1}",
        prediction.perplexity
    ))
}
