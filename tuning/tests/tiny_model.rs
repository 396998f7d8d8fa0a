//! The whole tuner on this machine and a tiny shape: what it writes is current, and goes stale in parts.
//! Times are not looked at.

use std::time::Duration;
use trilut_kernels::{Cpu, Format, Phase, Shape, find, find_batch, find_gemm};
use trilut_presets::preset::Effort;
use trilut_presets::{Machine, Preset};
use trilut_tuning::{BATCH_TOKENS, PROMPT_TOKENS, Prior, Request, ShapeUse, Silent, needed, tune};

const SHAPE: Shape = Shape { m: 96, k: 200 };

fn request() -> Request {
    let layer = |phase| ShapeUse { phase, shape: SHAPE, count_per_token: 1 };
    Request {
        shapes: vec![layer(Phase::Decode), layer(Phase::SmallBatch), layer(Phase::Prefill)],
        formats: Format::ALL.to_vec(),
        decoded: vec![],
        threads: 2,
        effort: Effort::Measure,
        time_limit: Duration::from_millis(300),
        cpu: Cpu::detect(),
        machine: Machine::detect(),
        // In the cache, so that few copies are made.
        model_bytes: 1 << 20,
        prior: Prior::default(),
    }
}

#[test]
fn all_phases_are_tuned_once_and_go_stale_by_themselves() {
    let request = request();
    // One by one: however busy the machine is, the first shape of a run gets its least.
    let mut tuned: Option<Preset> = None;
    for &layer in &request.shapes {
        // What decoding reads is known when it is the small batches' turn.
        let known = tuned.as_ref().map_or(request.clone(), |preset| request.knowing(preset));
        let outcome = tune(&Request { shapes: vec![layer], ..known }, &mut Silent).unwrap();
        assert_eq!(outcome.unfinished, []);
        match &mut tuned {
            Some(all) => all.merge(outcome.preset),
            None => tuned = Some(outcome.preset),
        }
    }
    let preset = tuned.unwrap();
    let records = preset.records();
    let [decode, batch, prefill] = records else { panic!("{records:?}") };
    assert_eq!((decode.phase, decode.tokens), (Phase::Decode, 1));
    assert_eq!((batch.phase, batch.tokens), (Phase::SmallBatch, BATCH_TOKENS));
    assert_eq!(batch.format, decode.format);
    assert!(
        find_batch(&batch.kernel).is_some_and(|kernel| kernel.hash == batch.hash)
            || find(&batch.kernel).is_some_and(|kernel| kernel.hash == batch.hash)
    );
    assert_eq!((prefill.phase, prefill.tokens), (Phase::Prefill, PROMPT_TOKENS));
    assert_eq!(find(&decode.kernel).unwrap().hash, decode.hash);
    assert_eq!(find_gemm(&prefill.kernel).unwrap().hash, prefill.hash);
    assert!(prefill.tile.is_legal() && !prefill.samples.is_empty());

    let saved = Preset::parse(&preset.to_text(), "saved").unwrap();
    // On a busy machine the time is enough for no more than that.
    let request = Request { effort: Effort::Estimate, ..request };
    assert_eq!(needed(&saved, &request), []);
    let [layer, few, stack] = request.shapes[..] else { panic!("three shapes") };
    // Other kernels than there were to choose from; decoding anew may read another format.
    for (stale, left) in
        [(decode.space, &[layer, few][..]), (batch.space, &[few]), (prefill.space, &[stack])]
    {
        let text = saved.to_text().replace(&format!("{stale:#018x}"), "0x0000000000000001");
        assert_eq!(needed(&Preset::parse(&text, "stale").unwrap(), &request), left);
    }
    let fewer = Request { threads: 1, ..request };
    assert_eq!(needed(&saved, &fewer), fewer.shapes);
}
