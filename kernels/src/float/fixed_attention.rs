//! Attention in integers: queries, and the weights of values, in sixteen bits, times keys and values that
//! are [stored as integers](super::stored). For a few query heads [`super::fixed_rows`] computes the same.
//!
//! Sums of products are exact, so they may be added in whatever order is fast, and all tokens that see a
//! chunk of positions share it. What they are multiplied with lies in *panels* of sixteen lanes:
//! keys with a position in each lane, two dimensions next to each other; values with a dimension in each
//! lane, two positions next to each other. A panel is read once for some rows of queries or of weights, of
//! which a pair is spread over all lanes.

use super::lanes::Sums;
use super::softmax::weight_lanes;
use super::stored::{Code, round, widened};
use super::{Lanes, instantiate, padded};
use crate::transpose::transposed;

/// Lanes of a panel.
pub const LANES: usize = 16;

/// Integers of a pair of every lane.
pub(super) const STEP: usize = 2 * LANES;

/// The largest sum of the weights of a chunk of positions, but for what rounding adds to it, at most half
/// for each position: times 32767 the sum is below 2^31.
const MOST_WEIGHT: f32 = 65_400.0;

/// Below this a common scale counts as 0: one over it would not be finite.
const LEAST_COMMON: f32 = 1e-37;

/// The most positions of a chunk: rounding adds at most 128 to the sum of their weights.
pub const MOST_POSITIONS: usize = 256;

/// Rows of integers, each with a scale.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// rows x stride
    pub codes: &'a [i16],
    /// From one row to the next.
    pub stride: usize,
    /// Of each row.
    pub scales: &'a [f32],
}

/// Panels of keys or of values.
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    /// panels x pairs x [`LANES`] x 2
    pub codes: &'a [i16],
    /// Of every lane.
    pub pairs: usize,
    /// Of these, how many are multiplied: the first ones.
    pub used: usize,
    /// Of each lane of each panel; none means 1.
    pub scales: Option<&'a [f32]>,
}

/// Integers of the panels of the keys of some positions.
pub const fn key_panels(positions: usize, width: usize) -> usize {
    positions.div_ceil(LANES) * width.div_ceil(2) * STEP
}

/// Integers of the panels of the values of some positions.
pub const fn value_panels(positions: usize, width: usize) -> usize {
    width.div_ceil(LANES) * positions.div_ceil(2) * STEP
}

instantiate! {
    /// Lays out keys, positions x width, as panels: lane `l` of panel `p` is position `16 p + l`. What
    /// there is no key for is 0.
    ///
    /// # Panics
    /// When `width` is 0, `keys` are not whole rows of it, or `panels` has another length than
    /// [`key_panels`].
    pub fn lay_out_keys_i16(keys: &[i16], width: usize, panels: &mut [i16]) = keys_i16_body;

    /// The same of keys in eight bits.
    ///
    /// # Panics
    /// As [`lay_out_keys_i16`].
    pub fn lay_out_keys_i8(keys: &[i8], width: usize, panels: &mut [i16]) = keys_i8_body;

    /// Lays out values, positions x width, as panels: lane `l` of panel `p` is dimension `16 p + l`. What
    /// there is no value for is 0.
    ///
    /// # Panics
    /// When `width` is 0, `values` are not whole rows of it, or `panels` has another length than
    /// [`value_panels`].
    pub fn lay_out_values_i16(values: &[i16], width: usize, panels: &mut [i16]) = values_i16_body;

    /// The same of values in eight bits.
    ///
    /// # Panics
    /// As [`lay_out_values_i16`].
    pub fn lay_out_values_i8(values: &[i8], width: usize, panels: &mut [i16]) = values_i8_body;

    /// `out[r * stride + l]` = the sum of the products of row `r` and lane `l`, a lane of all panels,
    /// times the scale of the row, times that of the lane. Every sum must stay within 32 bits. Without pairs
    /// nothing is written.
    ///
    /// # Panics
    /// When more pairs are used than there are, or a row, a scale or `out` is too short.
    pub fn products(rows: Rows<'_>, panels: Panels<'_>, out: &mut [f32], stride: usize) = products_body;

    /// Turns scores into the weights of values that have the scales `scales`: `exp(score - largest) *
    /// scale` over a common scale, rounded to nearest even. Returns the largest score, the sum of the
    /// exponentials, and the common scale; `None` when a score or a weight is not finite. The scores have no
    /// meaning afterwards.
    ///
    /// # Panics
    /// When there are more than [`MOST_POSITIONS`] scores, or `scales` or `weights` has another length.
    pub fn weigh(scores: &mut [f32], scales: &[f32], weights: &mut [i16]) -> Option<[f32; 3]> = weigh_body;
}

