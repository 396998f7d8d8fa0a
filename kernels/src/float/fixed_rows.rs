//! Attention in integers for a few query heads, over keys and values where they are stored.
//!
//! The results are those of [`products`](super::fixed_attention::products) bit for bit, since the sums are
//! exact; but nothing is laid out first, which pays when many tokens share it and not for one.

use super::fixed_attention::{LANES, Rows, STEP};
use super::lanes::Sums;
use super::matvec::prefetch;
use super::stored::{Code, widened};
use super::{Lanes, instantiate, padded};

/// Positions whose values are read for all dimensions before the next ones are: some KiB.
const POSITIONS: usize = 32;

/// Keys between the one that is read and the one that is fetched: a few KiB.
const KEYS_AHEAD: usize = 8;

instantiate! {
    /// `out[r * stride + j]` = the sum of the products of row `r` and key `j`, times the scale of the row,
    /// times that of the key. Rows must have zeros from `width` up to a multiple of 32.
    ///
    /// # Panics
    /// When `width` is 0, `keys` are not a row of it for each scale, or a row or `out` is too short.
    pub fn scores_i16(rows: Rows<'_>, keys: &[i16], width: usize, scales: &[f32], out: &mut [f32], stride: usize) = scores_i16_body;

    /// The same of keys in eight bits.
    ///
    /// # Panics
    /// As [`scores_i16`].
    pub fn scores_i8(rows: Rows<'_>, keys: &[i8], width: usize, scales: &[f32], out: &mut [f32], stride: usize) = scores_i8_body;

    /// `out[r * stride + c]` = the sum of `row[j] * values[j * width + c]`, times the scale of row `r`;
    /// `stride` is `width` made a multiple of [`LANES`]. Rows must have a 0 behind an odd number of weights.
    /// `sums` is room for as many integers as there are results.
    ///
    /// # Panics
    /// When `width` is 0, `values` are not whole rows of it, a row is too short, or `sums` or `out` are not
    /// as long as all results.
    pub fn weighted_i16(rows: Rows<'_>, values: &[i16], width: usize, sums: &mut [i32], out: &mut [f32]) = weighted_i16_body;

    /// The same of values in eight bits.
    ///
    /// # Panics
    /// As [`weighted_i16`].
    pub fn weighted_i8(rows: Rows<'_>, values: &[i8], width: usize, sums: &mut [i32], out: &mut [f32]) = weighted_i8_body;
}

#[inline(always)]
fn scores_i16_body<L: Lanes>(
    rows: Rows<'_>,
    keys: &[i16],
    width: usize,
    scales: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    scores::<L, i16>(rows, keys, width, scales, out, stride);
}

#[inline(always)]
fn scores_i8_body<L: Lanes>(
    rows: Rows<'_>,
    keys: &[i8],
    width: usize,
    scales: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    scores::<L, i8>(rows, keys, width, scales, out, stride);
}

#[inline(always)]
fn scores<L: Lanes, C: Code>(
    rows: Rows<'_>,
    keys: &[C],
    width: usize,
    scales: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    assert_eq!(keys.len(), scales.len() * width);
    let mut done = 0;
    while rows.scales.len() - done >= 4 {
        some_scores::<L, C, 4>(rows, done, keys, width, scales, &mut out[done * stride..], stride);
        done += 4;
    }
    while rows.scales.len() - done >= 2 {
        some_scores::<L, C, 2>(rows, done, keys, width, scales, &mut out[done * stride..], stride);
        done += 2;
    }
    while done < rows.scales.len() {
        some_scores::<L, C, 1>(rows, done, keys, width, scales, &mut out[done * stride..], stride);
        done += 1;
    }
}

/// The scores of `R` rows from `first` on.
#[inline(always)]
fn some_scores<L: Lanes, C: Code, const R: usize>(
    rows: Rows<'_>,
    first: usize,
    keys: &[C],
    width: usize,
    scales: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let steps = width.div_ceil(STEP);
    let mut queries = [&[][..]; R];
    for (r, query) in queries.iter_mut().enumerate() {
        // One check of the length here instead of one in every step.
        *query = &rows.codes[(first + r) * rows.stride..].as_chunks::<STEP>().0[..steps];
    }
    // As many keys as make one sum for each lane.
    let group = LANES / R;
    let of_rows = &rows.scales[first..first + R];
    let groups = keys.chunks(group * width).zip(scales.chunks(group));
    for (part, (keys, scales)) in groups.enumerate() {
        let mut all = [L::Sums::zero(); LANES];
        for (k, key) in keys.chunks_exact(width).enumerate() {
            let (chunks, tail) = key.as_chunks::<STEP>();
            fetch_ahead(key, KEYS_AHEAD * width);
            let mut sums = [L::Sums::zero(); R];
            for (step, key) in chunks.iter().enumerate() {
                let key = L::Sums::load(&widened(key));
                for r in 0..R {
                    sums[r] = sums[r].add_each(L::Sums::load(&queries[r][step]), key);
                }
            }
            if !tail.is_empty() {
                let mut last = [C::default(); STEP];
                last[..tail.len()].copy_from_slice(tail);
                let key = L::Sums::load(&widened(&last));
                for r in 0..R {
                    sums[r] = sums[r].add_each(L::Sums::load(&queries[r][steps - 1]), key);
                }
            }
            for r in 0..R {
                all[r * group + k] = sums[r];
            }
        }
        let totals = L::Sums::totals(&all);
        for r in 0..R {
            let out = &mut out[r * stride + part * group..][..scales.len()];
            let totals = &totals[r * group..][..group];
            for ((out, total), scale) in out.iter_mut().zip(totals).zip(scales) {
                *out = *total as f32 * of_rows[r] * scale;
            }
        }
    }
}

#[inline(always)]
fn weighted_i16_body<L: Lanes>(
    rows: Rows<'_>,
    values: &[i16],
    width: usize,
    sums: &mut [i32],
    out: &mut [f32],
) {
    weighted::<L, i16>(rows, values, width, sums, out);
}

#[inline(always)]
fn weighted_i8_body<L: Lanes>(
    rows: Rows<'_>,
    values: &[i8],
    width: usize,
    sums: &mut [i32],
    out: &mut [f32],
) {
    weighted::<L, i8>(rows, values, width, sums, out);
}

#[inline(always)]
fn weighted<L: Lanes, C: Code>(
    rows: Rows<'_>,
    values: &[C],
    width: usize,
    sums: &mut [i32],
    out: &mut [f32],
) {
    let (heads, stride) = (rows.scales.len(), width.next_multiple_of(LANES));
    assert!(values.len().is_multiple_of(width));
    assert!(sums.len() == heads * stride && out.len() == sums.len());
    sums.fill(0);
    for (part, values) in values.chunks(POSITIONS * width).enumerate() {
        let from = part * POSITIONS;
        fetch_ahead(values, POSITIONS * width);
        for at in (0..width).step_by(LANES) {
            let mut done = 0;
            while heads - done >= 4 {
                let sums = &mut sums[done * stride + at..];
                some_weighted::<L, C, 4>(rows, done, from, values, width, at, sums);
                done += 4;
            }
            while heads - done >= 2 {
                let sums = &mut sums[done * stride + at..];
                some_weighted::<L, C, 2>(rows, done, from, values, width, at, sums);
                done += 2;
            }
            while done < heads {
                let sums = &mut sums[done * stride + at..];
                some_weighted::<L, C, 1>(rows, done, from, values, width, at, sums);
                done += 1;
            }
        }
    }
    let each = sums.chunks_exact(stride).zip(out.chunks_exact_mut(stride));
    for ((sums, out), scale) in each.zip(rows.scales) {
        let scale = L::splat(*scale);
        for (sums, out) in sums.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
            L::round_i32(sums).mul(scale).store(out);
        }
    }
}

/// Adds what some values, of positions from `from` on, add to the sums of `R` rows from `first` on in the
/// dimensions from `at` on, as many as there are lanes.
#[inline(always)]
fn some_weighted<L: Lanes, C: Code, const R: usize>(
    rows: Rows<'_>,
    first: usize,
    from: usize,
    values: &[C],
    width: usize,
    at: usize,
    sums: &mut [i32],
) {
    let stride = width.next_multiple_of(LANES);
    let pairs = (values.len() / width).div_ceil(2);
    let mut weights = [&[][..]; R];
    let mut now = [L::Sums::zero(); R];
    for r in 0..R {
        let row = &rows.codes[(first + r) * rows.stride + from..];
        weights[r] = &row.as_chunks::<2>().0[..pairs];
        now[r] = L::Sums::of(sums[r * stride..].first_chunk().expect("a sum for each lane"));
    }
    for (pair, both) in values.chunks(2 * width).enumerate() {
        let (one, other) = both.split_at(width);
        let with = L::Sums::join(&widened(&sixteen(one, at)), &widened(&sixteen(other, at)));
        for r in 0..R {
            now[r] = now[r].add_products(&weights[r][pair], with);
        }
    }
    for r in 0..R {
        sums[r * stride..][..LANES].copy_from_slice(&now[r].get());
    }
}

/// Fetches what lies `distance` codes behind each of some.
#[inline(always)]
fn fetch_ahead<C>(codes: &[C], distance: usize) {
    for line in codes.chunks(64 / size_of::<C>()) {
        prefetch(line.as_ptr().wrapping_add(distance));
    }
}

/// Sixteen codes of a row from `at` on; behind its end there are zeros.
#[inline(always)]
fn sixteen<C: Code>(row: &[C], at: usize) -> [C; LANES] {
    match row.get(at..) {
        Some(rest) => rest.first_chunk().copied().unwrap_or_else(|| padded(rest)),
        None => [C::default(); LANES],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::fixed_attention::{
        Panels, key_panels, lay_out_keys_i8, lay_out_keys_i16, lay_out_values_i8,
        lay_out_values_i16, products, value_panels,
    };
    use crate::float::tests::{isas, values};

    /// Integers of mixed sign and magnitude.
    fn integers(n: usize, seed: u64) -> Vec<i16> {
        values(n, seed).iter().map(|x| (x * 100.0) as i16).collect()
    }

    #[test]
    fn rows_where_they_are_stored_give_what_panels_give() {
        for width in [1, 16, 30, 32, 50, 100, 128] {
            for heads in [0, 1, 3, 4, 5, 8] {
                for n in [1, 2, 15, 31, 32, 33, 70, 100] {
                    let (keys, stored) = (integers(n * width, 1), integers(n * width, 2));
                    let narrow = |x: &[i16]| x.iter().map(|&x| x as i8).collect::<Vec<i8>>();
                    let (small_keys, small) = (narrow(&keys), narrow(&stored));
                    let (row, line) = (width.next_multiple_of(STEP), width.next_multiple_of(LANES));
                    let mut queries = vec![0; heads * row];
                    for (i, query) in queries.chunks_exact_mut(row).enumerate() {
                        query[..width].copy_from_slice(&integers(width, 3 + i as u64));
                    }
                    let room = n.next_multiple_of(2);
                    let mut weights = vec![0; heads * room];
                    for (i, weights) in weights.chunks_exact_mut(room).enumerate() {
                        weights[..n].copy_from_slice(&integers(n, 30 + i as u64));
                    }
                    let (of_rows, of_keys) = (values(heads, 4), values(n, 5));
                    let mut of_lanes = of_keys.clone();
                    of_lanes.resize(n.next_multiple_of(LANES), 0.0);
                    for isa in isas() {
                        for eight in [false, true] {
                            let queries = Rows { codes: &queries, stride: row, scales: &of_rows };
                            let weights = Rows { codes: &weights, stride: room, scales: &of_rows };
                            let stride = n.next_multiple_of(LANES);
                            let mut wanted = vec![0.0; heads * stride];
                            let mut panels = vec![0; key_panels(n, width)];
                            match eight {
                                false => lay_out_keys_i16(isa, &keys, width, &mut panels),
                                true => lay_out_keys_i8(isa, &small_keys, width, &mut panels),
                            }
                            let (codes, pairs) = (&panels[..], width.div_ceil(2));
                            let panels =
                                Panels { codes, pairs, used: pairs, scales: Some(&of_lanes) };
                            products(isa, queries, panels, &mut wanted, stride);
                            let (mut found, scales) = (vec![0.0; heads * stride], &of_keys);
                            let out = &mut found;
                            match eight {
                                false => {
                                    scores_i16(isa, queries, &keys, width, scales, out, stride)
                                }
                                true => {
                                    scores_i8(
                                        isa,
                                        queries,
                                        &small_keys,
                                        width,
                                        scales,
                                        out,
                                        stride,
                                    );
                                }
                            }
                            let rows = found.chunks_exact(stride).zip(wanted.chunks_exact(stride));
                            for (found, wanted) in rows {
                                assert_eq!(found[..n], wanted[..n], "{width} {heads} {n}");
                            }

                            let mut wanted = vec![0.0; heads * line];
                            let mut panels = vec![0; value_panels(n, width)];
                            match eight {
                                false => lay_out_values_i16(isa, &stored, width, &mut panels),
                                true => lay_out_values_i8(isa, &small, width, &mut panels),
                            }
                            let pairs = room / 2;
                            let panels =
                                Panels { codes: &panels, pairs, used: pairs, scales: None };
                            products(isa, weights, panels, &mut wanted, line);
                            let (mut found, mut sums) =
                                (vec![7.0; heads * line], vec![7; heads * line]);
                            let (sums, out) = (&mut sums, &mut found);
                            match eight {
                                false => weighted_i16(isa, weights, &stored, width, sums, out),
                                true => weighted_i8(isa, weights, &small, width, sums, out),
                            }
                            assert_eq!(found, wanted, "{width} {heads} {n}");
                        }
                    }
                }
            }
        }
    }
}
