//! Stored rows times vectors: the LM head over the vocabulary, of one token or of a few.
//!
//! A row is read and widened once for a tile of up to four vectors. Each result is that of the vector
//! alone, bit for bit: the same lanes in the same order.

use super::blocks::formats::{Block, Q4_0, Q4_1, Q4K, Q5_0, Q8_0};
use super::{Lanes, instantiate, padded};
use half::{bf16, f16};

instantiate! {
    /// `outs[t][r]` = row r times `xs[t]`, in the order of [`super::reduce::dot`]. One vector streams the
    /// rows at the speed of memory.
    ///
    /// # Panics
    /// When vectors and outputs differ in number or length, or `rows` does not hold as many rows.
    pub fn rows_f32(rows: &[f32], xs: &[&[f32]], outs: &mut [&mut [f32]]) = rows_f32_body;

    /// The same of f16 rows, each widened exactly first.
    ///
    /// # Panics
    /// As [`rows_f32`].
    pub fn rows_f16(rows: &[f16], xs: &[&[f32]], outs: &mut [&mut [f32]]) = rows_f16_body;

    /// The same of bf16 rows.
    ///
    /// # Panics
    /// As [`rows_f32`].
    pub fn rows_bf16(rows: &[bf16], xs: &[&[f32]], outs: &mut [&mut [f32]]) = rows_bf16_body;
}

/// Chunks of a block that are unrolled.
const GROUP: usize = 4;

/// Rows in some stored form.
trait Rows<L: Lanes>: Copy {
    /// The dot products of `N` rows from `first` on with `T` vectors.
    fn dots<const N: usize, const T: usize>(self, first: usize, xs: [&[f32]; T]) -> [[f32; N]; T];
}

#[inline(always)]
fn rows_f32_body<L: Lanes>(rows: &[f32], xs: &[&[f32]], outs: &mut [&mut [f32]]) {
    check(rows.len(), 1, xs.iter().map(|x| x.len()), outs);
    tiles::<L, _>(Floats(rows), xs, outs);
}

#[inline(always)]
fn rows_f16_body<L: Lanes>(rows: &[f16], xs: &[&[f32]], outs: &mut [&mut [f32]]) {
    check(rows.len(), 1, xs.iter().map(|x| x.len()), outs);
    tiles::<L, _>(Floats(rows), xs, outs);
}

#[inline(always)]
fn rows_bf16_body<L: Lanes>(rows: &[bf16], xs: &[&[f32]], outs: &mut [&mut [f32]]) {
    check(rows.len(), 1, xs.iter().map(|x| x.len()), outs);
    tiles::<L, _>(Floats(rows), xs, outs);
}

/// The operation of each block format: its body, the type, chunks of 16 weights and bytes of a block.
macro_rules! blocks {
    ($($rows:ident $body:ident $ty:ident $chunks:literal $bytes:literal;)*) => {$(
        instantiate! {
            /// `outs[t][r]` = row r of one block format times `xs[t]`, as
            /// [`super::reduce::dot`] computes it with its weights.
            ///
            /// # Panics
            /// When vectors and outputs differ in number or length, or `rows` does not hold as many rows of
            /// whole blocks.
            pub fn $rows(rows: &[u8], xs: &[&[f32]], outs: &mut [&mut [f32]]) = $body;
        }

        #[inline(always)]
        fn $body<L: Lanes>(rows: &[u8], xs: &[&[f32]], outs: &mut [&mut [f32]]) {
            let (blocks, rest) = rows.as_chunks::<$bytes>();
            assert!(rest.is_empty());
            check(blocks.len(), 16 * $chunks, xs.iter().map(|x| x.len()), outs);
            tiles::<L, _>(Blocks::<$ty, $chunks, $bytes>(blocks, std::marker::PhantomData), xs, outs);
        }
    )*};
}

