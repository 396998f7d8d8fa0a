//! Broken and unusual model files: each is refused by name, or computes the same.

use std::error::Error as _;
use std::sync::Arc;
use trilut_kernels::Format;
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{CacheType, Error, Model, ModelOptions, Row, embedded};

/// The embedded model's file with the bytes of one tensor changed.
fn changed(tensor: &str, change: impl Fn(&mut [u8])) -> Gguf {
    let mut bytes = embedded::model().to_vec();
    let range = Gguf::from_static(embedded::model()).unwrap().tensor(tensor).unwrap().range();
    change(&mut bytes[range]);
    Gguf::from_bytes(Arc::new(bytes)).unwrap()
}

fn open(gguf: &Gguf) -> Result<Model, Error> {
    Model::open_with(gguf, &ModelOptions { threads: Some(1), ..ModelOptions::default() })
}

fn logits(model: &Model) -> Result<Vec<u32>, Error> {
    let row = |position| Row { sequence: 0, position, token: 5 + position as u32, logits: true };
    let mut state = model.state(1)?;
    let logits = model.forward(&mut state, &[row(0), row(1)])?;
    Ok(logits.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn code_3_is_refused_with_the_tensor_and_the_weight() {
    // Byte 33, second plane: block 1, weight 32 + 1.
    let gguf = changed("blk.1.ffn_up.weight", |bytes| bytes[33] |= 0b0011_0000);
    for format in Format::ALL {
        let options = ModelOptions { format: Some(*format), ..ModelOptions::default() };
        let error = Model::open_with(&gguf, &options).unwrap_err();
        assert!(error.to_string().contains("blk.1.ffn_up.weight"), "{error}");
        assert!(error.source().unwrap().to_string().contains("weight 161 has code 3"));
        assert!(error.hint().is_some());
    }
}

#[test]
fn numbers_that_are_not_finite_are_errors() {
    let nan = f32::NAN.to_le_bytes();
    let gguf = changed("blk.0.ffn_norm.weight", |bytes| bytes[8..12].copy_from_slice(&nan));
    let error = open(&gguf).unwrap_err();
    assert!(error.to_string().contains("weight 2 of the tensor `blk.0.ffn_norm.weight`"));

    let vocab = open(&Gguf::from_static(embedded::model()).unwrap()).unwrap().config().vocab;
    // Every f16 of the embedding of token 5 is infinite.
    let model = open(&changed("token_embd.weight", |bytes| {
        // Bytes of one row.
        let hidden = bytes.len() / vocab;
        for half in bytes[5 * hidden..6 * hidden].chunks_exact_mut(2) {
            half.copy_from_slice(&0x7C00u16.to_le_bytes());
        }
    }));
    assert!(matches!(logits(&model.unwrap()), Err(Error::NotFinite { .. })));
}

#[test]
fn a_file_at_an_odd_address_computes_the_same() {
    struct Odd(Vec<u8>);
    impl AsRef<[u8]> for Odd {
        fn as_ref(&self) -> &[u8] {
            let start = usize::from(self.0.as_ptr().addr().is_multiple_of(2));
            &self.0[start..][..embedded::model().len()]
        }
    }
    let mut bytes = vec![0; embedded::model().len() + 1];
    let start = usize::from(bytes.as_ptr().addr().is_multiple_of(2));
    bytes[start..][..embedded::model().len()].copy_from_slice(embedded::model());
    let odd = open(&Gguf::from_bytes(Arc::new(Odd(bytes))).unwrap()).unwrap();
    let even = open(&Gguf::from_static(embedded::model()).unwrap()).unwrap();
    assert_eq!(logits(&odd).unwrap(), logits(&even).unwrap());
}

/// The embedded model's file with the `u32` of one key changed.
fn with_size(key: &str, value: u32) -> Gguf {
    let mut bytes = embedded::model().to_vec();
    let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).unwrap() + key.len();
    // The value stands behind its type, of which 4 is u32.
    assert_eq!(bytes[at..at + 4], 4u32.to_le_bytes());
    bytes[at + 4..at + 8].copy_from_slice(&value.to_le_bytes());
    Gguf::from_bytes(Arc::new(bytes)).unwrap()
}

#[test]
fn a_boundless_context_is_an_error_and_a_long_one_costs_nothing_unused() {
    let error = open(&with_size("bitnet-b1.58.context_length", 4_000_000_000)).unwrap_err();
    assert!(error.to_string().contains("`context_length` is 4000000000"), "{error}");

    let expected = open(&Gguf::from_static(embedded::model()).unwrap()).unwrap();
    let long = with_size("bitnet-b1.58.context_length", (1 << 24) - 1);
    let options = ModelOptions { threads: Some(1), context: Some(1 << 16), ..Default::default() };
    let model = Model::open_with(&long, &options).unwrap();
    assert_eq!(logits(&model).unwrap(), logits(&expected).unwrap());
    let error = model.state(1 << 24).unwrap_err();
    assert!(matches!(error, Error::CacheSize { .. }) && error.hint().is_some(), "{error}");
}

#[test]
fn keys_beyond_the_range_of_f16_are_errors() {
    // The scale of the key layer stands behind its codes.
    let gguf = changed("blk.0.attn_k.weight", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&1e6f32.to_le_bytes());
    });
    let with = |cache| {
        let options = ModelOptions { cache, threads: Some(1), ..ModelOptions::default() };
        logits(&Model::open_with(&gguf, &options).unwrap())
    };
    assert!(matches!(with(CacheType::F16), Err(Error::NotFinite { .. })));
    // Integers have a scale.
    assert!(with(CacheType::Q16).is_ok());
}

#[test]
fn options_out_of_range_are_refused() {
    let gguf = Gguf::from_static(embedded::model()).unwrap();
    let refused = |options: ModelOptions<'_>| Model::open_with(&gguf, &options).unwrap_err();
    for threads in [0, 1 << 20] {
        let options = ModelOptions { threads: Some(threads), ..ModelOptions::default() };
        assert!(matches!(refused(options), Error::Threads { .. }));
    }
    for context in [0, 1 << 30] {
        let options = ModelOptions { context: Some(context), ..ModelOptions::default() };
        assert!(matches!(refused(options), Error::Context { .. }));
    }
}
