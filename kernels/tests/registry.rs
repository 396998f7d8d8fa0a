//! Registries of other crates: generated kernels pass, and whatever is wrong is named before it is used.

use trilut_kernels::{
    Activation, BatchFn, BatchInfo, BatchKernel, Cpu, Format, Isa, Layout, Registry, RegistryError,
    Shape, batch_registry, gemm_registry, registry,
};
use trilut_presets::default_batch_point;

mod raised {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised0.rs"));
}

mod raised_gemms {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised_gemms.rs"));
}

mod raised_batches {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised_batches.rs"));
}

fn leak(registry: Registry) -> &'static Registry {
    Box::leak(Box::new(registry))
}

#[test]
fn the_whole_lattice_passes_and_joins_itself() {
    let again =
        leak(Registry::new("again", registry(), gemm_registry()).with_batches(batch_registry()));
    let cpu = Cpu::capped(None);
    let ran = again.check(&cpu).unwrap();
    let here = registry().iter().filter(|k| cpu.runnable(k).is_some()).count()
        + gemm_registry().iter().filter(|k| cpu.gemm_runnable(k).is_some()).count()
        + batch_registry().iter().filter(|k| cpu.batch_runnable(k).is_some()).count();
    assert_eq!(ran.len(), here);
    let names: Vec<_> = cpu.with(again).unwrap().registries().map(Registry::name).collect();
    assert_eq!(names, ["again", "trilut-kernels"]);
}

#[test]
fn every_kernel_that_wraps_is_refused_by_name() {
    let cpu = Cpu::capped(None);
    for (index, kernel) in raised::KERNELS.iter().enumerate() {
        let one = Registry::new("raised", &raised::KERNELS[index..=index], &[]);
        match one.check(&cpu) {
            Err(RegistryError::Inexact { kernel: named, .. }) => assert_eq!(named, kernel.text),
            other => assert!(cpu.runnable(kernel).is_none(), "{}: {other:?}", kernel.text),
        }
    }
    for (index, kernel) in raised_gemms::GEMM_KERNELS.iter().enumerate() {
        let one = Registry::new("raised", &[], &raised_gemms::GEMM_KERNELS[index..=index]);
        match one.check(&cpu) {
            Err(RegistryError::Inexact { kernel: named, .. }) => assert_eq!(named, kernel.text),
            other => assert!(cpu.gemm_runnable(kernel).is_none(), "{}: {other:?}", kernel.text),
        }
    }
    for (index, kernel) in raised_batches::BATCH_KERNELS.iter().enumerate() {
        let one = &raised_batches::BATCH_KERNELS[index..=index];
        match Registry::new("raised", &[], &[]).with_batches(one).check(&cpu) {
            Err(RegistryError::Inexact { kernel: named, .. }) => assert_eq!(named, kernel.text),
            other => assert!(cpu.batch_runnable(kernel).is_none(), "{}: {other:?}", kernel.text),
        }
    }
    let all = leak(Registry::new("raised", &raised::KERNELS, &[]));
    assert!(Cpu::capped(None).with(all).is_err());
}

#[test]
fn added_kernels_are_the_default_of_their_isa_alone() {
    let shape = Shape::new(64, 640).unwrap();
    let cpu = Cpu::capped(Some(Isa::Scalar));
    let plain = cpu.default_kernel(Format::I2S, shape).kernel();
    let other = registry()
        .iter()
        .position(|k| {
            (k.name.format, k.name.isa) == (Format::I2S, Isa::Scalar) && k.text != plain.text
        })
        .unwrap();
    let added = leak(Registry::new("added", &registry()[other..=other], &[]));
    assert_eq!(cpu.added_kernel(shape).map(|k| k.kernel().text), None);
    let cpu = cpu.with(added).unwrap();
    let default = cpu.default_kernel(Format::I2S, shape).kernel();
    assert_eq!(default.text, added.kernels()[0].text);
    assert!(cpu.origin(default).is_some_and(|r| std::ptr::eq(r, added)));
    assert_eq!(cpu.added_kernel(shape).map(|k| k.kernel().text), Some(default.text));
    assert_eq!(cpu.default_kernel(Format::Tl2, shape).kernel().name.format, Format::Tl2);
    let best = Cpu::capped(None).with(added).unwrap();
    let isa = best.default_kernel(Format::I2S, shape).kernel().name.isa;
    assert_eq!(isa, Cpu::capped(None).default_kernel(Format::I2S, shape).kernel().name.isa);
}

