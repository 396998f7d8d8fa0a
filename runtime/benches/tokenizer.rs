//! The tokenizer with a made-up vocabulary of Llama 3's size (128256 tokens, 280147 merges): reading it,
//! and encoding and decoding 1 MB of text.
//!
//! `cargo bench -p trilut-runtime --bench tokenizer`; with `TRILUT_TOKENIZERS` naming a folder of GGUF
//! files (`tools/tokenizer-golden` writes some), also with the vocabularies in those.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use trilut_runtime::gguf::{Gguf, GgufWriter};
use trilut_runtime::tokenizer::Tokenizer;

const TOKENS: usize = 128_256;
const MERGES: usize = 280_147;

/// What tokens are made of, roughly by frequency; a space comes only first.
const FIRST: &str = "Ġetaoinshrdlcumwfgypbvkjxqz";
const REST: &str = "etaoinshrdlcumwfgypbvkjxqz";

/// Tokens of one to four letters, and the ways to make them of two.
fn vocabulary() -> Gguf {
    let mut others = 0x100u32..;
    let byte = |byte: u32| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
        _ => others.next().unwrap(),
    };
    let mut tokens: Vec<String> =
        (0..256).map(byte).map(|c| char::from_u32(c).unwrap().to_string()).collect();
    let longer = |shorter: &[String]| -> Vec<String> {
        shorter.iter().flat_map(|a| REST.chars().map(move |b| format!("{a}{b}"))).collect()
    };
    let ones: Vec<String> = FIRST.chars().map(String::from).collect();
    let twos = longer(&ones);
    let threes = longer(&twos);
    let mut fours = longer(&threes);
    fours.truncate(TOKENS - 256 - twos.len() - threes.len());
    let mut merges = Vec::new();
    for token in twos.iter().chain(&threes).chain(&fours) {
        let places = token.char_indices().map(|(at, _)| at).skip(1);
        // Only a first letter may be a space, so that all parts after it are tokens.
        merges.extend(places.map(|at| format!("{} {}", &token[..at], &token[at..])));
    }
    merges.truncate(MERGES);
    tokens.extend(twos.into_iter().chain(threes).chain(fours));
    assert_eq!((tokens.len(), merges.len()), (TOKENS, MERGES));
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "bitnet-b1.58")
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "llama-bpe")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &vec![1; TOKENS])
        .strings("tokenizer.ggml.merges", &merges);
    Gguf::from_bytes(Arc::new(writer.begin(Vec::new()).unwrap().finish().unwrap())).unwrap()
}

/// 1 MB of words, the short ones often, with numbers, punctuation and some other scripts.
fn text() -> String {
    let mut state = 1u64;
    let mut below = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let letters: Vec<char> = REST.chars().collect();
    let words: Vec<String> = (0..8000)
        .map(|i| (0..2 + i / 1000).map(|_| letters[below(1 + i % 26)]).collect())
        .collect();
    let mut text = String::new();
    while text.len() < 1_000_000 {
        let (limit, what) = (1 + below(8000), below(40));
        let word = &words[below(limit)];
        match what {
            0 => text.push_str(&format!(" {}", below(100_000))),
            1 => text.push_str(&format!(", \"{word}\"")),
            2 => text.push_str(".\n\n"),
            3 => text.push_str(" naïve 日本語"),
            _ => text.push_str(&format!(" {word}")),
        }
    }
    text
}

fn tokenizer(c: &mut Criterion) {
    let mut files = vec![("synthetic".to_owned(), vocabulary())];
    if let Some(folder) = std::env::var_os("TRILUT_TOKENIZERS") {
        for entry in std::fs::read_dir(folder).expect("the folder of vocabularies") {
            let path = entry.expect("an entry of the folder").path();
            if path.extension().is_some_and(|extension| extension == "gguf") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, Gguf::open(&path).expect("a GGUF file")));
            }
        }
    }
    let text = text();
    let mut group = c.benchmark_group("tokenizer");
    group.sample_size(10);
    for (name, gguf) in &files {
        let read = || Tokenizer::from_gguf(gguf).expect("a vocabulary");
        group.bench_function(BenchmarkId::new("read", name), |b| b.iter(|| black_box(read())));
        let tokenizer = read();
        let ids = tokenizer.encode(&text, false);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| black_box(tokenizer.encode(black_box(&text), false)));
        });
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| black_box(tokenizer.decode(black_box(&ids), true)));
        });
    }
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
