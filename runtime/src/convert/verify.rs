//! Reads a written file back and compares every tensor with what it was made of.

use super::codec::Codec;
use super::floats::Floats;
use super::plan::{Content, Item, Plan, Source};
use super::ternary::{Space, Ternary};
use super::{ConvertError, Step};
use crate::gguf::{Gguf, TensorKind};
use crate::tokenizer::Tokenizer;
use half::f16;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_kernels::Supported;

/// Weights that are compared at a time.
const CHUNK: usize = 1 << 20;

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
            Content::Ternary { ternary, codec, .. } => {
                compare_ternary(item, &gguf, data, ternary, *codec, isa)?;
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
    let (mut given, mut back) = (vec![0.0; floats.k], vec![0.0; floats.k]);
    for (row, data) in (0..m).zip(data.chunks_exact(data.len() / m)) {
        floats.row(isa, row, &mut given);
        match kind.block_format() {
            Some(format) => format.widen(isa, data, &mut back),
            None if kind == TensorKind::F32 => {
                let values = data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
                back.iter_mut().zip(values).for_each(|(back, value)| *back = value);
            }
            None => {
                let values = data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32());
                back.iter_mut().zip(values).for_each(|(back, value)| *back = value);
            }
        }
        let square = |x: f32| f64::from(x) * f64::from(x);
        let (mut wrong, mut all) = (0.0, 0.0);
        for (given, back) in given.iter().zip(&back) {
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
    }
    Ok(())
}

fn compare_ternary(
    item: &Item<'_>,
    gguf: &Gguf,
    data: &[u8],
    ternary: &Ternary<'_>,
    codec: Codec,
    isa: Supported,
) -> Result<(), ConvertError> {
    let (m, k) = (ternary.m, ternary.k);
    let measure = ternary.measure(isa)?;
    let blocks = m * k / codec.weights() * codec.bytes();
    let name = item.name.strip_suffix("weight").unwrap_or_default();
    let beside = match gguf.opt_tensor(&format!("{name}scale"))? {
        Some(scale) => scale.to_f32()?[0],
        None => 1.0,
    };
    let within = match codec {
        Codec::I2S => f32::from_le_bytes(*data[blocks..].first_chunk().unwrap_or(&[0; 4])),
        _ => {
            let mut factors = data.chunks_exact(codec.bytes()).map(|block| codec.factor(block));
            let first = factors.next().unwrap_or_default();
            if factors.any(|factor| factor != first) {
                return Err(differs(&item.name, "its blocks have several scales"));
            }
            first
        }
    };
    if within * beside != measure.scale {
        let rule =
            format!("its scale is {}, that of the source {}", within * beside, measure.scale);
        return Err(differs(&item.name, rule));
    }
    let quantum = codec.rows(k).unwrap_or(1).max(ternary.quantum());
    let rows = (CHUNK / k).max(1).next_multiple_of(quantum);
    let (mut given, mut back) = (Vec::new(), Vec::new());
    let mut space = Space::default();
    for first in (0..m).step_by(rows) {
        let count = rows.min(m - first);
        given.resize(count * k, 0);
        back.resize(count * k, 0);
        ternary.rows(isa, &measure, first, &mut given, &mut space)?;
        let at = |row: usize| row * k / codec.weights() * codec.bytes();
        codec.unpack(&data[at(first)..at(first + count)], &mut back);
        if let Some(place) = given.iter().zip(&back).position(|(given, back)| given != back) {
            let rule = format!("row {}, column {} is another weight", first + place / k, place % k);
            return Err(differs(&item.name, rule));
        }
    }
    Ok(())
}
