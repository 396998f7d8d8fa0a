//! Engines: kernels that were added are checked, picked and named; presets and plans have their order.

use std::ops::ControlFlow;
use trilut_kernels::{
    Activation, Cost, Cpu, Format, Gemv, Isa, Kernel, KernelInfo, Layout, PackedView, Registry,
    RegistryError, Shape, reference,
};
use trilut_presets::{Phase, Pick, Plan, Tile};
use trilut_runtime::{Engine, EngineBuilder, Error, GenerateOptions, Model};

const K: usize = 256;

/// The reference in the place of a generated function.
fn slow(call: &mut Gemv<'_>) {
    let weights = PackedView::new(Layout::I2s, call.shape, call.weights).unwrap().unpack();
    let q: Vec<i8> = call.activations[..call.shape.k].iter().map(|b| *b as i8).collect();
    call.out.copy_from_slice(&reference::gemv(call.shape, &weights, &q)[call.rows.clone()]);
}

/// The same, wrong in one sum of many.
fn wrong(call: &mut Gemv<'_>) {
    slow(call);
    if call.rows.contains(&40) && call.shape.k == K {
        call.out[40 - call.rows.start] ^= 1;
    }
}

fn info(text: &'static str) -> KernelInfo {
    KernelInfo {
        text,
        name: text.parse().unwrap(),
        layout: Layout::I2s,
        activation: Activation::Plain,
        bounds: &[],
        cost: Cost { instructions_per_weight: 9.0, bytes_per_weight: 0.25 },
        prefetches: false,
        hash: 7,
    }
}

type Run = fn(&mut Gemv<'_>);

fn registry(kernels: Vec<(KernelInfo, Run)>) -> &'static Registry {
    // SAFETY: plain functions, which the scalar ISA stands for.
    let kernels = kernels.into_iter().map(|(info, run)| unsafe { Kernel::new(info, run) });
    let kernels: Vec<Kernel> = kernels.collect();
    Box::leak(Box::new(Registry::new("a test", kernels.leak(), &[])))
}

const NAME: &str = "gemv_i2s_madd_r8u4_scalar";

fn scalar() -> EngineBuilder {
    Engine::builder().threads(2).isa(Isa::Scalar)
}

fn story(model: &Model) -> String {
    let options = GenerateOptions { max_tokens: 12, ..GenerateOptions::greedy() };
    let mut session = model.session().unwrap();
    session.generate("Once upon a time", &options, |_| ControlFlow::Continue(())).unwrap().text
}

#[test]
fn added_kernels_are_used_and_tell_the_same_story() {
    let added = registry(vec![(info(NAME), slow)]);
    let model = scalar().kernels(added).embedded().unwrap();
    for (layer, choice) in model.kernels() {
        let kernel = choice.kernel.kernel();
        assert!(added.has(kernel), "{layer}: {}", kernel.text);
        assert!(choice.reason.contains("of a test, no plan"), "{layer}: {}", choice.reason);
    }
    let plain = scalar().embedded().unwrap();
    assert!(plain.kernels().all(|(_, choice)| !added.has(choice.kernel.kernel())));
    assert_eq!(story(&model), story(&plain));
    // A better ISA goes before them, and another format is not theirs.
    let cpu = Cpu::capped(None);
    if cpu.best().isa() != Isa::Scalar {
        let model = Engine::builder().cpu(cpu).kernels(added).threads(1).embedded().unwrap();
        assert_eq!(story(&model), story(&plain));
    }
    let tl2 = scalar().kernels(added).format(Format::Tl2).embedded().unwrap();
    assert!(tl2.kernels().all(|(_, choice)| !added.has(choice.kernel.kernel())));
}

#[test]
fn plans_find_added_kernels_by_name() {
    let added = registry(vec![(info(NAME), slow)]);
    let shapes = scalar().embedded().unwrap().config().linears().map(|(_, shape)| shape);
    let pick = |shape: Shape| Pick {
        shape,
        phase: Phase::Decode,
        threads: 2,
        format: Format::I2S,
        kernel: NAME.to_owned(),
        tile: Tile::default(),
        from: None,
        reason: "picked".to_owned(),
    };
    let plan = Plan { picks: shapes.map(pick).into() };
    let best = Cpu::detect();
    let engine = Engine::builder().cpu(best).kernels(added).plan(plan.clone()).build().unwrap();
    assert_eq!(engine.cpu().resolve(NAME), Some(7));
    let model = engine.embedded().unwrap();
    assert!(model.kernels().all(|(_, choice)| added.has(choice.kernel.kernel())));
    assert!(model.kernels().all(|(_, choice)| choice.reason == "picked"));
    // Without the registry the plan costs speed, not text.
    let without = Engine::builder().plan(plan).embedded().unwrap();
    assert!(without.kernels().all(|(_, choice)| choice.reason.contains("not compiled in")));
    assert_eq!(story(&model), story(&without));
}

#[test]
fn a_kernel_that_is_not_exact_is_named_and_never_used() {
    for name in ["gemv_i2s_madd_r8u4_scalar_k256", "gemv_i2s_madd_r8u4_scalar_m64k256"] {
        let added = registry(vec![(info(NAME), slow), (info(name), wrong)]);
        let error = scalar().kernels(added).build().unwrap_err();
        let Error::Kernels(RegistryError::Inexact { kernel, source, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*kernel, name);
        assert!(error.to_string().contains(name) && error.hint().is_some(), "{error}");
        assert!(source.to_string().contains("must be"), "{source}");
    }
}

#[test]
fn kernels_that_are_not_what_they_say_are_refused() {
    let refuse = |added| scalar().kernels(added).build().unwrap_err().to_string();
    let twice = registry(vec![(info(NAME), slow), (info(NAME), slow)]);
    assert!(refuse(twice).contains("two kernels named"));
    let other = KernelInfo { layout: Layout::Base3, ..info(NAME) };
    assert!(refuse(registry(vec![(other, slow)])).contains("another format"));
    let other = KernelInfo { name: "gemv_i2s_madd_r1u1_scalar".parse().unwrap(), ..info(NAME) };
    assert!(refuse(registry(vec![(other, slow)])).contains("in parts"));
    let other = KernelInfo { activation: Activation::PairTables, ..info(NAME) };
    assert!(refuse(registry(vec![(other, slow)])).contains("activations"));
}

#[test]
fn bad_threads_and_presets_are_errors() {
    let error = Engine::builder().threads(0).build().unwrap_err();
    assert!(matches!(error, Error::Threads { threads: 0, .. }));
    let error = Engine::builder().preset("no/such/preset.toml").build().unwrap_err();
    assert!(error.to_string().contains("no/such/preset.toml"), "{error}");
    assert!(error.hint().is_some());
}
