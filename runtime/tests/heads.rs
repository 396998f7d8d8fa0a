//! Embeddings and heads in every type: the same logits wherever they are kept and whatever computes
//! them, and clear errors for what is broken.

use std::ops::ControlFlow;
use std::sync::Arc;
use trilut_kernels::float::blocks::BlockFormat;
use trilut_kernels::{Cpu, Isa};
use trilut_presets::models::{self, ModelSpec};
use trilut_runtime::dummy::{DummyError, DummyOptions, Head, write_dummy};
use trilut_runtime::gguf::{Gguf, GgufError, TensorKind};
use trilut_runtime::{Error, Load, Model, ModelOptions, Row};

/// Two layers of 256 values, the least that Q6_K holds.
fn spec() -> ModelSpec {
    ModelSpec {
        name: "tiny".to_owned(),
        layers: 2,
        hidden: 256,
        ffn: 384,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 700,
        ..models::find("dummy-125m").unwrap().clone()
    }
}

const HEADS: [Head; 9] = [
    Head::F16,
    Head::F32,
    Head::BF16,
    Head::Q8_0,
    Head::Q6K,
    Head::Q5_0,
    Head::Q4_0,
    Head::Q4_1,
    Head::Q4K,
];

fn file(spec: &ModelSpec, head: Head) -> Result<Vec<u8>, DummyError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let options = DummyOptions { seed: 3, head, ..DummyOptions::default() };
    write_dummy(spec, options, &path, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(std::fs::read(path).unwrap())
}

fn gguf(bytes: &[u8]) -> Gguf {
    Gguf::from_bytes(Arc::new(bytes.to_vec())).unwrap()
}

fn logits(gguf: &Gguf, options: &ModelOptions<'_>) -> Result<Vec<u32>, Error> {
    let model = Model::open_with(gguf, options)?;
    let row = |position| Row { sequence: 0, position, token: 9 * position as u32, logits: true };
    let mut state = model.state(1)?;
    let logits = model.forward(&mut state, &[row(0), row(1), row(2)])?;
    Ok(logits.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn places_threads_and_isas_do_not_change_logits() {
    for head in HEADS {
        let gguf = gguf(&file(&spec(), head).unwrap());
        let options = |load, threads, cap| ModelOptions {
            load,
            threads: Some(threads),
            cpu: Some(Cpu::capped(Some(cap))),
            ..ModelOptions::default()
        };
        let expected = logits(&gguf, &options(Load::Map, 1, Isa::Scalar)).unwrap();
        assert!(expected.iter().any(|&bits| bits != 0));
        for load in [Load::Map, Load::Copy] {
            for cap in [Isa::Scalar, Isa::Avx2, Isa::Avx512] {
                for threads in [1, 3] {
                    let options = options(load, threads, cap);
                    assert_eq!(logits(&gguf, &options).unwrap(), expected, "{head:?} {options:?}");
                }
            }
        }
    }
}

#[test]
fn blocks_compute_what_their_weights_as_floats_do() {
    let floats = file(&spec(), Head::F32).unwrap();
    let place = gguf(&floats).tensor("token_embd.weight").unwrap().range();
    // The vector that rows of Q6_K are multiplied with is rounded to sixteen bits: that is some 1e-4 of a
    // usual logit; of thousands none is four times as far off, or as large.
    for (head, format, tolerance) in
        [(Head::Q8_0, BlockFormat::Q8_0, 0.0), (Head::Q6K, BlockFormat::Q6K, 2e-4)]
    {
        let blocks = gguf(&file(&spec(), head).unwrap());
        let mut weights = vec![0.0; 700 * 256];
        let data = blocks.tensor("token_embd.weight").unwrap().data();
        format.widen(Cpu::detect().best(), data, &mut weights);
        // The files differ in nothing else.
        let mut floats = floats.clone();
        for (to, weight) in floats[place.clone()].chunks_exact_mut(4).zip(weights) {
            to.copy_from_slice(&weight.to_le_bytes());
        }
        let options = ModelOptions::default();
        let values = |gguf: &Gguf| -> Vec<f32> {
            logits(gguf, &options).unwrap().into_iter().map(f32::from_bits).collect()
        };
        let (wanted, found) = (values(&gguf(&floats)), values(&blocks));
        let largest = wanted.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        for (wanted, found) in wanted.iter().zip(&found) {
            assert!((wanted - found).abs() <= tolerance * largest, "{head:?}: {wanted} {found}");
        }
    }
}

#[test]
fn a_factor_that_is_not_finite_is_refused_with_its_weight() {
    for (head, block, at) in [(Head::Q8_0, 34, 0), (Head::Q6K, 210, 208)] {
        for bad in [0x7C00u16, 0xFC00, 0x7E01] {
            let mut bytes = file(&spec(), head).unwrap();
            let tensor = gguf(&bytes).tensor("token_embd.weight").unwrap().range();
            let factor = tensor.start + 5 * block + at;
            bytes[factor..factor + 2].copy_from_slice(&bad.to_le_bytes());
            let error = logits(&gguf(&bytes), &ModelOptions::default()).unwrap_err();
            let index = if block == 34 { 5 * 32 } else { 5 * 256 };
            let text = error.to_string();
            assert!(text.contains(&format!("weight {index} of the tensor `token_embd")), "{text}");
            assert!(error.hint().is_some());
        }
    }
}

#[test]
fn rows_that_are_not_whole_blocks_are_refused() {
    let narrow = ModelSpec { hidden: 128, heads: 2, kv_heads: 1, ..spec() };
    let text = file(&narrow, Head::Q6K).unwrap_err().to_string();
    assert!(text.contains("128 inputs, not a multiple of 256: Q6_K"), "{text}");

    // Of the file with Q8_0, which fits, the number of the type is changed.
    let mut bytes = file(&narrow, Head::Q8_0).unwrap();
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(bytes[at..at + 4], TensorKind::Q8_0.id().to_le_bytes());
    bytes[at..at + 4].copy_from_slice(&TensorKind::Q6K.id().to_le_bytes());
    let error = logits(&gguf(&bytes), &ModelOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Gguf(GgufError::Rows { k: 128, block: 256, .. })), "{error}");
}

#[test]
fn other_types_are_refused_by_name() {
    let mut bytes = file(&spec(), Head::F16).unwrap();
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
    for (id, wants) in [(TensorKind::I2S.id(), "I2_S"), (10, "Q2_K")] {
        bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
        let error = logits(&gguf(&bytes), &ModelOptions::default()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(wants), "{source}");
    }
}
