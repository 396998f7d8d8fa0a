//! Many prompts at once: each weight that is read serves a token of every text in progress.
//!
//! Every text is what a [`Session`](crate::Session) of its own would give, bit for bit: results of a
//! forward pass depend on their own sequence alone, and random numbers on seed and position.

use crate::session::PREFILL_BLOCK;
use crate::tokenizer::TokenStream;
use crate::{Error, Finish, GenerateOptions, Model, Row, Sampler, State};
use std::ops::ControlFlow;

/// The text made of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The text, without control tokens.
    pub text: String,
    /// Tokens of the prompt, the begin-of-text token included.
    pub prompt_tokens: usize,
    /// Tokens generated, the one that ended the answer not included.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// A text in progress.
struct Running<'m> {
    /// Which prompt.
    index: usize,
    prompt_tokens: usize,
    /// Positions used.
    len: usize,
    sampler: Sampler,
    stream: TokenStream<'m>,
    text: String,
    tokens: usize,
    /// The token that is read next.
    next: u32,
}

impl Running<'_> {
    fn finish(mut self, finish: Finish) -> (usize, Completion) {
        self.text.extend(self.stream.finish());
        let Self { index, prompt_tokens, text, tokens, .. } = self;
        (index, Completion { text, prompt_tokens, tokens, finish })
    }
}

/// What [`complete`] tells while it is at work.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A token of every text in progress is about to be read, or a prompt.
    Step,
    /// The prompt of this number has its text.
    Done(usize, &'a Completion),
}

/// Continues prompts, `width` of them at a time. The context is not shifted: texts that fill it end.
/// `each` is told of texts when they end, and may break off at any step; the texts that were finished are
/// lost then, except to `each`.
///
/// # Errors
/// When a prompt is empty or does not fit into the context (nothing is read then), an option is out of
/// range, the caches of `width` texts do not fit into memory, or a value stops being finite.
pub fn complete(
    model: &Model,
    prompts: &[impl AsRef<str>],
    options: &GenerateOptions,
    width: usize,
    mut each: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<Completion>, Error> {
    let encode = |prompt: &_| {
        let tokens = model.tokenizer().encode_text(AsRef::as_ref(prompt), options.parse_special);
        let context = model.context();
        match tokens.len() {
            0 => Err(Error::Empty),
            n if n > context => Err(Error::ContextFull { tokens: n, used: 0, context }),
            _ => Ok(tokens),
        }
    };
    let prompts: Vec<Vec<u32>> = prompts.iter().map(encode).collect::<Result<_, _>>()?;
    let width = width.clamp(1, prompts.len().max(1));
    let mut state = model.state(width)?;
    let mut slots: Vec<Option<Running<'_>>> = (0..width).map(|_| None).collect();
    let mut done: Vec<Option<Completion>> = vec![None; prompts.len()];
    let mut waiting = prompts.iter().enumerate();
    loop {
        let mut finished = Vec::new();
        for (sequence, slot) in slots.iter_mut().enumerate() {
            while slot.is_none() {
                let Some((index, prompt)) = waiting.next() else { break };
                if each(Progress::Step).is_break() {
                    return Ok(done.into_iter().flatten().collect());
                }
                state.truncate(sequence, 0);
                match begin(model, &mut state, sequence, index, prompt, options)? {
                    Ok(running) => *slot = Some(running),
                    Err(completion) => finished.push(completion),
                }
            }
        }
        let rows: Vec<Row> = (slots.iter().enumerate())
            .filter_map(|(sequence, slot)| {
                let Running { len, next, .. } = *slot.as_ref()?;
                Some(Row { sequence, position: len, token: next, logits: true })
            })
            .collect();
        let vocab = model.config().vocab;
        if !rows.is_empty() {
            if each(Progress::Step).is_break() {
                return Ok(done.into_iter().flatten().collect());
            }
            let logits = model.forward(&mut state, &rows)?;
            for (row, logits) in rows.iter().zip(logits.chunks_exact(vocab)) {
                let slot = &mut slots[row.sequence];
                let Some(running) = slot else { continue };
                running.len += 1;
                if let Some(finish) = choose(model, running, logits, options)? {
                    finished.extend(slot.take().map(|running| running.finish(finish)));
                }
            }
        }
        for (index, completion) in finished {
            let flow = each(Progress::Done(index, &completion));
            done[index] = Some(completion);
            if flow.is_break() {
                return Ok(done.into_iter().flatten().collect());
            }
        }
        if slots.iter().all(Option::is_none) && waiting.len() == 0 {
            return Ok(done.into_iter().flatten().collect());
        }
    }
}

/// Reads a prompt's tokens and chooses the first of its text; the completion if that is the end already.
fn begin<'m>(
    model: &'m Model,
    state: &mut State,
    sequence: usize,
    index: usize,
    tokens: &[u32],
    options: &GenerateOptions,
) -> Result<Result<Running<'m>, (usize, Completion)>, Error> {
    let Some(&last) = tokens.last() else { return Err(Error::Empty) };
    let mut running = Running {
        index,
        prompt_tokens: tokens.len(),
        len: tokens.len(),
        sampler: Sampler::new(options.sampling.clone())?,
        stream: model.tokenizer().stream_after(Some(last)),
        text: String::new(),
        tokens: 0,
        next: last,
    };
    let rows: Vec<Row> = (tokens.iter().enumerate())
        .map(|(position, &token)| Row {
            sequence,
            position,
            token,
            logits: position + 1 == tokens.len(),
        })
        .collect();
    let mut finish = None;
    for block in rows.chunks(PREFILL_BLOCK) {
        let logits = model.forward(state, block)?;
        if !logits.is_empty() {
            finish = choose(model, &mut running, logits, options)?;
        }
    }
    Ok(match finish {
        Some(finish) => Err(running.finish(finish)),
        None => Ok(running),
    })
}

