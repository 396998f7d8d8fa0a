//! Every small-batch kernel against the scalar reference: every number of tokens, all tails, extremes.

mod common;

use common::{Case, random};
use std::collections::BTreeSet;
use trilut_kernels::{
    Activation, Activations, BatchError, BatchKernel, BatchRunnable, Cpu, MOST_BATCH_TOKENS,
    Packed, PackedView, Shape, Tile, batch_registry, reference,
};

mod raised {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised_batches.rs"));
}

/// The small-batch kernels that can run here; the others are named on stderr.
fn runnable(kernels: &'static [BatchKernel]) -> Vec<BatchRunnable> {
    let cpu = Cpu::capped(None);
    let (run, skipped): (Vec<_>, Vec<_>) =
        kernels.iter().map(|k| (k, cpu.batch_runnable(k))).partition(|(_, run)| run.is_some());
    if !skipped.is_empty() {
        let names: Vec<_> = skipped.iter().map(|(k, _)| k.text).collect();
        eprintln!(
            "{} small-batch kernels cannot run on this CPU: {}",
            names.len(),
            names.join(", ")
        );
    }
    run.into_iter().filter_map(|(_, run)| run).collect()
}

fn token(q: &[i8]) -> Activations {
    let mut activations = Activations::new();
    activations.set(q);
    Activation::ALL.iter().for_each(|&form| activations.prepare(form));
    activations
}

fn weights(packed: &[Packed], kernel: &BatchRunnable) -> Packed {
    packed.iter().find(|p| p.layout() == kernel.layout()).unwrap().clone()
}

/// The sums of all rows for all tokens, token by token, rows in two calls of which the second begins anywhere.
fn run(kernel: &BatchRunnable, weights: PackedView<'_>, tokens: &[Activations]) -> Vec<Vec<i32>> {
    let m = weights.shape().m;
    let mut got = vec![Vec::new(); tokens.len()];
    let middle = m * 2 / 3;
    for (rows, prefetch) in [(0..middle, 0), (middle..m, Tile::MAX_PREFETCH)] {
        // Sums that a kernel forgets to write must not look right.
        let mut out = vec![i32::MIN; rows.len() * tokens.len()];
        let tile = Tile { prefetch, ..Tile::default() };
        kernel.run(weights, tokens.iter(), rows.clone(), tile, &mut out).unwrap();
        for (t, got) in got.iter_mut().enumerate() {
            got.extend(&out[t * rows.len()..][..rows.len()]);
        }
    }
    got
}

#[test]
fn every_kernel_is_exact_for_every_number_of_tokens_and_tail() {
    let kernels = runnable(batch_registry());
    let mut ran = BTreeSet::new();
    for (m, k) in [(1, 1), (2, 129), (7, 515), (33, 160), (35, 640), (19, 2560), (6, 6912)] {
        let shape = Shape::new(m, k).unwrap();
        let case = Case::random(shape, (m * k) as u64);
        let packed = case.packed();
        let mut next = random(k as u64);
        let tokens: Vec<Vec<i8>> =
            (0..MOST_BATCH_TOKENS).map(|_| (0..k).map(|_| next() as i8).collect()).collect();
        let wanted: Vec<Vec<i32>> =
            tokens.iter().map(|q| reference::gemv(shape, &case.ternary, q)).collect();
        let tokens: Vec<Activations> = tokens.iter().map(|q| token(q)).collect();
        for kernel in &kernels {
            let text = kernel.kernel().text;
            let weights = weights(&packed, kernel);
            for count in 0..=MOST_BATCH_TOKENS {
                let got = run(kernel, weights.view(), &tokens[..count]);
                assert_eq!(got, wanted[..count], "{text} on {shape}, {count} tokens");
            }
            ran.insert(text);
        }
    }
    assert_eq!(ran.len(), kernels.len());
    assert!(kernels.len() > 8);
}

/// Whether a kernel is exact on inputs that drive its sums to the ends of their range.
fn survives(kernel: &BatchRunnable) -> bool {
    // Long enough for several widenings of every kernel.
    let cases = Case::adversarial(Shape::new(5, 4160).unwrap());
    cases.iter().all(|case| {
        let weights = weights(&case.packed(), kernel);
        let tokens = vec![token(&case.q); 3];
        run(kernel, weights.view(), &tokens).iter().all(|sums| *sums == case.sums)
    })
}

#[test]
fn extremes_are_exact_and_each_bound_fails_when_raised() {
    for kernel in runnable(batch_registry()) {
        assert!(survives(&kernel), "{} wraps", kernel.kernel().text);
        for bound in kernel.kernel().bounds {
            assert!(bound.magnitude * bound.adds <= 32768, "{bound:?}");
        }
    }
    let raised = runnable(&raised::BATCH_KERNELS);
    for kernel in &raised {
        assert!(!survives(kernel), "{} is exact beyond its bound", kernel.kernel().text);
    }
    let bounded =
        runnable(batch_registry()).iter().filter(|k| !k.kernel().bounds.is_empty()).count();
    assert_eq!(raised.len(), bounded);
}

/// Bytes that no packer writes change sums, never memory safety.
#[test]
fn arbitrary_bytes_are_read_within_bounds() {
    let mut next = random(9);
    let shape = Shape::new(9, 389).unwrap();
    let tokens = vec![token(&vec![-128; shape.k]); 5];
    for kernel in runnable(batch_registry()) {
        let bytes: Vec<u8> =
            (0..kernel.layout().bytes(shape)).map(|_| next() as u8 | 0xc0).collect();
        run(&kernel, PackedView::new(kernel.layout(), shape, &bytes).unwrap(), &tokens);
    }
}

#[test]
fn calls_that_do_not_fit_are_refused_and_write_nothing() {
    let case = Case::random(Shape::new(40, 256).unwrap(), 3);
    let packed = case.packed();
    let (good, short) = (token(&case.q), token(&case.q[..255]));
    let mut unprepared = Activations::new();
    unprepared.set(&case.q);
    for kernel in runnable(batch_registry()) {
        let mut out = vec![7; 40 * MOST_BATCH_TOKENS + 40];
        let mut call = |weights: &Packed, tokens: &[Activations], rows, n: usize| {
            kernel.run(weights.view(), tokens.iter(), rows, Tile::default(), &mut out[..n])
        };
        let (fits, others): (Vec<_>, Vec<_>) =
            packed.iter().partition(|p| p.layout() == kernel.layout());
        for other in others {
            let error = call(other, std::slice::from_ref(&good), 0..40, 40);
            assert!(matches!(error, Err(BatchError::Layout { .. })));
        }
        let weights = fits[0];
        let error = call(weights, &[good.clone(), short.clone()], 0..40, 80);
        assert!(matches!(error, Err(BatchError::Activations { .. })));
        if kernel.activation() != Activation::Plain {
            let error = call(weights, &[good.clone(), unprepared.clone()], 0..40, 80);
            assert!(matches!(error, Err(BatchError::Activations { .. })));
        }
        let backwards = std::ops::Range { start: 30, end: 20 };
        for (rows, n) in [(0..40, 79), (0..41, 82), (backwards, 0)] {
            let error = call(weights, &[good.clone(), good.clone()], rows, n);
            assert!(matches!(error, Err(BatchError::Rows { .. })));
        }
        let many = vec![good.clone(); MOST_BATCH_TOKENS + 1];
        let error = call(weights, &many, 0..40, 40 * many.len());
        assert!(matches!(error, Err(BatchError::Tokens { .. })));
        assert!(out.iter().all(|&sum| sum == 7));
    }
}
