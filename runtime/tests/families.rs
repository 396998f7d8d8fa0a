//! Every family of models, by a tiny one each: against the independent float64 reference (`tools/reference`),
//! by committed vectors, and the same bits however it is computed.
//!
//! The models are written here: two layers, keys and tensors of the real family, random weights. Forced,
//! the reference was given the runtime's own int8 activations and f16 cache, and every row agrees to 1e-5;
//! free running, it rounds both for itself, and rows before the first value that is rounded the other way
//! agree to 1e-4.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trilut_kernels::{Cpu, Format, Isa};
use trilut_presets::Shape;
use trilut_presets::models::{self, ModelSpec, WindowSpec};
use trilut_runtime::dummy::{DummyOptions, write_dummy};
use trilut_runtime::gguf::{Gguf, GgufWriter, TensorKind};
use trilut_runtime::ternary::{Codec, I2sLayout};
use trilut_runtime::{CacheType, Family, Model, ModelOptions, Row, Trace};

/// A tiny model of each family; what is odd about its real sizes is odd here too.
fn specs() -> Vec<ModelSpec> {
    let spec = |of: &str, hidden, ffn, heads, kv_heads, head_dim| ModelSpec {
        name: of.to_owned(),
        layers: 2,
        hidden,
        ffn,
        heads,
        kv_heads,
        head_dim,
        vocab: 320,
        context: 64,
        ..models::find(of).unwrap().clone()
    };
    let old = spec("bitnet-2b-4t", 256, 384, 4, 2, 64);
    vec![
        spec("bitnet-2b-4t", 256, 640, 4, 1, 128),
        ModelSpec {
            name: "bitnet-25".to_owned(),
            architecture: "bitnet-25".to_owned(),
            tied: false,
            ..old
        },
        spec("bitnet-large", 384, 512, 4, 4, 96),
        // Heads of 100, and 864 = 6.75 x 128 inputs.
        spec("bitnet-3b", 800, 864, 8, 8, 100),
        spec("llama3-8b", 512, 896, 4, 1, 128),
        // Heads of 256.
        spec("falcon3-7b", 512, 768, 2, 1, 256),
        // More query dimensions than hidden ones.
        spec("embedding-0.6b", 128, 384, 2, 1, 128),
        spec("embedding-270m", 384, 512, 2, 1, 256),
        // The windows of Gemma 3, in five layers of six.
        ModelSpec {
            name: "gemma3-local".to_owned(),
            layers: 7,
            rope_theta: 1e6,
            window: Some(WindowSpec { positions: 9, period: 6, rope_theta: 10_000.0 }),
            ..spec("embedding-270m", 256, 256, 2, 1, 128)
        },
        // Every 256 weights have a scale of their own.
        ModelSpec { name: GROUPS.to_owned(), ..spec("bitnet-2b-4t", 512, 768, 4, 2, 128) },
    ]
}

/// The model whose weights are stored in blocks with scales that differ.
const GROUPS: &str = "groups";

/// Chosen so that a runtime that rounds in f32 rounds the first values of each, of 24 positions at least 11,
/// to the same integer or f16 as one in f64; of most all.
const SEEDS: [(&str, u64); 10] = [
    ("bitnet-2b-4t", 3),
    ("bitnet-25", 3),
    ("bitnet-large", 31),
    ("bitnet-3b", 29),
    ("llama3-8b", 2),
    ("falcon3-7b", 40),
    ("embedding-0.6b", 6),
    ("embedding-270m", 3),
    ("gemma3-local", 5),
    (GROUPS, 3),
];

fn file(spec: &ModelSpec, codec: Codec) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let seed = SEEDS.iter().find(|(name, _)| *name == spec.name).map_or(1, |(_, seed)| *seed);
    let is_grouped = spec.name == GROUPS;
    let codec = if is_grouped && codec == CANONICAL { Codec::Tq2_0 } else { codec };
    let options = DummyOptions { seed, codec, ..DummyOptions::default() };
    write_dummy(spec, options, &path, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let bytes = std::fs::read(path).unwrap();
    if is_grouped { with_scales_of_blocks(bytes, codec) } else { bytes }
}