/// Chooses a text's next token, or finds out why there is none.
fn choose(
    model: &Model,
    running: &mut Running<'_>,
    logits: &[f32],
    options: &GenerateOptions,
) -> Result<Option<Finish>, Error> {
    if running.tokens == options.max_tokens {
        return Ok(Some(Finish::Length));
    }
    let token = running.sampler.choose(logits, running.len)?;
    if model.tokenizer().is_stop(token) {
        return Ok(Some(Finish::Stop));
    }
    if running.len == model.context() {
        return Ok(Some(Finish::Context));
    }
    running.tokens += 1;
    running.next = token;
    running.text.extend(running.stream.push(token));
    // A session reads the last token too, to be continued; nothing is continued here.
    Ok((running.tokens == options.max_tokens).then_some(Finish::Length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplerOptions;

    #[test]
    fn texts_are_those_of_sessions_of_their_own() {
        let model = Model::embedded().unwrap();
        let prompts =
            ["Once upon a time", "The fox", "Max was happy. He", "One day", "A bird and a cat"];
        for sampling in [SamplerOptions::greedy(), SamplerOptions { seed: 7, ..Default::default() }]
        {
            let options = GenerateOptions { max_tokens: 40, sampling, ..Default::default() };
            let alone: Vec<(String, usize, Finish)> = prompts
                .iter()
                .map(|prompt| {
                    let mut session = model.session().unwrap();
                    let go = |_: &str| ControlFlow::Continue(());
                    let text = session.generate(prompt, &options, go).unwrap();
                    (text.text, text.tokens, text.finish)
                })
                .collect();
            for width in [1, 2, 3, 9] {
                let mut told = Vec::new();
                let all = complete(&model, &prompts, &options, width, |progress| {
                    if let Progress::Done(index, _) = progress {
                        told.push(index);
                    }
                    ControlFlow::Continue(())
                });
                let all = all.unwrap().into_iter().map(|c| (c.text, c.tokens, c.finish));
                assert_eq!(all.collect::<Vec<_>>(), alone, "{width}");
                told.sort_unstable();
                assert_eq!(told, [0, 1, 2, 3, 4]);
            }
        }
    }

    #[test]
    fn work_can_be_broken_off_within_a_text() {
        let model = Model::embedded().unwrap();
        let options = GenerateOptions { max_tokens: 1000, ..GenerateOptions::greedy() };
        let mut steps = 0;
        let all = complete(&model, &["Once upon a time", "The fox"], &options, 2, |_| {
            steps += 1;
            if steps == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((all.unwrap().len(), steps), (0, 7));
    }

    #[test]
    fn what_cannot_be_continued_is_refused() {
        let model = Model::embedded().unwrap();
        let options = GenerateOptions { max_tokens: 2, ..GenerateOptions::greedy() };
        let go = |_: Progress<'_>| ControlFlow::Continue(());
        let never = |_: Progress<'_>| -> ControlFlow<()> { panic!("work began") };
        let long = "fox ".repeat(2000);
        let error = complete(&model, &["a", &long], &options, 2, never).unwrap_err();
        assert!(matches!(error, Error::ContextFull { .. }), "{error}");
        assert!(complete(&model, &[] as &[&str], &options, 2, go).unwrap().is_empty());
    }
}
