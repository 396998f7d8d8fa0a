//! Several query heads over the keys and values of one head: each f16 is widened once for all of them,
//! or beforehand for the heads of many tokens.
//!
//! The results are those of each query head by itself, bit for bit: a score is the
//! [dot product](super::reduce::dot), and a weighted sum adds row after row.

use super::lanes::HalfLanes;
use super::{Lanes, instantiate, padded};
use half::f16;

instantiate! {
    /// `out[h * n + j] = sum_i queries[h * width + i] * keys[j * width + i]` for `n` keys, in the order
    /// of [`super::reduce::dot`].
    ///
    /// # Panics
    /// When `width` is 0, `keys` or `queries` are not whole rows of it, or `out` has another length.
    pub fn scores_f16(keys: &[f16], queries: &[f32], width: usize, out: &mut [f32]) = scores_f16_body;

    /// The same of keys that were widened, to `out[h * stride + j]`.
    ///
    /// # Panics
    /// When `width` is 0, `keys` or `queries` are not whole rows of it, or `out` is too short.
    pub fn scores_f32(keys: &[f32], queries: &[f32], width: usize, out: &mut [f32], stride: usize) = scores_f32_body;

    /// `out[h * width + c] = sum_j weights[h * n + j] * rows[j * width + c]` for `n` rows, added in
    /// ascending `j`.
    ///
    /// # Panics
    /// When `width` is 0, `rows` or `out` are not whole rows of it, or `weights` has another length.
    pub fn weighted_sums_f16(weights: &[f32], rows: &[f16], width: usize, out: &mut [f32]) = weighted_f16_body;

    /// Adds `weights[h * stride + j] * rows[j * width + c]` to `out[h * width + c]` in ascending `j`, for
    /// rows that were widened.
    ///
    /// # Panics
    /// When `width` is 0, `rows` or `out` are not whole rows of it, or `weights` is too short.
    pub fn add_weighted_f32(weights: &[f32], stride: usize, rows: &[f32], width: usize, out: &mut [f32]) = weighted_f32_body;
}

/// What keys and values are stored as.
trait Element: Copy + Default {
    fn widen<L: Lanes>(x: &[Self; 16]) -> L;
    fn widen_half<H: HalfLanes>(x: &[Self; 8]) -> H;
}

impl Element for f16 {
    #[inline(always)]
    fn widen<L: Lanes>(x: &[Self; 16]) -> L {
        L::widen(x)
    }

