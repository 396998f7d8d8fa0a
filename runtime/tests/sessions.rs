//! Sessions whose context is full, and conversations that go on.

use std::ops::ControlFlow;
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{
    Error, Finish, GenerateOptions, Model, ModelOptions, OnFull, Session, embedded,
};

fn model(context: usize) -> Model {
    let gguf = Gguf::from_static(embedded::model()).unwrap();
    let options = ModelOptions { context: Some(context), ..ModelOptions::default() };
    Model::open_with(&gguf, &options).unwrap()
}

fn go(_: &str) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A session that read the same tokens from the beginning has the same logits.
fn as_read_anew(session: &Session) {
    let mut fresh = session.model().session().unwrap();
    fresh.append(session.tokens()).unwrap();
    assert_eq!(fresh.logits(), session.logits());
}

#[test]
fn a_shifted_text_goes_on_as_if_it_had_been_the_prompt() {
    let model = model(40);
    let mut session = model.session().unwrap();
    let options = GenerateOptions {
        // Enough to shift, not so many that the answer must have ended.
        max_tokens: 60,
        on_full: OnFull::Shift { keep: 5 },
        ..GenerateOptions::greedy()
    };
    let mut text = "Once upon a time there was a fox named Max.".to_owned();
    let (mut dropped, mut beginning) = (0, Vec::new());
    // Answers that end are continued.
    for _ in 0..20 {
        let generation = session.generate(&text, &options, go).unwrap();
        if beginning.is_empty() {
            beginning = session.tokens()[..5].to_vec();
        }
        dropped += generation.dropped;
        assert_ne!(generation.finish, Finish::Context);
        assert_eq!(session.tokens()[..5], beginning);
        as_read_anew(&session);
        text = " Then".to_owned();
    }
    assert!(dropped > 0);
}

#[test]
fn a_prompt_that_is_too_long_loses_its_middle() {
    let model = model(32);
    let long = "The fox went to the lake. ".repeat(20);
    let mut session = model.session().unwrap();
    let stop = GenerateOptions { max_tokens: 1, ..GenerateOptions::greedy() };
    let refused = session.generate(&long, &stop, go).unwrap_err();
    assert!(matches!(refused, Error::ContextFull { .. }));
    let shift = GenerateOptions { on_full: OnFull::Shift { keep: 4 }, ..stop };
    let generation = session.generate(&long, &shift, go).unwrap();
    let tokenizer = model.tokenizer();
    let mut all = vec![tokenizer.bos().unwrap()];
    all.extend(tokenizer.encode(&long, false));
    assert_eq!((generation.prompt_tokens, generation.tokens), (all.len(), 1));
    let read = session.tokens().len() - 1;
    assert_eq!(generation.dropped, all.len() - read);
    assert_eq!(session.tokens()[..4], all[..4]);
    assert_eq!(session.tokens()[4..read], all[all.len() - (read - 4)..]);
    as_read_anew(&session);
}

#[test]
fn a_tiny_context_that_must_keep_everything_still_comes_to_an_end() {
    for context in [1, 2, 3] {
        let model = model(context);
        let mut session = model.session().unwrap();
        let options = GenerateOptions {
            max_tokens: 10,
            on_full: OnFull::Shift { keep: usize::MAX },
            ..GenerateOptions::greedy()
        };
        let generation = session.generate("The fox", &options, go).unwrap();
        assert!(generation.tokens <= 10);
        assert!(session.tokens().len() <= context);
    }
}

#[test]
fn what_a_conversation_has_said_is_not_read_again() {
    let model = model(256);
    let tokenizer = model.tokenizer();
    let encode = |text: &str| {
        let bos = tokenizer.bos().into_iter();
        bos.chain(tokenizer.encode(text, false)).collect::<Vec<_>>()
    };
    let options = GenerateOptions { max_tokens: 8, ..GenerateOptions::greedy() };
    let mut session = model.session().unwrap();
    let texts = [
        "Once upon a time there was a fox named Max. One day",
        "Once upon a time there was a fox named Max. On the way home he met a bird",
        "Once upon a time",
        "What is 2 + 2?",
    ];
    for text in texts {
        let tokens = encode(text);
        let known = session.tokens().iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        let generation = session.generate_from(&tokens, &options, go).unwrap();
        assert_eq!(generation.prompt_tokens, tokens.len() - known.min(tokens.len() - 1));
        let fresh = model.session().unwrap().generate_from(&tokens, &options, go).unwrap();
        assert_eq!(generation.text, fresh.text, "{text}");
    }
    assert!(matches!(session.generate_from(&[], &options, go), Err(Error::Empty)));
}
