//! Conversions, of checkpoints and between codecs, against a plain reading of the formats.

mod checkpoint;

use checkpoint::{Checkpoint, bf16, spec};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_runtime::convert::{
    CheckpointOptions, CheckpointWeights, ConvertError, Options, Report, ScaleMeaning, Step,
    convert, convert_gguf, write_checkpoint,
};
use trilut_runtime::embedding::{Embedder, Pooling};
use trilut_runtime::gguf::{Gguf, TensorKind};
use trilut_runtime::ternary::{Codec, I2sLayout};
use trilut_runtime::{GenerateOptions, Model, embedded};

fn go(source: &Path, target: &Path, options: &Options) -> Result<Report, ConvertError> {
    convert(source, target, options, &mut |_, _, _| ControlFlow::Continue(()))
}

fn verified() -> Options {
    Options { verify: true, ..Options::default() }
}

/// The codes of an I2_S tensor by the definition of the format, and its scale.
fn i2_s(gguf: &Gguf, name: &str) -> (Vec<u8>, f32) {
    let tensor = gguf.tensor(name).unwrap();
    let n: u64 = tensor.dims().iter().product();
    let n = n as usize;
    let codes = (0..n).map(|i| {
        let byte = tensor.data()[i / 128 * 32 + i % 32];
        byte >> (6 - 2 * (i % 128 / 32)) & 3
    });
    let scale = tensor.data()[n / 4..n / 4 + 4].try_into().unwrap();
    (codes.collect(), f32::from_le_bytes(scale))
}

#[test]
fn a_packed_checkpoint_becomes_the_model_it_describes() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.gguf");
    for shards in [1, 3] {
        let source = dir.path().join(format!("of-{shards}"));
        let options = CheckpointOptions { shards, ..Default::default() };
        let spec = spec("bitnet-b1.58", true);
        write_checkpoint(&spec, options, &source, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let report = go(&source, &target, &verified()).unwrap();
        assert_eq!((report.architecture.as_str(), report.tensors.len()), ("bitnet-b1.58", 14));
        let checkpoint = Checkpoint::read(&source);
        let gguf = Gguf::open(&target).unwrap();
        for (name, hf) in [("ffn_down", "mlp.down_proj"), ("attn_k", "self_attn.k_proj")] {
            let (codes, scale) = i2_s(&gguf, &format!("blk.1.{name}.weight"));
            let hf = format!("model.layers.1.{hf}.weight");
            assert_eq!(codes, checkpoint.unpacked(&hf), "{name}");
            assert_eq!(scale, checkpoint.bf16s(&format!("{hf}_scale"))[0]);
        }
        let embedding = gguf.tensor("token_embd.weight").unwrap().to_f32().unwrap();
        let wanted = checkpoint.bf16s("model.embed_tokens.weight");
        assert!(embedding.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs() + 1e-7));
        // The chat template and the special tokens came along.
        let model = Model::open(&target).unwrap();
        assert_eq!(model.tokenizer().bos(), Some(297));
        assert!(model.tokenizer().add_bos() && model.tokenizer().is_stop(299));
        assert!(gguf.str("tokenizer.chat_template").unwrap().contains("Assistant: "));
        let mut session = model.session().unwrap();
        let options = GenerateOptions { max_tokens: 4, ..GenerateOptions::greedy() };
        session.generate("hello", &options, |_| ControlFlow::Continue(())).unwrap();
        std::fs::remove_dir_all(&source).unwrap();
    }
}

#[test]
fn both_meanings_of_scales_give_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("model");
    let mut checkpoint = Checkpoint::synthetic(&spec("bitnet-b1.58", true), &source);
    go(&source, &dir.path().join("multiplier.gguf"), &verified()).unwrap();
    // The same scales as reciprocals; powers of two are exact.
    for (name, tensor) in &mut checkpoint.tensors {
        if name.ends_with("weight_scale") {
            tensor.bytes = bf16(&[0.125]);
        }
    }
    checkpoint.write(&source);
    go(&source, &dir.path().join("eighth.gguf"), &verified()).unwrap();
    for tensor in checkpoint.tensors.values_mut().filter(|t| t.shape == [1]) {
        tensor.bytes = bf16(&[8.0]);
    }
    checkpoint.config["quantization_config"]["linear_class"] = json!("bitlinear");
    checkpoint.write(&source);
    go(&source, &dir.path().join("reciprocal.gguf"), &verified()).unwrap();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert!(read("reciprocal.gguf") == read("eighth.gguf"));
    // A person may say that config.json is wrong, and is told when scales look so.
    let options = Options { scales: ScaleMeaning::Multiplier, ..verified() };
    let report = go(&source, &dir.path().join("wrong.gguf"), &options).unwrap();
    assert_eq!(report.tensors[0].scale, 8.0);
    for tensor in checkpoint.tensors.values_mut().filter(|t| t.shape == [1]) {
        tensor.bytes = bf16(&[80.0]);
    }
    checkpoint.write(&source);
    let report = go(&source, &dir.path().join("wrong.gguf"), &options).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("--scales")), "{:?}", report.notes);
}

