//! Commands that make and measure models, as a user meets them.

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

const STORY: &str = "Once upon a time there was a fox named Max. One day he went to the lake to play. \
                     There he found a red ball. Max was happy. On the way home he met a bird.";

#[test]
fn checkpoints_are_converted_checked_and_run() {
    let sandbox = Sandbox::new();
    let [dir, file, other] = ["checkpoint", "model.gguf", "other.gguf"].map(|n| sandbox.name(n));
    sandbox.ok(&[
        "dummy",
        "--model",
        "demo",
        "--safetensors",
        "packed",
        "--shards",
        "2",
        "-o",
        &dir,
    ]);
    let output = sandbox.run(&["convert", &dir, &file, "--verify", "--head", "q8_0"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("bitnet-b1.58") && said.contains("every tensor was compared"), "{said}");
    let text = sandbox.ok(&["run", &file, "hello", "-n", "3", "--temp", "0"]);
    // From one file to the other it stays the same model.
    sandbox.ok(&["convert", &file, &other, "--verify", "--tensors"]);
    assert_eq!(sandbox.ok(&["run", &other, "hello", "-n", "3", "--temp", "0"]), text);
    let refused = sandbox.fails(1, &["convert", &file, &other, "--codec", "tq1_0"]);
    assert!(refused.contains("ffn_down") && refused.contains("256"), "{refused}");

    assert!(
        sandbox.fails(1, &["convert", &sandbox.name("nowhere"), &file]).contains("there is no")
    );
    assert!(sandbox.fails(2, &["convert", &file, &file]).contains("same file"));
    let config = sandbox.name("checkpoint/config.json");
    let refused = sandbox.fails(2, &["convert", &dir, &config]);
    assert!(refused.contains("a file of the source") && refused.contains(".gguf"), "{refused}");
    assert!(sandbox.fails(1, &["convert", &dir, &dir]).contains("no regular file"));
    std::fs::remove_file(sandbox.path("checkpoint/model-00002-of-00002.safetensors")).unwrap();
    let missing = sandbox.fails(1, &["convert", &dir, &other]);
    assert!(missing.contains("00002-of-00002") && missing.contains("hint: "), "{missing}");
    let empty = sandbox.name("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(sandbox.fails(1, &["convert", &empty, &other]).contains("no safetensors file"));
}

#[test]
fn float_models_are_quantised_with_a_warning() {
    let sandbox = Sandbox::new();
    let [dir, file] = ["checkpoint", "model.gguf"].map(|n| sandbox.name(n));
    sandbox.ok(&["dummy", "--model", "demo", "--safetensors", "masters", "-o", &dir]);
    let output = sandbox.run(&["quantize", &dir, &file, "--verify"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: ") && stderr(&output).contains("relative error"));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("blk.0.attn_q.weight") && table.contains(" %"), "{table}");
    sandbox.ok(&["run", &file, "hello", "-n", "2"]);
}

#[test]
fn perplexity_is_that_of_the_text() {
    let sandbox = Sandbox::new();
    let file = sandbox.name("story.txt");
    std::fs::write(&file, STORY).unwrap();
    let plain = sandbox.ok(&["perplexity", "-f", &file, "-c", "16"]);
    let json = sandbox.ok(&["perplexity", "-f", &file, "-c", "16", "--json", "-t", "1"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let model = trilut::runtime::Model::embedded().unwrap();
    let go = |_: usize, _: usize| std::ops::ControlFlow::Continue(());
    let wanted = trilut::runtime::perplexity(&model, STORY, 16, go).unwrap();
    assert_eq!(json["perplexity"], wanted.value());
    assert!(plain.starts_with(&format!("perplexity {:.4} +/- ", wanted.value())), "{plain}");
    let short = sandbox.fails(1, &["perplexity", "-f", &file]);
    assert!(short.contains("512") && short.contains("hint: "), "{short}");
    // What the hint says can be done.
    let chunk = short.trim_end().rsplit(' ').next().unwrap();
    sandbox.ok(&["perplexity", "-f", &file, "-c", chunk]);
    std::fs::write(&file, "Max").unwrap();
    let hopeless = sandbox.fails(1, &["perplexity", "-f", &file, "-c", "32"]);
    assert!(hopeless.contains("a longer text") && !hopeless.contains("-c "), "{hopeless}");
    assert!(sandbox.fails(1, &["perplexity", "-f", "/nowhere"]).contains("/nowhere"));
    std::fs::write(&file, [0xFF, 0xFE, 0x00]).unwrap();
    assert!(sandbox.fails(1, &["perplexity", "-f", &file]).contains("UTF-8"));
    if cfg!(unix) {
        assert!(sandbox.fails(1, &["perplexity", "-f", "/dev/zero"]).contains("256 MiB"));
    }
    std::fs::write(&file, "").unwrap();
    assert!(sandbox.fails(1, &["embed", "-f", &file]).contains("no texts"));
    assert!(sandbox.fails(1, &["run", "--prompts", &file]).contains("no prompts"));
}

#[test]
fn choices_are_made_by_likelihood() {
    let sandbox = Sandbox::new();
    let file = sandbox.name("questions.tsv");
    let questions = "# text, right, choices\n\
        Once upon a time there was a clever\t0\tgirl named Ella.\tnamed girl. Ella\n\
        There she found a black box. On the way\t1\tmouse, Ella home.\thome, Ella met a mouse.\n";
    std::fs::write(&file, questions).unwrap();
    let plain = sandbox.ok(&["eval", "--tsv", &file]);
    assert!(plain.contains("acc      1.0000") && plain.contains("(2 of 2)"), "{plain}");
    assert!(plain.contains("acc_norm "), "{plain}");
    let json = sandbox.ok(&["eval", "--tsv", &file, "--json"]);
    assert_eq!(json.lines().count(), 3, "{json}");
    std::fs::write(&file, "text only\n").unwrap();
    let error = sandbox.fails(1, &["eval", "--tsv", &file]);
    assert!(error.contains("line 1") && error.contains("TAB"), "{error}");
}

#[test]
fn texts_become_vectors() {
    let sandbox = Sandbox::new();
    // A file that does not say how is refused; the embedded model was made for no way at all.
    let model = sandbox.name("model.gguf");
    sandbox.ok(&["convert", "demo", &model]);
    let refused = sandbox.fails(1, &["embed", "a fox", "-m", &model]);
    assert!(refused.contains("pooling") && refused.contains("--pooling"), "{refused}");
    let plain = sandbox.run(&["embed", "a fox"]);
    assert!(plain.status.success() && stderr(&plain).contains("the mean"), "{}", stderr(&plain));
    let mean = sandbox.ok(&["embed", "a fox", "--pooling", "mean"]);
    assert_eq!(String::from_utf8(plain.stdout).unwrap(), mean);
    let args = ["embed", "a fox", "a bird", "--pooling", "last"];
    let json = sandbox.ok(&args);
    let vectors: Vec<Vec<f32>> = json
        .lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            json["embedding"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap() as f32)
                .collect()
        })
        .collect();
    let raw = sandbox.run(&[&args[..], &["-o", "raw", "-t", "1"]].concat()).stdout;
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(raw, bytes);
    let file = sandbox.name("texts.txt");
    std::fs::write(&file, "a fox\na bird\n").unwrap();
    assert_eq!(sandbox.ok(&["embed", "-f", &file, "--pooling", "last"]), json);
    sandbox.fails(2, &["embed"]);
}

#[test]
fn prompts_of_a_file_are_told_as_one_by_one() {
    let sandbox = Sandbox::new();
    let file = sandbox.name("prompts.txt");
    std::fs::write(&file, "Once upon a time\nThe fox\nMax was happy. He\n").unwrap();
    let args = ["run", "-m", "demo", "--prompts", &file, "-n", "12", "--seed", "3"];
    let first = sandbox.ok(&args);
    assert_eq!(sandbox.ok(&[&args[..], &["--parallel", "1"]].concat()), first);
    let lines: Vec<serde_json::Value> =
        first.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for line in lines {
        let prompt = line["prompt"].as_str().unwrap();
        let alone = sandbox.ok(&["run", "demo", prompt, "-n", "12", "--seed", "3"]);
        assert_eq!(
            alone.trim_end_matches('\n'),
            format!("{prompt}{}", line["text"].as_str().unwrap())
        );
    }
    let refused = sandbox.fails(2, &[&args[..], &["--on-full", "shift"]].concat());
    assert!(refused.contains("--prompts"), "{refused}");
    std::fs::write(&file, format!("The fox\n{}\n", "fox ".repeat(50))).unwrap();
    let refused = sandbox.run(&[&args[..], &["-c", "40"]].concat());
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    assert!(stderr(&refused).contains("line 2 of the prompts has"), "{}", stderr(&refused));
}

#[test]
fn other_engines_spellings_are_known() {
    let sandbox = Sandbox::new();
    let file = sandbox.name("prompt.txt");
    std::fs::write(&file, "The fox\n").unwrap();
    let wanted = sandbox.ok(&["run", "The fox", "-n", "4", "--temp", "0"]);
    for args in [
        &["run", "-m", "demo", "-p", "The fox", "-n", "4", "-t", "1", "-c", "128", "-temp", "0"][..],
        &["run", "-m", "demo", "-f", &file, "--n-predict", "4", "--ctx-size", "128", "--temp", "0"],
    ] {
        assert_eq!(sandbox.ok(args), wanted, "{args:?}");
    }
    sandbox.fails(2, &["run", "-p", "x", "-f", &file]);
}

#[test]
fn a_full_context_ends_the_text_or_shifts_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.name("endless.gguf");
    sandbox.ok(&["dummy", "--model", "demo", "-o", &file]);
    let run = |policy: &str| {
        sandbox.run(&[
            "run",
            &file,
            "hello",
            "-c",
            "32",
            "-n",
            "80",
            "--temp",
            "0",
            "--on-full",
            policy,
        ])
    };
    let (stopped, shifted) = (run("stop"), run("shift"));
    assert!(stderr(&stopped).contains("is full, the text ends here"), "{}", stderr(&stopped));
    assert!(stderr(&stopped).contains("(context)"), "{}", stderr(&stopped));
    assert!(stderr(&shifted).contains("were dropped") && stderr(&shifted).contains("80 tokens"));
    assert!(shifted.stdout.len() > stopped.stdout.len());
    let long = "hello ".repeat(50);
    let refused = sandbox.fails(1, &["run", &file, &long, "-c", "32"]);
    assert!(refused.contains("32 positions"), "{refused}");
    sandbox.ok(&["run", &file, &long, "-c", "32", "-n", "2", "--on-full", "shift"]);
}
