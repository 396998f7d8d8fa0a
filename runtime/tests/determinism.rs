//! The same model and tokens give the same logits, bit for bit, whatever computes them.

use std::ops::ControlFlow;
use trilut_kernels::{Cpu, Format, Isa, gemm_registry};
use trilut_presets::models::{self, ModelSpec};
use trilut_presets::{Phase, Pick, Plan, Tile};
use trilut_runtime::dummy::{DummyOptions, write_dummy};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{
    CacheType, Finish, GenerateOptions, Model, ModelOptions, Row, SamplerOptions, embedded,
};

fn load(change: impl Fn(&mut ModelOptions<'_>)) -> Model {
    let mut options = ModelOptions { threads: Some(1), ..ModelOptions::default() };
    change(&mut options);
    Model::open_with(&Gguf::from_static(embedded::model()).unwrap(), &options).unwrap()
}

/// The embedded model as a plan wants it.
fn planned(plan: &Plan, threads: usize) -> Model {
    let options =
        ModelOptions { threads: Some(threads), plan: Some(plan), ..ModelOptions::default() };
    Model::open_with(&Gguf::from_static(embedded::model()).unwrap(), &options).unwrap()
}

/// A plan that picks one gemm kernel for every stack of a model.
fn prefill_plan(model: &Model, kernel: &str, tile: Tile, threads: usize) -> Plan {
    let pick = |(_, shape)| Pick {
        shape,
        phase: Phase::Prefill,
        threads,
        format: Format::I2S,
        kernel: kernel.to_owned(),
        tile,
        from: None,
        reason: format!("a test of {kernel}"),
    };
    Plan { picks: model.config().stacks().into_iter().map(pick).collect() }
}

/// Tokens without meaning: the arithmetic does not mind.
fn tokens(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 31 + i * 7 + seed * 101) % vocab) as u32).collect()
}

fn rows(sequence: usize, start: usize, tokens: &[u32]) -> Vec<Row> {
    let row = |(position, &token)| Row { sequence, position, token, logits: true };
    (start..).zip(tokens).map(row).collect()
}

/// The bits of all logits of `tokens`, read in blocks of `block`.
fn logits(model: &Model, tokens: &[u32], block: usize) -> Vec<u32> {
    let mut state = model.state(1).unwrap();
    let mut bits = Vec::new();
    for (index, block_tokens) in tokens.chunks(block).enumerate() {
        let rows = rows(0, index * block, block_tokens);
        bits.extend(model.forward(&mut state, &rows).unwrap().iter().map(|x| x.to_bits()));
    }
    bits
}

#[test]
fn isa_format_and_threads_change_nothing() {
    let tokens = tokens(9, load(|_| ()).config().vocab, 1);
    let expected = logits(&load(|_| ()), &tokens, 9);
    let native =
        |isa: &&Isa| **isa == Isa::Scalar || isa.target_arch() == Some(std::env::consts::ARCH);
    let caps = Isa::ALL.iter().filter(native).map(|&isa| Some(isa));
    for cap in caps.chain([None]) {
        for &format in Format::ALL {
            for threads in [1, 2, 3] {
                let model = load(|o| {
                    o.cpu = Some(Cpu::capped(cap));
                    o.format = Some(format);
                    o.threads = Some(threads);
                });
                for block in [1, 9] {
                    assert!(
                        logits(&model, &tokens, block) == expected,
                        "cap {cap:?}, {format}, {threads} threads, blocks of {block}"
                    );
                }
            }
        }
    }
}

#[test]
fn blocks_of_any_size_equal_single_steps() {
    let model = load(|o| o.threads = Some(2));
    // Past the end of the first chunk of attention, where that fits.
    let n = model.context().min(300);
    let tokens = tokens(n, model.config().vocab, 2);
    let single = logits(&model, &tokens, 1);
    for block in [2, 7, 64, 300] {
        assert!(logits(&model, &tokens, block) == single, "blocks of {block}");
    }
}

#[test]
fn interleaved_sequences_do_not_touch_each_other() {
    let model = load(|o| o.threads = Some(2));
    let (config, vocab) = (model.config(), model.config().vocab);
    assert!(config.context >= 12);
    let texts = [tokens(12, vocab, 3), tokens(12, vocab, 4)];
    let alone = texts.each_ref().map(|text| logits(&model, text, 12));

    let mut state = model.state(2).unwrap();
    let mut together = [vec![], vec![]];
    for (start, len) in [(0, 5), (5, 1), (6, 6)] {
        // Token by token in turns, in one batch.
        let parts = [0, 1].map(|s| rows(s, start, &texts[s][start..start + len]));
        let batch: Vec<Row> = parts[0].iter().zip(&parts[1]).flat_map(|(a, b)| [*a, *b]).collect();
        let logits = model.forward(&mut state, &batch).unwrap();
        for (row, logits) in batch.iter().zip(logits.chunks_exact(vocab)) {
            together[row.sequence].extend(logits.iter().map(|x| x.to_bits()));
        }
    }
    assert!(alone == together);
}

