//! Registries of other crates: generated kernels pass, and whatever is wrong is named before it is used.

use trilut_kernels::{Cpu, Format, Isa, Registry, RegistryError, Shape, gemm_registry, registry};

mod raised {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised0.rs"));
}

mod raised_gemms {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised_gemms.rs"));
}

fn leak(registry: Registry) -> &'static Registry {
    Box::leak(Box::new(registry))
}

#[test]
fn the_whole_lattice_passes_and_joins_itself() {
    let again = leak(Registry::new("again", registry(), gemm_registry()));
    let cpu = Cpu::capped(None);
    let ran = again.check(&cpu).unwrap();
    let here = registry().iter().filter(|k| cpu.runnable(k).is_some()).count()
        + gemm_registry().iter().filter(|k| cpu.gemm_runnable(k).is_some()).count();
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
