//! Dummy models: whole files, the same bytes for the same seed, and clear refusals.

use std::ops::ControlFlow;
use std::path::Path;
use trilut_presets::models::{self, ModelSpec};
use trilut_runtime::dummy::{DummyError, DummyOptions, Head, write_dummy};
use trilut_runtime::gguf::{Gguf, TensorKind, TernaryLayouts};
use trilut_runtime::ternary::Codec;
use trilut_runtime::tokenizer::Tokenizer;

/// Two layers, with query heads wider than the residual stream.
fn tiny() -> ModelSpec {
    ModelSpec {
        name: "tiny".to_owned(),
        layers: 2,
        hidden: 128,
        ffn: 384,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 1500,
        ..models::find("dummy-125m").unwrap().clone()
    }
}

fn write(spec: &ModelSpec, options: DummyOptions, path: &Path) -> Result<(), DummyError> {
    write_dummy(spec, options, path, &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn breaking_off_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let stop = &mut |_, _| ControlFlow::Break(());
    let error = write_dummy(&tiny(), DummyOptions::default(), &path, stop).unwrap_err();
    assert!(matches!(error, DummyError::Cancelled));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_dummy_is_a_whole_model_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let spec = tiny();
    let mut calls = Vec::new();
    write_dummy(&spec, DummyOptions::default(), &path, &mut |done, total| {
        calls.push((done, total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(calls.is_sorted() && calls.iter().all(|&(done, total)| done <= total));
    assert_eq!(calls.last().map(|&(done, total)| done == total), Some(true));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.architecture().unwrap(), "bitnet-b1.58");
    assert_eq!(gguf.u32("general.file_type").unwrap(), 40);
    for (key, value) in [
        ("block_count", 2),
        ("embedding_length", 128),
        ("feed_forward_length", 384),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 64),
        ("rope.dimension_count", 64),
        ("vocab_size", 1500),
    ] {
        assert_eq!(gguf.arch_u32(key).unwrap(), value, "{key}");
    }
    assert_eq!(gguf.tensors().len(), 2 + 2 * 11);
    let embedding = gguf.tensor("token_embd.weight").unwrap();
    assert_eq!(embedding.kind(), TensorKind::F16);
    embedding.expect_dims(&[128, 1500]).unwrap();
    assert!(embedding.to_f32().unwrap().iter().all(|v| v.abs() < 1.0));
    let norm = gguf.tensor("output_norm.weight").unwrap().to_f32().unwrap();
    assert!(norm.len() == 128 && norm.iter().all(|w| (0.75..=1.25).contains(w)));
    let names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let sides =
        [(256, 128), (128, 128), (128, 128), (128, 256), (384, 128), (384, 128), (128, 384)];
    for (name, (m, k)) in names.iter().zip(sides) {
        let shape = trilut_presets::Shape::new(m, k).unwrap();
        let name = format!("blk.1.{name}.weight");
        let tensor = gguf.ternary(&name, shape, &TernaryLayouts::default()).unwrap();
        assert!((tensor.scales.at(0, k) - (1.5 / k as f32).sqrt()).abs() < 1e-6);
        assert!(
            tensor.reader.codes().iter().all(|b| b & (b >> 1) & 0x55 == 0),
            "{name} has code 3"
        );
    }
    assert_ne!(
        gguf.tensor("blk.0.ffn_up.weight").unwrap().data(),
        gguf.tensor("blk.1.ffn_up.weight").unwrap().data()
    );
}

#[test]
fn the_vocabulary_encodes_any_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    write(&tiny(), DummyOptions::default(), &path).unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path).unwrap()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 1500);
    assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (Some(1497), true));
    assert!(tokenizer.is_stop(1498) && tokenizer.is_stop(1499) && !tokenizer.is_stop(1497));
    let text = "the rest of the letters, and 😀 日本語 12345!\n\n\tOK";
    let ids = tokenizer.encode(text, false);
    assert_eq!(tokenizer.decode(&ids, false), text);
    assert!(tokenizer.encode("the tea is in there", false).len() < 12);
}

#[test]
fn seeds_decide_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |seed, head| {
        let path = dir.path().join("m.gguf");
        write(&tiny(), DummyOptions { seed, head, ..DummyOptions::default() }, &path).unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(bytes(1, Head::F16), bytes(1, Head::F16));
    assert_ne!(bytes(1, Head::F16), bytes(2, Head::F16));
    assert_eq!(bytes(1, Head::F32).len() - bytes(1, Head::F16).len(), 128 * 1500 * 2);
}

#[test]
fn an_untied_model_has_a_head_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write(&ModelSpec { tied: false, ..tiny() }, DummyOptions::default(), &path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    gguf.tensor("output.weight").unwrap().expect_dims(&[128, 1500]).unwrap();
}

#[test]
fn what_cannot_be_made_is_refused_without_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let error = |spec: ModelSpec| write(&spec, DummyOptions::default(), &path).unwrap_err();
    let text = |spec| error(spec).to_string();
    let foreign = error(ModelSpec { architecture: "gpt2".to_owned(), ..tiny() });
    assert!(foreign.to_string().contains("`tiny`") && foreign.hint().is_some());
    let source = |error: &DummyError| std::error::Error::source(error).unwrap().to_string();
    assert!(source(&foreign).contains("gpt2"));
    let narrow = error(ModelSpec { hidden: 120, kv_heads: 1, ffn: 130, ..tiny() });
    assert!(narrow.to_string().contains("blk.0.ffn_gate.weight"), "{narrow}");
    assert!(source(&narrow).contains("130x120: the weights must be whole blocks"));
    assert!(text(ModelSpec { vocab: 100, ..tiny() }).contains("100 tokens"));
    assert!(text(ModelSpec { sub_norms: false, ..tiny() }).contains("sub-norms"));
    let silu = models::Activation::Silu;
    assert!(text(ModelSpec { activation: silu, ..tiny() }).contains("activation"));
    let tile = trilut_runtime::ternary::Tile { outputs: 64, inputs: 64, step: 32 };
    let options = DummyOptions { codec: Codec::Tl1(tile), ..DummyOptions::default() };
    assert!(matches!(write(&tiny(), options, &path), Err(DummyError::Tiled("TL1"))));
    let options = DummyOptions { codec: Codec::Tq2_0, ..DummyOptions::default() };
    assert!(matches!(write(&tiny(), options, &path), Err(DummyError::Codec { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let nowhere = dir.path().join("none/m.gguf");
    assert!(matches!(write(&tiny(), DummyOptions::default(), &nowhere), Err(DummyError::Write(_))));
}

#[test]
fn the_sizes_of_real_models_can_be_written() {
    // One layer each, and not of the largest, to keep the test quick.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for spec in models::all().iter().filter(|s| s.architecture == "bitnet-b1.58") {
        let spec = ModelSpec { layers: 1, vocab: 300, ..spec.clone() };
        if spec.ternary_weights() < 100_000_000 {
            write(&spec, DummyOptions::default(), &path).unwrap();
            Gguf::open(&path).unwrap();
        }
    }
}
