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
use trilut_presets::models::{self, ModelSpec, WindowSpec};
use trilut_runtime::dummy::{DummyOptions, write_dummy};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::ternary::{Codec, I2sLayout};
use trilut_runtime::{Family, Model, ModelOptions, Row, Trace};

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
    ]
}

/// Chosen so that a runtime that rounds in f32 rounds the first values of each, of 24 positions at least 11,
/// to the same integer or f16 as one in f64; of most all.
const SEEDS: [(&str, u64); 9] = [
    ("bitnet-2b-4t", 3),
    ("bitnet-25", 3),
    ("bitnet-large", 31),
    ("bitnet-3b", 29),
    ("llama3-8b", 2),
    ("falcon3-7b", 40),
    ("embedding-0.6b", 6),
    ("embedding-270m", 3),
    ("gemma3-local", 5),
];

fn file(spec: &ModelSpec, codec: Codec) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let seed = SEEDS.iter().find(|(name, _)| *name == spec.name).map_or(1, |(_, seed)| *seed);
    let options = DummyOptions { seed, codec, ..DummyOptions::default() };
    write_dummy(spec, options, &path, &mut |_, _| ControlFlow::Continue(())).unwrap();
    std::fs::read(path).unwrap()
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
        trace(&open(&bytes, &ModelOptions::default())).write(&place).unwrap();
        std::fs::write(place.join("model.gguf"), bytes).unwrap();
    }
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
        let model = open(&file(spec, CANONICAL), &ModelOptions::default());
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
fn families_are_told_by_architecture() {
    for spec in specs() {
        let model = open(&file(&spec, CANONICAL), &ModelOptions::default());
        assert_eq!(model.config().family, Family::of(&spec.architecture).unwrap());
        assert_eq!(model.config().family.activation, spec.activation);
    }
    assert_eq!(Family::architectures().count(), 6);
    assert!(Family::of("gpt2").is_err());
}
