//! The plan of a file made of a Hugging Face checkpoint.

use super::architecture::{Architecture, Family, Part, Role, Storage};
use super::checkpoint::{Checkpoint, Stored, read_json};
use super::floats::{FloatType, Floats};
use super::plan::{Content, Item, Plan, Source};
use super::ternary::{Origin, Ternary};
use super::vocabulary::{Rules, Vocabulary};
use super::{ConvertError, Options, ScaleMeaning};
use crate::gguf::TensorKind;
use safetensors::Dtype;
use std::collections::HashSet;
use trilut_kernels::Supported;

/// Tensors that say nothing about the model.
const IGNORED: &[&str] = &["rotary_emb.inv_freq", "attention.masked_bias", "attention.bias"];

/// Scales of trained weights lie between these; others point to a wrong convention.
const USUAL_SCALES: std::ops::RangeInclusive<f32> = 1e-4..=8.0;

/// Takes tensors out of a checkpoint and remembers which.
struct Taker<'a> {
    checkpoint: &'a Checkpoint,
    taken: HashSet<&'a str>,
}

impl<'a> Taker<'a> {
    /// A tensor that may be missing; some checkpoints leave `model.` away.
    fn find(&mut self, name: &str) -> Option<Stored<'a>> {
        let full = format!("model.{name}");
        let found = self.checkpoint.get(&full).or_else(|| self.checkpoint.get(name))?;
        self.taken.insert(found.name);
        Some(found)
    }

    /// A tensor under the first of its names that there is.
    fn take(&mut self, names: &[String]) -> Result<Stored<'a>, ConvertError> {
        names.iter().find_map(|name| self.find(name)).ok_or_else(|| ConvertError::Missing {
            dir: self.checkpoint.dir().to_owned(),
            what: format!("tensor `model.{}`", names[0]),
        })
    }
}

/// The floats of a tensor of some dimensions.
fn floats<'a>(stored: &Stored<'a>, wants: &[usize]) -> Result<Floats<'a>, ConvertError> {
    let kind = FloatType::of(stored.dtype).ok_or_else(|| {
        let rule = format!("is stored as {:?}, expected F32, F16 or BF16", stored.dtype);
        ConvertError::tensor(stored.name, rule)
    })?;
    if stored.shape != wants {
        let rule = format!("has the size {:?}, the model needs {wants:?}", stored.shape);
        return Err(ConvertError::tensor(stored.name, rule));
    }
    Ok(Floats { kind, bytes: stored.bytes, k: wants[wants.len() - 1] })
}

