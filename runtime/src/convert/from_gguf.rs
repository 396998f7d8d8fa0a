//! The plan of a file made of another GGUF file.

use super::floats::{FloatType, Floats};
use super::plan::{Content, Item, Plan, Source};
use super::ternary::{Origin, Ternary};
use super::vocabulary::template_note;
use super::{ConvertError, Options, ScaleMeaning};
use crate::gguf::{Gguf, TensorInfo, Value};
use crate::model::Config;
use crate::ternary::Scales;
use trilut_kernels::Supported;
use trilut_presets::Shape;

/// The linear layers of a block.
const LINEARS: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// Keys that are not copied: they are set anew.
const OWN_KEYS: &[&str] = &["general.file_type", "general.alignment"];

/// The plan of a file with the same model in other codecs.
pub(super) fn plan<'a>(
    source: &'a Source,
    gguf: &'a Gguf,
    isa: Supported,
    options: &Options,
    mut each: impl FnMut(usize, usize) -> Result<(), ConvertError>,
) -> Result<Plan<'a>, ConvertError> {
    if options.pre.is_some() {
        let why = "the tokenizer of a GGUF file is copied as it is";
        return Err(ConvertError::Idle { option: "pre", why });
    }
    if options.scales != ScaleMeaning::Auto {
        let why = "a GGUF file says what its scales mean by the types of its tensors";
        return Err(ConvertError::Idle { option: "scales", why });
    }
    if let Some(Value::Int(2..)) = gguf.value("split.count") {
        let rule = "must be 1: the parts of a split file are not read, merge them first";
        let count = gguf.opt_u32("split.count")?.unwrap_or_default();
        return Err(ConvertError::config("split.count", count, rule));
    }
    let config = Config::from_gguf(gguf).map_err(|error| ConvertError::Model(Box::new(error)))?;
    for (layer, linear) in
        (0..config.layers).flat_map(|layer| LINEARS.map(|linear| (layer, linear)))
    {
        gguf.tensor(&format!("blk.{layer}.{linear}.weight"))?;
    }
    let mut plan = Plan::new();
    for (key, _) in gguf.metadata().filter(|(key, _)| !OWN_KEYS.contains(key)) {
        plan.header.copy(gguf, key);
    }
    plan.header.u32("general.file_type", super::file_type(options.codec)?);
    match gguf.opt_str("tokenizer.chat_template") {
        Ok(text) => {
            plan.notes.extend(text.and_then(|text| template_note(text, "the chat template")));
        }
        Err(error) => plan.notes.push(format!("the chat template is copied, but: {error}")),
    }
    let count = gguf.tensors().len();
    for (index, tensor) in gguf.tensors().iter().enumerate() {
        each(index, count)?;
        let name = tensor.name();
        if let Some(linear) = linear(name) {
            let ternary = ternary(gguf, tensor, linear, options)?;
            plan.ternary(isa, linear, ternary, options.codec, source)?;
        } else if is_scale(name) {
            // It became part of its matrix's scale.
        } else {
            plan.items.push(other(gguf, tensor, options)?);
        }
    }
    Ok(plan)
}

/// The name of a linear layer without `.weight`.
fn linear(name: &str) -> Option<&str> {
    name.strip_suffix(".weight").filter(|linear| is_linear(linear))
}

/// Whether a tensor is a scale that is part of what is read of a linear layer.
fn is_scale(name: &str) -> bool {
    let of = [".scale", ".weight_scale"].iter().find_map(|end| name.strip_suffix(end));
    of.is_some_and(is_linear)
}

fn is_linear(name: &str) -> bool {
    name.starts_with("blk.") && name.rsplit('.').next().is_some_and(|last| LINEARS.contains(&last))
}

