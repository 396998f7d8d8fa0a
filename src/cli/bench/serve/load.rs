//! The measurements: several answers at once with and without HTTP, a short prompt beside a long one, and
//! the second turn of a chat.

use super::super::super::failure::Failure;
use super::super::super::interrupt;
use super::client::Heard;
use super::passages::Passages;
use super::report::{Beside, Clients, SecondTurn};
use super::subject::Subject;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};
use trilut_tuning::median;

/// Tokens of the first message of a chat, where the context has room for them.
const FIRST_MESSAGE: usize = 512;

/// What is said in a chat's second turn.
const SECOND_MESSAGE: &str = "And what did the old man on the bridge say then?";

/// Sizes of what is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Tokens of a short prompt.
    pub(super) prompt: usize,
    /// Tokens of an answer.
    pub(super) answer: usize,
    /// Tokens of a long prompt.
    pub(super) long: usize,
    /// How often each measurement is made.
    pub(super) rounds: usize,
}

/// Answers that were given at once.
struct Round {
    /// From the first request to the last end.
    seconds: f64,
    tokens: usize,
    /// Times to the first text.
    first: Vec<f64>,
}

/// Asks for answers to all prompts at once.
fn at_once(
    prompts: &[Vec<u32>],
    listen: impl Fn(&[u32]) -> Result<Heard, Failure> + Sync,
) -> Result<Round, Failure> {
    let began = Instant::now();
    let heard: Vec<Heard> = thread::scope(|scope| {
        let ask = |prompt| {
            let listen = &listen;
            scope.spawn(move || listen(prompt))
        };
        let threads: Vec<_> = prompts.iter().map(|prompt| ask(prompt)).collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Failure::new("a client broke down")))
        });
        joined.collect::<Result<_, Failure>>()
    })?;
    let end = heard.iter().map(|heard| heard.end).max().unwrap_or(began);
    Ok(Round {
        seconds: (end - began).as_secs_f64(),
        tokens: heard.iter().map(|heard| heard.tokens).sum(),
        first: heard.iter().map(|heard| (heard.first - began).as_secs_f64()).collect(),
    })
}

fn going_on() -> Result<(), Failure> {
    if interrupt::asked() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// One short answer, so that nothing is done for the first time in what follows.
pub(super) fn warm_up(
    subject: &Subject,
    passages: &mut Passages,
    sizes: Sizes,
) -> Result<(), Failure> {
    subject.listen(&passages.draw(sizes.prompt), 8).map(drop)
}

/// `clients` answers at once: over HTTP and, where the engine is ours, in turns with it alone.
pub(super) fn clients(
    subject: &Subject,
    passages: &mut Passages,
    clients: usize,
    sizes: Sizes,
) -> Result<Clients, Failure> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds {
        // Who comes first changes, so that neither always finds the machine warmer.
        for turn in [round % 2 == 0, round % 2 == 1] {
            going_on()?;
            let prompts: Vec<_> = (0..clients).map(|_| passages.draw(sizes.prompt)).collect();
            if turn {
                with.push(at_once(&prompts, |prompt| subject.listen(prompt, sizes.answer))?);
            } else if subject.has_engine() {
                let listen = |prompt: &[u32]| subject.listen_without_http(prompt, sizes.answer);
                without.push(at_once(&prompts, listen)?);
            }
        }
    }
    let rates: Vec<f64> = with.iter().map(|r| r.tokens as f64 / r.seconds).collect();
    let per_token = |round: &Round| round.seconds / round.tokens as f64;
    let costs: Vec<f64> = with
        .iter()
        .zip(&without)
        .map(|(with, without)| per_token(with) / per_token(without) - 1.0)
        .collect();
    let first: Vec<f64> = with.iter().flat_map(|round| round.first.iter().copied()).collect();
    Ok(Clients {
        clients,
        tokens_per_second: median(&rates),
        samples: rates,
        first_token_ms: 1e3 * median(&first),
        first_token_worst_ms: 1e3 * first.iter().copied().fold(0.0, f64::max),
        http_share: (!costs.is_empty()).then(|| median(&costs)),
        http_share_samples: costs,
    })
}

