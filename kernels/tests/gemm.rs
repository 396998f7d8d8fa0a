//! Every gemm kernel against the scalar reference: all layouts, all tails, extremes, several segments.

mod common;

use common::{Case, gemm_twins, note_exact, random, wanted};
use trilut_kernels::{
    Activations, Cpu, GemmKernel, GemmRunnable, GemmScratch, Packed, Panel, Segment, Shape,
    TokenTile, gemm_registry, reference,
};

mod raised {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised_gemms.rs"));
}

/// The gemm kernels that can run here; the others are named on stderr.
fn runnable(kernels: &'static [GemmKernel]) -> Vec<GemmRunnable> {
    let cpu = Cpu::capped(None);
    let wanted = kernels.iter().filter(|kernel| wanted(kernel.name.isa));
    let (run, skipped): (Vec<_>, Vec<_>) =
        wanted.map(|k| (k, cpu.gemm_runnable(k))).partition(|(_, run)| run.is_some());
    if !skipped.is_empty() {
        let names: Vec<_> = skipped.iter().map(|(k, _)| k.text).collect();
        eprintln!("{} gemm kernels cannot run on this CPU: {}", names.len(), names.join(", "));
    }
    run.into_iter().filter_map(|(_, run)| run).collect()
}

fn activations(q: &[i8]) -> Activations {
    let mut activations = Activations::new();
    activations.set(q);
    activations
}

/// What a kernel computes for `tokens` tokens, as rows by tokens.
fn run(kernel: &GemmRunnable, segments: &[Segment<'_>], tokens: &[Activations]) -> Vec<Vec<i32>> {
    let (mut panel, mut tile, mut scratch) =
        (Panel::new(), TokenTile::new(), GemmScratch::default());
    kernel.fill(&mut panel, segments);
    let mut rows = vec![Vec::new(); panel.rows()];
    for tokens in tokens.chunks(kernel.tokens()) {
        kernel.arrange(&mut tile, tokens.iter());
        let sums = kernel.run(&panel, &tile, &mut scratch).unwrap();
        for (row, sums) in rows.iter_mut().zip(sums.chunks_exact(kernel.tokens())) {
            row.extend(&sums[..tokens.len()]);
            assert!(sums[tokens.len()..].iter().all(|&s| s == 0), "tokens that do not exist");
        }
    }
    rows
}

#[test]
fn every_kernel_is_exact_on_every_layout_and_tail() {
    let mut kernels = runnable(gemm_registry());
    kernels.append(&mut runnable(gemm_twins()));
    assert!(kernels.len() > 8);
    for (m, k, count) in [(1, 1, 1), (33, 128, 5), (70, 200, 33), (64, 384, 64), (7, 515, 70)] {
        let shape = Shape::new(m, k).unwrap();
        let case = Case::random(shape, (m * k) as u64);
        let mut next = random(count as u64);
        let tokens: Vec<Vec<i8>> =
            (0..count).map(|_| (0..k).map(|_| next() as i8).collect()).collect();
        let by_token: Vec<Vec<i32>> =
            tokens.iter().map(|q| reference::gemv(shape, &case.ternary, q)).collect();
        let tokens: Vec<Activations> = tokens.iter().map(|q| activations(q)).collect();
        for packed in case.packed() {
            let segments = [Segment { weights: packed.view(), rows: 0..m }];
            for kernel in &kernels {
                let got = run(kernel, &segments, &tokens);
                for (row, got) in got.iter().enumerate() {
                    let wanted: Vec<i32> = by_token.iter().map(|t| t[row]).collect();
                    let name = kernel.kernel().text;
                    assert_eq!(got, &wanted, "{name} {shape} {:?} row {row}", packed.layout());
                }
            }
        }
    }
    note_exact(kernels.iter().map(|kernel| kernel.kernel().text));
}

#[test]
fn segments_of_several_matrices_follow_each_other() {
    let (a, b) = (Shape::new(40, 160).unwrap(), Shape::new(9, 160).unwrap());
    let (a, b) = (Case::random(a, 1), Case::random(b, 2));
    let x = activations(&a.q);
    let b_sums = reference::gemv(b.shape, &b.ternary, &a.q);
    let pack = |case: &Case| -> Vec<Packed> { case.packed() };
    let (packed_a, packed_b) = (pack(&a), pack(&b));
    for kernel in runnable(gemm_registry()) {
        let segments = [
            Segment { weights: packed_a[0].view(), rows: 5..38 },
            Segment { weights: packed_b[1].view(), rows: 0..9 },
        ];
        let got: Vec<i32> =
            run(&kernel, &segments, std::slice::from_ref(&x)).into_iter().flatten().collect();
        let wanted: Vec<i32> = a.sums[5..38].iter().chain(&b_sums).copied().collect();
        assert_eq!(got, wanted, "{}", kernel.kernel().text);
    }
}

/// Whether a kernel is exact on inputs that drive its sums to the ends of their range.
fn survives(kernel: &GemmRunnable) -> bool {
    // Long enough for several widenings of every kernel.
    let cases = Case::adversarial(Shape::new(5, 4160).unwrap());
    cases.iter().all(|case| {
        let packed = case.packed().swap_remove(0);
        let segments = [Segment { weights: packed.view(), rows: 0..case.shape.m }];
        let got = run(kernel, &segments, &[activations(&case.q)]);
        got.into_iter().flatten().collect::<Vec<_>>() == case.sums
    })
}

#[test]
fn extremes_are_exact_and_each_bound_fails_when_raised() {
    for kernel in runnable(gemm_registry()) {
        assert!(survives(&kernel), "{} wraps", kernel.kernel().text);
        for bound in kernel.kernel().bounds {
            assert!(bound.magnitude * bound.adds <= 32768, "{bound:?}");
        }
    }
    let raised = runnable(&raised::GEMM_KERNELS);
    for kernel in &raised {
        assert!(!survives(kernel), "{} is exact beyond its bound", kernel.kernel().text);
    }
    let bounded =
        runnable(gemm_registry()).iter().filter(|k| !k.kernel().bounds.is_empty()).count();
    assert_eq!(raised.len(), bounded);
}

#[test]
fn what_was_made_for_another_kernel_is_refused() {
    let kernels = runnable(gemm_registry());
    let (a, b) = (&kernels[0], kernels.iter().find(|k| k.form() != kernels[0].form()).unwrap());
    let case = Case::random(Shape::new(4, 64).unwrap(), 3);
    let packed = case.packed().swap_remove(0);
    let (mut panel, mut tile) = (Panel::new(), TokenTile::new());
    let mut scratch = GemmScratch::default();
    assert!(a.run(&panel, &tile, &mut scratch).is_err());
    let segments = [Segment { weights: packed.view(), rows: 0..4 }];
    a.fill(&mut panel, &segments);
    b.arrange(&mut tile, std::iter::once(&activations(&case.q)));
    assert!(a.run(&panel, &tile, &mut scratch).unwrap_err().to_string().contains("reads"));
    a.arrange(&mut tile, std::iter::once(&activations(&case.q[..60])));
    assert!(a.run(&panel, &tile, &mut scratch).unwrap_err().to_string().contains("60"));
}
