//! A library of kernels that `trilut codegen` wrote to a file, in a crate that depends on trilut alone.

mod common;

use common::{Sandbox, stderr};
use trilut::kernels::{Activations, Cpu, Layout, Packed, Shape, reference};

mod generated {
    #![allow(unreachable_pub, reason = "a library exports its registry")]
    include!("generated/two_layers.rs");
}

#[test]
fn it_is_what_is_generated() {
    let arguments = "codegen --shape 64x256:r1u1 --shape 48x256 --format i2_s --isa scalar --isa avx2 \
                     --isa neon --library ::trilut::kernels";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let check = ["--check", "tests/generated/two_layers.rs"];
    let output = Sandbox::new().command(&[&arguments[..], &check].concat()).output().unwrap();
    let command = arguments.join(" ");
    assert!(output.status.success(), "trilut {command}: {}", stderr(&output));
}

#[test]
fn it_compiles_and_is_exact() {
    let ran = generated::check_all().unwrap();
    assert!(ran.contains(&"gemv_i2s_dot_r1u1_scalar_k256"), "{ran:?}");
    assert!(Cpu::detect().with(&generated::REGISTRY).is_ok());
    let shape = Shape { m: 48, k: 256 };
    let ternary: Vec<i8> = (0..shape.weights()).map(|i| (i * 7 % 3) as i8 - 1).collect();
    let q: Vec<i8> = (0..shape.k).map(|i| (i * 11) as i8).collect();
    let weights = Packed::pack(Layout::I2s, shape, &ternary).unwrap();
    let (mut x, mut sums) = (Activations::new(), vec![0; shape.m]);
    x.set(&q);
    generated::gemv_i2s_48x256(weights.view(), &mut x, &mut sums).unwrap();
    assert_eq!(sums, reference::gemv(shape, &ternary, &q));
    assert!(generated::gemv_i2s_64x256(weights.view(), &mut x, &mut sums).is_err());
}