/// The same file with block scales that differ, from once to twice what they were.
fn with_scales_of_blocks(mut bytes: Vec<u8>, codec: Codec) -> Vec<u8> {
    let (block, scale) = match codec {
        Codec::Tq1_0 => (54, 52),
        Codec::Tq2_0 => (66, 64),
        Codec::Q2_0 { group } => (group / 4 + 2, 0),
        other => panic!("{other:?} has no blocks with a scale"),
    };
    let gguf = Gguf::from_bytes(Arc::new(bytes.clone())).unwrap();
    let ternary = gguf.tensors().iter().filter(|tensor| tensor.kind() == codec.kind());
    for (index, tensor) in ternary.enumerate() {
        let range = gguf.tensor(tensor.name()).unwrap().range();
        // Q2_0 tensors may have padding behind them.
        for (at, block) in bytes[range].chunks_exact_mut(block).enumerate() {
            let old = half::f16::from_le_bytes([block[scale], block[scale + 1]]).to_f32();
            let new = half::f16::from_f32(old * (1.0 + ((at * 7 + index) % 31) as f32 / 31.0));
            block[scale..scale + 2].copy_from_slice(&new.to_le_bytes());
        }
    }
    bytes
}

fn open(bytes: &[u8], options: &ModelOptions<'_>) -> Model {
    Model::open_with(&Gguf::from_bytes(Arc::new(bytes.to_vec())).unwrap(), options).unwrap()
}

const CANONICAL: Codec = Codec::I2s(I2sLayout::X86);

/// The tokens of the vectors.
fn tokens() -> Vec<u32> {
    (0..24).map(|i| (i * i * 7 + i * 31 + 5) % 317).collect()
}

fn trace(model: &Model) -> Trace {
    let mut trace = Trace::new();
    model.session().unwrap().append_traced(&tokens(), Some(&mut trace)).unwrap();
    trace
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/reference/vectors/families.bin")
}

/// Writes what `tools/reference/families.py` needs to make the vectors, when asked to.
#[test]
fn models_and_traces_are_written_when_a_directory_is_given() {
    let Some(directory) = std::env::var_os("TRILUT_FAMILIES").map(PathBuf::from) else { return };
    for spec in specs() {
        let place = directory.join(&spec.name);
        let bytes = file(&spec, CANONICAL);
        trace(&open(&bytes, &as_the_reference())).write(&place).unwrap();
        std::fs::write(place.join("model.gguf"), bytes).unwrap();
    }
}

/// The reference rounds keys and values to f16.
fn as_the_reference() -> ModelOptions<'static> {
    ModelOptions { cache: CacheType::F16, ..ModelOptions::default() }
}

/// The vectors of one family: logits of every position.
struct Vectors {
    name: String,
    /// Positions before the first value that is rounded the other way.
    clean: usize,
    free: Vec<f32>,
    forced: Vec<f32>,
}

fn read_vectors() -> Vec<Vectors> {
    let bytes = std::fs::read(vectors()).unwrap();
    let mut at = 8;
    assert_eq!(&bytes[..8], b"TRLF\x01\0\0\0");
    let mut all = Vec::new();
    while at < bytes.len() {
        let mut take = |n: usize| {
            at += n;
            &bytes[at - n..at]
        };
        let mut word = || u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        let [length, clean, values] = [word(), word(), word()];
        let name = String::from_utf8(take(length).to_vec()).unwrap();
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let free = floats(take(4 * values));
        let forced = floats(take(4 * values));
        all.push(Vectors { name, clean, free, forced });
    }
    all
}

/// The largest difference of each row, relative to its largest magnitude.
fn errors(ours: &[f32], reference: &[f32], vocab: usize) -> Vec<f32> {
    let rows = ours.chunks_exact(vocab).zip(reference.chunks_exact(vocab));
    let largest = |x: &mut dyn Iterator<Item = f32>| x.fold(0f32, |a, x| a.max(x.abs()));
    rows.map(|(a, b)| {
        largest(&mut a.iter().zip(b).map(|(a, b)| a - b)) / largest(&mut b.iter().copied())
    })
    .collect()
}

#[test]
fn every_family_agrees_with_the_reference() {
    let vectors = read_vectors();
    assert_eq!(vectors.len(), specs().len());
    for (spec, vectors) in specs().iter().zip(vectors) {
        assert_eq!(spec.name, vectors.name);
        let model = open(&file(spec, CANONICAL), &as_the_reference());
        let ours = trace(&model).get_f32s("logits").unwrap();
        assert_eq!(ours.len(), tokens().len() * spec.vocab);
        assert_eq!((ours.len(), ours.len()), (vectors.free.len(), vectors.forced.len()));
        let forced = errors(&ours, &vectors.forced, spec.vocab);
        let free = errors(&ours, &vectors.free, spec.vocab);
        assert!(forced.iter().all(|e| *e <= 1e-5), "{}: {forced:?}", spec.name);
        assert!(free[..vectors.clean].iter().all(|e| *e <= 1e-4), "{}: {free:?}", spec.name);
        assert!(free.iter().all(|e| *e <= 0.1), "{}: {free:?}", spec.name);
    }
}

