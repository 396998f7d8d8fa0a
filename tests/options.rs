//! Options as people give them: what would change nothing is refused, and the habits of other engines are
//! understood.

mod common;
#[path = "common/outcome.rs"]
mod outcome;

use common::{Sandbox, stderr};

impl Sandbox {
    /// A path of the sandbox as an argument.
    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn options_that_change_nothing_are_refused() {
    let sandbox = Sandbox::new();
    let [model, packed, masters] = ["bn.gguf", "packed", "masters"].map(|name| sandbox.name(name));
    let out = sandbox.name("out.gguf");
    let dummy = ["dummy", "--model", "demo", "-o"];
    sandbox.ok(&[&dummy[..], &[&model, "--codec", "iq2_bn"]].concat());
    sandbox.ok(&[&dummy[..], &[&packed, "--safetensors", "packed"]].concat());
    sandbox.ok(&[&dummy[..], &[&masters, "--safetensors", "masters"]].concat());
    let tile = ["--tl-tile", "256x256:128,64,32"];
    let arm = ["--i2s-layout", "arm"];
    for (args, option, why) in [
        (&["convert", "demo", &out, "--pre", "qwen2"][..], "--pre", "copied"),
        (&["quantize", "demo", &out, "--pre", "qwen2"], "--pre", "copied"),
        (&["convert", "demo", &out, "--scales", "reciprocal"], "--scales", "GGUF"),
        (&["convert", &masters, &out, "--scales", "multiplier"], "--scales", "float weights"),
        (&["convert", "demo", &out, tile[0], tile[1]], "--tl-tile", "no TL1 or TL2"),
        (&["convert", &packed, &out, tile[0], tile[1]], "--tl-tile", "a checkpoint"),
        (&["convert", &packed, &out, arm[0], "x86"], "--i2s-layout", "a checkpoint"),
        (&["convert", &model, &out, arm[0], arm[1]], "--i2s-layout", "no I2_S"),
        (&["check", &model, arm[0], arm[1]], "--i2s-layout", "no I2_S"),
        (&["check", tile[0], tile[1]], "--tl-tile", "no TL1 or TL2"),
        (&["run", &model, "x", arm[0], arm[1]], "--i2s-layout", "no I2_S"),
        (&["bench", "-m", &model, arm[0], arm[1]], "--i2s-layout", "no I2_S"),
        (&["bench", tile[0], tile[1]], "--tl-tile", "no TL1 or TL2"),
        (&["run", "x", "--keep", "3"], "--keep", "on-full shift"),
        (&["tune", "-m", &model, arm[0], arm[1]], "--i2s-layout", "no I2_S"),
        (&["tune", "-m", "bitnet-2b-4t", arm[0], arm[1]], "--i2s-layout", "without its file"),
        (&["tune", "--shape", "64x128", tile[0], tile[1]], "--tl-tile", "without a file"),
        (&["presets", "verify", "x86_64/zen3", tile[0], tile[1]], "--tl-tile", "no model"),
    ] {
        let error = sandbox.fails(2, args);
        assert!(error.contains(&format!("error: {option} changes nothing here")), "{error}");
        assert!(error.contains(why) && error.contains("\nhint: "), "{args:?}: {error}");
    }
    for (args, option) in [
        (&["run", "x", "--parallel", "3"][..], "--prompts"),
        (&["run", "-m", "demo", "-cnv", "--keep", "3"], "--keep"),
        (&[&dummy[..], &["new", "--safetensors", "packed", "--head", "f32"]].concat(), "--head"),
        (&[&dummy[..], &["new", "--safetensors", "packed", "--shards", "0"]].concat(), "--shards"),
        (&["run", "-m", "demo", "-cnv", "--speculate", "3"], "--speculate"),
    ] {
        assert!(sandbox.fails(2, args).contains(option), "{args:?}");
    }
    assert!(!sandbox.path("out.gguf").exists());
    // The one that is given anyway, where it has a meaning.
    sandbox.ok(&["run", "demo", "x", "-n", "1", arm[0], "x86"]);
    sandbox.ok(&["convert", &packed, &out, "--scales", "multiplier", "--pre", "qwen2"]);
}

#[test]
fn numbers_of_other_engines_are_understood() {
    let sandbox = Sandbox::new();
    let story = |more: &[&str]| {
        let args = ["run", "Once upon a time", "--temp", "0", "-t", "1", "-c", "64"];
        sandbox.ok(&[&args[..], more].concat())
    };
    assert_eq!(story(&["-n", "-1"]), story(&["-n", "1000"]));
    assert_eq!(story(&["--n-predict=-1"]), story(&["-n", "1000"]));
    let prompts = sandbox.name("prompts.txt");
    std::fs::write(&prompts, "The fox\n").unwrap();
    sandbox.ok(&["run", "--prompts", &prompts, "-n", "-1", "-c", "32"]);
    // Sampled from all tokens, by a seed that was told and gives the same text again.
    let sampled = |more: &[&str]| {
        let args = ["run", "The fox", "--temp", "2", "--min-p", "0", "--top-p", "1", "-n", "16"];
        sandbox.run(&[&args[..], more].concat())
    };
    let any = sampled(&["--seed", "-1", "--top-k", "-1"]);
    let told = stderr(&any);
    let seed = told.lines().find_map(|line| line.strip_prefix("note: the seed is ")).unwrap();
    let again = sampled(&["--seed", seed, "--top-k", "0"]);
    assert!(any.status.success() && any.stdout == again.stdout, "{told}");
    assert!(!stderr(&again).contains("the seed is"));
    let other = sampled(&["-s", "-1", "--top-k", "-1"]);
    assert_ne!(other.stdout, any.stdout);
}

#[test]
fn numbers_that_stand_for_nothing_are_refused_for_what_they_are() {
    let sandbox = Sandbox::new();
    for (args, says) in [
        (&["run", "x", "-n", "-2"][..], "-1 for no limit"),
        (&["run", "x", "--top-k", "-5"], "-1 for all"),
        (&["run", "x", "--seed", "-7"], "-1 for a random one"),
        (&["run", "x", "--temp", "-1"], "must be 0 or above"),
        (&["run", "x", "-t", "-1"], "'-1' for '--threads"),
        (&["bench", "-p", "-1"], "'-1' for '--n-prompt"),
        (&["serve", "--port", "-1"], "'-1' for '--port"),
        // Times 256 it would be 0.
        (&["bench", "-p", "0", "-n", "72057594037927936", "-b", "256"], "does not fit"),
    ] {
        let error = sandbox.fails(2, args);
        assert!(error.contains(says) && !error.contains("to pass"), "{error}");
    }
    // Also what is only said.
    assert!(sandbox.ok(&["run", "-p", "-5", "-n", "2"]).starts_with("-5"));
}

#[test]
fn the_embedded_model_is_converted_by_its_name() {
    let sandbox = Sandbox::new();
    let (file, other) = (sandbox.name("demo.gguf"), sandbox.name("other.gguf"));
    sandbox.ok(&["convert", "demo", &file, "--verify", "--head", "q8_0"]);
    let tell = |model: &str| sandbox.ok(&["run", model, "The fox", "-n", "8", "--temp", "0"]);
    assert_eq!(tell(&file), tell("demo"));
    // What is there under this name comes first, as it is with other names.
    let mut here = sandbox.command(&["convert", "demo", &other]);
    std::fs::create_dir(sandbox.path("demo")).unwrap();
    let output = here.current_dir(sandbox.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("safetensors"), "{}", stderr(&output));
}

#[test]
fn directories_are_no_models() {
    let sandbox = Sandbox::new();
    let dir = sandbox.name("checkpoint");
    sandbox.ok(&["dummy", "--model", "demo", "--safetensors", "packed", "-o", &dir]);
    for args in [
        &["run", &dir][..],
        &["run", "-m", &dir, "-p", "x"],
        &["chat", &dir],
        &["bench", "-m", &dir],
        &["serve", "-m", &dir, "--port", "0"],
        &["check", &dir],
        &["inspect", &dir],
    ] {
        let error = sandbox.fails(1, args);
        assert!(error.contains("is a directory, not a model file"), "{args:?}: {error}");
        assert!(error.contains(&format!("hint: trilut convert {dir} checkpoint.gguf")), "{error}");
    }
    // A model that was made there already is the one to run.
    sandbox.ok(&["convert", &dir, &format!("{dir}/model.gguf")]);
    let error = sandbox.fails(1, &["run", &dir]);
    assert!(error.contains(&format!("such as {dir}/model.gguf")), "{error}");
    let empty = sandbox.name("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(sandbox.fails(1, &["run", &empty]).contains("hint: give a GGUF file"));
}