#[test]
fn options_without_a_meaning_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, masters) = (dir.path().join("packed"), dir.path().join("masters"));
    let (gguf, target) = (dir.path().join("model.gguf"), dir.path().join("new.gguf"));
    let spec = spec("bitnet-b1.58", true);
    Checkpoint::synthetic(&spec, &packed);
    go(&packed, &gguf, &Options::default()).unwrap();
    let options = CheckpointOptions { weights: CheckpointWeights::Masters, ..Default::default() };
    write_checkpoint(&spec, options, &masters, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let pre = Options { pre: Some("qwen2".to_owned()), ..Options::default() };
    let scales = Options { scales: ScaleMeaning::Reciprocal, ..Options::default() };
    for (source, options, name, why) in [
        (&gguf, &pre, "pre", "copied"),
        (&gguf, &scales, "scales", "GGUF"),
        (&masters, &scales, "scales", "float weights"),
    ] {
        let error = go(source, &target, options).unwrap_err();
        assert!(matches!(error, ConvertError::Idle { option, .. } if option == name), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.hint().unwrap().contains(name) && !target.exists());
    }
    for options in [&pre, &scales] {
        go(&packed, &target, options).unwrap();
    }
    go(&masters, &target, &pre).unwrap();
}

#[test]
fn a_model_in_memory_is_converted_as_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name| dir.path().join(name);
    std::fs::write(path("demo.gguf"), embedded::model()).unwrap();
    let options = Options { head: Some(TensorKind::F32), ..verified() };
    go(&path("demo.gguf"), &path("of-file.gguf"), &options).unwrap();
    let gguf = Gguf::from_static(embedded::model()).unwrap();
    let go_on = &mut |_, _, _| ControlFlow::Continue(());
    convert_gguf(gguf, &path("of-memory.gguf"), &options, go_on).unwrap();
    let read = |name| std::fs::read(path(name)).unwrap();
    assert!(read("of-file.gguf") == read("of-memory.gguf"));
}

#[test]
fn masters_are_ternarised_by_their_mean_magnitude() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    let options = CheckpointOptions { weights: CheckpointWeights::Masters, ..Default::default() };
    let spec = spec("bitnet-b1.58", true);
    write_checkpoint(&spec, options, &source, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let report = go(&source, &target, &verified()).unwrap();
    let weights = Checkpoint::read(&source).bf16s("model.layers.0.mlp.up_proj.weight");
    let mean = weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weights.len() as f64;
    let (codes, scale) = i2_s(&Gguf::open(&target).unwrap(), "blk.0.ffn_up.weight");
    assert_eq!(scale, mean as f32);
    let wanted = weights.iter().map(|w| {
        let t = (w * (1.0 / scale)).round_ties_even().clamp(-1.0, 1.0);
        (t + 1.0) as u8
    });
    assert_eq!(codes, wanted.collect::<Vec<_>>());
    // Gaussian weights: 31 % zeros, and the error that absmean has on them.
    let up = report.tensors.iter().find(|tensor| tensor.name == "blk.0.ffn_up.weight").unwrap();
    assert!((0.29..0.33).contains(&up.zeros), "{up:?}");
    assert!((0.4..0.6).contains(&up.error.unwrap()), "{up:?}");
    Model::open(&target).unwrap();
}

