//! The model is served by this crate's own kernels, and its text does not depend on that.

use macro_user::{kernels, open, open_plain, tell, write_model};
use trilut::kernels::{Activations, Cpu, Format, Isa, Layout, Packed, Shape, reference};
use trilut::runtime::{Model, Row};

#[test]
fn own_kernels_are_used_and_tell_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    write_model(&file).unwrap();
    let (own, plain) = (open(&file).unwrap(), open_plain(&file).unwrap());
    assert_eq!(own.kernels().count(), 7);
    for (layer, choice) in own.kernels() {
        let kernel = choice.kernel.kernel();
        assert!(kernels::REGISTRY.has(kernel), "{layer}: {}", kernel.text);
        assert_eq!(kernel.name.fixed.k, Some(choice.shape.k), "{layer}");
        assert!(choice.reason.contains("macro_user::kernels"), "{layer}: {}", choice.reason);
    }
    let gemm = Cpu::detect().default_gemm().kernel().name.isa;
    let has_gemm = kernels::REGISTRY.gemm_kernels().iter().any(|k| k.name.isa == gemm);
    for (stack, choice) in own.prefill_kernels() {
        let kernel = choice.kernel.kernel();
        assert_eq!(kernels::REGISTRY.has_gemm(kernel), has_gemm, "{stack}: {}", kernel.text);
    }
    let other = |choice: &trilut::runtime::model::Choice| choice.kernel.kernel().name.fixed.k;
    assert!(plain.kernels().all(|(_, choice)| other(choice).is_none()));
    for prompt in ["x", "a prompt of more than a few tokens, whatever they are"] {
        let text = tell(&own, prompt).unwrap();
        assert_eq!(text, tell(&plain, prompt).unwrap());
        assert!(!text.is_empty());
    }
}

/// The bits of the logits of the next token of three texts, all in one step.
fn three_at_once(model: &Model) -> Vec<u32> {
    let mut state = model.state(3).unwrap();
    let row = |sequence| {
        let token = sequence as u32 * 7 + 3;
        Row { sequence, position: 0, token, logits: true }
    };
    let rows: Vec<Row> = (0..3).map(row).collect();
    model.forward(&mut state, &rows).unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn own_small_batch_kernels_are_used_and_give_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    write_model(&file).unwrap();
    let (own, plain) = (open(&file).unwrap(), open_plain(&file).unwrap());
    let isa = Cpu::detect().default_batch(Format::I2S).unwrap().kernel().name.isa;
    let has_batch = kernels::REGISTRY.batch_kernels().iter().any(|k| k.name.isa == isa);
    for (layer, choice) in own.kernels() {
        let kernel = choice.batch.kernel.unwrap().kernel();
        assert_eq!(kernels::REGISTRY.has_batch(kernel), has_batch, "{layer}: {}", kernel.text);
    }
    assert_eq!(three_at_once(&own), three_at_once(&plain));
    let ran = kernels::check_all().unwrap();
    let own = kernels::REGISTRY.batch_kernels().iter();
    let runs = own.filter(|kernel| Cpu::capped(None).supports(kernel.name.isa).is_some());
    assert!(runs.clone().all(|kernel| ran.contains(&kernel.text)) && runs.count() > 0);
}

#[test]
fn every_kernel_that_runs_here_is_exact() {
    let ran = kernels::check_all().unwrap();
    let cpu = Cpu::capped(None);
    for isa in cpu.isas().filter(|isa| *isa != Isa::Emulated) {
        let theirs = kernels::KERNELS.iter().filter(|kernel| kernel.name.isa == isa);
        assert!(theirs.clone().all(|kernel| ran.contains(&kernel.text)), "{isa}");
    }
    assert!(ran.contains(&"gemv_i2s_dot_r1u1_scalar_k384"), "{ran:?}");
}

#[test]
fn functions_check_lengths_and_prepare_the_input() {
    let shape = Shape::new(896, 384).unwrap();
    let ternary: Vec<i8> = (0..shape.weights()).map(|i| (i % 3) as i8 - 1).collect();
    let q: Vec<i8> = (0..shape.k).map(|i| (i * 7) as i8).collect();
    let mut x = Activations::new();
    x.set(&q);
    let mut sums = vec![0; shape.m];
    let i2s = Packed::pack(Layout::I2s, shape, &ternary).unwrap();
    let base3 = Packed::pack(Layout::Base3, shape, &ternary).unwrap();
    let wanted = reference::gemv(shape, &ternary, &q);
    kernels::gemv_i2s_896x384(i2s.view(), &mut x, &mut sums).unwrap();
    assert_eq!(sums, wanted);
    sums.fill(0);
    kernels::gemv_b3_896x384(base3.view(), &mut x, &mut sums).unwrap();
    assert_eq!(sums, wanted);
    // Another format, another size, another output.
    assert!(kernels::gemv_b3_896x384(i2s.view(), &mut x, &mut sums).is_err());
    let error = kernels::gemv_i2s_384x384(i2s.view(), &mut x, &mut sums[..384]).unwrap_err();
    assert!(error.to_string().contains("384x384, the weights are 896x384"), "{error}");
    assert!(kernels::gemv_i2s_896x384(i2s.view(), &mut x, &mut sums[..5]).is_err());
    let mut short = Activations::new();
    short.set(&q[..100]);
    assert!(kernels::gemv_i2s_896x384(i2s.view(), &mut short, &mut sums).is_err());
    assert_eq!(sums, wanted);
    assert!(kernels::REGISTRY.most_capable(&Cpu::detect(), Format::Tl2, shape).is_none());
}