#[inline(always)]
fn keys_i16_body<L: Lanes>(keys: &[i16], width: usize, panels: &mut [i16]) {
    lay_out_keys(keys, width, panels);
}

#[inline(always)]
fn keys_i8_body<L: Lanes>(keys: &[i8], width: usize, panels: &mut [i16]) {
    lay_out_keys(keys, width, panels);
}

#[inline(always)]
fn lay_out_keys<C: Code>(keys: &[C], width: usize, panels: &mut [i16]) {
    let n = keys.len() / width;
    assert!(keys.len() == n * width && panels.len() == key_panels(n, width));
    let each = keys.chunks(LANES * width).zip(panels.chunks_exact_mut(width.div_ceil(2) * STEP));
    for (keys, panel) in each {
        // A square of as many pairs as lanes at a time.
        for (square, panel) in panel.as_chunks_mut::<STEP>().0.chunks_mut(LANES).enumerate() {
            let first = square * STEP;
            let mut rows = [[0.0; LANES]; LANES];
            for (row, key) in rows.iter_mut().zip(keys.chunks_exact(width)) {
                *row = as_pairs(match key[first..].first_chunk() {
                    Some(key) => widened(key),
                    None => {
                        let mut last = [C::default(); STEP];
                        last[..width - first].copy_from_slice(&key[first..]);
                        widened(&last)
                    }
                });
            }
            for (panel, column) in panel.iter_mut().zip(transposed(&rows)) {
                *panel = of_pairs(column);
            }
        }
    }
}

/// Pairs of integers as what a transposition moves.
#[inline(always)]
fn as_pairs(x: [i16; STEP]) -> [f32; LANES] {
    // SAFETY: both have the same size, and every bit pattern is a float.
    unsafe { std::mem::transmute(x) }
}

#[inline(always)]
fn of_pairs(x: [f32; LANES]) -> [i16; STEP] {
    // SAFETY: both have the same size, and every bit pattern is two integers.
    unsafe { std::mem::transmute(x) }
}

#[inline(always)]
fn values_i16_body<L: Lanes>(values: &[i16], width: usize, panels: &mut [i16]) {
    lay_out_values(values, width, panels);
}

#[inline(always)]
fn values_i8_body<L: Lanes>(values: &[i8], width: usize, panels: &mut [i16]) {
    lay_out_values(values, width, panels);
}

#[inline(always)]
fn lay_out_values<C: Code>(values: &[C], width: usize, panels: &mut [i16]) {
    let n = values.len() / width;
    assert!(values.len() == n * width && panels.len() == value_panels(n, width));
    let pairs = n.div_ceil(2);
    let (panels, _) = panels.as_chunks_mut::<STEP>();
    let none = [C::default(); LANES];
    for (pair, both) in values.chunks(2 * width).enumerate() {
        let (first, second) = both.split_at(width);
        let (firsts, first_tail) = first.as_chunks();
        let (seconds, second_tail) = second.as_chunks();
        let whole = firsts.len();
        for (index, first) in firsts.iter().enumerate() {
            let second = seconds.get(index).unwrap_or(&none);
            panels[index * pairs + pair] = interleaved(first, second);
        }
        if !first_tail.is_empty() {
            panels[whole * pairs + pair] = interleaved(&padded(first_tail), &padded(second_tail));
        }
    }
}

/// A pair for every lane: one of the first, one of the second.
#[inline(always)]
fn interleaved<C: Code>(first: &[C; LANES], second: &[C; LANES]) -> [i16; STEP] {
    let mut pairs = [0; STEP];
    for lane in 0..LANES {
        pairs[2 * lane] = first[lane].widen();
        pairs[2 * lane + 1] = second[lane].widen();
    }
    pairs
}

#[inline(always)]
fn products_body<L: Lanes>(rows: Rows<'_>, panels: Panels<'_>, out: &mut [f32], stride: usize) {
    if panels.used == 0 || rows.scales.is_empty() {
        return;
    }
    assert!(panels.used <= panels.pairs);
    let all = panels.codes.len() / (panels.pairs * STEP);
    let mut index = 0;
    // As many sums as there are registers for. A pair of a row is spread over all lanes once for two panels.
    while L::WIDE && all - index >= 2 {
        with_panels::<L, 8, 2>(rows, panels, index, out, stride);
        index += 2;
    }
    while index < all {
        match L::WIDE {
            true => with_panels::<L, 8, 1>(rows, panels, index, out, stride),
            false => with_panels::<L, 4, 1>(rows, panels, index, out, stride),
        }
        index += 1;
    }
}