#[test]
fn added_small_batch_kernels_are_the_default_of_their_isa_alone() {
    for (format, isa) in [(Format::I2S, Isa::Scalar), (Format::Base3, Isa::Scalar)] {
        let cpu = Cpu::capped(Some(isa));
        let plain = cpu.default_batch(format).unwrap().kernel();
        assert!(cpu.batch_origin(plain).is_none());
        let is_it = |k: &BatchKernel| (k.name.format, k.name.isa) == (format, isa);
        let index = batch_registry().iter().position(is_it).unwrap();
        let own = &batch_registry()[index..=index];
        let added = leak(Registry::new("added", &[], &[]).with_batches(own));
        let cpu = cpu.with(added).unwrap();
        let default = cpu.default_batch(format).unwrap().kernel();
        assert!(added.has_batch(default), "{}", default.text);
        assert!(cpu.batch_origin(default).is_some_and(|r| std::ptr::eq(r, added)));
        assert!(std::ptr::eq(cpu.find_batch(default.text).unwrap(), default));
        assert_eq!(cpu.resolve(default.text), Some(default.hash));
        // A more capable ISA's kernels stay before it.
        let best = Cpu::capped(None).with(added).unwrap();
        let plain = Cpu::capped(None).default_batch(format).map(|k| k.kernel().name.isa);
        assert_eq!(best.default_batch(format).map(|k| k.kernel().name.isa), plain);
    }
}

#[test]
fn the_most_capable_isa_with_small_batch_kernels_is_the_default() {
    for cap in Cpu::capped(None).isas().filter(|isa| *isa != Isa::Emulated) {
        let cpu = Cpu::capped(Some(cap));
        for format in [Format::I2S, Format::Base3] {
            let default = cpu.default_batch(format).unwrap().kernel().name;
            let best = cpu.batch_candidates(format).map(|k| k.kernel().name.isa).max();
            assert_eq!(Some(default.isa), best, "{cap}");
            let point = default_batch_point(format, default.isa);
            assert_eq!(Some((default.algorithm, default.rows, default.tokens)), point, "{cap}");
        }
    }
}

/// A function that must never be called.
fn never(_: &mut trilut_kernels::Batch<'_>) {
    unreachable!("its description is refused")
}

/// A kernel that is described as one of the lattice is, but for what `change` changes.
fn described(change: impl Fn(&mut BatchInfo)) -> Registry {
    let real = batch_registry().iter().find(|k| k.name.isa == Isa::Scalar).unwrap();
    let (text, name, hash) = (real.text, real.name, real.hash);
    let (layout, activation) = (real.layout, real.activation);
    let (bounds, cost, prefetches) = (real.bounds, real.cost, real.prefetches);
    let mut info = BatchInfo { text, name, layout, activation, bounds, cost, prefetches, hash };
    change(&mut info);
    let run: BatchFn = never;
    // SAFETY: the function needs nothing of the CPU.
    let kernel = unsafe { BatchKernel::new(info, run) };
    Registry::new("described", &[], &[]).with_batches(Box::leak(Box::new([kernel])))
}

#[test]
fn small_batch_kernels_must_be_what_their_names_say() {
    let rule = |change: &dyn Fn(&mut BatchInfo)| match described(change).check(&Cpu::capped(None)) {
        Err(RegistryError::Description { rule, .. }) => rule,
        other => panic!("{other:?}"),
    };
    assert!(rule(&|info| info.name.rows += 1).contains("name"));
    assert!(rule(&|info| info.text = "batch_i2s_dot").contains("name"));
    assert!(rule(&|info| info.layout = Layout::Tl1).contains("another format"));
    assert!(rule(&|info| info.activation = Activation::PairTables).contains("do not go with"));
}
