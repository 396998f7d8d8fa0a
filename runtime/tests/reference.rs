//! The embedded model against the independent float64 reference (`tools/reference`), by committed
//! vectors.
//!
//! Forced, the reference was given the runtime's own int8 activations and f16 cache, and every row agrees
//! to 1e-5. Free running, it rounds both for itself: nine rows in ten agree to 1e-4, and wherever the
//! margin between the two best tokens is larger than the error, the best token is the same, with a cache of
//! integers too. (`tools/ci/reference` compares that in forced mode.)

use std::path::Path;
use trilut_runtime::{CacheType, Engine, Model, Trace};

/// One prompt of the vectors.
struct Prompt {
    name: String,
    tokens: Vec<u32>,
    /// Free running, of each position.
    most_likely: Vec<u32>,
    first_row: usize,
    vocab: usize,
    /// Rows of the last positions, from `first_row` on.
    free: Vec<f32>,
    /// As `free`; empty when the vectors were made without the runtime.
    forced: Vec<f32>,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, n: usize) -> &[u8] {
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().unwrap())
    }

    fn u32s(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.u32()).collect()
    }

    fn prompt(&mut self) -> Prompt {
        let length = self.u32() as usize;
        let name = String::from_utf8(self.bytes(length).to_vec()).unwrap();
        let n = self.u32() as usize;
        let (tokens, most_likely) = (self.u32s(n), self.u32s(n));
        let [first_row, rows, vocab, has_forced] =
            <[u32; 4]>::try_from(self.u32s(4)).unwrap().map(|x| x as usize);
        let mut floats = |n| self.u32s(n).into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let free = floats(rows * vocab);
        let forced = floats(has_forced * rows * vocab);
        Prompt { name, tokens, most_likely, first_row, vocab, free, forced }
    }
}

fn prompts() -> Vec<Prompt> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/reference/vectors/demo.bin");
    let bytes = std::fs::read(path).unwrap();
    let mut reader = Reader(&bytes);
    assert_eq!(reader.bytes(4), b"TRLV");
    assert_eq!(reader.u32(), 1);
    let prompts = (0..reader.u32()).map(|_| reader.prompt()).collect();
    assert!(reader.0.is_empty());
    prompts
}

/// The largest difference, relative to the largest magnitude of the reference.
fn error(ours: &[f32], reference: &[f32]) -> f32 {
    let largest = |x: &mut dyn Iterator<Item = f32>| x.fold(0f32, |a, x| a.max(x.abs()));
    largest(&mut ours.iter().zip(reference).map(|(a, b)| a - b))
        / largest(&mut reference.iter().copied())
}

/// The logits of every position, `vocab` each.
fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut trace = Trace::new();
    let mut session = model.session().unwrap();
    session.append_traced(tokens, Some(&mut trace)).unwrap();
    trace.get_f32s("logits").unwrap()
}

fn most_likely(logits: &[f32]) -> usize {
    (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap()
}

fn model(of: CacheType) -> Model {
    Engine::builder().cache_type(of).embedded().unwrap()
}

#[test]
fn free_running_rows_agree() {
    let (near, seen) = free_running(CacheType::F16);
    assert!(near * 10 >= seen * 9, "{near} of {seen} rows are within 1e-4");
}

#[test]
fn a_cache_of_integers_gives_the_same_tokens() {
    free_running(CacheType::Q16);
}

/// Checks the best token of every row where the margin decides it; returns how many rows agree to 1e-4, and
/// of how many.
fn free_running(of: CacheType) -> (usize, usize) {
    let model = model(of);
    let (mut rows_seen, mut rows_near) = (0, 0);
    for prompt in prompts() {
        let ours = logits(&model, &prompt.tokens);
        let rows = ours.chunks_exact(prompt.vocab).skip(prompt.first_row);
        for (row, (ours, reference)) in rows.zip(prompt.free.chunks_exact(prompt.vocab)).enumerate()
        {
            let error = error(ours, reference);
            let position = prompt.first_row + row;
            rows_seen += 1;
            rows_near += usize::from(error <= 1e-4);
            assert!(error <= 2e-2, "{} at {position}: {error:e}", prompt.name);

            let best = prompt.most_likely[position] as usize;
            assert_eq!(best, most_likely(reference));
            let others = reference.iter().enumerate().filter(|(id, _)| *id != best);
            let second = others.map(|(_, x)| *x).fold(f32::NEG_INFINITY, f32::max);
            let largest = reference.iter().fold(0f32, |a, x| a.max(x.abs()));
            if reference[best] - second > 2.0 * error * largest {
                assert_eq!(most_likely(ours), best, "{} at {position}", prompt.name);
            }
        }
    }
    (rows_near, rows_seen)
}

#[test]
fn forced_rows_agree() {
    let model = model(CacheType::F16);
    for prompt in prompts() {
        assert_eq!(prompt.forced.len(), prompt.free.len(), "the vectors lack forced logits");
        let ours = logits(&model, &prompt.tokens);
        let rows = ours.chunks_exact(prompt.vocab).skip(prompt.first_row);
        for (row, (ours, reference)) in
            rows.zip(prompt.forced.chunks_exact(prompt.vocab)).enumerate()
        {
            let error = error(ours, reference);
            assert!(error <= 1e-5, "{} at {}: {error:e}", prompt.name, prompt.first_row + row);
        }
    }
}
