//! OpenAI's API over the wire.

use crate::client::{TestServer, ask, model, with};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use trilut_runtime::embedding::{Embedder, Pooling};
use trilut_runtime::{GenerateOptions, SamplerOptions};
use trilut_server::{Served, ServerOptions};

/// The contents of a streamed chat.
fn content(events: &[Value]) -> String {
    let delta = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    events.iter().filter_map(delta).collect()
}

#[test]
fn models_are_listed() {
    let server = TestServer::start();
    let models = server.get("/v1/models").ok();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "demo");
    assert_eq!(server.get("/v1/models/demo").ok()["object"], "model");
    for other in ["other", "org/demo", "%ff"] {
        let error = server.get(&format!("/v1/models/{other}")).error(404);
        assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    }
    let named = TestServer::named("org/model");
    for path in ["/v1/models/org/model", "/v1/models/org%2Fmodel"] {
        assert_eq!(named.get(path).ok()["id"], "org/model");
    }
}

#[test]
fn a_chat_is_answered_at_once_or_in_pieces() {
    let server = TestServer::start();
    let whole = server.post("/v1/chat/completions", &ask("Tell me a story about a fox.")).ok();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("fox"), "{text}");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["role"], "assistant");
    let usage = &whole["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("prompt_tokens") + count("completion_tokens"), count("total_tokens"));

    let request = with(
        ask("Tell me a story about a fox."),
        json!({ "stream": true, "stream_options": { "include_usage": true } }),
    );
    let events = server.post("/v1/chat/completions", &request).events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(content(&events), text);
    let (usage, last) = (&events[events.len() - 1], &events[events.len() - 2]);
    assert_eq!(last["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
    assert_eq!(last["choices"][0]["delta"], json!({}));
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], count("completion_tokens"));
    assert!(last["usage"].is_null());
    let same = |name: &str| events.iter().all(|event| event[name] == events[0][name]);
    assert!(same("id") && same("created") && same("model") && same("object"));
}

#[test]
fn the_text_is_that_of_the_runtime() {
    let server = TestServer::start();
    let sampling = SamplerOptions { seed: 7, ..SamplerOptions::default() };
    for (settings, sampling) in
        [(json!({ "temperature": 0 }), SamplerOptions::greedy()), (json!({ "seed": 7 }), sampling)]
    {
        let options = GenerateOptions { max_tokens: 50, sampling, ..GenerateOptions::default() };
        let mut session = model().session().unwrap();
        let offline =
            session.generate("Once upon a time", &options, |_| ControlFlow::Continue(())).unwrap();
        let request = with(json!({ "prompt": "Once upon a time", "max_tokens": 50 }), settings);
        let response = server.post("/v1/completions", &request).ok();
        assert_eq!(response["choices"][0]["text"], offline.text);
        assert_eq!(response["choices"][0]["finish_reason"], offline.finish.name());
        assert_eq!(response["usage"]["completion_tokens"], offline.tokens);
        assert_eq!(response["usage"]["prompt_tokens"], offline.prompt_tokens);
    }
}

#[test]
fn content_may_be_in_parts() {
    let server = TestServer::start();
    let parts = json!([{ "type": "text", "text": "Hel" }, { "type": "text", "text": "lo" }]);
    let request = with(ask(""), json!({ "messages": [{ "role": "user", "content": parts }] }));
    assert_eq!(server.chat(&request), server.chat(&ask("Hello")));
    let image = json!([{ "type": "image_url", "image_url": { "url": "x" } }]);
    let request = with(ask(""), json!({ "messages": [{ "role": "user", "content": image }] }));
    let error = server.post("/v1/chat/completions", &request).error(400);
    assert_eq!(error["param"], "messages[0].content[0]");
}

#[test]
fn stop_texts_end_an_answer_before_them() {
    let server = TestServer::start();
    let text = server.chat(&ask("Tell me a story about a fox."));
    // Any part of the text is a stop text, wherever the tokens' boundaries are.
    for (start, len) in [(3, 1), (10, 4), (17, 7), (5, 12)] {
        let stop = &text[start..start + len];
        let before = &text[..text.find(stop).unwrap()];
        for stream in [false, true] {
            let fields = json!({ "stop": ["never comes", stop], "stream": stream });
            let request = with(ask("Tell me a story about a fox."), fields);
            let response = server.post("/v1/chat/completions", &request);
            let (said, finish) = if stream {
                let events = response.events();
                let last = events.last().unwrap()["choices"][0]["finish_reason"].clone();
                (content(&events), last)
            } else {
                let choice = response.ok()["choices"][0].clone();
                let said = choice["message"]["content"].as_str().unwrap().to_owned();
                (said, choice["finish_reason"].clone())
            };
            assert_eq!(said, before, "stop {stop:?}");
            assert_eq!(finish, "stop");
        }
    }
}

