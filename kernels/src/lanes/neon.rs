//! The op sequences of NEON on 16-byte arrays, instruction by instruction.
//!
//! NEON kernels spell the same sequences with intrinsics (`asimd`, `dotprod`, `i8mm`); here every host executes
//! them.

// One instruction each, with the meaning that is written there: `ushr` and `and`, `usdot` (`sdot` needs the
// top plane shifted down first), `sadalp`, `saddw` and `saddw2`, `add`, `sub`, `eor`, `sshr`, `addv`,
// `ld1`, `ld1r`, `sxtl` after `ld1`, `zip1` and `zip2`, `smmla`, and `ld1` of halves.
pub use super::portable::{
    add_i16, add_i32, broadcast, dot, expand_bits, field, flip, interleave, join, load, load_lanes,
    load_pair, load_tokens, load_two, mat_mul, shift_right, store_rows, sub_i16, sub_i32, sum,
    table, widen_half, widen_pairs, xor,
};
use std::array::from_fn;

/// `smull`: products of one half of two signed byte vectors.
fn smull<const W: usize, const H: usize>(a: [u8; W], b: [u8; W], upper: bool) -> [i16; H] {
    let from = usize::from(upper) * H;
    from_fn(|i| i16::from(a[from + i] as i8) * i16::from(b[from + i] as i8))
}

/// `addp`: sums of neighbouring lanes of two vectors, one after the other.
fn addp<const H: usize>(a: [i16; H], b: [i16; H]) -> [i16; H] {
    let pair = |v: &[i16; H], i: usize| v[2 * i].wrapping_add(v[2 * i + 1]);
    from_fn(|i| if i < H / 2 { pair(&a, i) } else { pair(&b, i - H / 2) })
}

/// `smull`, `smull2`, `addp`: codes are below 128, so signed products are right.
#[inline(always)]
pub fn mul_add_pairs<const W: usize, const H: usize>(codes: [u8; W], q: [u8; W]) -> [i16; H] {
    addp::<H>(smull(codes, q, false), smull(codes, q, true))
}

/// `smull`, `smlal2`: pairs are eight bytes apart.
#[inline(always)]
pub fn mul_add_any<const W: usize, const H: usize>(codes: [u8; W], q: [u8; W]) -> [i16; H] {
    let (low, high) = (smull::<W, H>(codes, q, false), smull::<W, H>(codes, q, true));
    from_fn(|i| low[i].wrapping_add(high[i]))
}

/// `add` twice: sums modulo 256.
#[inline(always)]
pub fn triple<const W: usize>(a: [u8; W]) -> [u8; W] {
    let twice: [u8; W] = from_fn(|i| a[i].wrapping_add(a[i]));
    from_fn(|i| twice[i].wrapping_add(a[i]))
}

/// `cmgt` twice, -1 where x > 85 and where x > 170 of x = a ^ 0x80; `add`, `abs`.
#[inline(always)]
pub fn digit<const W: usize>(a: [u8; W]) -> [u8; W] {
    let above = |a: u8, limit: i8| -i8::from(a as i8 > limit);
    a.map(|a| (above(a, -43) + above(a, 42)).unsigned_abs())
}

/// `tbl`: an index past the table gives 0.
#[inline(always)]
pub fn lookup<const W: usize>(table: [u8; W], index: [u8; W]) -> [u8; W] {
    from_fn(|i| table.get(usize::from(index[i])).copied().unwrap_or(0))
}