/// The plan of a checkpoint's file.
pub(super) fn plan<'a>(
    source: &'a Source,
    checkpoint: &'a Checkpoint,
    isa: Supported,
    options: &Options,
    mut each: impl FnMut(usize, usize) -> Result<(), ConvertError>,
) -> Result<Plan<'a>, ConvertError> {
    let config = checkpoint.json("config.json")?.ok_or_else(|| ConvertError::Missing {
        dir: checkpoint.dir().to_owned(),
        what: "config.json".to_owned(),
    })?;
    let of_first = |name: &str| {
        ["model.", ""]
            .iter()
            .any(|front| checkpoint.get(&format!("{front}layers.0.{name}.weight")).is_some())
    };
    let mut architecture = Architecture::read(&config, of_first)?;
    if architecture.storage == Storage::Floats && options.ternarise {
        architecture.storage = Storage::Masters;
    }
    let has_floats = matches!(architecture.storage, Storage::Masters | Storage::Floats);
    if has_floats && options.scales != ScaleMeaning::Auto {
        let why = "the checkpoint holds float weights, whose scales are measured";
        return Err(ConvertError::Idle { option: "scales", why });
    }
    let vocabulary = Vocabulary::read(checkpoint, architecture.vocab, options.pre.as_deref())?;
    if options.pre.is_some() && matches!(vocabulary.rules, Rules::Pieces { .. }) {
        let why = "the checkpoint's tokenizer is SentencePiece, which has no pre-tokenizer";
        return Err(ConvertError::Idle { option: "pre", why });
    }
    let mut plan = Plan::new();
    architecture.write(&name(checkpoint), super::file_type(options.codec)?, &mut plan.header);
    plan.notes.extend(checkpoint.notes());
    pooling(checkpoint, &architecture, &mut plan)?;
    vocabulary.write(&mut plan.header);
    plan.notes.extend(vocabulary.notes);

    let mut taker = Taker { checkpoint, taken: HashSet::new() };
    let (vocab, hidden) = (architecture.vocab, architecture.hidden);
    let head = options.head.unwrap_or(TensorKind::F16);
    let embedding = |stored: &Stored<'a>, name: &str| {
        let floats = floats(stored, &[vocab, hidden])?;
        let block = head.block_format().map_or(1, |format| format.weights());
        if !hidden.is_multiple_of(block) {
            let rule = format!("has rows of {hidden}: {} stores blocks of {block}", head.name());
            return Err(ConvertError::tensor(stored.name, rule));
        }
        let content = Content::Floats { floats, m: vocab, kind: head, plus: 0.0 };
        let dims = vec![hidden as u64, vocab as u64];
        Ok(Item { name: name.to_owned(), dims, content })
    };
    let stored = taker.take(&["embed_tokens.weight".to_owned()])?;
    plan.items.push(embedding(&stored, "token_embd.weight")?);
    let parts = architecture.block();
    let mut scales = (f32::INFINITY, 0f32);
    for layer in 0..architecture.layers {
        for part in &parts {
            each(layer, architecture.layers)?;
            let scale =
                add(&mut plan, &mut taker, &architecture, part, layer, isa, options, source)?;
            if let Some(scale) = scale {
                scales = (scales.0.min(scale), scales.1.max(scale));
            }
        }
    }
    let stored = taker.take(&["norm.weight".to_owned()])?;
    plan.items.push(norm(&stored, "output_norm.weight".to_owned(), architecture.output_norm())?);
    let head = taker.find("lm_head.weight");
    match (head, architecture.tied) {
        (Some(stored), false) => plan.items.push(embedding(&stored, "output.weight")?),
        (None, false) => {
            let rule = "is missing, and config.json does not tie the head to the embedding";
            return Err(ConvertError::tensor("lm_head.weight", rule));
        }
        (Some(_), true) => plan
            .notes
            .push("`lm_head.weight` is left out: the model has no head of its own".to_owned()),
        (None, true) => {}
    }
    let is_ignored = |name: &str| IGNORED.iter().any(|end| name.ends_with(end));
    if let Some(left) =
        checkpoint.names().find(|name| !taker.taken.contains(name) && !is_ignored(name))
    {
        let rule = format!("has no place in a {} model", architecture.family.name());
        return Err(ConvertError::tensor(left, rule));
    }
    if !(USUAL_SCALES.contains(&scales.0) && USUAL_SCALES.contains(&scales.1)) {
        plan.notes.push(format!(
            "the scales of the weights, {} to {}, are unusual: if the model talks nonsense, try the other \
             meaning of `weight_scale` (--scales multiplier or reciprocal)",
            scales.0, scales.1
        ));
    }
    Ok(plan)
}

/// Adds one tensor of a block; returns the scale of a ternary one.
#[expect(clippy::too_many_arguments, reason = "one place, named arguments")]
fn add<'a>(
    plan: &mut Plan<'a>,
    taker: &mut Taker<'a>,
    architecture: &Architecture,
    part: &Part,
    layer: usize,
    isa: Supported,
    options: &Options,
    source: &Source,
) -> Result<Option<f32>, ConvertError> {
    let names: Vec<String> =
        part.hf.iter().map(|hf| format!("layers.{layer}.{hf}.weight")).collect();
    let stored = taker.take(&names)?;
    let gguf = format!("blk.{layer}.{}", part.gguf);
    let Role::Linear { m, k, heads } = part.role else {
        plan.items.push(norm(&stored, format!("{gguf}.weight"), part.role)?);
        return Ok(None);
    };
    let origin = match architecture.storage {
        Storage::Masters | Storage::Floats => {
            let exact = architecture.storage == Storage::Floats;
            Origin::Floats { floats: floats(&stored, &[m, k])?, exact }
        }
        Storage::Multiplier | Storage::Reciprocal => {
            let scale = taker.take(&[format!("layers.{layer}.{}.weight_scale", part.hf[0])])?;
            let scale = weight_scale(&scale)?;
            let reciprocal = match options.scales {
                ScaleMeaning::Auto => architecture.storage == Storage::Reciprocal,
                ScaleMeaning::Reciprocal => true,
                ScaleMeaning::Multiplier => false,
            };
            let bytes = packed(&stored, m, k)?;
            Origin::Quarters { bytes, scale: if reciprocal { 1.0 / scale } else { scale } }
        }
    };
    if heads.is_some_and(|heads| !(m / heads).is_multiple_of(2)) {
        return Err(ConvertError::tensor(stored.name, "has heads of an odd length"));
    }
    let ternary = Ternary { name: stored.name.to_owned(), m, k, origin, interleave: heads };
    Ok(Some(plan.ternary(isa, &gguf, ternary, options.codec, source)?.scale))
}

