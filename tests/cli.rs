//! The `trilut` command as a user meets it: outputs, exit codes, errors with hints.

mod common;
#[path = "common/outcome.rs"]
mod outcome;

use common::{Sandbox, stderr};
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn codegen_is_deterministic_and_checked() {
    let sandbox = Sandbox::new();
    let args = ["codegen", "--shape", "33x128", "--format", "tl2", "--isa", "avx2"];
    let rust = sandbox.ok(&args);
    assert_eq!(rust, sandbox.ok(&args));
    assert!(rust.contains("int16 bound"), "{rust}");
    let file = sandbox.path("kernel.rs");
    std::fs::write(&file, &rust).unwrap();
    let check = |file: &Path| {
        let args: Vec<&str> = args.into_iter().chain(["--check", file.to_str().unwrap()]).collect();
        sandbox.run(&args)
    };
    assert_eq!(check(&file).status.code(), Some(0));
    std::fs::write(&file, rust.replace("let mut step = 0", "let mut step = 1")).unwrap();
    let output = check(&file);
    assert_eq!(output.status.code(), Some(3));
    let line = 1 + rust.lines().position(|l| l.contains("let mut step = 0")).unwrap();
    assert!(stderr(&output).contains(&format!("first in line {line}")), "{}", stderr(&output));
}

#[test]
fn codegen_explains_illegal_requests() {
    let sandbox = Sandbox::new();
    assert!(sandbox.fails(2, &["codegen", "--shape", "0x128"]).contains("1..="));
    assert!(sandbox.fails(2, &["codegen", "--shape", "12"]).contains("MxK"));
    assert!(sandbox.fails(2, &["codegen", "--shape", "8x8", "--isa", "sse9"]).contains("scalar"));
    let kernel = ["codegen", "--kernel", "gemv_i2s_madd_r5u1_avx2"];
    assert!(sandbox.fails(2, &kernel).contains("nearest: 4"));
    let plan = sandbox.ok(&["codegen", "--shape", "2560x6912", "--emit", "plan"]);
    assert!(plan.contains("16 adds of at most 2048 reach -32768, the lowest that"), "{plan}");
    assert!(sandbox.fails(2, &["codegen", "--shape", "-1x5"]).contains("`-1x5` is no shape: MxK"));
    assert!(sandbox.fails(2, &["tune", "--shape", "-1x5"]).contains("`-1x5` is no shape: MxK"));
    let tile = ["codegen", "--shape", "8x8:r3u1"];
    assert!(sandbox.fails(2, &tile).contains("nearest: 2"));
    let case = sandbox.fails(2, &["codegen", "--shape", "8x8", "--isa", "AVX512"]);
    assert!(case.contains("nearest: avx512"), "{case}");
    let library = ["codegen", "--shape", "8x8", "--library", "a b"];
    assert!(sandbox.fails(2, &library).contains("no path of a crate"));
}

/// What would change nothing is refused instead of passed over.
#[test]
fn codegen_has_no_idle_arguments() {
    let sandbox = Sandbox::new();
    let kernel = ["--kernel", "gemm_dot_r4t32_avx512"];
    for (args, idle) in [
        (&["--emit", "list", "--tile", "r4u2"][..], "--tile changes nothing about the list"),
        (&["--emit", "list", "--preset", "any.toml"], "--preset changes nothing about the list"),
        (&["--format", "tl2", kernel[0], kernel[1]], "--format changes nothing about a kernel"),
        (&["--isa", "avx2", kernel[0], kernel[1]], "--isa changes nothing about a kernel"),
        (&["--tile", "r4u2", kernel[0], kernel[1]], "--tile changes nothing about a kernel"),
        (&["--emit", "list", "--library", "::a"], "--library is for --emit rust"),
        (&["--isa", "avx2"], "--shape, --model or --kernel is needed"),
    ] {
        let error = sandbox.fails(2, &[&["codegen"], args].concat());
        assert!(error.contains(idle) && error.contains("hint: trilut codegen"), "{error}");
    }
    let list = |args: &[&str]| sandbox.ok(&[&["codegen", "--emit", "list"], args].concat());
    let all = list(&[]);
    assert!(all.contains("_neon\n") && all.contains("gemm_") && !all.contains("_emulated"));
    let scalar = list(&["--isa", "scalar"]);
    assert!(scalar.contains("gemv_tl1_lut") && scalar.lines().all(|line| line.ends_with("scalar")));
    let base3 = list(&["--format", "base3", "--isa", "avx512", "--isa", "avx512vbmi"]);
    assert!(base3.lines().all(|line| line.contains("_b3_")) && base3.contains("batch_b3_lut"));
    let none = ["codegen", "--emit", "list", "--format", "i2_s", "--isa", "avx512vbmi"];
    assert!(sandbox.fails(1, &none).contains("no kernels for these"));
}

