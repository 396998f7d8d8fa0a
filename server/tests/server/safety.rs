//! Requests that are wrong, too large, too slow or not allowed: the right answer, and the server goes on.

use crate::client::{Response, TestServer, ask, with};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use trilut_server::{Limits, ServerOptions};

#[test]
fn what_is_wrong_is_said() {
    let server = TestServer::start();
    let chat = |fields: Value| with(ask("Hello"), fields);
    let schema = |schema: Value| {
        json!({ "response_format": {
            "type": "json_schema", "json_schema": { "name": "x", "schema": schema },
        }})
    };
    let message = |message: Value| json!({ "messages": [message] });
    let cases = [
        (chat(json!({ "temperature": -1 })), "temperature"),
        (chat(json!({ "top_p": 2 })), "top_p"),
        (chat(json!({ "min_p": -0.5 })), "min_p"),
        (chat(json!({ "max_tokens": -5 })), "max_tokens"),
        (chat(json!({ "n": 0 })), "n"),
        (chat(json!({ "n": 1000 })), "n"),
        (chat(json!({ "n": -1 })), "n"),
        (chat(json!({ "presence_penalty": 3 })), "presence_penalty"),
        (chat(json!({ "frequency_penalty": -3 })), "frequency_penalty"),
        (chat(json!({ "logit_bias": { "fox": 1 } })), "logit_bias"),
        (chat(json!({ "logit_bias": { "999999": 1 } })), "logit_bias"),
        (chat(json!({ "logit_bias": { "1": 101 } })), "logit_bias"),
        (chat(json!({ "top_logprobs": 3 })), "top_logprobs"),
        (chat(json!({ "logprobs": true, "top_logprobs": 21 })), "top_logprobs"),
        (chat(json!({ "stop": vec!["x"; 17] })), "stop"),
        (chat(json!({ "stop": "x".repeat(300) })), "stop"),
        (chat(json!({ "stop": 5 })), "stop"),
        (chat(json!({ "stream": "yes" })), "stream"),
        (chat(json!({ "tools": [{}] })), "tools"),
        (chat(json!({ "messages": [] })), "messages"),
        (chat(json!({ "messages": "hi" })), "messages"),
        (chat(message(json!({ "role": "user" }))), "messages[0].content"),
        (chat(message(json!({ "role": "robot", "content": "" }))), "messages[0].role"),
        (chat(message(json!({ "content": "" }))), "messages[0]"),
        (chat(json!({ "response_format": { "type": "xml" } })), "response_format"),
        (chat(schema(json!({ "type": "nothing" }))), ""),
        (chat(schema(json!({ "$ref": "https://schemas.example/x.json" }))), ""),
        (chat(schema(json!({ "enum": vec!["x".repeat(100); 1000] }))), "schema"),
        (chat(schema(json!({ "$ref": "#" }))), ""),
        (chat(json!({ "functions": [{}] })), "functions"),
        (chat(json!({ "modalities": ["text", "audio"] })), "modalities"),
    ];
    for (request, param) in cases {
        let error = server.post("/v1/chat/completions", &request).error(400);
        assert_eq!(error["type"], "invalid_request_error", "{request}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{request}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let error = server.post("/v1/chat/completions", &chat(json!({ "model": "gpt-4o" }))).error(404);
    assert_eq!(error["code"], "model_not_found");
    assert_eq!(
        server.post("/v1/embeddings", &json!({ "input": "x" })).error(501)["code"],
        "no_embeddings"
    );
    assert_eq!(server.get("/nowhere").error(404)["type"], "not_found_error");
    server.get("/v1/chat/completions").error(405);
    assert!(!server.chat(&ask("Hello")).is_empty());
}

#[test]
fn large_bodies_take_turns() {
    let limits = Limits { large_bodies: 1, ..Limits::default() };
    let server = TestServer::with(ServerOptions { limits, ..ServerOptions::default() });
    let text = "The fox. ".repeat(8_000);
    let count = || {
        let tokens = server.post("/tokenize", &json!({ "content": text })).ok();
        tokens["tokens"].as_array().unwrap().len()
    };
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(counts.iter().all(|count| *count == counts[0] && *count > 8_000), "{counts:?}");
}

#[test]
fn a_stream_says_that_it_is_alive_while_a_long_prompt_is_read() {
    let limits = Limits { keep_alive: Duration::from_millis(1), ..Limits::default() };
    let server = TestServer::with(ServerOptions { limits, ..ServerOptions::default() });
    let prompt = "The fox and the owl went into the wood. ".repeat(30);
    let request = json!({ "prompt": prompt, "max_tokens": 2, "temperature": 0, "stream": true });
    let response = server.post("/v1/completions", &request);
    let body = String::from_utf8(response.body).unwrap();
    let first = body.find("data: {\"").unwrap_or_else(|| panic!("{body}"));
    assert!(body[..first].contains(": keep-alive"), "{body}");
    assert!(body.trim_end().ends_with("data: [DONE]"), "{body}");
}

#[test]
fn schemas_that_would_cost_too_much_are_refused_and_the_server_goes_on() {
    let server = TestServer::start();
    let refused = |schema: Value| {
        let format =
            json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let request = with(ask("Hello"), json!({ "response_format": format }));
        let error = server.post("/v1/chat/completions", &request).error(400);
        assert_eq!(error["code"], "invalid_schema", "{error}");
        let message = error["message"].as_str().unwrap().to_owned();
        assert!(!message.contains('<'), "{message}");
        message
    };
    // References and names over which the compiler recurses, as many as are allowed and more.
    let chain = |links: usize| {
        let link = |n: usize| (n.to_string(), json!({ "$ref": format!("#/$defs/{}", n + 1) }));
        let mut defs: serde_json::Map<_, _> = (0..links).map(link).collect();
        defs.insert(links.to_string(), json!({ "type": "nothing" }));
        json!({ "$defs": defs, "$ref": "#/$defs/0" })
    };
    refused(chain(200));
    assert!(refused(chain(1000)).contains("definitions"));
    let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let required = |count| json!({ "type": ["object", "nothing"], "required": names(count) });
    refused(required(900));
    assert!(refused(required(8000)).contains("names"));
    assert!(refused(json!({ "type": "integer", "multipleOf": 999_983 })).contains("multipleOf"));
    assert!(!server.chat(&ask("Hello")).is_empty());
}

#[test]
fn bodies_that_are_no_requests() {
    let server = TestServer::start();
    let post = |body: &[u8]| server.request("POST", "/v1/chat/completions", "", body);
    for body in [
        &b""[..],
        b"{",
        b"[1,2]",
        b"null",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
        b"{} {}",
        &b"[".repeat(100_000),
    ] {
        let error = post(body).error(400);
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert!(!server.chat(&ask("Hello")).is_empty());
}

#[test]
fn a_prompt_that_does_not_fit_is_counted() {
    let server = TestServer::start();
    let error = server.post("/v1/chat/completions", &ask(&"fox ".repeat(2000))).error(400);
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("512") && message.contains("20"), "{message}");
    let prompt = json!({ "prompt": vec![1; 512] });
    assert_eq!(
        server.post("/v1/completions", &prompt).error(400)["code"],
        "context_length_exceeded"
    );
    server.post("/v1/completions", &json!({ "prompt": [999_999] })).error(400);
    server.post("/v1/completions", &json!({ "prompt": [] })).error(400);
    // The last place of the context is used, and no more.
    let full = json!({ "prompt": vec![5; 511], "max_tokens": 50 });
    let response = server.post("/v1/completions", &full).ok();
    assert!(response["usage"]["completion_tokens"].as_u64().unwrap() <= 1);
    let large = ask(&"x".repeat(5 << 20)).to_string();
    let response =
        Response::read(server.open("POST", "/v1/chat/completions", "", large.as_bytes()));
    assert_eq!(response.status, 413);
}

#[test]
fn control_tokens_in_messages_are_text_that_is_left_out() {
    let server = TestServer::start();
    let prompt = |content: &str| {
        let messages = json!({ "messages": [{ "role": "user", "content": content }] });
        server.post("/apply-template", &messages).ok()["prompt"].as_str().unwrap().to_owned()
    };
    assert_eq!(prompt("a<|eot_id|>b"), prompt("ab"));
    assert!(prompt("ab").contains("ab"));
}

#[test]
fn a_template_is_applied_to_what_a_chat_takes() {
    let server = TestServer::start();
    let apply = |messages: Value| server.post("/apply-template", &json!({ "messages": messages }));
    let prompt = |role: &str, content: Value| {
        let messages =
            json!([{ "role": role, "content": content }, { "role": "user", "content": "x" }]);
        apply(messages).ok()["prompt"].as_str().unwrap().to_owned()
    };
    let system = prompt("system", json!("Be brief."));
    assert_eq!(prompt("developer", json!("Be brief.")), system);
    assert_eq!(prompt("system", json!([{ "type": "text", "text": "Be brief." }])), system);
    assert_eq!(apply(json!([])).error(400)["param"], "messages");
    let robot = json!([{ "role": "robot", "content": "x" }]);
    assert_eq!(apply(robot).error(400)["param"], "messages[0].role");
}

#[test]
fn a_key_is_asked_for() {
    let api_key = Some("secret".to_owned());
    let server = TestServer::with(ServerOptions { api_key, ..ServerOptions::default() });
    let refused = server.get("/v1/models");
    assert_eq!(refused.error(401)["code"], "invalid_api_key");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    for path in ["/metrics", "/props", "/slots", "/api/tags"] {
        server.get(path).error(401);
    }
    for key in ["authorization: Bearer secret\r\n", "authorization: bearer secret\r\n"] {
        server.request("GET", "/v1/models", key, b"").ok();
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn other_origins_are_allowed_by_name() {
    let cors = Some("https://chat.example".to_owned());
    let server = TestServer::with(ServerOptions { cors, ..ServerOptions::default() });
    let from = |method: &str, origin: &str| {
        server.request(method, "/v1/models", &format!("origin: {origin}\r\n"), b"")
    };
    assert_eq!(from("GET", "https://evil.example").status, 403);
    let allowed = from("GET", "https://chat.example");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://chat.example"));
    assert_eq!(allowed.header("x-content-type-options"), Some("nosniff"));
    let preflight = from("OPTIONS", "https://chat.example");
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert_eq!(allowed.header("access-control-expose-headers"), Some("retry-after"));
    // OpenAI's client for browsers sends headers of its own.
    let asked = "authorization,content-type,x-stainless-os";
    let may = |asked: &str| {
        let headers =
            format!("origin: https://chat.example\r\naccess-control-request-headers: {asked}\r\n");
        let preflight = server.request("OPTIONS", "/v1/models", &headers, b"");
        preflight.header("access-control-allow-headers").unwrap().to_owned()
    };
    assert_eq!(may(asked), asked);
    assert_eq!(may(&"x-a,".repeat(1000)), "authorization, content-type");
    assert_eq!(server.request("GET", "/v1/models", "", b"").status, 200);
}

#[test]
fn slow_clients_are_left() {
    let limits = Limits {
        head_time: Duration::from_millis(300),
        body_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = TestServer::with(ServerOptions { limits, ..ServerOptions::default() });
    let began = Instant::now();
    let mut half = server.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: local");
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest);
    let head =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{";
    let slow = server.send(head);
    assert_eq!(Response::read(slow).status, 408);
    let mut idle = server.send(b"");
    let _ = idle.write_all(b"");
    let _ = idle.read_to_end(&mut rest);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(!server.chat(&ask("Hello")).is_empty());
}

#[test]
fn tokens_come_and_go() {
    let server = TestServer::start();
    let text = "Once upon a time there was a café. 😀";
    let tokens = server.post("/tokenize", &json!({ "content": text })).ok()["tokens"].clone();
    assert_eq!(server.post("/detokenize", &json!({ "tokens": tokens })).ok()["content"], text);
    let pieces = server.post("/tokenize", &json!({ "content": text, "with_pieces": true })).ok();
    assert_eq!(pieces["tokens"].as_array().unwrap().len(), tokens.as_array().unwrap().len());
    server.post("/detokenize", &json!({ "tokens": [1_000_000] })).error(400);
    let many = vec![5; (64 << 10) + 1];
    let error = server.post("/detokenize", &json!({ "tokens": many })).error(400);
    assert!(error["message"].as_str().unwrap().contains("65537 tokens"), "{error}");
    for (times, most) in [(1 << 18, "at most 65536"), (1 << 19, "at most 1048576")] {
        let content = json!({ "content": "a1 ".repeat(times) });
        let error = server.post("/tokenize", &content).error(400);
        assert!(error["message"].as_str().unwrap().contains(most), "{error}");
    }
    let props = server.get("/props").ok();
    assert!(props["machine"]["arch"].is_string());
    assert_eq!(props["plan"]["decode"].as_array().unwrap().len(), 7);
    assert_eq!(props["plan"]["batch"].as_array().unwrap().len(), 7);
    assert!(props["plan"]["prefill"][0]["kernel"].is_string());
}
