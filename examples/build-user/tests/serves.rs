//! The tuner races this crate's kernels, the model is served by them, and its text does not depend on it.

use build_user::{kernels, open, open_plain, tell, tuned, write_model};
use trilut::kernels::{Cpu, find, find_gemm};
use trilut::presets::Phase;

#[test]
fn own_kernels_are_tuned_and_used_and_tell_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    write_model(&file).unwrap();
    let plain = open_plain(&file).unwrap();
    let untuned = open(&file, None).unwrap();
    for (layer, choice) in untuned.kernels() {
        let kernel = choice.kernel.kernel();
        assert!(kernels::REGISTRY.has(kernel), "{layer}: {}", kernel.text);
        assert!(choice.reason.contains("build_user::kernels"), "{layer}: {}", choice.reason);
    }
    let preset = tuned(&file).unwrap();
    let mut decoded = 0;
    for record in preset.records().iter().filter(|record| record.phase == Phase::Decode) {
        // What would run untuned is of this crate, so it was raced.
        assert!(kernels::REGISTRY.find(&record.default_kernel).is_some(), "{record:?}");
        let kernel = kernels::REGISTRY.find(&record.kernel).or(find(&record.kernel)).unwrap();
        assert_eq!(record.hash, kernel.hash);
        decoded += 1;
    }
    assert!(decoded > 0);
    for record in preset.records().iter().filter(|record| record.phase == Phase::Prefill) {
        assert!(find_gemm(&record.kernel).is_some(), "{record:?}");
    }
    let model = open(&file, Some(preset.clone())).unwrap();
    for (layer, choice) in model.kernels() {
        if let Some(record) = preset.record(choice.shape, Phase::Decode, 1) {
            assert_eq!(choice.kernel.kernel().text, record.kernel, "{layer}");
            assert!(choice.reason.contains("tuned on this CPU"), "{layer}: {}", choice.reason);
        }
    }
    let text = tell(&plain, "hello").unwrap();
    assert_eq!(tell(&untuned, "hello").unwrap(), text);
    assert_eq!(tell(&model, "hello").unwrap(), text);
}

#[test]
fn kernels_of_other_architectures_are_left_out() {
    assert!(!kernels::check_all().unwrap().is_empty());
    let arch = Some(std::env::consts::ARCH);
    assert!(kernels::KERNELS.iter().all(|kernel| {
        kernel.name.isa.target_arch().is_none() || kernel.name.isa.target_arch() == arch
    }));
    let scalar = kernels::KERNELS.iter().filter(|k| k.name.isa.target_arch().is_none());
    // Two numbers of inputs in two formats.
    assert_eq!(scalar.count(), 2 * 2);
    assert!(Cpu::detect().with(&kernels::REGISTRY).is_ok());
}