#[test]
fn codegen_of_layers_is_a_module_and_of_a_kernel_its_function() {
    let sandbox = Sandbox::new();
    // Two layers that share their one kernel.
    let layers = sandbox.ok(&["codegen", "--shape", "8x256", "--shape", "9x256"]);
    for item in ["pub fn gemv_i2s_8x256", "pub fn gemv_i2s_9x256", "pub static REGISTRY"] {
        assert!(layers.contains(item), "{item}: {layers}");
    }
    assert_eq!(layers.matches("\nfn gemv_").count(), 1);
    let one = sandbox.ok(&["codegen", "--kernel", "gemv_i2s_maddx4_r1u2_avx2"]);
    assert!(!one.contains("REGISTRY") && !one.contains("pub fn"), "{one}");
    let there = ["codegen", "--kernel", "gemv_i2s_dot_r1u1_scalar", "--library", "crate::there"];
    let there = sandbox.ok(&there);
    assert!(there.contains("crate::there::Gemv") && !there.contains("trilut_kernels"), "{there}");
}

#[test]
fn codegen_speaks_of_models_presets_and_several_kernels() {
    let sandbox = Sandbox::new();
    let list = |args: &[&str]| sandbox.ok(&[&["codegen", "--emit", "list"], args].concat());
    let one = list(&["--shape", "64x256", "--tile", "r4u4"]);
    assert_eq!(one, "gemv_i2s_maddx4_r4u4_avx2_k256\n");
    let model = list(&["--model", "bitnet-2b-4t", "--format", "tl2", "--format", "i2_s"]);
    assert_eq!(model.lines().count(), 4, "{model}");
    let preset = sandbox.path("zen5.toml");
    std::fs::write(&preset, sandbox.ok(&["presets", "show", "x86_64/zen5"])).unwrap();
    let isas = ["--isa", "avx512", "--isa", "avx512vbmi", "--format", "base3"];
    let model = ["--model", "bitnet-2b-4t"];
    let tuned = list(&[&model[..], &isas, &["--preset", text(&preset)]].concat());
    assert!(tuned.lines().count() > list(&[&model[..], &isas].concat()).lines().count());
    assert!(tuned.contains("gemm_"), "{tuned}");
    // A preset alone names formats and ISAs itself.
    let named = sandbox.run(&[
        "codegen",
        "--emit",
        "list",
        "--shape",
        "2560x6912",
        "--preset",
        text(&preset),
    ]);
    let (names, note) = (String::from_utf8_lossy(&named.stdout), stderr(&named));
    assert!(
        names.contains("gemv_b3_lut_r1u4_avx512vbmi_k6912") && !names.contains("avx2"),
        "{names}"
    );
    assert!(note.contains("zen5.toml: format base3; isa avx512, avx512vbmi"), "{note}");
    let spec = sandbox.path("mine.toml");
    std::fs::write(&spec, include_str!("../examples/macro-user/tiny.toml")).unwrap();
    let module = sandbox.ok(&["codegen", "--model", text(&spec), "--isa", "scalar"]);
    assert!(module.contains("pub fn gemv_i2s_896x384") && module.contains("pub static REGISTRY"));
    let file = sandbox.path("module.rs");
    std::fs::write(&file, &module).unwrap();
    let check = ["codegen", "--model", text(&spec), "--isa", "scalar", "--check", text(&file)];
    assert_eq!(sandbox.ok(&check), "");
    assert!(sandbox.fails(2, &["codegen", "--model", "bitnet-2b"]).contains("bitnet-2b-4t"));
    let near = sandbox.fails(2, &["codegen", "--model", "BitNet-2B"]);
    assert!(near.contains("hint: trilut codegen --model bitnet-2b-4t"), "{near}");
    assert!(sandbox.fails(1, &["codegen", "--model", "none.toml"]).contains("none.toml"));
    // A file that is there but of no use is no wrong usage, whichever it is.
    let broken = sandbox.path("broken.toml");
    std::fs::write(&broken, "layers = \"many\"").unwrap();
    let broken = text(&broken);
    let unusable = sandbox.fails(1, &["codegen", "--model", broken]);
    assert!(unusable.contains("broken.toml is not usable") && unusable.contains("hint: "));
    sandbox.fails(1, &["codegen", "--shape", "8x8", "--preset", broken]);
    sandbox.fails(3, &["codegen", "--shape", "8x8", "--check", broken]);
    let missing = sandbox.fails(1, &["codegen", "--shape", "8x8", "--check", "/nowhere"]);
    assert!(missing.contains("cannot read /nowhere") && missing.contains("hint: "), "{missing}");
    let twice = ["codegen", "--shape", "8x8", "--shape", "8x8"];
    assert!(sandbox.fails(2, &twice).contains("listed twice"));
    let none = ["codegen", "--shape", "8x8", "--preset", text(&preset)];
    assert!(sandbox.fails(2, &none).contains("no record of this preset"));
    assert!(sandbox.fails(2, &["codegen", "--shape", "8x8", "--tile", "4x2"]).contains("r4u2"));
}