/// The bytes of a packed tensor of m x k weights.
fn packed<'a>(stored: &Stored<'a>, m: usize, k: usize) -> Result<&'a [u8], ConvertError> {
    if stored.dtype != Dtype::U8 {
        let rule = format!(
            "is stored as {:?}, expected U8: config.json says that it is packed",
            stored.dtype
        );
        return Err(ConvertError::tensor(stored.name, rule));
    }
    if !m.is_multiple_of(4) || stored.shape != [m / 4, k] {
        let rule = format!("has the size {:?}, the model needs {:?}", stored.shape, [m / 4, k]);
        return Err(ConvertError::tensor(stored.name, rule));
    }
    Ok(stored.bytes)
}

/// The one number of a scale.
fn weight_scale(stored: &Stored<'_>) -> Result<f32, ConvertError> {
    let count: usize = stored.shape.iter().product();
    let rule = || format!("has {count} values of type {:?}, expected one float", stored.dtype);
    let wrong = || ConvertError::tensor(stored.name, rule());
    let kind = FloatType::of(stored.dtype).filter(|_| count == 1).ok_or_else(wrong)?;
    let floats = Floats { kind, bytes: stored.bytes, k: 1 };
    let mut scale = [0.0];
    floats.row(trilut_kernels::Cpu::detect().best(), 0, &mut scale);
    if !(scale[0].is_finite() && scale[0] > 0.0) {
        let rule = format!("is {}: it must be a number above 0", scale[0]);
        return Err(ConvertError::tensor(stored.name, rule));
    }
    Ok(scale[0])
}

fn norm<'a>(stored: &Stored<'a>, name: String, role: Role) -> Result<Item<'a>, ConvertError> {
    let Role::Norm { n, plus_one } = role else {
        return Err(ConvertError::tensor(stored.name, "is no norm"));
    };
    let floats = floats(stored, &[n])?;
    let plus = if plus_one { 1.0 } else { 0.0 };
    let content = Content::Floats { floats, m: 1, kind: TensorKind::F32, plus };
    Ok(Item { name, dims: vec![n as u64], content })
}

/// The model's name: that of its directory.
fn name(checkpoint: &Checkpoint) -> String {
    let dir = checkpoint.dir().canonicalize();
    let name = dir.ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    name.unwrap_or_else(|| "model".to_owned())
}

/// Sets how an embedding model makes one vector of a text, as sentence-transformers' files say.
fn pooling(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
    plan: &mut Plan<'_>,
) -> Result<(), ConvertError> {
    if !matches!(architecture.family, Family::Qwen3 | Family::Gemma3) {
        return Ok(());
    }
    let modules = checkpoint.json("modules.json")?.unwrap_or_default();
    let is_pooling = |module: &&serde_json::Value| {
        module["type"].as_str().is_some_and(|kind| kind.ends_with("Pooling"))
    };
    let path =
        modules.as_array().into_iter().flatten().find(is_pooling).and_then(|m| m["path"].as_str());
    // A plain name: the file must not point out of the directory.
    let path = path.filter(|path| !path.contains("..") && !path.starts_with('/'));
    let config = match path {
        Some(path) => {
            read_json(&checkpoint.dir().join(path).join("config.json"))?.unwrap_or_default()
        }
        None => serde_json::Value::Null,
    };
    // The numbers of GGUF files.
    let modes = [("mean_tokens", 1), ("cls_token", 2), ("lasttoken", 3)];
    let is_on = |&&(mode, _): &&(&str, u32)| config[format!("pooling_mode_{mode}")] == true;
    match modes.iter().find(is_on) {
        Some((_, number)) => {
            plan.header.u32(&format!("{}.pooling_type", architecture.family.name()), *number);
        }
        None => plan.notes.push(
            "no modules.json says how one vector is made of a text: trilut embed will need --pooling".to_owned(),
        ),
    }
    Ok(())
}