/// The products of all rows with `P` panels from `index` on, `R` rows at a time.
#[inline(always)]
fn with_panels<L: Lanes, const R: usize, const P: usize>(
    rows: Rows<'_>,
    panels: Panels<'_>,
    index: usize,
    out: &mut [f32],
    stride: usize,
) {
    let mut codes = [&[][..]; P];
    let mut lanes = [L::splat(1.0); P];
    for p in 0..P {
        let panel = &panels.codes[(index + p) * panels.pairs * STEP..];
        codes[p] = &panel.as_chunks::<STEP>().0[..panels.used];
        if let Some(scales) = panels.scales {
            let scales = &scales[(index + p) * LANES..];
            lanes[p] = L::load(scales.first_chunk().expect("a panel's scales"));
        }
    }
    let mut done = 0;
    let mut out = &mut out[index * LANES..];
    while rows.scales.len() - done >= R {
        out = some_products::<L, R, P>(rows, done, codes, lanes, out, stride);
        done += R;
    }
    while R > 4 && rows.scales.len() - done >= 4 {
        out = some_products::<L, 4, P>(rows, done, codes, lanes, out, stride);
        done += 4;
    }
    while done < rows.scales.len() {
        out = some_products::<L, 1, P>(rows, done, codes, lanes, out, stride);
        done += 1;
    }
}

/// The products of `R` rows from `first` on with `P` panels of as many pairs; returns the results of the
/// rows behind them.
#[inline(always)]
fn some_products<'a, L: Lanes, const R: usize, const P: usize>(
    rows: Rows<'_>,
    first: usize,
    panels: [&[[i16; STEP]]; P],
    lanes: [L; P],
    out: &'a mut [f32],
    stride: usize,
) -> &'a mut [f32] {
    let used = panels[0].len();
    let mut pairs = [&[][..]; R];
    for (r, pairs) in pairs.iter_mut().enumerate() {
        // One check of the length here instead of one in every step.
        *pairs = &rows.codes[(first + r) * rows.stride..].as_chunks::<2>().0[..used];
    }
    let mut twos = [&[][..]; P];
    for (twos, panel) in twos.iter_mut().zip(panels) {
        *twos = &panel.as_chunks::<2>().0[..used / 2];
    }
    let mut sums = [[L::Sums::zero(); P]; R];
    // Two at a time: where to read the pairs of rows is then computed half as often.
    for index in 0..used / 2 {
        for at in 0..2 {
            let mut with = [L::Sums::load(&twos[0][index][at]); P];
            for p in 1..P {
                with[p] = L::Sums::load(&twos[p][index][at]);
            }
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = sums[r][p].add_products(&pairs[r][2 * index + at], with[p]);
                }
            }
        }
    }
    if !used.is_multiple_of(2) {
        for r in 0..R {
            for p in 0..P {
                let with = L::Sums::load(&panels[p][used - 1]);
                sums[r][p] = sums[r][p].add_products(&pairs[r][used - 1], with);
            }
        }
    }
    for r in 0..R {
        let row = L::splat(rows.scales[first + r]);
        let out = out[r * stride..].as_chunks_mut().0;
        for p in 0..P {
            let scaled = L::round_i32(&sums[r][p].get()).mul(row).mul(lanes[p]);
            scaled.store(&mut out[p]);
        }
    }
    out.get_mut(R * stride..).unwrap_or_default()
}