/// The text of machine code depends on the compiler, so only what must be there is looked for.
#[cfg(all(feature = "asm", target_arch = "x86_64"))]
#[test]
fn codegen_shows_the_machine_code_of_this_program() {
    let sandbox = Sandbox::new();
    let asm = |args: &[&str]| sandbox.ok(&[&["codegen", "--emit", "asm"], args].concat());
    let avx2 = asm(&["--kernel", "gemv_i2s_maddx4_r1u2_avx2"]);
    for word in ["; gemv_i2s_maddx4_r1u2_avx2: ", "vpmaddubsw", "prefetcht0", ".L0:", "ret"] {
        assert!(avx2.contains(word), "{word}: {avx2}");
    }
    assert_eq!(avx2, asm(&["--kernel", "gemv_i2s_maddx4_r1u2_avx2"]));
    assert!(asm(&["--kernel", "gemm_dot_r4t32_avx512"]).contains("vpdpbusd"));
    // One that is not compiled in for this number of inputs is stood for by one for any.
    let output = sandbox.run(&["codegen", "--emit", "asm", "--shape", "7x777"]);
    assert!(stderr(&output).contains("_k777 is not compiled into"), "{}", stderr(&output));
    let missing =
        sandbox.fails(1, &["codegen", "--emit", "asm", "--shape", "8x8", "--tile", "r8u1"]);
    assert!(missing.contains("which has gemv_i2s_madd_r1u1_avx2, "), "{missing}");
    assert!(missing.contains("hint: trilut codegen --kernel gemv_i2s_"), "{missing}");
    // One that cannot be shown does not hide the others, and what is wrong with it is said.
    let mixed = asm(&["--shape", "8x8", "--isa", "neon", "--isa", "scalar", "--isa", "avx2"]);
    assert!(
        mixed.contains("; gemv_i2s_maddx4_r1u2_neon_k8 is for aarch64, this program for x86_64\n")
    );
    assert!(
        mixed.contains("; gemv_i2s_dot_r1u1_scalar: ") && mixed.contains("r1u2_avx2: "),
        "{mixed}"
    );
    let foreign =
        sandbox.fails(1, &["codegen", "--emit", "asm", "--shape", "8x8", "--isa", "i8mm"]);
    assert!(foreign.contains("is for aarch64") && foreign.contains("--emit rust"), "{foreign}");
    let all = ["--kernel", "gemv_i2s_madd_r1u2_neon", "--kernel", "gemm_madd_r4t8_neon"];
    let all = sandbox.fails(1, &[&["codegen", "--emit", "asm"], &all[..]].concat());
    assert!(
        all.contains("none of these kernels") && all.contains("gemm_madd_r4t8_neon is"),
        "{all}"
    );
}