fn bits(model: &Model, block: usize) -> Vec<u32> {
    let mut state = model.state(1).unwrap();
    let rows: Vec<Row> = (0..)
        .zip(tokens())
        .map(|(position, token)| Row { sequence: 0, position, token, logits: true })
        .collect();
    let mut out = Vec::new();
    for rows in rows.chunks(block) {
        out.extend(model.forward(&mut state, rows).unwrap().iter().map(|x| x.to_bits()));
    }
    out
}

#[test]
fn every_family_is_the_same_step_by_step_and_on_every_engine() {
    for spec in specs() {
        let bytes = file(&spec, CANONICAL);
        let options = |threads, format, cap| ModelOptions {
            threads: Some(threads),
            format,
            cpu: Some(Cpu::capped(Some(cap))),
            ..ModelOptions::default()
        };
        let best = *Isa::ALL.last().unwrap();
        let model = open(&bytes, &options(2, None, best));
        let steps = bits(&model, 1);
        for block in [2, 5, 9, 24] {
            assert!(bits(&model, block) == steps, "{} in blocks of {block}", spec.name);
        }
        for format in Format::ALL {
            let model = open(&bytes, &options(3, Some(*format), best));
            assert!(bits(&model, 1) == steps, "{} in {format}", spec.name);
        }
        for cap in [Isa::Scalar, Isa::Avx2] {
            let model = open(&bytes, &options(1, None, cap));
            assert!(bits(&model, 24) == steps, "{} on {cap:?}", spec.name);
        }
    }
}

#[test]
fn every_codec_is_the_same_in_every_format() {
    // Of 256 inputs, which every codec can store.
    let spec = ModelSpec { ffn: 512, ..specs().remove(0) };
    let codecs = [
        CANONICAL,
        Codec::Tq1_0,
        Codec::Tq2_0,
        Codec::Q2_0 { group: 64 },
        Codec::Iq1Bn,
        Codec::Iq2Bn,
        Codec::Iq2BnR4,
    ];
    for codec in codecs {
        let bytes = file(&spec, codec);
        let options = |format| ModelOptions { format, ..ModelOptions::default() };
        let expected = bits(&open(&bytes, &options(None)), 1);
        assert!(expected.iter().any(|bits| *bits != expected[0]));
        for format in Format::ALL {
            let model = open(&bytes, &options(Some(*format)));
            assert!(bits(&model, 24) == expected, "{codec:?} in {format}");
        }
    }
}

#[test]
fn groups_with_scales_are_the_same_on_every_engine_in_every_codec() {
    let spec = specs().pop().unwrap();
    assert_eq!(spec.name, GROUPS);
    let mut seen = Vec::new();
    for codec in [Codec::Tq1_0, Codec::Tq2_0, Codec::Q2_0 { group: 64 }, Codec::Q2_0 { group: 128 }]
    {
        let bytes = file(&spec, codec);
        let options = |format, threads, cap| ModelOptions {
            format,
            threads: Some(threads),
            cpu: Some(Cpu::capped(Some(cap))),
            ..ModelOptions::default()
        };
        let best = *Isa::ALL.last().unwrap();
        let steps = bits(&open(&bytes, &options(None, 2, best)), 1);
        for format in Format::ALL {
            let model = open(&bytes, &options(Some(*format), 3, best));
            assert!(
                model.kernels().all(|(_, choice)| choice.reason.contains("inputs with a scale"))
            );
            for block in [5, 24] {
                assert!(bits(&model, block) == steps, "{codec:?} in {format}, blocks of {block}");
            }
        }
        for cap in [Isa::Scalar, Isa::Avx2] {
            assert!(bits(&open(&bytes, &options(None, 1, cap)), 24) == steps, "{codec:?} {cap:?}");
        }
        seen.push(steps);
    }
    // Equal weights and equal scales, stored otherwise.
    assert!(seen[0] == seen[1] && seen[1] != seen[2] && seen[2] != seen[3]);
}

/// Sets keys of a file.
type SetKeys<'a> = dyn Fn(&mut GgufWriter) -> &mut GgufWriter + 'a;

/// A file with more keys, and more tensors of one number.
fn with(bytes: &[u8], set: &SetKeys<'_>, numbers: &[(&str, f32)]) -> Gguf {
    let gguf = Gguf::from_bytes(Arc::new(bytes.to_vec())).unwrap();
    let mut writer = GgufWriter::new();
    for (key, _) in gguf.metadata() {
        writer.copy(&gguf, key);
    }
    set(&mut writer);
    for tensor in gguf.tensors() {
        let bytes = gguf.data(tensor).len() as u64;
        writer.sized_tensor(tensor.name(), tensor.dims(), tensor.kind(), bytes);
    }
    for (name, _) in numbers {
        writer.tensor(name, &[1], TensorKind::F32);
    }
    let mut out = writer.begin(Vec::new()).unwrap();
    for tensor in gguf.tensors() {
        out.write(tensor.name(), gguf.data(tensor)).unwrap();
    }
    for (name, number) in numbers {
        out.write(name, &number.to_le_bytes()).unwrap();
    }
    Gguf::from_bytes(Arc::new(out.finish().unwrap())).unwrap()
}