blocks! {
    rows_q4_0 rows_q4_0_body Q4_0 2 18;
    rows_q4_1 rows_q4_1_body Q4_1 2 20;
    rows_q5_0 rows_q5_0_body Q5_0 2 22;
    rows_q8_0 rows_q8_0_body Q8_0 2 34;
    rows_q4_k rows_q4_k_body Q4K 16 144;
}

/// Compares the lengths: `units` of `weights` weights are stored; `ks` are the lengths of the vectors, which
/// may count something larger than weights if `weights` does.
#[inline(always)]
pub(super) fn check(
    units: usize,
    weights: usize,
    ks: impl ExactSizeIterator<Item = usize> + Clone,
    outs: &[&mut [f32]],
) {
    assert_eq!(ks.len(), outs.len(), "one output for each vector");
    let (Some(k), Some(out)) = (ks.clone().next(), outs.first()) else { return };
    let m = out.len();
    assert!(ks.clone().all(|other| other == k) && outs.iter().all(|out| out.len() == m));
    assert!(k.is_multiple_of(weights) && units == m * (k / weights), "rows of the vectors' length");
}

/// All vectors: tiles of four, then of two, then one, with as many rows at a time as the registers have room
/// for sums.
#[inline(always)]
fn tiles<L: Lanes, R: Rows<L>>(rows: R, xs: &[&[f32]], outs: &mut [&mut [f32]]) {
    let (fours, xs) = xs.as_chunks::<4>();
    let (four_outs, outs) = outs.as_chunks_mut::<4>();
    for (xs, outs) in fours.iter().zip(four_outs) {
        match L::WIDE {
            true => tile::<L, R, 2, 4>(rows, *xs, outs),
            false => tile::<L, R, 1, 4>(rows, *xs, outs),
        }
    }
    let (twos, xs) = xs.as_chunks::<2>();
    let (two_outs, outs) = outs.as_chunks_mut::<2>();
    for (xs, outs) in twos.iter().zip(two_outs) {
        match L::WIDE {
            true => tile::<L, R, 4, 2>(rows, *xs, outs),
            false => tile::<L, R, 2, 2>(rows, *xs, outs),
        }
    }
    let (ones, _) = xs.as_chunks::<1>();
    let (one_outs, _) = outs.as_chunks_mut::<1>();
    for (xs, outs) in ones.iter().zip(one_outs) {
        tile::<L, R, 4, 1>(rows, *xs, outs);
    }
}

/// All rows with one tile of vectors, `N` rows at a time: their sums are independent, which hides the latency
/// of addition.
#[inline(always)]
fn tile<L: Lanes, R: Rows<L>, const N: usize, const T: usize>(
    rows: R,
    xs: [&[f32]; T],
    outs: &mut [&mut [f32]; T],
) {
    let m = outs[0].len();
    let whole = m / N * N;
    for first in (0..whole).step_by(N) {
        let sums: [[f32; N]; T] = rows.dots(first, xs);
        for (out, sums) in outs.iter_mut().zip(sums) {
            out[first..first + N].copy_from_slice(&sums);
        }
    }
    for row in whole..m {
        let sums: [[f32; 1]; T] = rows.dots(row, xs);
        for (out, [sum]) in outs.iter_mut().zip(sums) {
            out[row] = sum;
        }
    }
}

/// A type that rows are stored in.
trait Element: Copy + Default {
    fn load<L: Lanes>(x: &[Self; 16]) -> L;
}

impl Element for f16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; 16]) -> L {
        L::widen(x)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; 16]) -> L {
        // The upper half of an f32.
        L::load(&x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16)))
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; 16]) -> L {
        L::load(x)
    }
}

/// Rows of float numbers.
#[derive(Clone, Copy)]
struct Floats<'a, E>(&'a [E]);