#[test]
fn the_same_seed_tells_the_same_story_on_any_engine() {
    let sandbox = Sandbox::new();
    let story = |extra: &[&str]| {
        let base = ["run", "Once upon a time", "-n", "24", "--seed", "7"];
        sandbox.ok(&base.into_iter().chain(extra.iter().copied()).collect::<Vec<_>>())
    };
    let first = story(&[]);
    assert!(first.starts_with("Once upon a time"), "{first}");
    for extra in [
        &["-t", "1"][..],
        &["--format", "tl1"],
        &["--format", "tl2", "-t", "3"],
        &["--load", "copy"],
    ] {
        assert_eq!(story(extra), first, "{extra:?}");
    }
    let scalar = sandbox
        .command(&["run", "Once upon a time", "-n", "24", "--seed", "7"])
        .env("TRILUT_ISA", "scalar")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(scalar.stdout).unwrap(), first);
}

#[test]
fn prompts_come_from_arguments_or_standard_input() {
    let sandbox = Sandbox::new();
    let args = ["run", "-n", "4", "--temp", "0"];
    let argument = sandbox.ok(&["run", "The fox", "-n", "4", "--temp", "0"]);
    let piped = sandbox.command(&args).write_stdin("The fox\n").output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), argument);
    let chat = sandbox.ok(&["run", "demo", "What is 2 + 2?", "--chat", "--temp", "0", "-n", "8"]);
    assert!(!chat.contains("User:"), "{chat}");
    assert!(sandbox.fails(2, &["run", "demo", "two", "words"]).contains("quotes"));
    for file in ["--file", "--prompts"] {
        let both = sandbox.fails(2, &["run", "demo", "The fox", file, "Cargo.toml"]);
        assert!(both.contains(file), "{both}");
    }
}

#[test]
fn bad_options_are_refused() {
    let sandbox = Sandbox::new();
    assert!(sandbox.fails(2, &["run", "x", "--temp=-1"]).contains("temperature"));
    assert!(sandbox.fails(2, &["run", "x", "-t", "0"]).contains("not 1 to 1024"));
    // Numbers that only the model shows to be too large.
    for args in [
        &["run", "x", "-c", "100000"][..],
        &["run", "x", "-c", "0"],
        &["perplexity", "-f", "README.md", "-c", "3"],
        &["bench", "--layers", "99"],
        &["dummy", "--model", "demo", "--layers", "99", "-o", text(&sandbox.path("none"))],
    ] {
        assert!(sandbox.fails(2, args).contains("\nhint: "), "{args:?}");
    }
    let other = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    for (name, value) in [("TRILUT_ISA", "sse9"), ("TRILUT_ISA", other), ("TRILUT_THREADS", "many")]
    {
        let output = sandbox.command(&["doctor"]).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(name) && stderr(&output).contains(value));
        assert!(stderr(&output).contains("\nhint: "), "{}", stderr(&output));
    }
}

#[test]
fn files_that_are_no_models_are_explained() {
    let sandbox = Sandbox::new();
    let missing = sandbox.fails(1, &["run", "missing.gguf"]);
    assert!(missing.starts_with("error: ") && missing.contains("missing.gguf"), "{missing}");
    // A name of a model is no file, and is told in the case in which it is one.
    let name = sandbox.fails(1, &["tune", "-m", "BitNet-2B-4T"]);
    assert!(name.contains("hint: ") && name.contains("trilut tune -m bitnet-2b-4t"), "{name}");
    let escape = sandbox.fails(1, &["run", "\u{1b}[31m.gguf"]);
    assert!(!escape.contains('\u{1b}') && escape.contains("\\u{1b}[31m"), "{escape}");
    let file = sandbox.path("short.gguf");
    std::fs::write(&file, b"GGUF\x03\0\0\0").unwrap();
    for command in ["run", "inspect"] {
        let error = sandbox.fails(1, &[command, text(&file)]);
        assert!(error.starts_with("error: "), "{error}");
    }
    std::fs::write(&file, b"not a model at all, but long enough to look").unwrap();
    assert!(sandbox.fails(1, &["inspect", text(&file)]).contains("GGUF"));
}

#[test]
fn a_truncated_model_names_what_is_missing() {
    let sandbox = Sandbox::new();
    let model = trilut::runtime::embedded::model();
    let file = sandbox.path("cut.gguf");
    std::fs::write(&file, &model[..model.len() - 1000]).unwrap();
    let error = sandbox.fails(1, &["run", text(&file), "x"]);
    assert!(error.contains("bytes"), "{error}");
}