#[test]
fn only_wanted_logits_are_computed_and_they_are_the_same() {
    let model = load(|o| o.threads = Some(2));
    let vocab = model.config().vocab;
    let tokens = tokens(6, vocab, 5);
    let all = logits(&model, &tokens, 6);
    let mut batch = rows(0, 0, &tokens);
    for (index, row) in batch.iter_mut().enumerate() {
        row.logits = index == 1 || index == 5;
    }
    let mut state = model.state(1).unwrap();
    let some: Vec<u32> =
        model.forward(&mut state, &batch).unwrap().iter().map(|x| x.to_bits()).collect();
    assert!(some == [&all[vocab..2 * vocab], &all[5 * vocab..]].concat());
}

#[test]
fn a_foreign_plan_changes_the_report_and_nothing_else() {
    let cpu = Cpu::detect();
    let expected = logits(&load(|_| ()), &[1, 2, 3], 3);
    let pick = |shape, format, kernel: &str, tile| Pick {
        shape,
        phase: Phase::Decode,
        threads: 1,
        format,
        kernel: kernel.to_owned(),
        tile,
        from: None,
        reason: "a test".to_owned(),
    };
    let model = load(|_| ());
    let shapes: Vec<_> = model.config().linears().map(|(_, shape)| shape).into();
    let (tile, illegal) =
        (Tile { rows_per_task: 32, prefetch: 256 }, Tile { rows_per_task: 7, prefetch: 0 });
    let tl2 = cpu.default_kernel(Format::Tl2, shapes[0]).kernel().text;
    let cases = [
        (Format::I2S, "gemv_i2s_madd_r9u9_sse9", tile, "not compiled in"),
        (Format::I2S, "gemv_i2s_dot_r1u1_neon", tile, "not compiled in"),
        (Format::I2S, tl2, tile, "contradicts its format"),
        (Format::Tl2, tl2, illegal, "illegal tile"),
        (Format::Tl2, tl2, tile, "a test"),
    ];
    for (format, kernel, tile, reason) in cases {
        let picks = shapes.iter().map(|&shape| pick(shape, format, kernel, tile)).collect();
        let model = planned(&Plan { picks }, 1);
        for (name, choice) in model.kernels() {
            assert!(choice.reason.contains(reason), "{name}: {}", choice.reason);
        }
        assert!(logits(&model, &[1, 2, 3], 3) == expected, "{kernel}");
    }
}

#[test]
fn every_gemm_kernel_reads_prompts_as_single_steps_do() {
    let base = load(|_| ());
    let vocab = base.config().vocab;
    let tokens = tokens(70, vocab, 6);
    let single = logits(&base, &tokens, 1);
    for (index, kernel) in Cpu::detect().gemm_candidates().enumerate() {
        let text = kernel.kernel().text;
        let (rows_per_task, threads) = ([0, 96][index % 2], [1, 3][index / 2 % 2]);
        let tile = Tile { rows_per_task, prefetch: 0 };
        let model = planned(&prefill_plan(&base, text, tile, threads), threads);
        assert_eq!(model.prefill_kernels().count(), 4);
        for (stack, choice) in model.prefill_kernels() {
            assert_eq!(choice.kernel.kernel().text, text, "{stack}: {}", choice.reason);
            assert_eq!(choice.rows, kernel.panel_rows(tile), "{stack}");
            assert_eq!(choice.reason, format!("a test of {text}"), "{stack}");
        }
        // The fewest that are a prompt, and ends of one token and of some.
        for n in [17, 65, 70] {
            assert!(
                logits(&model, &tokens[..n], n) == single[..n * vocab],
                "{text}, panels of {rows_per_task}, {threads} threads, {n} tokens"
            );
        }
    }
}

#[test]
fn refused_gemm_picks_fall_back_to_the_default() {
    let base = load(|_| ());
    let tokens = tokens(19, base.config().vocab, 7);
    let expected = logits(&base, &tokens, 1);
    let default = Cpu::detect().default_gemm();
    let legal = Tile::default_for(Phase::Prefill);
    let illegal = Tile { rows_per_task: 7, prefetch: 0 };
    let emulated = gemm_registry().iter().find(|kernel| kernel.name.isa == Isa::Emulated);
    for (kernel, tile, why) in [
        ("gemm_vlut_g9p9t9_sse9", legal, "is not compiled in"),
        (default.kernel().text, illegal, "has an illegal tile"),
        (emulated.unwrap().text, legal, ""),
    ] {
        let model = planned(&prefill_plan(&base, kernel, tile, 1), 1);
        for (stack, choice) in model.prefill_kernels() {
            assert_eq!(choice.kernel.kernel().text, default.kernel().text, "{stack}");
            assert_eq!(choice.rows, default.panel_rows(legal), "{stack}");
            let reason = format!("default, the plan's pick `{kernel}` {why}");
            assert!(choice.reason.starts_with(&reason), "{stack}: {}", choice.reason);
        }
        assert!(logits(&model, &tokens, 19) == expected, "{kernel}");
    }
}