impl<L: Lanes, E: Element> Rows<L> for Floats<'_, E> {
    #[inline(always)]
    fn dots<const N: usize, const T: usize>(self, first: usize, xs: [&[f32]; T]) -> [[f32; N]; T] {
        let k = xs[0].len();
        let count = k / 16;
        let mut rows = [&[][..]; N];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &self.0[(first + r) * k..][..k];
        }
        // One check of the lengths here instead of one in every step.
        let chunks = rows.map(|row| &row.as_chunks::<16>().0[..count]);
        let x_chunks = xs.map(|x| &x.as_chunks::<16>().0[..count]);
        let mut sums = [[L::splat(0.0); N]; T];
        for i in 0..count {
            for (r, row) in chunks.iter().enumerate() {
                // The same place of the row that this lane of the pass takes next.
                prefetch(row[i].as_ptr().wrapping_add(N * k));
                let w = E::load::<L>(&row[i]);
                for (sums, x) in sums.iter_mut().zip(&x_chunks) {
                    sums[r] = sums[r].add(w.mul(L::load(&x[i])));
                }
            }
        }
        if !k.is_multiple_of(16) {
            for (r, row) in rows.iter().enumerate() {
                let w = E::load::<L>(&padded(&row[count * 16..]));
                for (sums, x) in sums.iter_mut().zip(&xs) {
                    sums[r] = sums[r].add(w.mul(L::load(&padded(&x[count * 16..]))));
                }
            }
        }
        total(sums)
    }
}

/// Rows of quantised blocks.
struct Blocks<'a, B, const CHUNKS: usize, const BYTES: usize>(
    &'a [[u8; BYTES]],
    std::marker::PhantomData<B>,
);

impl<B, const CHUNKS: usize, const BYTES: usize> Clone for Blocks<'_, B, CHUNKS, BYTES> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B, const CHUNKS: usize, const BYTES: usize> Copy for Blocks<'_, B, CHUNKS, BYTES> {}

impl<L: Lanes, B: Block<L, CHUNKS, BYTES>, const CHUNKS: usize, const BYTES: usize> Rows<L>
    for Blocks<'_, B, CHUNKS, BYTES>
{
    #[inline(always)]
    fn dots<const N: usize, const T: usize>(self, first: usize, xs: [&[f32]; T]) -> [[f32; N]; T] {
        let count = xs[0].len() / (16 * CHUNKS);
        let mut rows = [&[][..]; N];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &self.0[(first + r) * count..][..count];
        }
        // One check of the lengths here instead of one in every step.
        let xs = xs.map(|x| &x.as_chunks::<16>().0.as_chunks::<CHUNKS>().0[..count]);
        let mut sums = [[L::splat(0.0); N]; T];
        let mut unpacked = [B::Unpacked::default(); N];
        for i in 0..count {
            for r in 0..N {
                let block = &rows[r][i];
                // The same place of the row that this lane of the pass takes next.
                for line in (0..BYTES).step_by(64) {
                    prefetch(block.as_ptr().wrapping_add(N * count * BYTES + line));
                }
                B::unpack(block, &mut unpacked[r]);
            }
            // In groups, inside which the compiler knows the place of a chunk.
            for group in (0..CHUNKS).step_by(GROUP) {
                for chunk in group..group + GROUP.min(CHUNKS) {
                    // No closure: it would not have the target features, and its loads would be calls.
                    let mut x = [L::splat(0.0); T];
                    for (x, xs) in x.iter_mut().zip(&xs) {
                        *x = L::load(&xs[i][chunk]);
                    }
                    for (r, unpacked) in unpacked.iter().enumerate() {
                        let w = B::weights(unpacked, chunk);
                        for (sums, x) in sums.iter_mut().zip(x) {
                            sums[r] = sums[r].add(w.mul(x));
                        }
                    }
                }
            }
        }
        total(sums)
    }
}

/// The sums of all lanes.
#[inline(always)]
fn total<L: Lanes, const N: usize, const T: usize>(sums: [[L; N]; T]) -> [[f32; N]; T] {
    let mut out = [[0.0; N]; T];
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum.sum();
        }
    }
    out
}