#[test]
fn inspect_lists_metadata_and_tensors() {
    let sandbox = Sandbox::new();
    let summary = sandbox.ok(&["inspect"]);
    assert!(summary.contains("bitnet-b1.58") && summary.contains("I2_S"), "{summary}");
    assert!(sandbox.ok(&["inspect", "--tensors"]).contains("blk.0.attn_q.weight"));
}

/// Tunes one small shape quickly, however busy the machine is.
const QUICK_TUNE: &[&str] =
    &["tune", "--shape", "64x256", "--effort", "estimate", "--time-limit", "20s", "-t", "1"];

#[test]
fn tuning_twice_does_the_work_once() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("here.toml");
    let args = [QUICK_TUNE, &["-o", text(&file)]].concat();
    let first = sandbox.ok(&args);
    for word in ["64x256", "decode", "gemv_", "prefill of 128", "gemm_"] {
        assert!(first.contains(word), "{word}: {first}");
    }
    let written = std::fs::read(&file).unwrap();
    let second = sandbox.run(&args);
    assert!(stderr(&second).contains("nothing to do"), "{}", stderr(&second));
    assert_eq!(std::fs::read(&file).unwrap(), written);
    let shown = sandbox.ok(&["presets", "show", text(&file)]);
    assert_eq!(shown.as_bytes(), written);
    let listed = sandbox.ok(&["tune", "--list-space"]);
    assert!(listed.contains("prefill") && listed.contains("3840"), "{listed}");
    assert!(sandbox.fails(2, &["tune", "--shape", "0x5"]).contains("1..="));
    assert!(sandbox.fails(2, &["tune", "--phase", "dream"]).contains("prefill"));
}

#[test]
fn one_phase_is_tuned_alone_and_the_others_added() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("here.toml");
    let args = [QUICK_TUNE, &["-o", text(&file)]].concat();
    let tune = |phase| sandbox.run(&[&args[..], &["--phase", phase]].concat());
    let phases = || -> Vec<String> {
        let written = std::fs::read_to_string(&file).unwrap();
        written.lines().filter(|line| line.starts_with("phase")).map(str::to_owned).collect()
    };
    assert!(tune("prefill").status.success());
    assert_eq!(phases(), ["phase = \"prefill\""]);
    let both = tune("all");
    assert!(stderr(&both).contains("tuning 2 shapes for"), "{}", stderr(&both));
    assert_eq!(
        phases(),
        ["decode", "batch", "prefill"].map(|phase| format!("phase = \"{phase}\""))
    );
    assert!(stderr(&tune("decode")).contains("nothing to do"));
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let sandbox = Sandbox::new();
    // A file where the directory should be.
    std::fs::write(sandbox.path("cache"), "").unwrap();
    let output = sandbox.run(&["run", "x", "-n", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("note: the records are not kept"), "{}", stderr(&output));
}

#[test]
fn presets_that_do_not_fit_cost_speed_not_answers() {
    let sandbox = Sandbox::new();
    let story = sandbox.ok(&["run", "x", "-n", "6", "--temp", "0"]);
    let file = sandbox.path("p.toml");
    sandbox.ok(&["tune", "--effort", "estimate", "-o", text(&file)]);
    let good = std::fs::read_to_string(&file).unwrap();
    let with = |preset: &str| {
        std::fs::write(&file, preset).unwrap();
        sandbox.run(&["run", "x", "-n", "6", "--temp", "0", "--preset", text(&file)])
    };
    let unknown = with(&good.replace("_avx2", "_avx512").replace("_scalar", "_avx512"));
    let foreign = with(&good.replace("stepping = ", "stepping = 9"));
    for output in [with(&good), unknown, foreign] {
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), story);
    }
    for (bad, word) in [
        (good.replace("schema = 1", "schema = 99"), "99"),
        (good[..good.rfind("kernel = ").unwrap() + 12].to_owned(), "p.toml"),
        (good.replace("prefetch = ", "prefetch = 9999999"), "prefetch"),
        ("hello".to_owned(), "p.toml"),
    ] {
        let output = with(&bad);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn bench_speaks_llama_bench() {
    let sandbox = Sandbox::new();
    let args = ["bench", "-p", "16", "-n", "4", "-r", "2", "-t", "1,2"];
    let table = sandbox.ok(&args);
    assert_eq!(table.lines().count(), 2 + 4, "{table}");
    assert!(table.contains("| pp16 |") && table.contains(" ± "), "{table}");
    let json = sandbox.ok(&[&args[..], &["-o", "json"]].concat());
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 4);
    assert_eq!(rows[1]["n_gen"], 4);
    assert_eq!(rows[1]["load"], "map");
    assert_eq!(rows[0]["samples_ns"].as_array().unwrap().len(), 2);
    assert_eq!(sandbox.ok(&[&args[..], &["-o", "csv"]].concat()).lines().count(), 5);
    assert!(sandbox.fails(2, &["bench", "-p", "0", "-n", "0"]).contains("nothing to measure"));
    // Behind a context that is filled already; several texts take turns at it.
    let deep = ["bench", "-p", "16", "-n", "4", "-b", "1,2", "-d", "0,20", "-r", "1", "-t", "1"];
    let table = sandbox.ok(&deep);
    assert_eq!(table.lines().count(), 2 + 6, "{table}");
    for name in [" pp16 |", " pp16 @ d20 |", " tg4 @ d20 |", " tg4x2 @ d20 |"] {
        assert!(table.contains(name), "{table}");
    }
    let error = sandbox.fails(2, &["bench", "-p", "16", "-d", "100000"]);
    assert!(error.contains("pp16 @ d100000 does not fit") && error.contains("hint: "), "{error}");
}

