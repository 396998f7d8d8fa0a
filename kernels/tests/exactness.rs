//! Every kernel of the registry equals the reference, bit for bit.

mod common;

use common::{Case, accepting, every, note_exact, runnable, small_shapes};
use std::collections::BTreeSet;
use trilut_kernels::{Activation, GemvError, Layout, Packed, Shape, Tile, registry};

fn shape(m: usize, k: usize) -> Shape {
    Shape::new(m, k).unwrap()
}

/// Runs every kernel that accepts the case's shape; returns the names that ran.
fn check(case: &Case) -> BTreeSet<&'static str> {
    let (packed, x) = (case.packed(), case.activations());
    let kernels = accepting(case.shape);
    for kernel in &kernels {
        let sums = case.run(kernel, &packed, &x);
        assert_eq!(sums, case.sums, "{} on {}", kernel.kernel().text, case.what);
    }
    kernels.iter().map(|k| k.kernel().text).collect()
}

#[test]
fn every_kernel_is_exact_on_its_own_k_and_on_common_ones() {
    let mut ks: BTreeSet<usize> = match small_shapes() {
        true => [640, 2560].into(),
        false => [128, 256, 640, 1536, 2560, 4096, 6912].into(),
    };
    ks.extend(registry().iter().filter_map(|k| k.name.fixed.k));
    let mut ran = BTreeSet::new();
    let rows = if small_shapes() { 2 } else { 33 };
    for k in ks {
        ran.append(&mut check(&Case::random(shape(64, k), k as u64)));
        check(&Case::sparse(shape(33, k), k as u64));
        Case::adversarial(shape(rows, k)).iter().for_each(|case| {
            check(case);
        });
    }
    let all: BTreeSet<_> = every().iter().map(|k| k.kernel().text).collect();
    assert_eq!(ran, all, "some kernels were never run");
    note_exact(all);
}

#[test]
fn every_row_count_and_k_tail_is_exact() {
    for m in (1..=9).chain([31, 32, 33, 63, 65, 95, 129]) {
        check(&Case::random(shape(m, 256), m as u64));
    }
    for k in (1..=40).chain(120..=140).chain([255, 257, 383, 385, 511, 1000, 3201]) {
        check(&Case::random(shape(35, k), k as u64));
        Case::adversarial(shape(2, k)).iter().for_each(|case| {
            check(case);
        });
    }
    check(&Case::random(shape(1, 256), 1));
    check(&Case::random(shape(33, 128), 2));
}

/// The odd shapes of the 3B model, whole.
#[test]
fn whole_layers_of_the_3b_model_are_exact() {
    let rows = if small_shapes() { [64, 32] } else { [8640, 3200] };
    for (m, k) in rows.into_iter().zip([3200, 8640]) {
        check(&Case::random(shape(m, k), 3));
    }
}

/// Where int32 sums of base-3 `dot` kernels are merged in time (every 819 steps of 160 weights at 16
/// bytes, every 1638 of 320 at 64), on the inputs that drive them furthest.
#[test]
fn very_long_rows_are_exact() {
    for (t, q) in [(1i8, -128i8), (1, 127), (-1, -128)] {
        for k in [140_000, 560_000] {
            let shape = shape(1, k);
            check(&Case::new("long", shape, vec![t; k], vec![q; k]));
        }
    }
}

/// Any split of the rows gives the same sums as one call.
#[test]
fn rows_can_be_split_anywhere_at_the_quantum() {
    let case = Case::random(shape(200, 389), 4);
    let (packed, x) = (case.packed(), case.activations());
    for kernel in accepting(case.shape) {
        let weights = packed.iter().find(|p| p.layout() == kernel.layout()).unwrap().view();
        for cuts in [vec![0, 32, 200], vec![0, 96, 128, 192, 200], vec![0, 0, 64, 64, 200]] {
            let mut out = vec![0; 200];
            for pair in cuts.windows(2) {
                let rows = pair[0]..pair[1];
                kernel.gemv(weights, &x, rows.clone(), Tile::default(), &mut out[rows]).unwrap();
            }
            assert_eq!(out, case.sums, "{} cut at {cuts:?}", kernel.kernel().text);
        }
    }
}

/// Prefetching past the end of the weights neither faults nor changes anything.
#[test]
fn any_prefetch_distance_gives_the_same_sums() {
    let case = Case::random(shape(65, 640), 5);
    let (packed, x) = (case.packed(), case.activations());
    for kernel in accepting(case.shape) {
        let weights = packed.iter().find(|p| p.layout() == kernel.layout()).unwrap().view();
        for prefetch in [64, 4096, Tile::MAX_PREFETCH] {
            let mut out = vec![0; 65];
            let tile = Tile { prefetch, ..Tile::default() };
            kernel.gemv(weights, &x, 0..65, tile, &mut out).unwrap();
            assert_eq!(out, case.sums, "{}", kernel.kernel().text);
        }
    }
}