#[test]
fn llama_queries_and_keys_are_reordered_for_their_rope() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    let checkpoint = Checkpoint::synthetic(&spec("llama", false), &source);
    let report = go(&source, &target, &verified()).unwrap();
    assert_eq!(report.architecture, "llama");
    let gguf = Gguf::open(&target).unwrap();
    assert_eq!(gguf.tensor("output.weight").unwrap().kind(), TensorKind::F16);
    let (k, head_dim) = (256, 64);
    for (name, hf, heads) in [("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)] {
        let from = checkpoint.unpacked(&format!("model.layers.0.self_attn.{hf}.weight"));
        let mut wanted: Vec<u8> = Vec::new();
        // [heads, 2, half, k] to [heads, half, 2, k].
        for head in 0..heads {
            for i in 0..head_dim / 2 {
                for half in 0..2 {
                    let row = head * head_dim + half * head_dim / 2 + i;
                    wanted.extend(&from[row * k..(row + 1) * k]);
                }
            }
        }
        assert_eq!(i2_s(&gguf, &format!("blk.0.{name}.weight")).0, wanted, "{name}");
    }
    let from = checkpoint.unpacked("model.layers.0.self_attn.v_proj.weight");
    assert_eq!(i2_s(&gguf, "blk.0.attn_v.weight").0, from);
}

#[test]
fn codecs_of_gguf_files_lead_into_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    Checkpoint::synthetic(&spec("bitnet-b1.58", true), &path("checkpoint"));
    go(&path("checkpoint"), &path("first.gguf"), &verified()).unwrap();
    let mut source = path("first.gguf");
    for codec in [Codec::Tq2_0, Codec::Tq1_0, Codec::I2s(I2sLayout::X86)] {
        let target = path(&format!("{}.gguf", codec.name()));
        let options = Options { codec, ..verified() };
        go(&source, &target, &options).unwrap();
        let gguf = Gguf::open(&target).unwrap();
        let tensor = gguf.tensors().iter().find(|t| t.name() == "blk.0.attn_q.weight").unwrap();
        assert_eq!(tensor.type_name(), codec.name());
        source = target;
    }
    // The last one holds what the first one did.
    let (first, back) =
        (Gguf::open(path("first.gguf")).unwrap(), Gguf::open(path("I2_S.gguf")).unwrap());
    assert_eq!(first.tensors().len(), back.tensors().len());
    for (a, b) in first.tensors().iter().zip(back.tensors()) {
        assert_eq!((a.name(), a.dims(), a.type_name()), (b.name(), b.dims(), b.type_name()));
        assert!(first.data(a) == back.data(b), "{}", a.name());
    }
    // A model that cannot be run is not written, whatever its tensors are.
    let file = std::fs::read(path("first.gguf")).unwrap();
    let key = b"bitnet-b1.58.block_count";
    let at = file.windows(key.len()).position(|window| window == key).unwrap();
    let mut broken = file.clone();
    // Behind the key stands the type of its value, then the number.
    broken[at + key.len() + 4] += 1;
    std::fs::write(path("broken.gguf"), broken).unwrap();
    let error = go(&path("broken.gguf"), &path("no.gguf"), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("model file") && !path("no.gguf").exists(), "{error}");
    // What a codec has no blocks for is refused by name.
    std::fs::write(path("demo.gguf"), embedded::model()).unwrap();
    let options = Options { codec: Codec::Tq1_0, ..verified() };
    let error = go(&path("demo.gguf"), &path("no.gguf"), &options).unwrap_err().to_string();
    assert!(error.contains("ffn_down") && error.contains("TQ1_0"), "{error}");
    let keys = |gguf: &Gguf| -> Vec<(String, String)> {
        let mut keys: Vec<_> =
            gguf.metadata().map(|(key, value)| (key.to_owned(), format!("{value:?}"))).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&first), keys(&back));
}

#[test]
fn heads_are_stored_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    Checkpoint::synthetic(&spec("bitnet-b1.58", true), &source);
    for head in [TensorKind::F32, TensorKind::Q8_0, TensorKind::Q6K] {
        let options = Options { head: Some(head), ..verified() };
        go(&source, &target, &options).unwrap();
        let gguf = Gguf::open(&target).unwrap();
        assert_eq!(gguf.tensor("token_embd.weight").unwrap().kind(), head);
        let mut session = Model::open(&target).unwrap().session().unwrap();
        session.append(&[1, 2, 3]).unwrap();
    }
    // Out of a GGUF file too, but only floats.
    let smaller = dir.path().join("smaller.gguf");
    let options = Options { head: Some(TensorKind::F16), ..verified() };
    let error = go(&target, &smaller, &options).unwrap_err().to_string();
    assert!(error.contains("only floats"), "{error}");
}

