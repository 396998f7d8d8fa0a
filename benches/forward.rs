//! The whole forward pass, decoding and reading a prompt, of models with random weights.
//!
//! ```sh
//! cargo bench --bench forward                           # 125M
//! cargo bench --bench forward -- decode
//! TRILUT_BENCH_2B=1 cargo bench --bench forward -- 2b   # BitNet b1.58 2B-4T too: 1.2 GB in the temporary directory
//! ```
//!
//! The figure is tokens per second, without tokenizer and sampling, with the default kernels.
//! `trilut bench` measures a model of yours with the tuned ones.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::ops::ControlFlow;
use std::time::Duration;
use trilut::kernels::pool::default_threads;
use trilut::presets::models;
use trilut::runtime::dummy::{DummyOptions, write_dummy};
use trilut::runtime::gguf::Gguf;
use trilut::runtime::{Model, ModelOptions, Session};

/// Tokens of the prompt.
const PROMPT: usize = 128;

/// Decoding goes on from this many tokens to twice as many, and back.
const CONTEXT: usize = 64;

fn token(session: &Session, i: usize) -> u32 {
    (i * 7919 % session.model().config().vocab) as u32
}

fn forward(c: &mut Criterion) {
    let mut names = vec!["dummy-125m"];
    if std::env::var_os("TRILUT_BENCH_2B").is_some() {
        names.push("bitnet-2b-4t");
    }
    for name in names {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("model.gguf");
        let spec = models::find(name).expect("a model that is known");
        let mut go_on = |_, _| ControlFlow::Continue(());
        write_dummy(spec, DummyOptions::default(), &path, &mut go_on).expect("room for the file");
        let gguf = Gguf::open(&path).expect("the file that was written");
        let mut counts = vec![1, default_threads()];
        counts.dedup();
        for threads in counts {
            let options = ModelOptions {
                threads: Some(threads),
                context: Some(2 * CONTEXT.max(PROMPT)),
                ..ModelOptions::default()
            };
            let model = Model::open_with(&gguf, &options).expect("a usable model");
            measure(c, name, &model);
        }
    }
}

fn measure(c: &mut Criterion, name: &str, model: &Model) {
    let mut group = c.benchmark_group(format!("forward {name}"));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    let threads = format!("{} threads", model.threads());
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("decode", &threads), |b| {
        let mut session = model.session().expect("memory for the cache");
        let tokens: Vec<u32> = (0..CONTEXT).map(|i| token(&session, i)).collect();
        session.append(&tokens).expect("tokens that fit");
        b.iter(|| {
            if session.tokens().len() == 2 * CONTEXT {
                session.truncate(CONTEXT);
            }
            let next = token(&session, session.tokens().len());
            session.append(&[next]).expect("room for a token");
        });
    });
    group.throughput(Throughput::Elements(PROMPT as u64));
    group.bench_function(BenchmarkId::new("prompt", &threads), |b| {
        let mut session = model.session().expect("memory for the cache");
        let tokens: Vec<u32> = (0..PROMPT).map(|i| token(&session, i)).collect();
        b.iter(|| {
            session.clear();
            session.append(&tokens).expect("tokens that fit");
        });
    });
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