/// The first token of a short prompt: alone, and while another request's long prompt is read.
pub(super) fn beside(
    subject: &Subject,
    passages: &mut Passages,
    sizes: Sizes,
) -> Result<Beside, Failure> {
    let first = |prompt: &[u32]| -> Result<(f64, Instant), Failure> {
        let began = Instant::now();
        let heard = subject.listen(prompt, 1)?;
        Ok(((heard.first - began).as_secs_f64(), heard.first))
    };
    let (mut idle, mut busy, mut long) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..sizes.rounds {
        going_on()?;
        let alone = first(&passages.draw(sizes.prompt))?.0;
        idle.push(alone);
        let (prompt, slow) = (passages.draw(sizes.prompt), passages.draw(sizes.long));
        // Not always at the same moment of a step.
        let wait = Duration::from_secs_f64(alone * round as f64 / sizes.rounds as f64);
        let (fast, slow) = thread::scope(|scope| {
            let reading = scope.spawn(|| first(&slow));
            let fast = until_read(subject, sizes.long, || reading.is_finished()).and_then(|()| {
                thread::sleep(wait);
                first(&prompt)
            });
            let slow = reading.join();
            (fast, slow.unwrap_or_else(|_| Err(Failure::new("a client broke down"))))
        });
        let ((fast, heard), (slow, over)) = (fast?, slow?);
        if over < heard {
            return Err(too_short(sizes.long));
        }
        busy.push(fast);
        long.push(slow);
    }
    Ok(Beside {
        prompt_tokens: sizes.prompt,
        long_tokens: sizes.long,
        idle_ms: 1e3 * median(&idle),
        beside_ms: 1e3 * median(&busy),
        beside_worst_ms: 1e3 * busy.iter().copied().fold(0.0, f64::max),
        ratio: median(&busy) / median(&idle),
        long_tokens_per_second: sizes.long as f64 / median(&long),
    })
}

fn too_short(long: usize) -> Failure {
    Failure::new(format!(
        "a prompt of {long} tokens is read too fast to measure anything beside it"
    ))
    .hint("--long N with more tokens, and a context with room for them")
}

/// Waits until a prompt of that many tokens is being read.
fn until_read(subject: &Subject, tokens: usize, over: impl Fn() -> bool) -> Result<(), Failure> {
    loop {
        let slots = subject.client.get("/slots")?;
        let reads = |slot: &Value| slot["reading"] == true && slot["prompt"] == tokens;
        if slots["slots"].as_array().is_some_and(|slots| slots.iter().any(reads)) {
            return Ok(());
        }
        if over() {
            return Err(too_short(tokens));
        }
        going_on()?;
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a chat's second turn finds in the cache. A model without a chat template is asked in tokens.
pub(super) fn second_turn(
    subject: &Subject,
    passages: &mut Passages,
    sizes: Sizes,
    props: &Value,
) -> Result<SecondTurn, Failure> {
    let context = props.pointer("/default_generation_settings/n_ctx").and_then(Value::as_u64);
    let context = context.map_or(usize::MAX, |context| context as usize);
    let (length, answer) = (FIRST_MESSAGE.min(context / 2), sizes.answer.min(context / 4));
    let by_chat = !props["chat_template"].is_null();
    let (first, second) = if by_chat {
        let path = "/v1/chat/completions";
        let tokens = subject.client.tokenize(Passages::TEXT)?.len();
        let letters = Passages::TEXT.len() * length / tokens;
        let text: String = Passages::TEXT.chars().cycle().take(letters).collect();
        let mut messages = vec![json!({ "role": "user", "content": text })];
        let ask = |messages: &[Value]| {
            let body = json!({ "messages": messages, "temperature": 0, "max_tokens": answer });
            subject.client.post(path, &body)
        };
        let first = ask(&messages)?;
        let content = first.pointer("/choices/0/message/content").cloned().unwrap_or_default();
        messages.push(json!({ "role": "assistant", "content": content }));
        messages.push(json!({ "role": "user", "content": SECOND_MESSAGE }));
        let second = ask(&messages)?;
        (first, second)
    } else {
        let mut prompt = passages.draw(length);
        let ask = |prompt: &[u32]| {
            let body = json!({
                "prompt": prompt, "temperature": 0, "max_tokens": answer, "ignore_eos": true,
                "return_token_ids": true,
            });
            subject.client.post("/v1/completions", &body)
        };
        let first = ask(&prompt)?;
        let ids = first.pointer("/choices/0/token_ids").cloned().unwrap_or_default();
        let ids: Vec<u32> = serde_json::from_value(ids)
            .map_err(|error| Failure::new("the server gives no tokens").because(error))?;
        prompt.extend(ids);
        prompt.extend(subject.client.tokenize(SECOND_MESSAGE)?);
        (first, ask(&prompt)?)
    };
    let number = |value: &Value, path: &str| {
        let number = value.pointer(path).and_then(Value::as_u64);
        number.ok_or_else(|| Failure::new(format!("the server's answer has no {path}")))
    };
    let prompt = number(&second, "/usage/prompt_tokens")? as usize;
    let reused = number(&second, "/usage/prompt_tokens_details/cached_tokens")? as usize;
    let before =
        number(&first, "/usage/prompt_tokens")? + number(&first, "/usage/completion_tokens")?;
    Ok(SecondTurn {
        asked_by: if by_chat { "chat" } else { "tokens" },
        first_turn_tokens: before as usize,
        prompt_tokens: prompt,
        reused_tokens: reused,
        share: reused as f64 / prompt as f64,
    })
}