#[inline(always)]
fn weigh_body<L: Lanes>(
    scores: &mut [f32],
    scales: &[f32],
    weights: &mut [i16],
) -> Option<[f32; 3]> {
    assert!(scores.len() <= MOST_POSITIONS);
    assert!(scales.len() == scores.len() && weights.len() == scores.len());
    let (score_chunks, score_tail) = scores.as_chunks_mut::<LANES>();
    let (scale_chunks, scale_tail) = scales.as_chunks::<LANES>();
    let (weight_chunks, weight_tail) = weights.as_chunks_mut::<LANES>();
    let n = score_tail.len();
    // What is behind the last score has no weight.
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..n].copy_from_slice(score_tail);
    let last_scale: L = L::load(&padded(scale_tail));

    let mut largest = L::load(&last);
    // A zero for finite scores and NaN otherwise.
    let mut zeros = L::load(&padded(score_tail)).mul(L::splat(0.0));
    for x in &*score_chunks {
        let x = L::load(x);
        largest = x.max(largest);
        zeros = zeros.add(x.mul(L::splat(0.0)));
    }
    let largest = largest.largest();
    if zeros.sum() != 0.0 {
        return None;
    }

    let shift = L::splat(largest);
    let mut totals = [L::splat(0.0); 3];
    for (x, scale) in score_chunks.iter_mut().zip(scale_chunks) {
        scale_exponentials(x, shift, L::load(scale), &mut totals);
    }
    if n > 0 {
        scale_exponentials(&mut last, shift, last_scale, &mut totals);
    }
    let [total, weight, most] = totals;
    let (weight, most) = (weight.sum(), most.largest());
    if !weight.is_finite() {
        return None;
    }
    let (by_sum, by_value) = (weight / MOST_WEIGHT, most / i16::MOST);
    let common = if by_sum > by_value { by_sum } else { by_value };
    let inverse = L::splat(if common < LEAST_COMMON { 0.0 } else { 1.0 / common });
    for (x, weights) in score_chunks.iter().zip(weight_chunks) {
        round(L::load(x), inverse, weights);
    }
    if n > 0 {
        let mut codes = [0; LANES];
        round(L::load(&last), inverse, &mut codes);
        weight_tail.copy_from_slice(&codes[..n]);
    }
    Some([largest, total.sum(), common])
}

