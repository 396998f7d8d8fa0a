//! `trilut check` and the layouts of ternary weights, as the owner of an unknown file meets them.

mod common;

use common::{Sandbox, stderr};
use std::path::Path;
use trilut_presets::Shape;
use trilut_runtime::embedded;
use trilut_runtime::gguf::{Gguf, TensorKind, TernaryLayouts};
use trilut_runtime::ternary::{Codec, I2sLayout};

/// The demo model with its ternary weights in another arrangement of I2_S.
fn rearranged(layout: I2sLayout) -> Vec<u8> {
    let gguf = Gguf::from_static(embedded::model()).unwrap();
    let mut bytes = embedded::model().to_vec();
    for tensor in gguf.tensors().iter().filter(|tensor| tensor.kind() == TensorKind::I2S) {
        let shape = Shape { m: tensor.dims()[1] as usize, k: tensor.dims()[0] as usize };
        let ternary = gguf.ternary(tensor.name(), shape, &TernaryLayouts::default()).unwrap();
        let mut weights = vec![0; shape.weights()];
        for (row, out) in weights.chunks_exact_mut(shape.k).enumerate() {
            ternary.reader.row(row, out).unwrap();
        }
        let encoded = Codec::I2s(layout).encode(shape, &weights, &ternary.scales).unwrap();
        bytes[ternary.range.clone()].copy_from_slice(&encoded[..ternary.range.len()]);
    }
    bytes
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_demo_model_is_read_right() {
    let output = Sandbox::new().command(&["check"]).output().unwrap();
    let found = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{found}{}", stderr(&output));
    assert!(found.contains("verdict: read right") && found.contains("attn_q"), "{found}");
}

#[test]
fn a_file_of_another_build_is_told_and_read_when_its_layout_is_given() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("other.gguf");
    let story = |args: &[&str]| {
        let rest = ["--temp", "0", "-n", "12", "-p", "Once upon a time"];
        let output = sandbox.command(&[&["run"], args, &rest[..]].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    let expected = story(&["-m", "demo"]);
    for (layout, name) in [(I2sLayout::Arm, "arm"), (I2sLayout::Rows, "rows")] {
        std::fs::write(&path, rearranged(layout)).unwrap();
        let output = sandbox.command(&["check", text(&path)]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let told = stderr(&output);
        assert!(told.contains(&format!("--i2s-layout {name} with this file")), "{told}");
        let args = ["check", text(&path), "--i2s-layout", name];
        assert!(sandbox.command(&args).output().unwrap().status.success());
        assert_eq!(story(&["-m", text(&path), "--i2s-layout", name]), expected);
    }
}

#[test]
fn a_model_that_was_never_trained_is_told() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("dummy.gguf");
    let args = ["dummy", "--model", "demo", "-o", text(&path), "--codec", "tq2_0"];
    let output = sandbox.command(&args).output().unwrap();
    // 640 inputs are not whole blocks of 256.
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("must be whole blocks of 256"), "{}", stderr(&output));
    for codec in ["i2_s", "iq2_bn"] {
        let args = ["dummy", "--model", "demo", "-o", text(&path), "--codec", codec];
        assert!(sandbox.command(&args).output().unwrap().status.success());
        let output = sandbox.command(&["check", text(&path)]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let found = String::from_utf8(output.stdout).unwrap();
        assert!(found.contains("it does not know the language"), "{found}");
    }
}

#[test]
fn wrong_layout_options_are_usage_errors() {
    let sandbox = Sandbox::new();
    for (args, code, says) in [
        (&["check", "--tl-tile", "1x2:3"][..], 2, "expected MxK:BM,BK,bm"),
        (&["check", "--tl-config", "/nowhere/kernel_config.ini"], 1, "cannot read the tiles"),
        (&["check", "/nowhere/model.gguf"], 1, "cannot open"),
        (&["check", "--i2s-layout", "mips"], 2, "x86"),
    ] {
        let output = sandbox.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}
