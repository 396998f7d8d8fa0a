//! Where small batches hand over to prompts changes speed, not a bit of the logits.

use trilut_presets::{Format, Phase, Pick, Plan, Tile};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{Model, ModelOptions, Row, embedded};

fn open(plan: Option<&Plan>, threads: usize, format: Format) -> Model {
    let format = Some(format);
    let options = ModelOptions { threads: Some(threads), plan, format, ..ModelOptions::default() };
    Model::open_with(&Gguf::from_static(embedded::model()).unwrap(), &options).unwrap()
}

/// The default gemm kernel for every stack, from a number of tokens on; where there are two numbers the stacks
/// take turns.
fn plan(model: &Model, from: [usize; 2], threads: usize) -> Plan {
    let picks = model.prefill_kernels().enumerate().map(|(index, (_, choice))| Pick {
        shape: choice.shape,
        phase: Phase::Prefill,
        threads,
        format: Format::I2S,
        kernel: choice.kernel.kernel().text.to_owned(),
        tile: Tile::default_for(Phase::Prefill),
        from: Some(from[index % 2]),
        reason: "a test of where prompts begin".to_owned(),
    });
    Plan { picks: picks.collect() }
}

/// The bits of all logits of a text read in one batch.
fn logits(model: &Model, n: usize) -> Vec<u32> {
    let vocab = model.config().vocab;
    let token = |i: usize| ((i * i * 31 + i * 7 + 5) % vocab) as u32;
    let row = |position| Row { sequence: 0, position, token: token(position), logits: true };
    let rows: Vec<Row> = (0..n).map(row).collect();
    let mut state = model.state(1).unwrap();
    model.forward(&mut state, &rows).unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn batches_of_any_size_give_the_same_whichever_kernels_run_them() {
    let base = open(None, 1, Format::I2S);
    let lengths = [1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 40, 48, 49, 67];
    let expected = lengths.map(|n| logits(&base, n));
    for (threads, format) in
        [(1, Format::I2S), (2, Format::I2S), (1, Format::Tl1), (2, Format::Base3)]
    {
        for from in [[2, 2], [4, 20], [17, 33], [49, 49]] {
            let model = open(Some(&plan(&base, from, threads)), threads, format);
            for (n, expected) in lengths.iter().zip(&expected) {
                assert!(
                    logits(&model, *n) == *expected,
                    "{n} tokens, {from:?}, {threads}, {format}"
                );
            }
        }
    }
}

#[test]
fn the_plan_says_where_prompts_begin_and_silly_numbers_are_cut() {
    let base = open(None, 1, Format::I2S);
    let begins = |model: &Model| -> Vec<usize> {
        model.prefill_kernels().map(|(_, choice)| choice.from).collect()
    };
    assert!(begins(&base).iter().all(|from| [8, 33, 49].contains(from)), "{:?}", begins(&base));
    for (given, used) in [(0, 2), (1, 2), (9, 9), (49, 49), (4096, 49)] {
        let model = open(Some(&plan(&base, [given; 2], 1)), 1, Format::I2S);
        assert!(begins(&model).iter().all(|from| *from == used), "{given}");
    }
}
