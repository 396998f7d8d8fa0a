//! What llama-bench prints, in the spellings of its family: llama.cpp, bitnet.cpp, ik_llama.cpp.
//!
//! They agree on the names of the fields that matter here and differ in the rest: a JSON array or one
//! object per line, log lines before, between and after the objects, numbers as texts, samples of time or
//! of speed or only their mean. So every object in the text that names a prompt and a generation length is
//! taken for a result, and whatever else there is, is noise.

use super::test::Test;
use serde_json::{Map, Value};

/// Two figures of one result that should be the same may differ by this much; they are printed rounded.
const ROUNDING: f64 = 0.01;

/// One result, as far as it was said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Reported {
    /// Time of the test in nanoseconds; the median of its samples.
    pub(super) ns: u64,
    /// Commit and number of the build.
    pub(super) build: String,
    pub(super) model_filename: String,
    pub(super) model_type: String,
    pub(super) model_size: Option<u64>,
}

/// The result of a test in everything that a program printed on stdout, or why there is none.
pub(super) fn result(text: &str, test: Test, threads: usize) -> Result<Reported, String> {
    let objects = objects(text);
    if objects.is_empty() {
        let start: String = text.trim_start().chars().take(60).collect();
        return Err(match start.as_str() {
            "" => "it printed nothing on stdout".to_owned(),
            _ => format!(
                "there is no JSON result in what it printed: `{}`",
                start.replace('\n', " ")
            ),
        });
    }
    let (n_prompt, n_gen) = test.lengths();
    let found = objects.iter().find(|object| {
        let is = |key: &str, n: usize| whole(object, key) == Some(n as u64);
        // Engines that know of no depth do not name it.
        let depth = whole(object, "n_depth").unwrap_or(0);
        is("n_prompt", n_prompt) && is("n_gen", n_gen) && depth == test.depth() as u64
    });
    let Some(object) = found else {
        let told = |object: &Map<String, Value>| {
            let n = |key| whole(object, key).map_or("?".to_owned(), |n| n.to_string());
            let behind = whole(object, "n_depth").filter(|depth| *depth > 0);
            let behind = behind.map_or(String::new(), |depth| format!(" behind {depth}"));
            format!("{} + {}{behind}", n("n_prompt"), n("n_gen"))
        };
        let told: Vec<String> = objects.iter().map(told).collect();
        let behind = match test.depth() {
            0 => String::new(),
            depth => format!(" behind {depth}"),
        };
        return Err(format!(
            "it was asked for {n_prompt} + {n_gen} tokens{behind} (prompt + generated) and measured {}",
            told.join(", ")
        ));
    };
    if let Some(n) = whole(object, "n_threads").filter(|n| *n != threads as u64) {
        return Err(format!("it was asked for {threads} threads and used {n}"));
    }
    let word = |key: &str| match object.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let known =
        |text: String| Some(text).filter(|text| !matches!(text.as_str(), "" | "0" | "unknown"));
    let build: Vec<String> =
        ["build_commit", "build_number"].into_iter().filter_map(|key| known(word(key))).collect();
    Ok(Reported {
        ns: time(object, test)?,
        build: build.join(" "),
        model_filename: word("model_filename"),
        model_type: word("model_type"),
        model_size: whole(object, "model_size"),
    })
}

/// Nanoseconds of the test, from whichever figures there are; those that there are must agree.
fn time(object: &Map<String, Value>, test: Test) -> Result<u64, String> {
    let tokens = test.tokens() as f64;
    let median = |key: &str| -> Result<Option<f64>, String> {
        let Some(value) = object.get(key) else { return Ok(None) };
        let samples: Option<Vec<f64>> =
            value.as_array().map(|all| all.iter().filter_map(real).collect());
        match samples {
            Some(samples) if !samples.is_empty() => Ok(Some(trilut_tuning::median(&samples))),
            _ => Err(format!("its `{key}` holds no numbers")),
        }
    };
    let mean = |key: &str| object.get(key).and_then(real);
    let from_rate = |rate: f64| tokens * 1e9 / rate;
    let figures = [
        ("samples_ns", median("samples_ns")?),
        ("samples_ts", median("samples_ts")?.map(from_rate)),
        ("avg_ns", mean("avg_ns")),
        ("avg_ts", mean("avg_ts").map(from_rate)),
    ];
    let mut first: Option<(&str, f64)> = None;
    for (key, ns) in figures {
        let Some(ns) = ns else { continue };
        // A test takes between a nanosecond and a month.
        if !(1.0..3e15).contains(&ns) {
            return Err(format!("its `{key}` is no time that a test can take"));
        }
        match first {
            None => first = Some((key, ns)),
            // Of several samples, the median and the mean may well differ.
            Some((other, before)) => {
                let several =
                    object.get("samples_ns").and_then(Value::as_array).map_or(0, Vec::len) > 1;
                if !several && (ns / before - 1.0).abs() > ROUNDING {
                    return Err(format!("its `{other}` and its `{key}` contradict each other"));
                }
            }
        }
    }
    first.map(|(_, ns)| ns as u64).ok_or_else(|| "its result holds no time and no speed".to_owned())
}