#[test]
fn the_cache_may_be_of_integers() {
    let sandbox = Sandbox::new();
    let tell = |more: &[&str]| {
        let story = ["run", "Once upon a time", "-n", "20", "--temp", "0", "-t", "1"];
        sandbox.ok(&[&story[..], more].concat())
    };
    let plain = tell(&[]);
    assert_eq!(tell(&["--cache-type", "q16"]), plain);
    for kind in ["f16", "q8", "q8_0"] {
        // The model is sure enough of these words.
        assert_eq!(tell(&["--cache-type", kind]), plain, "{kind}");
    }
    let small = ["--cache-type", "q8", "-c", "16", "--on-full", "shift"];
    assert!(tell(&small).starts_with("Once upon a time"));
    let bench = ["bench", "-p", "8", "-n", "2", "-r", "1", "-t", "1", "-o", "json"];
    let bytes = |kind| {
        let json = sandbox.ok(&[&bench[..], &["--cache-type", kind]].concat());
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(rows[0]["type_k"], kind);
        rows[0]["cache_bytes"].as_u64().unwrap()
    };
    assert!(bytes("q8") * 10 < bytes("f16") * 6);
    assert!(bytes("q16") * 10 < bytes("f16") * 11);
    assert!(sandbox.fails(2, &["run", "--cache-type", "q3", "hello"]).contains("q16, f16, q8"));
}

#[test]
fn dummies_run() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("dummy.gguf");
    sandbox.ok(&["dummy", "--model", "demo", "-o", text(&file)]);
    let text_of = sandbox.ok(&["run", text(&file), "hello", "-n", "3"]);
    assert!(text_of.starts_with("hello"), "{text_of}");
    for (head, name) in [("f32", "F32"), ("q8_0", "Q8_0"), ("q6_k", "Q6_K")] {
        sandbox.ok(&["dummy", "--model", "demo", "--head", head, "-o", text(&file)]);
        let types = sandbox.ok(&["inspect", text(&file)]);
        assert!(types.contains(name) && types.contains("load: map"), "{types}");
        for load in ["map", "copy"] {
            sandbox.ok(&["run", text(&file), "hello", "-n", "2", "--load", load]);
        }
    }
    let error = sandbox.fails(2, &["dummy", "--model", "nope", "-o", text(&file)]);
    assert!(error.contains("bitnet-2b-4t") && error.contains("hint: "), "{error}");
}

#[test]
fn doctor_explains_every_rung() {
    let sandbox = Sandbox::new();
    let report = sandbox.ok(&["doctor"]);
    for word in ["--preset", "$TRILUT_PRESETS", "analytic estimate", "scalar", "TRILUT_ISA"] {
        assert!(report.contains(word), "{word} is missing in {report}");
    }
    let json: serde_json::Value = serde_json::from_str(&sandbox.ok(&["doctor", "--json"])).unwrap();
    assert!(json["isas"].as_array().unwrap().iter().any(|isa| isa == "scalar"));
    assert!(sandbox.ok(&["presets", "list"]).contains("preset"));
}