#[test]
fn packing_is_undone_by_unpacking() {
    for (m, k) in [(1, 1), (3, 5), (33, 128), (64, 130), (70, 389), (32, 6)] {
        let case = Case::random(shape(m, k), 6);
        for packed in case.packed() {
            assert_eq!(packed.view().unpack(), case.ternary, "{packed:?}");
        }
    }
}

/// The flattened file form reaches every layout, also where its blocks straddle rows (K = 8640).
#[test]
fn file_blocks_are_packed_into_every_layout() {
    for (m, k) in [(4, 128), (2, 8640), (128, 3), (33, 256)] {
        let case = Case::random(shape(m, k), 7);
        // The file form of M x K is the row form of one row of M * K.
        let flat = Packed::pack(Layout::I2s, shape(1, m * k), &case.ternary).unwrap();
        for &layout in Layout::ALL {
            let packed = Packed::from_i2s_file(layout, case.shape, flat.view().bytes()).unwrap();
            assert_eq!(packed.view().unpack(), case.ternary, "{packed:?}");
        }
    }
}

#[test]
fn bad_weights_are_refused() {
    let refuse = |layout, shape, bytes: &[u8]| {
        Packed::from_i2s_file(layout, shape, bytes).unwrap_err().to_string()
    };
    let mut bytes = vec![0x55; 64];
    assert!(refuse(Layout::Tl1, shape(1, 100), &bytes).contains("multiple of 128"));
    assert!(refuse(Layout::I2s, shape(1, 128), &bytes).contains("needs 32 bytes, got 64"));
    bytes[33] = 0b01_11_01_01;
    assert!(refuse(Layout::Tl2, shape(2, 128), &bytes).contains("weight 161 has code 3"));
    let not_ternary = Packed::pack(Layout::I2s, shape(1, 3), &[0, 1, 2]).unwrap_err();
    assert!(not_ternary.to_string().contains("weight 2 is 2"));
}

#[test]
fn calls_that_do_not_fit_are_refused_and_write_nothing() {
    let case = Case::random(shape(64, 256), 8);
    let (packed, x) = (case.packed(), case.activations());
    let mut unprepared = trilut_kernels::Activations::new();
    unprepared.set(&case.q);
    for kernel in runnable(registry()) {
        let weights = packed.iter().find(|p| p.layout() == kernel.layout()).unwrap().view();
        let other = packed.iter().find(|p| p.layout() != kernel.layout()).unwrap().view();
        let mut out = [7i32; 64];
        let mut call = |weights, x, rows: std::ops::Range<usize>, n: usize| {
            kernel.gemv(weights, x, rows, Tile::default(), &mut out[..n])
        };
        assert!(matches!(call(other, &x, 0..64, 64), Err(GemvError::Layout { .. })));
        if kernel.kernel().name.fixed.accepts(case.shape) {
            let backwards = std::ops::Range { start: 64, end: 32 };
            for (rows, n) in [(0..64, 63), (1..64, 63), (32..65, 33), (backwards, 0)] {
                assert!(matches!(call(weights, &x, rows, n), Err(GemvError::Rows { .. })));
            }
            if kernel.activation() != Activation::Plain {
                let error = call(weights, &unprepared, 0..64, 64);
                assert!(matches!(error, Err(GemvError::Activations { .. })));
            }
        } else {
            assert!(matches!(call(weights, &x, 0..64, 64), Err(GemvError::Shape { .. })));
        }
        assert_eq!(out, [7; 64]);
    }
}

/// Bytes that no packer writes (code 3, index 15) change sums, never memory safety.
#[test]
fn arbitrary_bytes_are_read_within_bounds() {
    let mut next = common::random(9);
    for (m, k) in [(1, 1), (33, 256), (70, 389)] {
        let shape = shape(m, k);
        let mut x = trilut_kernels::Activations::new();
        x.set(&vec![-128; k]);
        Activation::ALL.iter().for_each(|&form| x.prepare(form));
        for kernel in accepting(shape) {
            let bytes: Vec<u8> =
                (0..kernel.layout().bytes(shape)).map(|_| next() as u8 | 0xc0).collect();
            let view = trilut_kernels::PackedView::new(kernel.layout(), shape, &bytes).unwrap();
            let mut out = vec![0; m];
            kernel.gemv(view, &x, 0..m, Tile::default(), &mut out).unwrap();
        }
    }
}
