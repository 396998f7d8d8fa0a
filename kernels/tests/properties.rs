//! Random shapes, formats and numbers of tokens: whatever kernel takes them gives the reference's sums.

mod common;

use common::{Case, accepting, random};
use proptest::prelude::*;
use trilut_kernels::{
    Activations, Cpu, GemmScratch, Panel, Segment, Shape, TokenTile, gemm_registry, reference,
};

/// Weights of a case at most: every kernel that is compiled in goes over them.
const MOST_WEIGHTS: usize = 1 << 18;

/// Sizes of up to 20000 on each side, the other one as large as the time allows.
fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (1..=20_000usize).prop_flat_map(|k| (1..=(MOST_WEIGHTS / k).clamp(1, 200), Just(k))),
        (1..=20_000usize).prop_flat_map(|m| (Just(m), 1..=(MOST_WEIGHTS / m).clamp(1, 200))),
    ]
    .prop_map(|(m, k)| Shape { m, k })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_gemv_kernel_is_exact(shape in shape(), seed in any::<u64>()) {
        let case = Case::random(shape, seed);
        let (packed, x) = (case.packed(), case.activations());
        for kernel in accepting(shape) {
            let sums = case.run(&kernel, &packed, &x);
            prop_assert_eq!(&sums, &case.sums, "{} on {}", kernel.kernel().text, shape);
        }
    }

    #[test]
    fn every_gemm_kernel_is_exact_for_any_number_of_tokens(
        shape in shape(), tokens in 1..=70usize, seed in any::<u64>(),
    ) {
        // A token for each row and more would be too much for the portable kernels.
        let shape = Shape { m: shape.m.min(40), k: shape.k.min(2000) };
        let case = Case::random(shape, seed);
        let packed = case.packed();
        let mut next = random(seed ^ 1);
        let tokens: Vec<Activations> = (0..tokens)
            .map(|_| {
                let mut token = Activations::new();
                token.set(&(0..shape.k).map(|_| next() as i8).collect::<Vec<_>>());
                token
            })
            .collect();
        let wanted: Vec<Vec<i32>> =
            tokens.iter().map(|t| reference::gemv(shape, &case.ternary, t.q())).collect();
        let weights = packed[seed as usize % packed.len()].view();
        let cpu = Cpu::capped(None);
        for kernel in gemm_registry().iter().filter_map(|kernel| cpu.gemm_runnable(kernel)) {
            let (mut panel, mut tile) = (Panel::new(), TokenTile::new());
            let mut scratch = GemmScratch::default();
            kernel.fill(&mut panel, &[Segment { weights, rows: 0..shape.m }]);
            let width = kernel.tokens();
            for (tokens, wanted) in tokens.chunks(width).zip(wanted.chunks(width)) {
                kernel.arrange(&mut tile, tokens.iter());
                let sums = kernel.run(&panel, &tile, &mut scratch).unwrap();
                for (token, wanted) in wanted.iter().enumerate() {
                    let got: Vec<i32> = sums.iter().skip(token).step_by(width).copied().collect();
                    prop_assert_eq!(&got, wanted, "{} on {}", kernel.kernel().text, shape);
                }
            }
        }
    }
}