/// Every result object in a text with noise. An object begins at the start of a line.
fn objects(text: &str) -> Vec<Map<String, Value>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.trim_start();
        if line.starts_with(['{', '[']) {
            let mut values = serde_json::Deserializer::from_str(line).into_iter::<Value>();
            if let Some(Ok(value)) = values.next() {
                let end = values.byte_offset();
                collect(value, &mut found);
                // What follows on the line, such as the comma between two objects, is noise.
                rest = line[end..].trim_start_matches([',', ' ']);
                continue;
            }
        }
        rest = line.split_once('\n').map_or("", |(_, rest)| rest);
    }
    found
}

fn collect(value: Value, found: &mut Vec<Map<String, Value>>) {
    match value {
        Value::Object(object)
            if object.contains_key("n_prompt") && object.contains_key("n_gen") =>
        {
            found.push(object);
        }
        Value::Array(values) => values.into_iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    }
}

fn whole(object: &Map<String, Value>, key: &str) -> Option<u64> {
    match object.get(key)? {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ik_llama.cpp: an array, log lines inside it, many fields of its own.
    const IK: &str = r#"[
============ Repacked 211 tensors
  {
    "build_commit": "8337e4cd3",
    "build_number": 4211,
    "cuda": false,
    "rpc": "0",
    "cpu_info": "AMD EPYC",
    "gpu_info": "",
    "model_filename": "m \"x\".gguf",
    "model_type": "bitnet-b1.58 2B IQ2_BN",
    "model_size": 798000000,
    "model_n_params": 2412820480,
    "n_threads": 2,
    "ser": "-1,0",
    "n_prompt": 0,
    "n_gen": 16,
    "test_time": "2026-11-22T11:37:08Z",
    "avg_ns": 400000000,
    "stddev_ns": 0,
    "avg_ts": 40.000000,
    "stddev_ts": 0.000000,
    "test": "tg16",
    "samples_ns": [ 400000000 ],
    "samples_ts": [ 40 ]
  }
]
"#;

    #[test]
    fn ik_llama_cpp() {
        let found = result(IK, Test::generate(1, 16), 2).unwrap();
        assert_eq!(found.ns, 400_000_000);
        assert_eq!(found.build, "8337e4cd3 4211");
        assert_eq!(found.model_filename, "m \"x\".gguf");
        assert_eq!(found.model_size, Some(798_000_000));
    }

    #[test]
    fn bitnet_cpp_on_two_lines_without_samples() {
        let text = r#"warning: not compiled with GPU offload support
{"build_commit": "40ed0f29", "n_threads": 4, "n_prompt": 512, "n_gen": 0, "avg_ns": 2000000000, "stddev_ns": 5, "avg_ts": 256.0, "stddev_ts": 0.1}
{"build_commit": "40ed0f29", "n_threads": 4, "n_prompt": 0, "n_gen": 128, "avg_ns": 3200000000, "avg_ts": "40.0"}
llama_perf: done
"#;
        assert_eq!(result(text, Test::prompt(512), 4).unwrap().ns, 2_000_000_000);
        assert_eq!(result(text, Test::generate(1, 128), 4).unwrap().ns, 3_200_000_000);
    }

    #[test]
    fn llama_cpp_with_depths_and_speeds_only() {
        let text = r#"[{"n_prompt":"64","n_gen":0,"n_depth":32,"n_threads":1,"samples_ts":[1.0]},
            {"n_prompt":64,"n_gen":0,"n_depth":0,"n_threads":1,"build_number":6000,"samples_ts":[100.0,128.0,300.0]}]"#;
        let found = result(text, Test::prompt(64), 1).unwrap();
        assert_eq!((found.ns, found.build.as_str()), (500_000_000, "6000"));
        let deep = result(text, Test::prompt(64).behind(32), 1).unwrap();
        assert_eq!((deep.ns, deep.build.as_str()), (64_000_000_000, ""));
        let error = result(text, Test::prompt(64).behind(16), 1).unwrap_err();
        assert!(error.contains("64 + 0 tokens behind 16"), "{error}");
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_refused() {
        let error = |text: &str, test, threads| result(text, test, threads).unwrap_err();
        assert!(error("", Test::prompt(1), 1).contains("nothing"));
        assert!(error("\n| model | t/s |\n", Test::prompt(1), 1).contains("no JSON result"));
        assert!(error("{\"error\": 1}\n[3]", Test::prompt(1), 1).contains("no JSON result"));
        assert!(error(&IK[..IK.len() - 40], Test::generate(1, 16), 2).contains("no JSON result"));
        let other = error(IK, Test::prompt(16), 2);
        assert!(other.contains("16 + 0") && other.contains("measured 0 + 16"), "{other}");
        assert!(error(IK, Test::generate(1, 16), 1).contains("used 2"));
        let with = |from: &str, to: &str| error(&IK.replace(from, to), Test::generate(1, 16), 2);
        assert!(with("[ 400000000 ]", "[ 0 ]").contains("`samples_ns` is no time"));
        assert!(with("[ 400000000 ]", "[ ]").contains("`samples_ns` holds no numbers"));
        assert!(with("[ 40 ]", "[ 4 ]").contains("contradict"));
        assert!(with("40.000000", "-40.0").contains("`avg_ts` is no time"));
        let bare = r#"{"n_prompt": 0, "n_gen": 16}"#;
        assert!(error(bare, Test::generate(1, 16), 2).contains("no time and no speed"));
    }
}