#[test]
fn bad_batches_are_refused_and_leave_no_trace() {
    let model = load(|_| ());
    let vocab = model.config().vocab as u32;
    let mut state = model.state(2).unwrap();
    let row = |sequence, position, token| Row { sequence, position, token, logits: true };
    for (bad, says) in [
        (row(0, 0, vocab), "does not exist"),
        (row(2, 0, 1), "sequence 2 does not exist"),
        (row(0, 1, 1), "continues at position 0"),
    ] {
        let error = model.forward(&mut state, &[row(1, 0, 1), bad]).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(state.cache().is_empty(1));
    }
    assert!(model.forward(&mut state, &[]).unwrap().is_empty());
    let model = load(|o| o.context = Some(2));
    assert!(model.forward(&mut state, &[row(0, 0, 1)]).is_err());
    let mut session = model.session().unwrap();
    assert!(session.append(&[1, 1, 1]).unwrap_err().hint().is_some());
    assert!(session.tokens().is_empty());
}

#[test]
fn greedy_text_is_the_golden_one() {
    let golden = include_str!("golden/story.txt");
    let prompt = "Once upon a time";
    for threads in [1, 2] {
        let model = load(|o| o.threads = Some(threads));
        let mut session = model.session().unwrap();
        let options = GenerateOptions { max_tokens: 80, ..GenerateOptions::greedy() };
        let mut streamed = String::new();
        let generation = session
            .generate(prompt, &options, |piece| {
                streamed.push_str(piece);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(streamed, generation.text);
        if std::env::var_os("TRILUT_WRITE_GOLDEN").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/story.txt");
            std::fs::write(path, format!("{prompt}{}\n", generation.text)).unwrap();
        } else {
            assert_eq!(format!("{prompt}{}\n", generation.text), golden);
        }
    }
}

#[test]
fn every_way_to_finish_is_named() {
    let model = load(|o| o.context = Some(24));
    let generate = |max_tokens, mut calls: usize| {
        let options = GenerateOptions { max_tokens, ..GenerateOptions::greedy() };
        let mut session = model.session().unwrap();
        let generation = session.generate("Once upon a time", &options, |_| {
            calls -= 1;
            if calls == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (generation.unwrap(), session.tokens().len())
    };
    let (generation, len) = generate(3, 99);
    assert_eq!((generation.finish, generation.tokens), (Finish::Length, 3));
    assert_eq!(len, generation.prompt_tokens + 3);
    let (generation, _) = generate(99, 2);
    assert_eq!((generation.finish, generation.tokens), (Finish::Cancelled, 2));
    let (generation, len) = generate(99, 99);
    assert_eq!((generation.finish, len), (Finish::Context, 24));
}

#[test]
fn a_long_prompt_can_be_broken_off_and_names_in_it_are_text() {
    // Longer than the demo model's context: a prompt is read in blocks of 256 tokens.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let spec = ModelSpec {
        layers: 1,
        hidden: 128,
        ffn: 256,
        heads: 2,
        kv_heads: 1,
        head_dim: 64,
        vocab: 1500,
        ..models::find("dummy-125m").unwrap().clone()
    };
    let proceed = &mut |_, _| ControlFlow::Continue(());
    write_dummy(&spec, DummyOptions::default(), &path, proceed).unwrap();
    let options = ModelOptions { threads: Some(2), ..ModelOptions::default() };
    let model = Model::open_with(&Gguf::open(&path).unwrap(), &options).unwrap();
    let prompt = "Once upon a time there was a dog. ".repeat(40);
    let prompt = &prompt[..];
    let count = model.tokenizer().encode(prompt, false).len() + 1;
    assert!((513..=model.context()).contains(&count), "{count} tokens");
    let mut session = model.session().unwrap();
    let mut calls = 0;
    let generation = session.generate(prompt, &GenerateOptions::greedy(), |piece| {
        calls += 1;
        assert!(piece.is_empty());
        ControlFlow::Break(())
    });
    let generation = generation.unwrap();
    assert_eq!((calls, generation.finish, generation.tokens), (1, Finish::Cancelled, 0));
    assert_eq!((generation.prompt_tokens, session.tokens().len()), (256, 256));
    assert!(session.logits().is_empty());

    // The rest gives the same logits as reading it at once.
    let tokens = model.tokenizer().encode(prompt, false);
    let rest = &tokens[session.tokens().len() - 1..];
    session.append(rest).unwrap();
    let mut whole = model.session().unwrap();
    let options = GenerateOptions { max_tokens: 0, ..GenerateOptions::greedy() };
    whole.generate(prompt, &options, |_| ControlFlow::Continue(())).unwrap();
    assert!(whole.tokens() == session.tokens() && whole.logits() == session.logits());

    let stop = (0..model.tokenizer().vocab_size() as u32).find(|t| model.tokenizer().is_stop(*t));
    let name = model.tokenizer().token_text(stop.unwrap()).unwrap().to_owned();
    let mut session = model.session().unwrap();
    session.generate(&name, &options, |_| ControlFlow::Continue(())).unwrap();
    assert!(!session.tokens().contains(&stop.unwrap()));
}

#[test]
fn guesses_change_no_text() {
    let model = load(|_| ());
    let prompt = "the fox and the owl, ".repeat(6);
    let text = |speculate, sampling: SamplerOptions| {
        let mut session = model.session().unwrap();
        let options =
            GenerateOptions { max_tokens: 60, sampling, speculate, ..GenerateOptions::default() };
        let mut run = |prompt: &str| {
            session.generate(prompt, &options, |_| ControlFlow::Continue(())).unwrap()
        };
        let (first, second) = (run(&prompt), run(" and then "));
        ((first.text, first.tokens), (second.text, second.tokens), session.logits().to_vec())
    };
    for sampling in [
        SamplerOptions::greedy(),
        SamplerOptions { temperature: 0.7, seed: 3, ..SamplerOptions::default() },
        SamplerOptions { temperature: 1.5, top_k: 0, seed: 4, ..SamplerOptions::default() },
    ] {
        let plain = text(0, sampling.clone());
        for speculate in [1, 4, 9] {
            assert_eq!(
                text(speculate, sampling.clone()),
                plain,
                "{speculate} guesses, {sampling:?}"
            );
        }
    }
}

#[test]
fn a_cache_of_integers_is_the_same_however_it_is_filled() {
    for of in [CacheType::Q16, CacheType::Q8] {
        let integers = |cap: Option<Isa>, threads| {
            load(|o| {
                o.cache = of;
                o.cpu = Some(Cpu::capped(cap));
                o.threads = Some(threads);
            })
        };
        let model = integers(None, 1);
        let tokens = tokens(280, model.config().vocab, 3);
        let expected = logits(&model, &tokens, 280);
        let floats_cache = || load(|o| o.cache = CacheType::F16);
        let halves = logits(&floats_cache(), &tokens, 280);
        assert!(expected != halves, "f16 is another cache");
        // Near to it all the same: the mean difference, in parts of the mean magnitude.
        let floats = |bits: &[u32]| bits.iter().map(|&x| f32::from_bits(x)).collect::<Vec<_>>();
        let (found, wanted) = (floats(&expected), floats(&halves));
        let far: f32 = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).sum();
        let far = far / wanted.iter().map(|x| x.abs()).sum::<f32>();
        assert!(far < 0.05, "{of:?} is {far} away");
        for (cap, threads, block) in [
            (None, 1, 1),
            (None, 2, 7),
            (None, 3, 64),
            (Some(Isa::Avx2), 2, 32),
            (Some(Isa::Scalar), 1, 280),
        ] {
            let same = logits(&integers(cap, threads), &tokens, block) == expected;
            assert!(same, "{of:?}, cap {cap:?}, {threads} threads, blocks of {block}");
        }

        // A text that goes on from the copied beginning of another one, beside it.
        let vocab = model.config().vocab;
        let mut state = model.state(2).unwrap();
        model.forward(&mut state, &rows(1, 0, &tokens[..270])).unwrap();
        state.copy(1, 0, 260);
        let both = [rows(0, 260, &tokens[260..]), rows(1, 270, &tokens[270..])].concat();
        let bits: Vec<u32> =
            model.forward(&mut state, &both).unwrap().iter().map(|x| x.to_bits()).collect();
        assert!(bits[..20 * vocab] == expected[260 * vocab..]);
        assert!(bits[20 * vocab..] == expected[270 * vocab..]);

        // Half of the memory in eight bits, and states are of one model.
        let most = if of == CacheType::Q8 { 6 } else { 11 };
        assert!(model.cache_bytes() * 10 < floats_cache().cache_bytes() * most);
        let error = floats_cache().forward(&mut state, &rows(0, 280, &[1])).unwrap_err();
        assert!(error.to_string().contains("state"), "{error}");
    }
}
