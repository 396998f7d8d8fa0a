//! The op sequences of AVX-512 (BW and VNNI) on 64-byte arrays, instruction by instruction.
//!
//! An AVX-512 kernel will spell the same sequences with intrinsics; here every host executes them.

pub use super::portable::{
    add_i16, add_i32, broadcast, load, load_lanes, load_tokens, shift_right, sub_i16, sub_i32, sum,
    widen_half,
};
use std::array::from_fn;

/// `vmovdqu64` of the lower 32 bytes under a zeroing mask.
#[inline(always)]
pub fn load_low<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    let mut v = [0; W];
    v[..W / 2].copy_from_slice(&bytes[at..at + W / 2]);
    v
}

/// `vmovdqu`, then `vinserti64x4` from the next block.
#[inline(always)]
pub fn load_two_blocks<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    let mut v = [0; W];
    v[..32].copy_from_slice(&bytes[at..at + 32]);
    v[32..].copy_from_slice(&bytes[at + 128..at + 160]);
    v
}

/// `vpsrlw` and `vpandq`: the shift is on 16-bit lanes, the mask drops what the neighbour shifts in.
#[inline(always)]
pub fn field<const W: usize>(a: [u8; W], shift: u32, mask: u8) -> [u8; W] {
    from_fn(|i| {
        let word = u16::from_le_bytes([a[i & !1], a[i | 1]]) >> shift;
        word.to_le_bytes()[i & 1] & mask
    })
}

/// `vpmaddubsw`: sums of two products, saturating.
#[inline(always)]
pub fn mul_add_pairs<const W: usize, const H: usize>(codes: [u8; W], q: [u8; W]) -> [i16; H] {
    let product = |i: usize| i32::from(codes[i]) * i32::from(q[i] as i8);
    from_fn(|i| (product(2 * i) + product(2 * i + 1)).clamp(-32768, 32767) as i16)
}

/// `vpdpbusd`: sums of four products added to int32, not saturating.
#[inline(always)]
pub fn dot<const W: usize, const D: usize>(acc: [i32; D], codes: [u8; W], q: [u8; W]) -> [i32; D] {
    let product = |i: usize| i32::from(codes[i]) * i32::from(q[i] as i8);
    from_fn(|i| acc[i].wrapping_add((0..4).map(|j| product(4 * i + j)).sum()))
}

/// `vpmaddwd` with ones, `vpaddd`.
#[inline(always)]
pub fn widen_pairs<const H: usize, const D: usize>(acc: [i32; D], a: [i16; H]) -> [i32; D] {
    let madd: [i32; D] = from_fn(|i| i32::from(a[2 * i]) + i32::from(a[2 * i + 1]));
    from_fn(|i| acc[i].wrapping_add(madd[i]))
}