#[test]
fn float_models_are_refused_until_they_are_to_be_quantised() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    let spec = spec("llama", false);
    let options = CheckpointOptions { weights: CheckpointWeights::Masters, ..Default::default() };
    write_checkpoint(&spec, options, &source, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let mut checkpoint = Checkpoint::read(&source);
    checkpoint.config["quantization_config"] = json!(null);
    checkpoint.write(&source);
    let error = go(&source, &target, &verified()).unwrap_err();
    assert!(matches!(&error, ConvertError::NotTernary { .. }), "{error}");
    assert!(error.hint().unwrap().contains("trilut quantize") && !target.exists());
    let options = Options { ternarise: true, ..verified() };
    let report = go(&source, &target, &options).unwrap();
    assert!(report.tensors.iter().all(|tensor| tensor.error.is_some_and(|e| e > 0.3)));
}

#[test]
fn sentence_piece_models_keep_their_scores() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    Checkpoint::synthetic(&spec("bitnet-b1.58", true), &source);
    std::fs::remove_file(source.join("tokenizer.json")).unwrap();
    let mut model = Vec::new();
    let mut piece = |text: &str, score: f32, kind: u8| {
        let mut piece = [&[10, text.len() as u8][..], text.as_bytes(), &[21]].concat();
        piece.extend(score.to_le_bytes());
        piece.extend([24, kind]);
        model.extend([10, piece.len() as u8]);
        model.extend(piece);
    };
    [("<unk>", 2), ("<s>", 3), ("</s>", 3)].iter().for_each(|(text, kind)| piece(text, 0.0, *kind));
    (0..=255u8).for_each(|byte| piece(&format!("<0x{byte:02X}>"), 0.0, 6));
    ["\u{2581}a", "b", "\u{2581}ab"].iter().for_each(|text| piece(text, -1.0, 1));
    std::fs::write(source.join("tokenizer.model"), model).unwrap();
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true,
        "added_tokens_decoder": {"299": {"content": "<pad>", "special": true}}});
    std::fs::write(source.join("tokenizer_config.json"), config.to_string()).unwrap();
    go(&source, &target, &verified()).unwrap();
    let pre = Options { pre: Some("qwen2".to_owned()), ..verified() };
    let idle = go(&source, &target, &pre).unwrap_err();
    assert!(matches!(idle, ConvertError::Idle { option: "pre", .. }), "{idle}");
    let gguf = Gguf::open(&target).unwrap();
    assert_eq!(gguf.str("tokenizer.ggml.model").unwrap(), "llama");
    let model = Model::open_with(&gguf, &Default::default()).unwrap();
    let tokenizer = model.tokenizer();
    assert_eq!(tokenizer.encode("ab", false), [261]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(1), Some(2), 300));
}