    #[inline(always)]
    fn widen_half<H: HalfLanes>(x: &[Self; 8]) -> H {
        H::widen(x)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen<L: Lanes>(x: &[Self; 16]) -> L {
        L::load(x)
    }

    #[inline(always)]
    fn widen_half<H: HalfLanes>(x: &[Self; 8]) -> H {
        H::load(x)
    }
}

#[inline(always)]
fn scores_f16_body<L: Lanes>(keys: &[f16], queries: &[f32], width: usize, out: &mut [f32]) {
    let (n, heads) = (keys.len() / width, queries.len() / width);
    assert_eq!(out.len(), heads * n);
    scores_body::<L, f16>(keys, queries, width, out, n);
}

#[inline(always)]
fn scores_f32_body<L: Lanes>(
    keys: &[f32],
    queries: &[f32],
    width: usize,
    out: &mut [f32],
    stride: usize,
) {
    scores_body::<L, f32>(keys, queries, width, out, stride);
}

/// For keys stored as `E`, to `out[h * stride + j]`.
#[inline(always)]
fn scores_body<L: Lanes, E: Element>(
    keys: &[E],
    queries: &[f32],
    width: usize,
    out: &mut [f32],
    stride: usize,
) {
    let (n, heads) = (keys.len() / width, queries.len() / width);
    assert!(keys.len() == n * width && queries.len() == heads * width && n <= stride);
    let mut done = 0;
    // Sixteen products at a time: of as many heads as there are, with as many keys as that leaves.
    // Handling a last part of a row would push the sums out of the registers, so only one head has it.
    let whole = width.is_multiple_of(16);
    while heads - done >= 4 && whole {
        let (queries, out) = (&queries[done * width..], &mut out[done * stride..]);
        scores::<L, E, 4, 4, 2>(keys, queries, width, false, out, stride);
        done += 4;
    }
    while heads - done >= 2 && whole {
        let (queries, out) = (&queries[done * width..], &mut out[done * stride..]);
        scores::<L, E, 2, 8, 4>(keys, queries, width, false, out, stride);
        done += 2;
    }
    for done in done..heads {
        let (queries, out) = (&queries[done * width..], &mut out[done * stride..]);
        if whole {
            scores::<L, E, 1, 16, 8>(keys, queries, width, false, out, stride);
        } else {
            scores::<L, E, 1, 16, 8>(keys, queries, width, true, out, stride);
        }
    }
}

/// The scores of the first `H` heads, `P` keys at a time; where registers are short, they are computed
/// `S` keys at a time, by half of the lanes. `H * P` is 16. `tail` says whether rows are not whole chunks.
#[inline(always)]
fn scores<L: Lanes, E: Element, const H: usize, const P: usize, const S: usize>(
    keys: &[E],
    queries: &[f32],
    width: usize,
    tail: bool,
    out: &mut [f32],
    stride: usize,
) {
    let n = keys.len() / width;
    let mut at = 0;
    while at + P <= n {
        let mut all = [0.0; 16];
        if L::WIDE {
            let products = products::<L, E, H, P>(&keys[at * width..], queries, width, tail);
            L::sums(products.as_flattened().first_chunk().expect("H * P is 16")).store(&mut all);
        } else {
            // By head, then by key.
            let mut sums = [L::splat(0.0); 16];
            for first in (0..P).step_by(S) {
                let keys = &keys[(at + first) * width..];
                let low = half_products::<L, E, H, S>(keys, queries, width, tail, 0);
                let high = half_products::<L, E, H, S>(keys, queries, width, tail, 1);
                for h in 0..H {
                    for p in 0..S {
                        sums[h * P + first + p] = L::join(low[h][p], high[h][p]);
                    }
                }
            }
            L::sums(&sums).store(&mut all);
        }
        for h in 0..H {
            out[h * stride + at..][..P].copy_from_slice(&all[h * P..][..P]);
        }
        at += P;
    }
    for at in at..n {
        let products = products::<L, E, H, 1>(&keys[at * width..], queries, width, tail);
        for h in 0..H {
            out[h * stride + at] = products[h][0].sum();
        }
    }
}

/// The lanes of query `h` times key `p`, for the first `H` queries and `S` keys.
#[inline(always)]
fn products<L: Lanes, E: Element, const H: usize, const S: usize>(
    keys: &[E],
    queries: &[f32],
    width: usize,
    tail: bool,
) -> [[L; S]; H] {
    let whole = width / 16;
    let (mut key_rows, mut query_rows) = ([&[][..]; S], [&[][..]; H]);
    for p in 0..S {
        // One check of the length here instead of one in every step.
        key_rows[p] = &keys[p * width..][..width].as_chunks::<16>().0[..whole];
    }
    for h in 0..H {
        query_rows[h] = &queries[h * width..][..width].as_chunks::<16>().0[..whole];
    }
    let mut sums = [[L::splat(0.0); S]; H];
    for c in 0..whole {
        let mut wide = [L::splat(0.0); S];
        for p in 0..S {
            wide[p] = E::widen(&key_rows[p][c]);
        }
        for h in 0..H {
            let x = L::load(&query_rows[h][c]);
            for p in 0..S {
                sums[h][p] = sums[h][p].add(wide[p].mul(x));
            }
        }
    }
    if tail {
        for h in 0..H {
            let x = L::load(&padded(&queries[h * width..][whole * 16..width]));
            for p in 0..S {
                let key: L = E::widen(&padded(&keys[p * width..][whole * 16..width]));
                sums[h][p] = sums[h][p].add(key.mul(x));
            }
        }
    }
    sums
}

/// Lanes 0..8 (`half` 0) or 8..16 (1) of [`products`].
#[inline(always)]
fn half_products<L: Lanes, E: Element, const H: usize, const S: usize>(
    keys: &[E],
    queries: &[f32],
    width: usize,
    tail: bool,
    half: usize,
) -> [[L::Half; S]; H] {
    let whole = width / 16;
    let (mut key_rows, mut query_rows) = ([&[][..]; S], [&[][..]; H]);
    for p in 0..S {
        // One check of the length here instead of one in every step.
        key_rows[p] = &keys[p * width..][..width].as_chunks::<16>().0[..whole];
    }
    for h in 0..H {
        query_rows[h] = &queries[h * width..][..width].as_chunks::<16>().0[..whole];
    }
    let mut sums = [[L::Half::zero(); S]; H];
    for c in 0..whole {
        let mut wide = [L::Half::zero(); S];
        for p in 0..S {
            wide[p] = E::widen_half(&key_rows[p][c].as_chunks().0[half]);
        }
        for h in 0..H {
            let x = L::Half::load(&query_rows[h][c].as_chunks().0[half]);
            for p in 0..S {
                sums[h][p] = sums[h][p].add(wide[p].mul(x));
            }
        }
    }
    if tail {
        for h in 0..H {
            let chunk = padded(&queries[h * width..][whole * 16..width]);
            let x = L::Half::load(&chunk.as_chunks().0[half]);
            for p in 0..S {
                let chunk: [E; 16] = padded(&keys[p * width..][whole * 16..width]);
                let key: L::Half = E::widen_half(&chunk.as_chunks().0[half]);
                sums[h][p] = sums[h][p].add(key.mul(x));
            }
        }
    }
    sums
}

#[inline(always)]
fn weighted_f16_body<L: Lanes>(weights: &[f32], rows: &[f16], width: usize, out: &mut [f32]) {
    let (n, heads) = (rows.len() / width, out.len() / width);
    assert_eq!(weights.len(), heads * n);
    out.fill(0.0);
    weighted_body::<L, f16>(weights, n, rows, width, out);
}

#[inline(always)]
fn weighted_f32_body<L: Lanes>(
    weights: &[f32],
    stride: usize,
    rows: &[f32],
    width: usize,
    out: &mut [f32],
) {
    weighted_body::<L, f32>(weights, stride, rows, width, out);
}

/// For rows stored as `E`, added to `out`.
#[inline(always)]
fn weighted_body<L: Lanes, E: Element>(
    weights: &[f32],
    stride: usize,
    rows: &[E],
    width: usize,
    out: &mut [f32],
) {
    let (n, heads) = (rows.len() / width, out.len() / width);
    assert!(rows.len() == n * width && out.len() == heads * width && n <= stride);
    let mut done = 0;
    while heads - done >= 4 {
        let (weights, out) = (&weights[done * stride..], &mut out[done * width..]);
        weighted::<L, E, 4>(weights, stride, rows, width, out);
        done += 4;
    }
    for done in done..heads {
        let (weights, out) = (&weights[done * stride..], &mut out[done * width..]);
        weighted::<L, E, 1>(weights, stride, rows, width, out);
    }
}

/// The weighted sums of the first `H` heads.
#[inline(always)]
fn weighted<L: Lanes, E: Element, const H: usize>(
    weights: &[f32],
    stride: usize,
    rows: &[E],
    width: usize,
    out: &mut [f32],
) {
    let mut at = 0;
    // Sums stay in registers: of one head as many as of four.
    while (L::WIDE || H == 1) && at + 64 <= width {
        columns::<L, E, H, 4>(weights, stride, rows, width, at, out);
        at += 64;
    }
    while at + 16 <= width {
        columns::<L, E, H, 1>(weights, stride, rows, width, at, out);
        at += 16;
    }
    if at < width {
        let n = rows.len() / width;
        for h in 0..H {
            let out = &mut out[h * width + at..][..width - at];
            let mut sum = L::load(&padded(out));
            for (w, row) in weights[h * stride..][..n].iter().zip(rows.chunks_exact(width)) {
                sum = sum.add(L::splat(*w).mul(E::widen(&padded(&row[at..]))));
            }
            let mut last = [0.0; 16];
            sum.store(&mut last);
            out.copy_from_slice(&last[..width - at]);
        }
    }
}

/// Columns `at..at + 16 * C` of the weighted sums of `H` heads.
#[inline(always)]
fn columns<L: Lanes, E: Element, const H: usize, const C: usize>(
    weights: &[f32],
    stride: usize,
    rows: &[E],
    width: usize,
    at: usize,
    out: &mut [f32],
) {
    let n = rows.len() / width;
    let mut by_head = [&weights[..n]; H];
    let mut sums = [[L::splat(0.0); C]; H];
    for h in 0..H {
        by_head[h] = &weights[h * stride..][..n];
        let (out, _) = out[h * width + at..][..16 * C].as_chunks();
        for c in 0..C {
            sums[h][c] = L::load(&out[c]);
        }
    }
    for (j, row) in rows.chunks_exact(width).enumerate() {
        let row = &row[at..at + 16 * C];
        let mut wide = [L::splat(0.0); C];
        for (wide, row) in wide.iter_mut().zip(row.as_chunks().0) {
            *wide = E::widen(row);
        }
        for h in 0..H {
            let w = L::splat(by_head[h][j]);
            for c in 0..C {
                sums[h][c] = sums[h][c].add(w.mul(wide[c]));
            }
        }
    }
    for h in 0..H {
        let (out, _) = out[h * width + at..][..16 * C].as_chunks_mut();
        for c in 0..C {
            sums[h][c].store(&mut out[c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::matvec::rows_f16;
    use crate::float::tests::{same_on_every_isa, values};

    /// The weighted sum of rows, column by column.
    fn plain(weights: &[f32], rows: &[f16], width: usize) -> Vec<f32> {
        let column = |c| {
            let column = rows[c..].iter().step_by(width);
            weights.iter().zip(column).fold(0.0, |sum, (w, x)| sum + w * x.to_f32())
        };
        if weights.is_empty() { vec![0.0; width] } else { (0..width).map(column).collect() }
    }

    instantiate! {
        fn by_halves(x: &[f32], halves: &[f16], out: &mut [f32]) = by_halves_body;
    }

    /// `x * halves + x` by half of the lanes.
    #[inline(always)]
    fn by_halves_body<L: Lanes>(x: &[f32], halves: &[f16], out: &mut [f32]) {
        let (x, halves) = (x.as_chunks().0, halves.as_chunks().0);
        let low = L::Half::load(&x[0]);
        let high = L::Half::load(&x[1]);
        let low = L::Half::widen(&halves[0]).mul(low).add(low);
        let high = L::Half::widen(&halves[1]).mul(high).add(high);
        let zero = L::join(L::Half::zero(), L::Half::zero());
        zero.add(L::join(low, high)).store(out.first_chunk_mut().unwrap());
    }

    #[test]
    fn halves_of_the_lanes_join_to_all_of_them() {
        let x = values(16, 1);
        let halves: Vec<f16> = values(16, 2).into_iter().map(f16::from_f32).collect();
        let wanted: Vec<f32> = x.iter().zip(&halves).map(|(x, h)| h.to_f32() * x + x).collect();
        same_on_every_isa(|isa| {
            let mut out = vec![7.0; 16];
            by_halves(isa, &x, &halves, &mut out);
            assert_eq!(out, wanted);
            out
        });
    }

    #[test]
    fn each_head_is_as_by_itself_on_every_isa() {
        for width in [1, 16, 30, 64, 100, 128] {
            for heads in [0, 1, 2, 3, 4, 5, 7, 8] {
                for n in [0, 1, 3, 4, 7, 16, 19, 40] {
                    let halves = |seed| -> Vec<f16> {
                        values(n * width, seed).into_iter().map(f16::from_f32).collect()
                    };
                    let (keys, rows) = (halves(1), halves(2));
                    let (queries, weights) = (values(heads * width, 3), values(heads * n, 4));
                    same_on_every_isa(|isa| {
                        let (mut scores, mut sums) =
                            (vec![7.0; heads * n], vec![7.0; heads * width]);
                        scores_f16(isa, &keys, &queries, width, &mut scores);
                        weighted_sums_f16(isa, &weights, &rows, width, &mut sums);
                        for h in 0..heads {
                            let mut alone = vec![0.0; n];
                            let query = &queries[h * width..][..width];
                            rows_f16(isa, &keys, &[query], &mut [&mut alone]);
                            assert_eq!(scores[h * n..][..n], alone);
                            let alone = plain(&weights[h * n..][..n], &rows, width);
                            assert_eq!(sums[h * width..][..width], alone);
                        }
                        // Widened beforehand, in two steps, with room between the heads.
                        let wide = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
                        let (keys, rows) = (wide(&keys), wide(&rows));
                        let (stride, cut) = (n + 3, n / 3);
                        let mut spread = vec![0.0; heads * stride];
                        let mut again = vec![0.0; heads * width];
                        let (first, second) = keys.split_at(cut * width);
                        scores_f32(isa, first, &queries, width, &mut spread, stride);
                        if heads > 0 {
                            scores_f32(isa, second, &queries, width, &mut spread[cut..], stride);
                        }
                        for (spread, scores) in
                            spread.chunks_exact_mut(stride).zip(scores.chunks_exact(n.max(1)))
                        {
                            assert_eq!(spread[..n], *scores);
                        }
                        for (spread, weights) in
                            spread.chunks_exact_mut(stride).zip(weights.chunks_exact(n.max(1)))
                        {
                            spread[..n].copy_from_slice(weights);
                        }
                        let (first, second) = rows.split_at(cut * width);
                        add_weighted_f32(isa, &spread, stride, first, width, &mut again);
                        if heads > 0 {
                            let weights = &spread[cut..];
                            add_weighted_f32(isa, weights, stride, second, width, &mut again);
                        }
                        assert_eq!(again, sums);
                        [scores, sums].concat()
                    });
                }
            }
        }
    }
}