#[test]
fn keys_of_other_graphs_are_refused_by_name() {
    let specs = specs();
    let spec = specs.iter().find(|spec| spec.name == "llama3-8b").unwrap();
    let bytes = file(spec, CANONICAL);
    let open = |gguf| Model::open_with(&gguf, &ModelOptions::default());
    macro_rules! error {
        ($set:expr) => {
            open(with(&bytes, &$set, &[])).map(|_| ()).map_err(|error| error.to_string())
        };
    }
    for (key, harmless, other) in [
        ("attn_logit_softcapping", 0.0, 50.0),
        ("final_logit_softcapping", 0.0, 30.0),
        ("attention.scale", 0.0, 0.5),
        ("logit_scale", 0.0, 0.0625),
        ("residual_scale", 0.0, 0.22),
        ("embedding_scale", 0.0, 12.0),
        ("rope.scaling.factor", 1.0, 8.0),
        ("rope.scaling.attn_factor", 1.0, 1.2),
    ] {
        let name = format!("llama.{key}");
        error!(|w| w.f32(&name, harmless)).unwrap();
        let refused = error!(|w| w.f32(&name, other)).unwrap_err();
        assert!(refused.contains(key) && refused.contains("not computed"), "{refused}");
        // Of a type that nobody writes.
        assert!(error!(|w| w.str(&name, "high")).unwrap_err().contains(key));
    }
    let refused = error!(|w| w.u32("llama.expert_count", 8)).unwrap_err();
    assert!(refused.contains("expert_count"), "{refused}");
    let refused = error!(|w| w.bool("llama.attention.causal", false)).unwrap_err();
    assert!(refused.contains("attention.causal"), "{refused}");
    error!(|w| w.bool("llama.attention.causal", true)).unwrap();
    error!(|w| w.str("llama.rope.scaling.type", "none")).unwrap();
    let refused = error!(|w| w.str("llama.rope.scaling.type", "yarn")).unwrap_err();
    assert!(refused.contains("yarn"), "{refused}");
    // Windows: in which layers must be known.
    let window = "llama.attention.sliding_window";
    error!(|w| w.u32(window, spec.context as u32)).unwrap();
    error!(|w| w.u32(window, 0)).unwrap();
    let refused = error!(|w| w.u32(window, 8)).unwrap_err();
    assert!(refused.contains("sliding_window") && refused.contains("which layers"), "{refused}");
    let pattern = "llama.attention.sliding_window_pattern";
    error!(|w| w.u32(window, 8).bools(pattern, &[true, false])).unwrap();
    let refused = error!(|w| w.u32(window, 8).bools(pattern, &[true])).unwrap_err();
    assert!(refused.contains("sliding_window_pattern"), "{refused}");
}

#[test]
fn a_scale_beside_the_weights_must_be_that_behind_them() {
    let spec = specs().remove(0);
    let bytes = file(&spec, CANONICAL);
    let gguf = Gguf::from_bytes(Arc::new(bytes.clone())).unwrap();
    let shape = Shape { m: spec.ffn, k: spec.hidden };
    let scale =
        gguf.ternary("blk.1.ffn_up.weight", shape, &Default::default()).unwrap().scales.at(0, 1);
    for (beside, fits) in [(scale, true), (1.0 / scale, false), (scale * 1.02, false)] {
        let gguf = with(&bytes, &|w| w, &[("blk.1.ffn_up.weight_scale", beside)]);
        let opened = Model::open_with(&gguf, &ModelOptions::default());
        assert_eq!(opened.is_ok(), fits, "{beside}");
        let says = |error: trilut_runtime::Error| {
            assert!(error.to_string().contains("blk.1.ffn_up.weight_scale"), "{error}");
            assert!(error.hint().is_some());
        };
        opened.map(|_| ()).unwrap_or_else(says);
    }
}

#[test]
fn families_are_told_by_architecture() {
    for spec in specs() {
        let model = open(&file(&spec, CANONICAL), &ModelOptions::default());
        assert_eq!(model.config().family, Family::of(&spec.architecture).unwrap());
        assert_eq!(model.config().family.activation, spec.activation);
    }
    assert_eq!(Family::architectures().count(), 6);
    assert!(Family::of("gpt2").is_err());
}