#[test]
fn broken_checkpoints_are_explained_and_leave_nothing() {
    type Spoil = fn(&mut Checkpoint);
    const Q: &str = "model.layers.0.self_attn.q_proj.weight";
    let cases: &[(&str, Spoil)] = &[
        ("`model.layers.0.self_attn.q_proj.weight`", |c| drop(c.tensors.remove(Q))),
        ("has the size [64, 255]", |c| {
            let tensor = c.tensors.get_mut(Q).unwrap();
            (tensor.shape, tensor.bytes) = (vec![64, 255], vec![0; 64 * 255]);
        }),
        ("stored as F32, expected U8", |c| {
            let tensor = c.tensors.get_mut(Q).unwrap();
            (tensor.dtype, tensor.bytes) = ("F32".to_owned(), vec![0; 64 * 256 * 4]);
        }),
        ("stored as I32", |c| {
            let tensor = c.tensors.get_mut("model.norm.weight").unwrap();
            (tensor.dtype, tensor.bytes) = ("I32".to_owned(), vec![0; 256 * 4]);
        }),
        ("code 3", |c| c.tensors.get_mut(Q).unwrap().bytes[9] = 0xC0),
        ("nothing but zeros", |c| c.tensors.get_mut(Q).unwrap().bytes.fill(0x55)),
        ("is NaN", |c| c.scale(Q, f32::NAN)),
        ("is inf", |c| c.scale(Q, f32::INFINITY)),
        ("is -1", |c| c.scale(Q, -1.0)),
        ("is 0", |c| c.scale(Q, 0.0)),
        ("has 2 values", |c| {
            let tensor = c.tensors.get_mut(&format!("{Q}_scale")).unwrap();
            (tensor.shape, tensor.bytes) = (vec![2], bf16(&[1.0, 1.0]));
        }),
        ("a dimension is 0", |c| {
            let tensor = c.tensors.get_mut(Q).unwrap();
            (tensor.shape, tensor.bytes) = (vec![0, 256], Vec::new());
        }),
        ("infinite or not a number", |c| {
            let bytes = &mut c.tensors.get_mut("model.norm.weight").unwrap().bytes;
            bytes[..2].copy_from_slice(&bf16(&[f32::NAN]));
        }),
        ("too large for F16", |c| {
            let bytes = &mut c.tensors.get_mut("model.embed_tokens.weight").unwrap().bytes;
            bytes[..2].copy_from_slice(&bf16(&[1e6]));
        }),
        ("no place in a bitnet-b1.58 model", |c| {
            let norm = c.tensors["model.norm.weight"].clone();
            c.tensors.insert("model.layers.0.self_attn.q_proj.bias".to_owned(), norm);
        }),
        ("`vocab_size` is -5", |c| c.config["vocab_size"] = json!(-5)),
        ("has the size [300, 256]", |c| c.config["vocab_size"] = json!(400)),
        ("300 tokens, the model 200", |c| {
            c.config["vocab_size"] = json!(200);
            let embedding = c.tensors.get_mut("model.embed_tokens.weight").unwrap();
            embedding.shape[0] = 200;
            embedding.bytes.truncate(200 * 256 * 2);
        }),
        ("`hidden_size` is 1099511627776", |c| c.config["hidden_size"] = json!(1u64 << 40)),
        ("`model_type` is gpt2", |c| {
            c.config["model_type"] = json!("gpt2");
            c.config["architectures"] = json!(["GPT2LMHeadModel"]);
        }),
        ("lm_head", |c| c.config["tie_word_embeddings"] = json!(false)),
        ("pre-tokenizer", |c| {
            c.tokenizer["pre_tokenizer"]["pretokenizers"][0] = json!({"type": "Odd"})
        }),
        ("no merges", |c| c.tokenizer["model"]["merges"] = json!([])),
        ("normalizer Lowercase", |c| c.tokenizer["normalizer"] = json!({"type": "Lowercase"})),
        ("have the id 7", |c| c.tokenizer["model"]["vocab"]["twice"] = json!(7)),
        ("only BPE", |c| c.tokenizer["model"]["type"] = json!("Unigram")),
        ("has the id 99999999999", |c| {
            c.tokenizer["added_tokens"][0]["id"] = json!(99_999_999_999u64)
        }),
    ];
    for (word, spoil) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("model"), dir.path().join("out/model.gguf"));
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let mut checkpoint = Checkpoint::synthetic(&spec("bitnet-b1.58", true), &source);
        spoil(&mut checkpoint);
        checkpoint.write(&source);
        let error = go(&source, &target, &verified()).unwrap_err();
        let mut text = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            text += &format!(": {cause}");
        }
        assert!(text.contains(word), "{word}: {text}");
        assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0, "{word}");
    }
}

#[test]
fn broken_weight_files_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    Checkpoint::synthetic(&spec("bitnet-b1.58", true), &source);
    let path = source.join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let lying = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let text = String::from_utf8(whole[..header].to_vec()).unwrap();
        assert!(text.contains(from));
        [text.replacen(from, to, 1).as_bytes(), &whole[header..]].concat()
    };
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let files = [
        whole[..whole.len() - 1].to_vec(),
        whole[..header + 3].to_vec(),
        whole[..5].to_vec(),
        Vec::new(),
        [&whole[..], b"more"].concat(),
        huge,
        lying("\"shape\":[300,256]", "\"shape\":[-30,256]"),
        lying("\"shape\":[300,256]", "\"shape\":[301,256]"),
        lying("\"shape\":[256]", "\"shape\":[999]"),
        lying("\"dtype\":\"U8\"", "\"dtype\":\"Q8\""),
        b"not a weight file at all, but long enough to look".to_vec(),
    ];
    for file in files {
        std::fs::write(&path, file).unwrap();
        let error = go(&source, &target, &verified()).unwrap_err();
        assert!(matches!(error, ConvertError::Safetensors { .. }), "{error}");
        assert!(error.hint().is_some() && !target.exists());
    }
    std::fs::remove_file(&path).unwrap();
    let error = go(&source, &target, &verified()).unwrap_err().to_string();
    assert!(error.contains("no safetensors file"), "{error}");
}