/// A linear layer, which must be stored in a ternary codec or as floats.
fn ternary<'a>(
    gguf: &'a Gguf,
    tensor: &'a TensorInfo,
    linear: &str,
    options: &Options,
) -> Result<Ternary<'a>, ConvertError> {
    let name = tensor.name();
    let &[k, m] = tensor.dims() else {
        let rule = format!("has the dimensions {:?}: two are needed", tensor.dims());
        return Err(ConvertError::tensor(name, rule));
    };
    // Both lie within a file.
    let shape = Shape { m: m as usize, k: k as usize };
    let origin = match FloatType::from_id(tensor.kind().id()) {
        Some(kind) => {
            let floats = Floats { kind, bytes: gguf.data(tensor), k: shape.k };
            Origin::Floats { floats, exact: !options.ternarise }
        }
        None if tensor.kind().is_ternary() => {
            let stored = gguf.ternary(name, shape, &options.layouts)?;
            match stored.scales.times(separate_scale(gguf, linear)?) {
                Scales::One(scale) => Origin::Stored { reader: stored.reader, scale },
                scales => {
                    let each = if let Scales::Rows(_) = scales { "row" } else { "block of a row" };
                    let rule =
                        format!("has a scale for each {each}: files of one scale are written");
                    return Err(ConvertError::tensor(name, rule));
                }
            }
        }
        None => {
            let rule = format!(
                "is of type {} (id {}), which {} writes: ternary types and floats are converted",
                tensor.type_name(),
                tensor.kind().id(),
                tensor.writer()
            );
            return Err(ConvertError::tensor(name, rule));
        }
    };
    Ok(Ternary { name: name.to_owned(), m: shape.m, k: shape.k, origin, interleave: None })
}

/// The scale beside a matrix, 1 without one.
fn separate_scale(gguf: &Gguf, linear: &str) -> Result<f32, ConvertError> {
    let Some(tensor) = gguf.opt_tensor(&format!("{linear}.scale"))? else { return Ok(1.0) };
    match tensor.to_f32()?[..] {
        [scale] => Ok(scale),
        _ => Err(ConvertError::tensor(tensor.name(), "has more than one value")),
    }
}

/// A tensor that is copied, or the embedding or head in the type that was asked for.
fn other<'a>(
    gguf: &'a Gguf,
    tensor: &'a TensorInfo,
    options: &Options,
) -> Result<Item<'a>, ConvertError> {
    let (name, dims) = (tensor.name(), tensor.dims());
    let (bytes, kind) = (gguf.data(tensor), tensor.kind());
    let is_head = matches!(name, "token_embd.weight" | "output.weight");
    let asked = options.head.filter(|&head| is_head && head != kind);
    let content = match (asked, FloatType::from_id(kind.id())) {
        (Some(head), Some(float)) => {
            let (k, m) = (dims[0] as usize, dims[1..].iter().product::<u64>() as usize);
            let block = head.block_format().map_or(1, |format| format.weights());
            if !k.is_multiple_of(block) {
                let rule = format!("has rows of {k}: {} stores blocks of {block}", head.name());
                return Err(ConvertError::tensor(name, rule));
            }
            Content::Floats { floats: Floats { kind: float, bytes, k }, m, kind: head, plus: 0.0 }
        }
        (Some(head), None) => {
            let rule = format!(
                "is of type {}: only floats can become {}",
                tensor.type_name(),
                head.name()
            );
            return Err(ConvertError::tensor(name, rule));
        }
        (None, _) => {
            let size = tensor.bytes().ok_or_else(|| {
                let rule = format!(
                    "is of type {} (id {}), whose size is not known",
                    tensor.type_name(),
                    kind.id()
                );
                ConvertError::tensor(name, rule)
            })?;
            // Norms and what is as small: the runtime refuses them as well.
            if !is_head && FloatType::from_id(kind.id()).is_some() {
                let values = gguf.tensor(name)?.to_f32()?;
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    let rule = format!("has a value that is infinite or not a number, at {at}");
                    return Err(ConvertError::tensor(name, rule));
                }
            }
            Content::Bytes { bytes, kind, size }
        }
    };
    Ok(Item { name: name.to_owned(), dims: dims.to_vec(), content })
}