#[test]
fn several_answers_and_seeds() {
    let server = TestServer::start();
    let fields = json!({ "n": 3, "seed": 5, "temperature": 1.5 });
    let request = with(ask("Tell me a story."), fields);
    let response = server.post("/v1/chat/completions", &request).ok();
    let text = |index: usize| response["choices"][index]["message"]["content"].clone();
    assert_eq!(response["choices"].as_array().unwrap().len(), 3);
    assert_ne!(text(0), text(1));
    // The answers' seeds follow each other, and each is what it would be alone.
    for index in 0..3 {
        let alone = with(request.clone(), json!({ "n": 1, "seed": 5 + index }));
        assert_eq!(server.chat(&alone), text(index));
    }
    let events =
        server.post("/v1/chat/completions", &with(request.clone(), json!({ "stream": true })));
    let mut streamed = vec![String::new(); 3];
    for event in events.events() {
        let choice = &event["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        streamed[index] += choice["delta"]["content"].as_str().unwrap_or_default();
    }
    assert_eq!(json!(streamed), json!([text(0), text(1), text(2)]));
}

#[test]
fn probabilities_are_reported() {
    let server = TestServer::start();
    let fields = json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 8 });
    let request = with(ask("Hello"), fields);
    let response = server.post("/v1/chat/completions", &request).ok();
    let choice = &response["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len() as u64, response["usage"]["completion_tokens"].as_u64().unwrap());
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(choice["message"]["content"], text);
    for token in tokens {
        // Greedy: the token is the likeliest one.
        assert_eq!(token["top_logprobs"][0]["token"], token["token"]);
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        let logprob = token["logprob"].as_f64().unwrap();
        assert!(logprob <= 0.0 && logprob == token["top_logprobs"][0]["logprob"]);
    }
    let streamed = server.post("/v1/chat/completions", &with(request, json!({ "stream": true })));
    let streamed: Vec<Value> = streamed
        .events()
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(&streamed, tokens);

    let request = json!({ "prompt": "Once upon", "logprobs": 2, "max_tokens": 4, "echo": true, "temperature": 0 });
    let response = server.post("/v1/completions", &request).ok();
    let choice = &response["choices"][0];
    assert!(choice["text"].as_str().unwrap().starts_with("Once upon"));
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(choice["logprobs"]["text_offset"][0], 9);
}

#[test]
fn tokens_begin_where_their_characters_do() {
    let server = TestServer::start();
    // The two bytes of a character are tokens of their own when nothing else may follow.
    let bytes = server.post("/tokenize", &json!({ "content": "é" })).ok()["tokens"].clone();
    let bytes: Vec<u64> = serde_json::from_value(bytes).unwrap();
    let (halves, fields) = (bytes.len() as u64, json!({ "content": "é".repeat(3) }));
    assert_eq!(halves, 2, "the vocabulary has a token for é; choose another character");
    let text = server.post("/tokenize", &fields).ok()["tokens"].as_array().unwrap().len();
    assert_eq!(text, 6);
    let mut bias = serde_json::Map::new();
    for token in &bytes {
        bias.insert(token.to_string(), json!(100));
    }
    // Whichever of the halves comes, whole characters or marks of broken ones are what is counted.
    let request = json!({
        "prompt": "é", "logprobs": 0, "max_tokens": 7, "temperature": 0, "logit_bias": bias,
        "echo": true, "return_token_ids": true, "ignore_eos": true,
    });
    let choice = server.post("/v1/completions", &request).ok()["choices"][0].clone();
    let offsets: Vec<usize> =
        serde_json::from_value(choice["logprobs"]["text_offset"].clone()).unwrap();
    assert_eq!(offsets.len(), 7);
    assert_eq!(choice["token_ids"].as_array().unwrap().len(), 7);
    assert_eq!(offsets[0], 1);
    let characters = choice["text"].as_str().unwrap().chars().count();
    assert!(offsets.is_sorted() && *offsets.last().unwrap() < characters, "{choice}");
}