#[test]
fn missing_shards_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    let options = CheckpointOptions { shards: 3, ..Default::default() };
    let spec = spec("bitnet-b1.58", true);
    write_checkpoint(&spec, options, &source, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let second = source.join("model-00002-of-00003.safetensors");
    let kept = std::fs::read(&second).unwrap();
    std::fs::remove_file(&second).unwrap();
    let index = source.join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    // With and without an index.
    for has_index in [true, false] {
        if !has_index {
            std::fs::remove_file(&index).unwrap();
        }
        let error = go(&source, &target, &verified()).unwrap_err();
        assert!(
            matches!(&error, ConvertError::Shards { missing } if missing.len() == 1),
            "{error}"
        );
        assert!(error.to_string().contains("00002-of-00003"), "{error}");
    }
    std::fs::write(&second, kept).unwrap();
    go(&source, &target, &verified()).unwrap();
    // An index that points elsewhere.
    for (from, to, word) in [
        ("model-00002", "../el/00002", "same directory"),
        ("\"model.norm.weight\"", "\"model.storm.weight\"", "model.storm.weight"),
    ] {
        std::fs::write(&index, text.replace(from, to)).unwrap();
        let error = go(&source, &target, &verified()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    std::fs::write(&index, "{").unwrap();
    assert!(matches!(go(&source, &target, &verified()), Err(ConvertError::Json { .. })));
}

#[test]
fn breaking_off_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    Checkpoint::synthetic(&spec("bitnet-b1.58", true), &source);
    std::fs::write(&target, "old").unwrap();
    for step in [Step::Plan, Step::Write, Step::Verify] {
        let stopped = convert(&source, &target, &verified(), &mut |now, _, _| match now == step {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped, Err(ConvertError::Cancelled)));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn every_family_becomes_a_model_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let masters = CheckpointWeights::Masters;
    for (architecture, weights, tied) in [
        ("bitnet-b1.58", CheckpointWeights::Packed, false),
        ("bitnet", CheckpointWeights::Packed, true),
        ("bitnet", masters, true),
        ("llama", CheckpointWeights::Packed, false),
        ("llama", masters, true),
        ("qwen3", masters, true),
        ("gemma3", masters, true),
    ] {
        let source = dir.path().join(format!("{architecture}-{weights:?}"));
        let target = dir.path().join("model.gguf");
        let options = CheckpointOptions { weights, ..Default::default() };
        let spec = spec(architecture, tied);
        write_checkpoint(&spec, options, &source, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let report = go(&source, &target, &verified()).unwrap();
        assert_eq!((report.architecture.as_str(), report.tensors.len()), (architecture, 14));
        let gguf = Gguf::open(&target).unwrap();
        let model = Model::open(&target).unwrap();
        let mut session = model.session().unwrap();
        session.append(&[1, 2, 3]).unwrap();
        assert!(session.logits().iter().all(|logit| logit.is_finite()), "{architecture}");
        let pooling = Pooling::from_gguf(&gguf).unwrap();
        if matches!(architecture, "qwen3" | "gemma3") {
            assert_eq!(pooling, Some(Pooling::Last));
            let mut embedder = Embedder::new(model, Pooling::Last).unwrap();
            // The end of the text, which its vector is taken from.
            assert_eq!(embedder.tokens("hello").last(), Some(&298));
            let vector = embedder.embed("hello").unwrap();
            let length: f32 = vector.iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-4, "{length}");
            // Norms of Gemma's own are stored with the 1 that it adds, those of layers are not.
            let first = |name: &str| gguf.tensor(name).unwrap().to_f32().unwrap()[0];
            let own = if architecture == "gemma3" { 2.0 } else { 1.0 };
            assert_eq!(
                (first("output_norm.weight"), first("blk.0.attn_q_norm.weight")),
                (own, own)
            );
            assert_eq!(first("blk.0.ffn_down_norm_in.weight"), 1.0);
        } else {
            assert_eq!(pooling, None);
        }
    }
}
