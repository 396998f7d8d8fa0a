//! Many prompts at once: each weight that is read serves a token of every text in progress.
//!
//! Every text is what a [`Session`](crate::Session) of its own would give, bit for bit: results of a
//! forward pass depend on their own sequence alone, and random numbers on seed and position.

use crate::tokenizer::TokenStream;
use crate::{Error, Finish, GenerateOptions, Model, Row, Sampler, State};
use std::ops::ControlFlow;

/// Tokens of a prompt that are read at a time.
const BLOCK: usize = 512;

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

/// Continues prompts, `width` of them at a time. The context is not shifted: texts that fill it end.
/// `each` is told the number of a prompt and its text when that ends, and may break off; the texts that
/// were finished are lost then, except to `each`.
///
/// # Errors
/// When a prompt is empty or does not fit into the context, an option is out of range, the caches of
/// `width` texts do not fit into memory, or a value stops being finite.
pub fn complete(
    model: &Model,
    prompts: &[impl AsRef<str>],
    options: &GenerateOptions,
    width: usize,
    mut each: impl FnMut(usize, &Completion) -> ControlFlow<()>,
) -> Result<Vec<Completion>, Error> {
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
                state.truncate(sequence, 0);
                match begin(model, &mut state, sequence, index, prompt.as_ref(), options)? {
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
            let flow = each(index, &completion);
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

/// Reads a prompt and chooses the first token; the completion if that is the end already.
fn begin<'m>(
    model: &'m Model,
    state: &mut State,
    sequence: usize,
    index: usize,
    prompt: &str,
    options: &GenerateOptions,
) -> Result<Result<Running<'m>, (usize, Completion)>, Error> {
    let tokenizer = model.tokenizer();
    let mut tokens = tokenizer.encode(prompt, options.parse_special);
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    if let Some(bos) = bos.filter(|bos| tokens.first() != Some(bos)) {
        tokens.insert(0, bos);
    }
    let Some(&last) = tokens.last() else { return Err(Error::Empty) };
    let context = model.context();
    if tokens.len() > context {
        return Err(Error::ContextFull { tokens: tokens.len(), used: 0, context });
    }
    let mut running = Running {
        index,
        prompt_tokens: tokens.len(),
        len: tokens.len(),
        sampler: Sampler::new(options.sampling.clone())?,
        stream: tokenizer.stream_after(Some(last)),
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
    for block in rows.chunks(BLOCK) {
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
                let all = complete(&model, &prompts, &options, width, |index, _| {
                    told.push(index);
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
    fn what_cannot_be_continued_is_refused() {
        let model = Model::embedded().unwrap();
        let options = GenerateOptions { max_tokens: 2, ..GenerateOptions::greedy() };
        let go = |_: usize, _: &Completion| ControlFlow::Continue(());
        let long = "fox ".repeat(2000);
        let error = complete(&model, &["a", &long], &options, 2, go).unwrap_err();
        assert!(matches!(error, Error::ContextFull { .. }), "{error}");
        assert!(complete(&model, &[] as &[&str], &options, 2, go).unwrap().is_empty());
    }
}