/// Asks for a cache line that will be read soon; any address is allowed.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch accesses nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch accesses nothing and cannot fault.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::blocks::BlockFormat;
    use crate::float::blocks::tests::blocks;
    use crate::float::reduce::dot;
    use crate::float::tests::{LENGTHS, isas, same_on_every_isa, values};

    /// Compares the results of several vectors with those of each alone, on every ISA.
    fn compare(k: usize, m: usize, times: impl Fn(crate::Supported, &[&[f32]], &mut [&mut [f32]])) {
        for isa in isas() {
            for n in 0..=7 {
                let xs: Vec<Vec<f32>> = (0..n).map(|t| values(k, 10 + t)).collect();
                let xs: Vec<&[f32]> = xs.iter().map(|x| &x[..]).collect();
                let mut outs = vec![vec![7.0f32; m]; xs.len()];
                let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(|out| &mut out[..]).collect();
                times(isa, &xs, &mut slices);
                for (x, out) in xs.iter().zip(&outs) {
                    let mut wanted = vec![0.0; m];
                    times(isa, &[x], &mut [&mut wanted]);
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(out), bits(&wanted), "{m}x{k}, {n} vectors, {:?}", isa.isa());
                }
            }
        }
    }

    #[test]
    fn every_row_is_a_dot_product_on_every_isa() {
        for &k in LENGTHS {
            for m in [0, 1, 3, 4, 5, 9] {
                let x = values(k, 1);
                let half: Vec<f16> = values(m * k, 2).into_iter().map(f16::from_f32).collect();
                let wide: Vec<f32> = half.iter().map(|w| w.to_f32()).collect();
                let brief: Vec<bf16> = half.iter().map(|w| bf16::from_f32(w.to_f32())).collect();
                let as_wide: Vec<f32> = brief.iter().map(|w| w.to_f32()).collect();
                for isa in isas() {
                    let (mut from_brief, mut from_as_wide) = (vec![0.0; m], vec![0.0; m]);
                    rows_bf16(isa, &brief, &[&x], &mut [&mut from_brief]);
                    rows_f32(isa, &as_wide, &[&x], &mut [&mut from_as_wide]);
                    assert_eq!(from_brief, from_as_wide);
                    let (mut from_half, mut from_wide) = (vec![0.0; m], vec![0.0; m]);
                    rows_f16(isa, &half, &[&x], &mut [&mut from_half]);
                    rows_f32(isa, &wide, &[&x], &mut [&mut from_wide]);
                    let dots: Vec<f32> =
                        (0..m).map(|r| dot(isa, &wide[r * k..][..k], &x)).collect();
                    assert_eq!(from_half, dots);
                    assert_eq!(from_wide, dots);
                }
                same_on_every_isa(|isa| {
                    let mut out = vec![0.0; m];
                    rows_f16(isa, &half, &[&x], &mut [&mut out]);
                    out
                });
            }
        }
    }

    #[test]
    fn vectors_together_are_as_each_by_itself() {
        for &k in LENGTHS {
            for m in [0, 1, 2, 3, 5, 8] {
                let wide = values(m * k, 2);
                let half: Vec<f16> = wide.iter().map(|&w| f16::from_f32(w)).collect();
                compare(k, m, |isa, xs, outs| rows_f32(isa, &wide, xs, outs));
                compare(k, m, |isa, xs, outs| rows_f16(isa, &half, xs, outs));
            }
        }
        for &format in BlockFormat::ALL {
            for (m, count) in [(1, 1), (2, 3), (5, 2), (8, 1)] {
                let blocks = blocks(format, m * count, 5);
                compare(count * format.weights(), m, |isa, xs, outs| {
                    format.rows(isa, &blocks, &format.vectors(isa, xs), outs)
                });
            }
        }
    }

    #[test]
    #[should_panic(expected = "one output for each vector")]
    fn every_vector_needs_an_output() {
        rows_f32(isas()[0], &[1.0; 16], &[&[1.0; 16]], &mut []);
    }
}
