//! Sources of conversions that can be read in more than one way, or in part: what is said of them.

use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use trilut_presets::models;
use trilut_runtime::convert::{
    CheckpointOptions, ConvertError, Options, Report, convert, write_checkpoint,
};
use trilut_runtime::embedded;
use trilut_runtime::gguf::Gguf;

fn write(dir: &Path, shards: usize) -> Result<(), ConvertError> {
    let options = CheckpointOptions { shards, ..CheckpointOptions::default() };
    let spec = models::find("demo").unwrap();
    write_checkpoint(spec, options, dir, &mut |_, _| ControlFlow::Continue(()))
}

fn go(source: &Path, target: &Path) -> Result<Report, ConvertError> {
    convert(source, target, &Options::default(), &mut |_, _, _| ControlFlow::Continue(()))
}

/// The names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn weight_files_are_as_many_as_their_names_say() {
    let dir = tempfile::tempdir().unwrap();
    for shards in [2, 20, 100_000] {
        let source = dir.path().join(shards.to_string());
        write(&source, shards).unwrap();
        let mut files = names(&source);
        files.retain(|name| name.ends_with(".safetensors"));
        let end = format!("-of-{:05}.safetensors", files.len());
        assert!(files.iter().all(|name| name.ends_with(&end)), "{files:?}");
    }
}

#[test]
fn checkpoints_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("model");
    let spec = models::find("demo").unwrap();
    // Broken off, nothing is left.
    let options = CheckpointOptions::default();
    let mut parts = 0;
    let stopped = write_checkpoint(spec, options, &source, &mut |_, _| {
        parts += 1;
        if parts == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(ConvertError::Cancelled)));
    assert_eq!(names(&source), [""; 0]);
    write(&source, 2).unwrap();
    let whole = names(&source);
    let refused = write(&source, 1).unwrap_err();
    assert!(matches!(&refused, ConvertError::Occupied { file, .. } if file == "config.json"));
    assert!(refused.hint().unwrap().contains("another directory"), "{refused}");
    assert_eq!(names(&source), whole);
    for name in whole.iter().filter(|name| !name.ends_with(".safetensors")) {
        std::fs::remove_file(source.join(name)).unwrap();
    }
    let refused = write(&source, 1).unwrap_err().to_string();
    assert!(refused.contains("model-00001-of-00002.safetensors"), "{refused}");
}

#[test]
fn weight_files_that_are_not_read_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    write(&source, 2).unwrap();
    let notes = || go(&source, &target).unwrap().notes.join("\n");
    assert_eq!(notes(), "");
    std::fs::write(source.join("model.safetensors"), "another model").unwrap();
    let index = "model.safetensors.index.json";
    let said = notes();
    assert!(said.contains("model.safetensors of the directory was not read"), "{said}");
    assert!(said.contains(index), "{said}");
    std::fs::remove_file(source.join(index)).unwrap();
    assert!(notes().contains("model.safetensors of the directory was not read"), "{}", notes());
}

#[test]
fn chat_templates_that_are_none_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model"), dir.path().join("model.gguf"));
    write(&source, 1).unwrap();
    let path = source.join("tokenizer_config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let notes = |template: Value| {
        let mut config = config.clone();
        config["chat_template"] = template;
        std::fs::write(&path, config.to_string()).unwrap();
        let report = go(&source, &target).unwrap();
        let gguf = Gguf::open(&target).unwrap();
        let written = gguf.opt_str("tokenizer.chat_template").unwrap();
        (report.notes.join("\n"), written.map(str::to_owned))
    };
    assert_eq!(notes(config["chat_template"].clone()).0, "");
    assert_eq!(notes(Value::Null), (String::new(), None));
    let named = json!([{"name": "tools", "template": "a"}, {"name": "default", "template": "b"}]);
    assert_eq!(notes(named), (String::new(), Some("b".to_owned())));
    for odd in [json!(5), json!({"default": "b"}), json!([{"name": "tools", "template": "a"}])] {
        let (said, written) = notes(odd.clone());
        assert!(
            said.contains(&odd.to_string()) && said.contains("tokenizer_config.json"),
            "{said}"
        );
        assert_eq!(written, None);
    }
    let (said, written) = notes(json!("{% for %}"));
    assert!(said.contains("not valid") && said.contains("tokenizer_config.json"), "{said}");
    assert_eq!(written.as_deref(), Some("{% for %}"));
    // From one GGUF file to another.
    let again = go(&target, &dir.path().join("again.gguf")).unwrap().notes.join("\n");
    assert!(again.contains("the chat template is copied, but it is not valid"), "{again}");
}

#[test]
fn norms_that_are_not_finite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("model.gguf"), dir.path().join("new.gguf"));
    let gguf = Gguf::from_static(embedded::model()).unwrap();
    for (name, value) in
        [("output_norm.weight", f32::NAN), ("blk.1.attn_norm.weight", f32::INFINITY)]
    {
        let data = gguf.tensor(name).unwrap().data();
        let at = data.as_ptr() as usize - embedded::model().as_ptr() as usize + 8;
        let mut bytes = embedded::model().to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&source, bytes).unwrap();
        let error = go(&source, &target).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("at 2"), "{error}");
        assert!(!target.exists());
        assert!(trilut_runtime::Model::open(&source).is_err());
    }
}