/// `x = exp(x - shift) * scale`; adds the exponentials and the products to the totals, of which the last is
/// the largest product.
#[inline(always)]
fn scale_exponentials<L: Lanes>(x: &mut [f32; LANES], shift: L, scale: L, totals: &mut [L; 3]) {
    let e = weight_lanes(L::load(x).sub(shift));
    let scaled = e.mul(scale);
    totals[0] = totals[0].add(e);
    totals[1] = totals[1].add(scaled);
    totals[2] = scaled.max(totals[2]);
    scaled.store(x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{isas, same_on_every_isa, values};

    /// Integers of mixed sign and magnitude.
    fn integers(n: usize, seed: u64) -> Vec<i16> {
        values(n, seed).iter().map(|x| (x * 500.0) as i16).collect()
    }

    #[test]
    fn panels_have_every_integer_in_its_lane() {
        for width in [1, 2, 16, 30, 32, 50, 100, 128] {
            for n in [0, 1, 2, 15, 16, 17, 40] {
                let rows = integers(n * width, 5);
                let bytes: Vec<i8> = rows.iter().map(|&x| x as i8).collect();
                let narrow: Vec<i16> = bytes.iter().map(|&x| x.into()).collect();
                let at = |rows: &[i16], row: usize, column: usize| {
                    if row < n && column < width { rows[row * width + column] } else { 0 }
                };
                for isa in isas() {
                    let mut keys = [vec![7; key_panels(n, width)], vec![7; key_panels(n, width)]];
                    lay_out_keys_i16(isa, &rows, width, &mut keys[0]);
                    lay_out_keys_i8(isa, &bytes, width, &mut keys[1]);
                    let mut sums =
                        [vec![7; value_panels(n, width)], vec![7; value_panels(n, width)]];
                    lay_out_values_i16(isa, &rows, width, &mut sums[0]);
                    lay_out_values_i8(isa, &bytes, width, &mut sums[1]);
                    for (rows, (keys, sums)) in [&rows, &narrow].iter().zip(keys.iter().zip(&sums))
                    {
                        let pairs = width.div_ceil(2);
                        for (i, &code) in keys.iter().enumerate() {
                            let (panel, pair) = (i / STEP / pairs, i / STEP % pairs);
                            let lane = i % STEP / 2;
                            assert_eq!(code, at(rows, panel * LANES + lane, 2 * pair + i % 2));
                        }
                        let pairs = n.div_ceil(2);
                        for (i, &code) in sums.iter().enumerate() {
                            let (panel, pair) = (i / STEP / pairs, i / STEP % pairs);
                            let lane = i % STEP / 2;
                            assert_eq!(code, at(rows, 2 * pair + i % 2, panel * LANES + lane));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_exact_on_every_isa() {
        for rows in [0, 1, 3, 4, 5, 6, 7, 8, 9, 13, 20] {
            for (panels, pairs) in [(0, 3), (1, 1), (1, 50), (3, 64), (3, 15), (5, 1), (2, 0)] {
                let (stride, out_stride) = (2 * pairs + 3, panels * LANES + 5);
                let (a, b) = (integers(rows * stride, 1), integers(panels * pairs * STEP, 2));
                let (row_scales, lane_scales) = (values(rows, 3), values(panels * LANES, 4));
                same_on_every_isa(|isa| {
                    let mut both = Vec::new();
                    let whole = [(Some(&lane_scales[..]), pairs), (None, pairs)];
                    for (scales, used) in whole.into_iter().chain([(None, pairs / 2)]) {
                        let mut out = vec![7.0; rows * out_stride];
                        let left = Rows { codes: &a, stride, scales: &row_scales };
                        let right = Panels { codes: &b, pairs, used, scales };
                        products(isa, left, right, &mut out, out_stride);
                        for (i, &out) in out.iter().enumerate() {
                            let (row, lane) = (i / out_stride, i % out_stride);
                            if lane >= panels * LANES || used == 0 {
                                assert_eq!(out, 7.0);
                                continue;
                            }
                            let panel = &b[lane / LANES * pairs * STEP..][..pairs * STEP];
                            let of_lane = |j: usize| panel[j / 2 * STEP + lane % LANES * 2 + j % 2];
                            let sum: i32 = (0..2 * used)
                                .map(|j| i32::from(a[row * stride + j]) * i32::from(of_lane(j)))
                                .sum();
                            let scale = scales.map_or(1.0, |scales| scales[lane]);
                            assert_eq!(out, sum as f32 * row_scales[row] * scale);
                        }
                        both.extend(out);
                    }
                    both
                });
            }
        }
    }

    #[test]
    fn the_largest_integers_do_not_overflow() {
        let isas = isas();
        let (row, panel) = (vec![i16::MAX; 2], vec![-i16::MAX; STEP]);
        for isa in isas {
            let mut out = [0.0; LANES];
            let rows = Rows { codes: &row, stride: 2, scales: &[1.0] };
            let panels = Panels { codes: &panel, pairs: 1, used: 1, scales: None };
            products(isa, rows, panels, &mut out, LANES);
            assert_eq!(out, [-2.0 * 32767.0 * 32767.0; LANES]);
        }
    }

    #[test]
    fn weights_are_near_and_their_sum_has_room() {
        for n in [1, 2, 15, 16, 17, 100, 255, 256] {
            for spread in [0.0, 0.01, 1.0, 40.0] {
                let scores: Vec<f32> = values(n, 9).iter().map(|x| x * spread - 3.0).collect();
                let scales: Vec<f32> = values(n, 8).iter().map(|x| x.abs() + 0.01).collect();
                same_on_every_isa(|isa| {
                    let (mut x, mut weights) = (scores.clone(), vec![7; n]);
                    let [largest, total, common] =
                        weigh(isa, &mut x, &scales, &mut weights).unwrap();
                    assert_eq!(largest, scores.iter().copied().fold(f32::MIN, f32::max));
                    let exact = |i: usize| f64::from(scores[i] - largest).exp();
                    let sum: f64 = (0..n).map(exact).sum();
                    assert!((f64::from(total) - sum).abs() <= 1e-5 * sum);
                    for (i, &weight) in weights.iter().enumerate() {
                        let wanted = exact(i) * f64::from(scales[i]);
                        let near = f64::from(weight) * f64::from(common);
                        let rounding = f64::from(common) * 0.5 + wanted * 2f64.powi(-17);
                        assert!((near - wanted).abs() <= rounding, "{near} {wanted}");
                        assert!(weight >= 0);
                    }
                    let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
                    assert!(sum * 32767 < 1 << 31);
                    // As fine as the sum or the largest one leaves room for.
                    let most = weights.iter().copied().max().unwrap();
                    assert!(sum > 65_000 || most > 32_000, "{sum} {most}");
                    let codes = weights.into_iter().map(f32::from);
                    codes.chain([largest, total, common]).collect()
                });
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_reported_and_nothing_weighs_nothing() {
        for isa in isas() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for n in [1, 16, 20] {
                    let (mut scores, mut scales) = (vec![1.0; n], vec![1.0; n]);
                    let mut weights = vec![0; n];
                    scores[n - 1] = bad;
                    assert_eq!(weigh(isa, &mut scores, &scales, &mut weights), None);
                    scales[n - 1] = bad;
                    assert_eq!(weigh(isa, &mut vec![1.0; n], &scales, &mut weights), None);
                }
            }
            let mut weights = [7; 20];
            let told = weigh(isa, &mut [0.0; 20], &[0.0; 20], &mut weights);
            assert_eq!((told, weights), (Some([0.0, 20.0, 0.0]), [0; 20]));
        }
    }
}