#[test]
fn an_answer_may_be_kept_from_ending_and_named_by_its_tokens() {
    let server = TestServer::start();
    let prompt = "Once upon a time there was a fox.";
    let request = json!({ "prompt": prompt, "max_tokens": 300, "temperature": 0 });
    let ended = server.post("/v1/completions", &request).ok();
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    assert!(ended["choices"][0]["token_ids"].is_null());
    let request = with(request, json!({ "ignore_eos": true, "return_token_ids": true }));
    let endless = server.post("/v1/completions", &request).ok();
    let choice = &endless["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(endless["usage"]["completion_tokens"], 300);
    assert!(choice["logprobs"].is_null());
    let begin = ended["choices"][0]["text"].as_str().unwrap();
    assert!(choice["text"].as_str().unwrap().starts_with(begin));
    let said = server.post("/detokenize", &json!({ "tokens": choice["token_ids"] })).ok();
    assert_eq!(said["content"], choice["text"]);
    let events = server.post("/v1/completions", &with(request, json!({ "stream": true }))).events();
    let ids = events.iter().filter_map(|event| event["choices"][0]["token_ids"].as_array());
    let ids: Vec<Value> = ids.flatten().cloned().collect();
    assert_eq!(json!(ids), choice["token_ids"]);
}

#[test]
fn tokens_behind_a_stop_text_are_not_named_though_some_of_it_was_held_back() {
    let server = TestServer::start();
    let request = json!({
        "prompt": "Once upon a time there was a fox", "temperature": 0, "max_tokens": 60,
        "return_token_ids": true,
    });
    let whole = server.post("/v1/completions", &request).ok();
    let text = whole["choices"][0]["text"].as_str().unwrap().to_owned();
    // What begins like the stop text before it comes is held back with its tokens.
    let places = text.char_indices().map(|(at, _)| at).filter(|at| *at > 20).step_by(7);
    for at in places {
        let stop: String = text[at..].chars().take(9).collect();
        let request = with(request.clone(), json!({ "stop": stop }));
        let choice = server.post("/v1/completions", &request).ok()["choices"][0].clone();
        let ids = choice["token_ids"].as_array().unwrap();
        let said = server.post("/detokenize", &json!({ "tokens": ids })).ok();
        let (said, text) = (said["content"].as_str().unwrap(), choice["text"].as_str().unwrap());
        // The last token may go on into the stop text.
        assert!(said.trim_start().starts_with(text.trim_start()), "{stop:?}: {said:?}, {text:?}");
        let fewer = server.post("/detokenize", &json!({ "tokens": ids[..ids.len() - 1] })).ok();
        let fewer = fewer["content"].as_str().unwrap().trim_start().to_owned();
        assert!(fewer.len() < text.trim_start().len(), "{stop:?}: {fewer:?}, {text:?}");
    }
}

#[test]
fn biases_and_penalties_change_the_choice() {
    let server = TestServer::start();
    let tokens = server.post("/tokenize", &json!({ "content": " fox" })).ok();
    let fox = tokens["tokens"][0].to_string();
    let story = ask("Tell me a story about a fox.");
    assert!(server.chat(&story).contains(" fox"));
    let without = with(story.clone(), json!({ "logit_bias": { fox: -100 } }));
    assert!(!server.chat(&without).contains(" fox"));
    let varied = with(story.clone(), json!({ "frequency_penalty": 2, "presence_penalty": 2 }));
    assert_ne!(server.chat(&varied), server.chat(&story));
    let varied = with(story.clone(), json!({ "repeat_penalty": 1.5 }));
    assert_ne!(server.chat(&varied), server.chat(&story));
}

#[test]
fn answers_can_be_held_to_json() {
    let server = TestServer::start();
    let object = with(ask("Hello"), json!({ "response_format": { "type": "json_object" } }));
    for stream in [false, true] {
        let request = with(object.clone(), json!({ "stream": stream, "max_tokens": 200 }));
        let response = server.post("/v1/chat/completions", &request);
        let text = match stream {
            true => content(&response.events()),
            false => response.ok()["choices"][0]["message"]["content"].as_str().unwrap().into(),
        };
        // A model that was never taught JSON may go on for ever, but what it says is a beginning.
        assert!(text.starts_with('{'), "{text}");
    }
    let schema = json!({
        "type": "object",
        "properties": {
            "animal": { "enum": ["fox", "owl"] },
            "legs": { "$ref": "#/$defs/count" },
        },
        "required": ["animal", "legs"],
        "additionalProperties": false,
        "$defs": { "count": { "type": "integer", "minimum": 2, "maximum": 4 } },
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    for seed in 0..4 {
        let fields = json!({ "response_format": format, "temperature": 1, "seed": seed });
        let request = with(ask("Tell me a story about a fox."), fields);
        let response = server.post("/v1/chat/completions", &request).ok();
        assert_eq!(response["choices"][0]["finish_reason"], "stop");
        let text = response["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(["fox", "owl"].contains(&value["animal"].as_str().unwrap()), "{text}");
        assert!((2..=4).contains(&value["legs"].as_u64().unwrap()), "{text}");
    }
}

#[test]
fn completions_take_texts_and_tokens() {
    let server = TestServer::start();
    let request = json!({ "prompt": "Once upon a time", "temperature": 0 });
    let response = server.post("/v1/completions", &request).ok();
    let text = &response["choices"][0]["text"];
    // OpenAI's own default.
    assert_eq!(response["usage"]["completion_tokens"], 16);
    let fields = json!({ "content": "Once upon a time", "add_special": true });
    let tokens = server.post("/tokenize", &fields).ok()["tokens"].clone();
    for prompt in [json!(["Once upon a time"]), tokens.clone(), json!([tokens])] {
        let request = with(request.clone(), json!({ "prompt": prompt }));
        assert_eq!(&server.post("/v1/completions", &request).ok()["choices"][0]["text"], text);
    }
    let request = with(request, json!({ "prompt": ["Once upon a time", "Hello"], "n": 2 }));
    let response = server.post("/v1/completions", &request).ok();
    let choices = response["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert_eq!((&choices[0]["text"], &choices[1]["text"]), (text, text));
    assert_eq!(choices[2]["text"], choices[3]["text"]);
}

/// Numbers as they were before they became text.
fn floats(values: &Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[test]
fn embeddings_are_those_of_the_runtime() {
    let serve = |served: Served| served.with_embeddings(Pooling::Mean);
    let server = TestServer::serving(ServerOptions::default(), serve);
    let request = json!({ "model": "demo", "input": ["A fox.", "An owl sat in a tree."] });
    let response = server.post("/v1/embeddings", &request).ok();
    let mut embedder = Embedder::new(model(), Pooling::Mean).unwrap();
    let offline = embedder.embed("A fox.").unwrap();
    assert_eq!(floats(&response["data"][0]["embedding"]), offline);
    assert_eq!(response["data"][1]["index"], 1);
    let tokens = embedder.tokens("A fox.").len() + embedder.tokens("An owl sat in a tree.").len();
    assert_eq!(response["usage"]["prompt_tokens"], tokens);
    // The same as tokens.
    for input in [json!(embedder.tokens("A fox.")), json!([embedder.tokens("A fox.")])] {
        let response = server.post("/v1/embeddings", &json!({ "input": input })).ok();
        assert_eq!(floats(&response["data"][0]["embedding"]), offline);
        assert_eq!(response["usage"]["prompt_tokens"], embedder.tokens("A fox.").len());
    }
    let short = json!({ "input": "A fox.", "encoding_format": "base64" });
    let encoded = server.post("/v1/embeddings", &short).ok()["data"][0]["embedding"].clone();
    assert_eq!(encoded.as_str().unwrap().len(), (offline.len() * 4).div_ceil(3) * 4);
    let ollama = server.post("/api/embed", &json!({ "model": "demo", "input": "A fox." })).ok();
    assert_eq!(floats(&ollama["embeddings"][0]), offline);
    let old = server.post("/api/embeddings", &json!({ "model": "demo", "prompt": "A fox." })).ok();
    assert_eq!(floats(&old["embedding"]), offline);

    let fails = |request: Value| server.post("/v1/embeddings", &request).error(400);
    let long = fails(json!({ "input": "fox ".repeat(2000) }));
    assert_eq!(long["code"], "context_length_exceeded");
    assert_eq!(fails(json!({ "input": [] }))["param"], "input");
    assert_eq!(fails(json!({ "input": 5 }))["param"], "input");
    assert_eq!(fails(json!({ "input": [99_999_999] }))["param"], "input");
    assert_eq!(fails(json!({ "input": [[]] }))["param"], "input");
    assert_eq!(fails(json!({ "input": "x", "dimensions": 7 }))["param"], "dimensions");
    assert_eq!(
        fails(json!({ "input": "x", "encoding_format": "int8" }))["param"],
        "encoding_format"
    );
}
