//! Tokens of several sequences in one batch give each the logits that it has alone, bit for bit, by every
//! kernel of small batches.

use trilut_kernels::{Cpu, Format, Isa, batch_registry};
use trilut_presets::{Phase, Pick, Plan, Tile};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{Model, ModelOptions, Row, embedded};

fn open(plan: Option<&Plan>, threads: usize, format: Format) -> Model {
    let format = Some(format);
    let options = ModelOptions { threads: Some(threads), plan, format, ..ModelOptions::default() };
    Model::open_with(&Gguf::from_static(embedded::model()).unwrap(), &options).unwrap()
}

/// A plan with one small-batch pick for every linear layer.
fn plan(model: &Model, format: Format, kernel: &str, tile: Tile, threads: usize) -> Plan {
    let pick = |(_, shape)| Pick {
        shape,
        phase: Phase::SmallBatch,
        threads,
        format,
        kernel: kernel.to_owned(),
        tile,
        from: None,
        reason: format!("a test of {kernel}"),
    };
    Plan { picks: model.config().linears().map(pick).into() }
}

fn token(sequence: usize, position: usize, vocab: usize) -> u32 {
    ((position * position * 31 + position * 7 + sequence * 101) % vocab) as u32
}

/// The bits of the logits of some sequences of `steps` tokens, by sequence: all decode one token at a time in
/// the same batches.
fn decode(model: &Model, sequences: std::ops::Range<usize>, steps: usize) -> Vec<Vec<u32>> {
    let vocab = model.config().vocab;
    let mut state = model.state(sequences.len()).unwrap();
    let mut bits = vec![Vec::new(); sequences.len()];
    for position in 0..steps {
        let row = |(sequence, name)| {
            let token = token(name, position, vocab);
            Row { sequence, position, token, logits: true }
        };
        let rows: Vec<Row> = sequences.clone().enumerate().map(row).collect();
        let logits = model.forward(&mut state, &rows).unwrap();
        for (bits, logits) in bits.iter_mut().zip(logits.chunks_exact(vocab)) {
            bits.extend(logits.iter().map(|x| x.to_bits()));
        }
    }
    bits
}

const STEPS: usize = 3;

#[test]
fn every_kernel_gives_each_sequence_what_it_has_alone() {
    let base = open(None, 1, Format::I2S);
    let alone: Vec<Vec<u32>> =
        (0..16).map(|name| decode(&base, name..name + 1, STEPS).remove(0)).collect();
    let cpu = Cpu::detect();
    let mut count = 0;
    for &format in Format::ALL {
        // Where a format has no such kernel, tokens take turns.
        let gemv = cpu.default_kernel(format, base.config().linears()[0].1).kernel().text;
        let kernels = cpu.batch_candidates(format).map(|kernel| kernel.kernel().text);
        for (index, kernel) in kernels.chain([gemv]).enumerate() {
            let (rows_per_task, threads) = ([0, 32][index % 2], [1, 3, 2][index % 3]);
            let tile = Tile { rows_per_task, prefetch: 512 };
            let picks = plan(&base, format, kernel, tile, threads);
            let model = open(Some(&picks), threads, format);
            for (name, choice) in model.kernels() {
                let batch = &choice.batch;
                let text = batch.kernel.map_or(gemv, |kernel| kernel.kernel().text);
                assert_eq!((text, batch.tile), (kernel, tile), "{name}: {}", batch.reason);
                assert_eq!(batch.reason, format!("a test of {kernel}"), "{name}");
            }
            for n in [2, 3, 7, 16] {
                let together = decode(&model, 0..n, STEPS);
                assert!(together == alone[..n], "{kernel}, {threads} threads, {n} sequences");
            }
            count += 1;
        }
    }
    assert!(count > Format::ALL.len());
}

#[test]
fn batches_beyond_the_largest_small_one_are_the_same() {
    let (one, two) = (open(None, 1, Format::I2S), open(None, 2, Format::Base3));
    for n in [17, 20] {
        let together = decode(&two, 0..n, 2);
        for (name, bits) in together.into_iter().enumerate() {
            assert!(bits == decode(&one, name..name + 1, 2)[0], "sequence {name} of {n}");
        }
    }
}

#[test]
fn only_wanted_logits_of_a_batch_are_computed() {
    let model = open(None, 2, Format::I2S);
    let vocab = model.config().vocab;
    let all = decode(&model, 0..6, 1);
    let mut state = model.state(6).unwrap();
    let row = |sequence| {
        let logits = sequence % 3 != 1;
        Row { sequence, position: 0, token: token(sequence, 0, vocab), logits }
    };
    let rows: Vec<Row> = (0..6).map(row).collect();
    let some = model.forward(&mut state, &rows).unwrap();
    let wanted = [0, 2, 3, 5].map(|sequence| &all[sequence][..]).concat();
    assert!(some.iter().map(|x| x.to_bits()).eq(wanted));
}

#[test]
fn refused_picks_fall_back_to_the_default() {
    let base = open(None, 1, Format::I2S);
    let expected = decode(&base, 0..3, 2);
    let cpu = Cpu::detect();
    let default = cpu.default_batch(Format::I2S).unwrap().kernel().text;
    let legal = Tile::default_for(Phase::SmallBatch);
    let illegal = Tile { rows_per_task: 7, prefetch: 0 };
    let base3 = cpu.default_batch(Format::Base3).unwrap().kernel().text;
    let emulated = batch_registry().iter().find(|kernel| kernel.name.isa == Isa::Emulated);
    for (format, kernel, tile, why) in [
        (Format::I2S, "batch_i2s_dot_r9t9_sse9", legal, "is not compiled in"),
        (Format::I2S, default, illegal, "has an illegal tile"),
        (Format::I2S, base3, legal, "contradicts its format"),
        (Format::Base3, base3, legal, "does not read i2_s"),
        (Format::I2S, emulated.unwrap().text, legal, ""),
    ] {
        let model = open(Some(&plan(&base, format, kernel, tile, 1)), 1, Format::I2S);
        for (name, choice) in model.kernels() {
            assert_eq!(choice.batch.kernel.unwrap().kernel().text, default, "{name}");
            let reason = format!("default, the plan's pick `{kernel}` {why}");
            assert!(choice.batch.reason.starts_with(&reason), "{name}: {}", choice.batch.reason);
        }
        assert!(decode(&model, 0..3, 2) == expected, "{kernel}");
    }
}
