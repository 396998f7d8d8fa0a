//! Reads a written file back and compares every tensor with what it was made of.

use super::floats::{FloatType, Floats};
use super::plan::{Content, Item, Plan, Source};
use super::ternary::{Space, Ternary};
use super::{ConvertError, Step};
use crate::gguf::{Gguf, TensorKind, TernaryLayouts};
use crate::ternary::Scales;
use crate::tokenizer::Tokenizer;
use crate::{Model, ModelOptions};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_kernels::Supported;
use trilut_presets::Shape;

/// The largest root mean square error of a row, relative to its values, that a type explains.
fn tolerance(kind: TensorKind) -> f64 {
    match kind {
        TensorKind::F32 => 0.0,
        TensorKind::F16 => 1e-3,
        TensorKind::Q8_0 => 0.02,
        _ => 0.1,
    }
}

/// Compares a file with its plan; scales are found anew.
pub(super) fn verify(
    plan: &Plan<'_>,
    path: &Path,
    isa: Supported,
    source: &Source,
    progress: &mut dyn FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<(), ConvertError> {
    let gguf = Gguf::open(path)?;
    Tokenizer::from_gguf(&gguf)?;
    // What cannot be run is not right, however well it was copied.
    let options = ModelOptions { context: Some(1), ..ModelOptions::default() };
    Model::open_with(&gguf, &options).map_err(|error| ConvertError::Model(Box::new(error)))?;
    if gguf.tensors().len() != plan.items.len() {
        let rule =
            format!("{} tensors were written, {} read", plan.items.len(), gguf.tensors().len());
        return Err(differs("*", rule));
    }
    for (index, (item, tensor)) in plan.items.iter().zip(gguf.tensors()).enumerate() {
        if progress(Step::Verify, index as u64, plan.items.len() as u64).is_break() {
            return Err(ConvertError::Cancelled);
        }
        if tensor.name() != item.name || tensor.dims() != item.dims {
            return Err(differs(&item.name, "another tensor is in its place"));
        }
        let data = gguf.data(tensor);
        match &item.content {
            Content::Bytes { bytes, .. } => {
                if &data[..bytes.len().min(data.len())] != *bytes {
                    return Err(differs(&item.name, "the bytes are not those of the source"));
                }
                source.release(bytes);
            }
            Content::Floats { floats, m, kind, plus } => {
                compare_floats(item, data, floats, *m, *kind, *plus, isa)?;
                source.release(floats.bytes);
            }
            Content::Ternary { ternary, .. } => {
                compare_ternary(item, &gguf, ternary, isa)?;
                source.release(ternary.bytes());
            }
            // Checked with its matrix.
            Content::Scale(_) => {}
        }
        gguf.release(super::checkpoint::place((*gguf.shared()).as_ref(), data).unwrap_or(0..0));
    }
    Ok(())
}

fn differs(tensor: &str, rule: impl Into<String>) -> ConvertError {
    ConvertError::Differs { tensor: tensor.to_owned(), rule: rule.into() }
}

fn compare_floats(
    item: &Item<'_>,
    data: &[u8],
    floats: &Floats<'_>,
    m: usize,
    kind: TensorKind,
    plus: f32,
    isa: Supported,
) -> Result<(), ConvertError> {
    let compare = |(given, back): &mut (Vec<f32>, Vec<f32>), (row, data): (usize, &[u8])| {
        given.resize(floats.k, 0.0);
        back.resize(floats.k, 0.0);
        floats.row(isa, row, given);
        match kind.block_format() {
            Some(format) => format.widen(isa, data, back),
            None => {
                let stored = if kind == TensorKind::F32 { FloatType::F32 } else { FloatType::F16 };
                Floats { kind: stored, bytes: data, k: floats.k }.row(isa, 0, back);
            }
        }
        let square = |x: f32| f64::from(x) * f64::from(x);
        let (mut wrong, mut all) = (0.0, 0.0);
        for (given, back) in given.iter().zip(back.iter()) {
            wrong += square(given + plus - back);
            all += square(given + plus);
        }
        // What lies below the smallest numbers of f16 may vanish.
        let vanishing = 1e-7 * (floats.k as f64).sqrt();
        let error = wrong.sqrt();
        let explained = tolerance(kind) * all.sqrt();
        let explained = if kind == TensorKind::F32 { explained } else { explained + vanishing };
        if error.is_nan() || error > explained {
            return Err(differs(&item.name, format!("row {row} is off by {error}")));
        }
        Ok(())
    };
    let rows = data.par_chunks_exact(data.len() / m).take(m).enumerate();
    rows.map_init(Default::default, compare).collect()
}

fn compare_ternary(
    item: &Item<'_>,
    gguf: &Gguf,
    ternary: &Ternary<'_>,
    isa: Supported,
) -> Result<(), ConvertError> {
    let (m, k) = (ternary.m, ternary.k);
    let measure = ternary.measure(isa)?;
    let stored = gguf.ternary(&item.name, Shape { m, k }, &TernaryLayouts::default())?;
    let name = item.name.strip_suffix("weight").unwrap_or_default();
    let beside = match gguf.opt_tensor(&format!("{name}scale"))? {
        Some(scale) => scale.to_f32()?[0],
        None => 1.0,
    };
    let Scales::One(scale) = stored.scales.times(beside) else {
        return Err(differs(&item.name, "it has several scales"));
    };
    if scale != measure.scale {
        let rule = format!("its scale is {scale}, that of the source {}", measure.scale);
        return Err(differs(&item.name, rule));
    }
    let rows: Result<Vec<()>, ConvertError> = (0..m)
        .into_par_iter()
        .map_init(
            || (vec![0; k], vec![0; k], Space::default()),
            |(given, back, space), row| {
                ternary.rows(isa, &measure, row, given, space)?;
                stored
                    .reader
                    .row(row, back)
                    .map_err(|error| differs(&item.name, error.to_string()))?;
                match given.iter().zip(back.iter()).position(|(given, back)| given != back) {
                    None => Ok(()),
                    Some(column) => Err(differs(
                        &item.name,
                        format!("row {row}, column {column} is another weight"),
                    )),
                }
            },
        )
        .collect();
    rows.map(|_| ())
}
