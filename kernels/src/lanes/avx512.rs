//! The op sequences of AVX-512 (BW and VNNI) on 64-byte arrays, instruction by instruction, so that every
//! host executes what an AVX-512 kernel does.

pub use super::portable::{
    add_i16, add_i32, broadcast, load, load_lanes, load_tokens, shift_right, sub_i16, sub_i32, sum,
    widen_half,
};
use std::array::from_fn;

/// `vmovdqu` of the lower 32 bytes, which clears the upper ones.
#[inline(always)]
pub fn load_low<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    let mut v = [0; W];
    v[..W / 2].copy_from_slice(&bytes[at..at + W / 2]);
    v
}

/// `vpsrlw` and `vpandq`: what comes down from the neighbouring byte is masked away.
#[inline(always)]
pub fn field<const W: usize>(a: [u8; W], shift: u32, mask: u8) -> [u8; W] {
    assert!(u32::from(mask) << shift <= 255, "the field is inside its byte");
    from_fn(|i| {
        let pair = u16::from_le_bytes([a[i & !1], a[i | 1]]) >> shift;
        pair.to_le_bytes()[i & 1] & mask
    })
}

/// `vpxorq` with the top bit.
#[inline(always)]
pub fn flip<const W: usize>(a: [u8; W]) -> [u8; W] {
    a.map(|a| a ^ 0x80)
}

/// `vpcmpgtb` to masks twice, where x > 85 and where x > 170 of x = a ^ 0x80; `vmovdqu8` of 1 and of 2 under
/// them.
#[inline(always)]
pub fn digit<const W: usize>(a: [u8; W]) -> [u8; W] {
    let (one, two) = (a.map(|a| a as i8 > -43), a.map(|a| a as i8 > 42));
    from_fn(|i| if two[i] { 2 } else { u8::from(one[i]) })
}

/// `vpaddb` twice: sums modulo 256.
#[inline(always)]
pub fn triple<const W: usize>(a: [u8; W]) -> [u8; W] {
    let twice: [u8; W] = from_fn(|i| a[i].wrapping_add(a[i]));
    from_fn(|i| twice[i].wrapping_add(a[i]))
}

/// `vpermi2b` in each half of the table, by the low 7 bits; `vpmovb2m` and `vpblendmb` by the top bit.
#[inline(always)]
pub fn map<const W: usize>(a: [u8; W], table: &[u8; 256]) -> [u8; W] {
    let (low, high) = table.split_at(128);
    let permute = |half: &[u8]| -> [u8; W] { from_fn(|i| half[usize::from(a[i] & 127)]) };
    let (low, high) = (permute(low), permute(high));
    from_fn(|i| if a[i] >> 7 == 1 { high[i] } else { low[i] })
}

/// `vpdpbusd`: sums of four products added to int32, not saturating.
#[inline(always)]
pub fn dot<const W: usize, const D: usize>(acc: [i32; D], codes: [u8; W], q: [u8; W]) -> [i32; D] {
    let product = |i: usize| i32::from(codes[i]) * i32::from(q[i] as i8);
    from_fn(|i| acc[i].wrapping_add((0..4).map(|j| product(4 * i + j)).sum()))
}
