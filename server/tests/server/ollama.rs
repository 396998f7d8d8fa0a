//! Ollama's API over the wire.

use crate::client::{self, Response, TestServer, ask, model};
use serde_json::{Value, json};
use trilut_runtime::embedding::{Embedder, Pooling};
use trilut_server::{Served, ServerOptions};

fn lines(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn chat(text: &str) -> Value {
    json!({
        "model": "demo",
        "messages": [{ "role": "user", "content": text }],
        "options": { "temperature": 0, "num_predict": 40 },
    })
}

fn with(mut value: Value, name: &str, field: Value) -> Value {
    value[name] = field;
    value
}

#[test]
fn the_model_is_described() {
    let server = TestServer::start();
    assert!(server.get("/api/version").ok()["version"].is_string());
    assert_eq!(server.get("/api/tags").ok()["models"][0]["name"], "demo:latest");
    let loaded = server.get("/api/ps").ok()["models"][0].clone();
    assert_eq!(loaded["model"], "demo:latest");
    let digest = loaded["digest"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{digest}");
    assert_eq!(server.get("/api/tags").ok()["models"][0]["digest"], digest);
    let show = server.post("/api/show", &json!({ "model": "demo:latest" })).ok();
    assert_eq!(show["details"]["family"], "bitnet-b1.58");
    assert_eq!(show["details"]["parameter_size"], "3.8M");
    assert!(show["template"].as_str().unwrap().contains("messages"));
    assert!(server.post("/api/show", &json!({ "model": "x" })).error(404).is_string());
    assert!(server.post("/api/show", &json!({})).error(400).is_string());
    assert!(server.get("/api/nothing").error(404).is_string());
    assert!(server.get("/api/show").error(405).is_string());
    let other = server.request("GET", "/api/tags", "origin: https://evil.example\r\n", b"");
    assert!(other.error(403).is_string());
}

#[test]
fn the_seed_minus_one_is_a_new_one_each_time() {
    let server = TestServer::start();
    let told = |seed: i64| {
        let request = json!({
            "model": "demo", "prompt": "The fox", "raw": true, "stream": false,
            "options": { "temperature": 2, "top_k": 0, "top_p": 1, "num_predict": 24, "seed": seed },
        });
        server.post("/api/generate", &request).ok()["response"].as_str().unwrap().to_owned()
    };
    assert_eq!(told(7), told(7));
    assert_ne!(told(-1), told(-1));
}

#[test]
fn chats_are_streamed_by_default() {
    let server = TestServer::start();
    let streamed = lines(&server.post("/api/chat", &chat("Tell me a story about a fox.")));
    let whole = with(chat("Tell me a story about a fox."), "stream", json!(false));
    let whole = server.post("/api/chat", &whole).ok();
    let text: String =
        streamed.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(whole["message"]["content"], text);
    assert_eq!(text, server.chat(&ask("Tell me a story about a fox.")));
    let (last, before) = streamed.split_last().unwrap();
    assert!(before.iter().all(|line| line["done"] == false));
    assert_eq!(last["done"], true);
    assert!(["stop", "length"].contains(&last["done_reason"].as_str().unwrap()));
    for name in ["total_duration", "prompt_eval_duration", "eval_duration", "eval_count"] {
        assert!(last[name].as_u64().unwrap() > 0, "{name}: {last}");
    }
    assert_eq!(last["eval_count"], whole["eval_count"]);
}

#[test]
fn prompts_are_put_into_the_template_unless_they_are_raw() {
    let server = TestServer::start();
    let request = |fields: Value| {
        let mut request = json!({
            "model": "demo", "stream": false, "options": { "temperature": 0, "num_predict": 24 },
        });
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        server.post("/api/generate", &request).ok()["response"].as_str().unwrap().to_owned()
    };
    let short = with(chat("Hello"), "options", json!({ "temperature": 0, "num_predict": 24 }));
    let answer = server.post("/api/chat", &with(short, "stream", json!(false))).ok();
    assert_eq!(request(json!({ "prompt": "Hello" })), answer["message"]["content"]);
    let plain = json!({ "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0 });
    let plain = server.post("/v1/completions", &plain).ok();
    let raw = request(json!({ "prompt": "Once upon a time", "raw": true }));
    assert_eq!(raw, plain["choices"][0]["text"]);
}

#[test]
fn a_request_without_a_prompt_loads_or_unloads() {
    let server = TestServer::start();
    let reason = |path: &str, fields: Value| {
        let request = client::with(json!({ "model": "demo" }), fields);
        let answer = server.post(path, &request).ok();
        assert_eq!(answer["done"], true);
        answer["done_reason"].as_str().unwrap().to_owned()
    };
    for fields in [json!({}), json!({ "prompt": "" }), json!({ "prompt": "", "raw": true })] {
        assert_eq!(reason("/api/generate", fields), "load");
    }
    for (time, said) in [
        (json!(0), "unload"),
        (json!("0s"), "unload"),
        (json!("0"), "unload"),
        (json!(-1), "load"),
        (json!("10m"), "load"),
        (Value::Null, "load"),
    ] {
        assert_eq!(reason("/api/generate", json!({ "keep_alive": time })), said, "{time}");
        assert_eq!(reason("/api/chat", json!({ "messages": [], "keep_alive": time })), said);
    }
}

#[test]
fn options_are_taken_as_clients_write_them() {
    let server = TestServer::start();
    let count = |options: Value| {
        let request = with(with(chat("Hello"), "options", options), "stream", json!(false));
        server.post("/api/chat", &request).ok()["eval_count"].as_u64().unwrap()
    };
    let floats = json!({
        "temperature": 0, "num_predict": 4.0, "num_ctx": 4096.0, "top_k": 40.0, "seed": 7.0,
    });
    assert_eq!(count(floats), 4);
    assert_eq!(count(json!({ "temperature": 0, "top_k": -1, "num_predict": 3 })), 3);
    // No limit, as in Ollama.
    let free = count(json!({ "temperature": 0 }));
    assert_eq!(count(json!({ "temperature": 0, "num_predict": 0 })), free);
    for wrong in [json!(40.5), json!("40"), json!(1e300)] {
        let request = with(chat("Hello"), "options", json!({ "top_k": wrong }));
        let error = server.post("/api/chat", &request).error(400);
        assert!(error.as_str().unwrap().contains("top_k"), "{error}");
    }
}

#[test]
fn texts_are_cut_to_the_context_unless_a_client_forbids_it() {
    let serve = |served: Served| served.with_embeddings(Pooling::Mean);
    let server = TestServer::serving(ServerOptions::default(), serve);
    let request = |fields| client::with(json!({ "model": "demo" }), fields);
    let embed = |fields| server.post("/api/embed", &request(fields)).ok();
    let long = "fox ".repeat(2000);
    let cut = embed(json!({ "input": [long, "A fox."] }));
    assert_eq!(cut["embeddings"].as_array().unwrap().len(), 2);
    let mut embedder = Embedder::new(model(), Pooling::Mean).unwrap();
    let read = embedder.tokens("A fox.").len() + model().context();
    assert_eq!(cut["prompt_eval_count"], read);
    let mut tokens = embedder.tokens(&long);
    tokens.truncate(model().context());
    let offline = embedder.embed_tokens(&tokens).unwrap();
    let vector: Vec<f32> = serde_json::from_value(cut["embeddings"][0].clone()).unwrap();
    assert_eq!(vector, offline);
    assert_eq!(
        embed(json!({ "input": "A fox.", "truncate": false }))["embeddings"][0],
        cut["embeddings"][1]
    );

    for nothing in [json!({ "input": [] }), json!({ "input": "" }), json!({})] {
        assert_eq!(embed(nothing)["embeddings"], json!([]));
    }
    let fails = |fields| server.post("/api/embed", &request(fields)).error(400).to_string();
    assert!(fails(json!({ "input": long, "truncate": false })).contains("512"));
    assert!(fails(json!({ "input": "x", "dimensions": 7 })).contains("dimensions"));
    let hidden = offline.len();
    embed(json!({ "input": "x", "dimensions": hidden }));
}

#[test]
fn formats_and_errors() {
    let server = TestServer::start();
    let schema = json!({ "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"], "additionalProperties": false });
    let request = with(with(chat("Hello"), "format", schema), "stream", json!(false));
    let answer = server.post("/api/chat", &request).ok();
    let value: Value =
        serde_json::from_str(answer["message"]["content"].as_str().unwrap()).unwrap();
    assert!(value["a"].is_boolean());
    // A larger context than there is is capped, as Ollama does.
    let large = json!({ "temperature": 0, "num_predict": 4, "num_ctx": 1 << 20 });
    let request = with(with(chat("Hello"), "options", large), "stream", json!(false));
    assert_eq!(server.post("/api/chat", &request).ok()["eval_count"], 4);
    let fails = |request: Value, status| {
        let error = server.post("/api/chat", &request).error(status);
        assert!(error.is_string(), "{error}");
        error.as_str().unwrap().to_owned()
    };
    assert!(fails(with(chat("x"), "model", json!("other")), 404).contains("other"));
    assert!(fails(with(chat("x"), "model", Value::Null), 400).contains("required"));
    assert!(fails(with(chat("x"), "tools", json!([{}])), 400).contains("tools"));
    assert!(fails(with(chat("x"), "system", json!("Be brief.")), 400).contains("role is system"));
    let raw = json!({ "model": "demo", "prompt": "x", "raw": true, "system": "Be brief." });
    let error = server.post("/api/generate", &raw).error(400);
    assert!(error.as_str().unwrap().contains("raw"), "{error}");
    assert!(fails(with(chat("x"), "options", json!({ "num_ctx": -1 })), 400).contains("num_ctx"));
    assert!(fails(with(chat("x"), "format", json!("xml")), 400).contains("json"));
    assert!(
        server.post("/api/embed", &json!({ "model": "demo", "input": "x" })).error(501).is_string()
    );
    assert!(server.request("POST", "/api/chat", "", b"{").error(400).is_string());
}
