//! Many answers at once: the same text as alone, prompts that are read once, and slots that become free.

use crate::client::{TestServer, ask, model, with};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};
use trilut_runtime::SamplerOptions;
use trilut_server::ServerOptions;
use trilut_server::engine::{
    Engine, EngineError, EngineOptions, Event, Penalties, Refusal, Request, StartError,
};

fn options(slots: usize, queue: usize) -> ServerOptions {
    let engine = EngineOptions { slots, queue, ..EngineOptions::default() };
    ServerOptions { engine, ..ServerOptions::default() }
}

/// Different requests, greedy and sampled, long and short.
fn requests() -> Vec<Value> {
    let animals = ["fox", "owl", "bear", "cat", "frog", "duck"];
    let long = "Tell me a long story about a small animal and its friends in the wood. ".repeat(6);
    let mut requests = Vec::new();
    for (seed, animal) in animals.iter().enumerate() {
        let story = ask(&format!("Tell me a story about a {animal}."));
        requests.push(story.clone());
        requests.push(with(story, json!({ "temperature": 1.2, "seed": seed })));
    }
    requests.push(ask(&long));
    requests.push(with(ask(&long), json!({ "temperature": 0.7, "seed": 99, "max_tokens": 10 })));
    requests
}

#[test]
fn an_answer_is_the_same_alone_and_in_any_batch() {
    let alone: Vec<String> = {
        let server = TestServer::with(options(1, 64));
        requests().iter().map(|request| server.chat(request)).collect()
    };
    for (slots, prompt_rows, speculate) in [(4, 64, 0), (16, 7, 0), (3, 64, 5)] {
        let engine = EngineOptions { slots, queue: 64, prompt_rows, speculate };
        let server = TestServer::with(ServerOptions { engine, ..ServerOptions::default() });
        for _ in 0..2 {
            let together: Vec<String> = thread::scope(|scope| {
                let ask = |request: Value| {
                    scope.spawn({
                        let server = &server;
                        move || server.chat(&request)
                    })
                };
                let threads: Vec<_> = requests().into_iter().map(ask).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(together, alone, "{slots} slots, {prompt_rows} rows, {speculate} guesses");
        }
    }
}

#[test]
fn guesses_are_made_and_some_hold() {
    let engine = EngineOptions { speculate: 4, ..EngineOptions::default() };
    let server = TestServer::with(ServerOptions { engine, ..ServerOptions::default() });
    let prompt = "the fox and the owl, ".repeat(8);
    let request = json!({ "prompt": prompt, "max_tokens": 48, "temperature": 0 });
    server.post("/v1/completions", &request).ok();
    let metrics = server.get("/metrics");
    let value = |name: &str| -> f64 {
        let line = metrics.text().lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("trilut_draft_tokens_accepted_total") > 0.0);
    assert!(
        value("trilut_draft_tokens_accepted_total") <= value("trilut_draft_tokens_total"),
        "{}",
        metrics.text()
    );
}

#[test]
fn the_second_turn_reads_only_what_is_new() {
    let server = TestServer::start();
    let question = "Tell me a story about a fox. ".repeat(4);
    let first = server.post("/v1/chat/completions", &ask(&question)).ok();
    let answer = first["choices"][0]["message"]["content"].as_str().unwrap();
    let messages = json!([
        { "role": "user", "content": question },
        { "role": "assistant", "content": answer },
        { "role": "user", "content": "Why?" },
    ]);
    let second =
        server.post("/v1/chat/completions", &with(ask(""), json!({ "messages": messages })));
    let count = |value: &Value| value.as_u64().unwrap();
    let usage = &second.ok()["usage"];
    let cached = count(&usage["prompt_tokens_details"]["cached_tokens"]);
    let before = count(&first["usage"]["total_tokens"]);
    assert!(cached * 100 >= before * 95, "{cached} of {before} tokens were not read again");
}

#[test]
fn a_common_beginning_is_read_once() {
    let server = TestServer::start();
    let system = "You tell short stories about animals in the wood. ".repeat(6);
    let request = |question: &str| {
        let messages = json!([
            { "role": "system", "content": system },
            { "role": "user", "content": question },
        ]);
        with(ask(""), json!({ "messages": messages }))
    };
    // At once, too: the second waits until the first has read what they share.
    thread::scope(|scope| {
        for question in ["Tell me about a fox.", "Tell me about an owl.", "And a bear?"] {
            scope.spawn(|| server.chat(&request(question)));
        }
    });
    let slots = server.get("/slots").json();
    let count = |name: &str| slots[name].as_u64().unwrap();
    assert!(count("reused_tokens") * 2 > count("prompt_tokens"), "{slots}");
}

#[test]
fn a_full_queue_refuses() {
    let server = TestServer::with(options(1, 1));
    let long = with(
        ask("Tell me a story."),
        json!({
            "max_tokens": 400, "stream": true, "logit_bias": endless(&server),
        }),
    );
    let body = long.to_string();
    let open = || server.open("POST", "/v1/chat/completions", "", body.as_bytes());
    let first = open();
    server.wait_for("a busy slot", |slots| slots["slots"][0]["busy"] == true);
    let second = open();
    server.wait_for("a waiting request", |slots| slots["waiting"] == 1);
    let refused = server.post("/v1/chat/completions", &long);
    assert_eq!(refused.error(429)["type"], "rate_limit_error");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    drop((first, second));
    server.wait_for("an idle server", |slots| {
        slots["slots"][0]["busy"] == false && slots["waiting"] == 0
    });
    assert!(!server.chat(&ask("Hello")).is_empty());
}

#[test]
fn a_call_that_never_fits_is_wrong() {
    let server = TestServer::with(options(2, 3));
    let call = |n: usize| with(ask("Hello"), json!({ "n": n, "max_tokens": 1 }));
    let error = server.post("/v1/chat/completions", &call(4)).error(400);
    assert_eq!(error["param"], "n");
    assert!(error["message"].as_str().unwrap().contains("holds 3"), "{error}");
    server.post("/v1/chat/completions", &call(3)).ok();
}

#[test]
fn an_engine_that_could_not_answer_does_not_start() {
    let default = EngineOptions::default;
    for (name, options) in [
        ("slots", EngineOptions { slots: 0, ..default() }),
        ("queue", EngineOptions { queue: 0, ..default() }),
        ("prompt_rows", EngineOptions { prompt_rows: 0, ..default() }),
    ] {
        let refused = Engine::start(model(), options).unwrap_err();
        assert!(matches!(refused, StartError::Zero(zero) if zero == name), "{refused}");
    }
}

/// Biases that keep the model from ending its answer.
fn endless(server: &TestServer) -> Value {
    let names = "<|endoftext|><|eot_id|><|end_of_text|><|begin_of_text|>";
    let request = json!({ "content": names, "parse_special": true, "with_pieces": true });
    let tokens = server.post("/tokenize", &request).ok();
    let control = tokens["tokens"].as_array().unwrap().iter();
    let control = control.filter(|token| token["piece"].as_str().unwrap().len() > 4);
    control
        .map(|token| (token["id"].to_string(), json!(-100)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let server = TestServer::with(options(1, 8));
    for stream in [true, false] {
        let fields = json!({ "max_tokens": 450, "stream": stream, "logit_bias": endless(&server) });
        let body = with(ask("Tell me a story."), fields).to_string();
        let connection = server.open("POST", "/v1/chat/completions", "", body.as_bytes());
        server.wait_for("an answer", |s| s["slots"][0]["generated"].as_u64().unwrap() > 2);
        drop(connection);
        let slots = server.wait_for("a free slot", |s| s["slots"][0]["busy"] == false);
        let generated = slots["slots"][0]["cached"].as_u64().unwrap();
        assert!(generated < 400, "the answer went on to {generated} tokens");
    }
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("trilut_requests_total{outcome=\"cancelled\"} 2"));
}

/// A request for the engine itself.
fn raw(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        prompt,
        max_tokens,
        sampling: SamplerOptions::greedy(),
        penalties: Penalties::default(),
        bias: model().tokenizer().stops().iter().map(|&token| (token, -100.0)).collect(),
        stop: Vec::new(),
        logprobs: None,
        constraint: None,
    }
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let options = EngineOptions { prompt_rows: 8, slots: 2, ..EngineOptions::default() };
    let engine = Engine::start(model(), options).unwrap();
    let requests = vec![raw((0..500).collect(), 1), raw((600..630).collect(), 1)];
    let mut events = engine.submit(None, requests).unwrap();
    let mut started = Vec::new();
    while let Some((answer, event)) = events.blocking_recv() {
        if matches!(event, Event::Started { .. }) {
            started.push(answer);
        }
        assert!(!matches!(event, Event::Failed(_)), "{event:?}");
    }
    assert_eq!(started, [1, 0]);
    // No step had more than its share.
    let metrics = engine.metrics();
    let (steps, rows) = (metrics.steps.load(Relaxed), metrics.rows.load(Relaxed));
    assert_eq!(rows, 530);
    assert!(steps >= 530 / 8, "{rows} rows in {steps} steps");
}

#[test]
fn an_engine_that_stops_finishes_or_ends_what_is_at_work() {
    for (grace, finished) in [(Duration::from_secs(60), true), (Duration::ZERO, false)] {
        let options = EngineOptions { slots: 1, ..EngineOptions::default() };
        let engine = Engine::start(model(), options).unwrap();
        let mut first = engine.submit(None, vec![raw(vec![1, 2, 3], 480)]).unwrap();
        assert!(matches!(first.blocking_recv(), Some((0, Event::Started { .. }))));
        let mut second = engine.submit(None, vec![raw(vec![1, 2, 3], 480)]).unwrap();
        engine.stop(grace);
        assert_eq!(engine.submit(None, vec![raw(vec![1], 1)]).unwrap_err(), Refusal::Stopping);
        engine.join();
        assert!(matches!(second.blocking_recv(), Some((0, Event::Failed(EngineError::Stopping)))));
        let mut last = None;
        while let Some((_, event)) = first.blocking_recv() {
            last = Some(event);
        }
        match last {
            Some(Event::Done(done)) => assert!(finished && done.tokens == 480),
            Some(Event::Failed(EngineError::Stopping)) => assert!(!finished),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_text_that_fails_does_not_end_the_others() {
    let engine = Engine::start(model(), EngineOptions::default()).unwrap();
    let outside = model().config().vocab as u32;
    let requests = vec![raw(vec![1, 2, 3], 20), raw(vec![4, outside], 20), raw(vec![7, 8], 20)];
    let mut events = engine.submit(None, requests).unwrap();
    let mut ends = [None; 3];
    while let Some((answer, event)) = events.blocking_recv() {
        match event {
            Event::Done(done) => ends[answer] = Some(done.tokens),
            Event::Failed(_) => ends[answer] = Some(0),
            _ => {}
        }
    }
    assert_eq!(ends, [Some(20), Some(0), Some(20)]);
}

#[test]
fn a_server_ends_with_its_connections() {
    let mut server = TestServer::start();
    let idle = server.send(b"");
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(idle);
}
