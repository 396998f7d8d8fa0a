//! The whole tuner on this machine and a tiny shape: what it writes is current, and goes stale in parts.
//! Times are not looked at.

use std::time::Duration;
use trilut_kernels::{Cpu, Format, Phase, Shape, find, find_gemm};
use trilut_presets::preset::Effort;
use trilut_presets::{Machine, Preset};
use trilut_tuning::{PROMPT_TOKENS, Prior, Request, ShapeUse, Silent, needed, tune};

const SHAPE: Shape = Shape { m: 96, k: 200 };

fn request() -> Request {
    let layer = |phase| ShapeUse { phase, shape: SHAPE, count_per_token: 1 };
    Request {
        shapes: vec![layer(Phase::Decode), layer(Phase::Prefill)],
        formats: Format::ALL.to_vec(),
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
fn both_phases_are_tuned_once_and_go_stale_by_themselves() {
    let request = request();
    // One by one: however busy the machine is, the first shape of a run gets its least.
    let tuned = request.shapes.iter().map(|&layer| {
        let outcome =
            tune(&Request { shapes: vec![layer], ..request.clone() }, &mut Silent).unwrap();
        assert_eq!(outcome.unfinished, []);
        outcome.preset
    });
    let merge = |mut all: Preset, one| {
        all.merge(one);
        all
    };
    let preset = tuned.reduce(merge).unwrap();
    let records = preset.records();
    let [decode, prefill] = records else { panic!("{records:?}") };
    assert_eq!((decode.phase, decode.tokens), (Phase::Decode, 1));
    assert_eq!((prefill.phase, prefill.tokens), (Phase::Prefill, PROMPT_TOKENS));
    assert_eq!(find(&decode.kernel).unwrap().hash, decode.hash);
    assert_eq!(find_gemm(&prefill.kernel).unwrap().hash, prefill.hash);
    assert!(prefill.tile.is_legal() && !prefill.samples.is_empty());

    let saved = Preset::parse(&preset.to_text(), "saved").unwrap();
    assert_eq!(needed(&saved, &request), []);
    let [layer, stack] = request.shapes[..] else { panic!("two shapes") };
    // Other kernels than there were to choose from.
    for (stale, left) in [(decode.space, layer), (prefill.space, stack)] {
        let text = saved.to_text().replace(&format!("{stale:#018x}"), "0x0000000000000001");
        assert_eq!(needed(&Preset::parse(&text, "stale").unwrap(), &request), [left]);
    }
    let fewer = Request { threads: 1, ..request };
    assert_eq!(needed(&saved, &fewer), fewer.shapes);
}
