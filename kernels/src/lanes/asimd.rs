//! Sequences of NEON (Advanced SIMD) instructions that generated kernels share.

use core::arch::aarch64::*;

/// Bit `i` of `bits` widened to byte `i`: 0x00 or 0xff.
///
/// # Safety
/// Outside of functions with NEON enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "neon")]
pub fn expand_bits(bits: u16) -> uint8x16_t {
    // Byte i of the lookup is the byte of `bits` that holds bit i.
    let holders = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
    let bytes = vqtbl1q_u8(vreinterpretq_u8_u16(vdupq_n_u16(bits)), holders);
    vtstq_u8(bytes, vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201)))
}

/// The leading base-3 digit of flipped bytes: with `x = a ^ 0x80`, `3 x / 256`.
///
/// # Safety
/// Outside of functions with NEON enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "neon")]
pub fn digit(a: uint8x16_t) -> uint8x16_t {
    // x > 85 and x > 170, as signed comparisons; each gives -1.
    let a = vreinterpretq_s8_u8(a);
    let above = |limit| vreinterpretq_s8_u8(vcgtq_s8(a, vdupq_n_s8(limit)));
    let mut digit = vreinterpretq_u8_s8(vabsq_s8(vaddq_s8(above(-43), above(42))));
    // Hides that digits have no sign: knowing it, the compiler widens them apart from the activations
    // instead of multiplying bytes.
    // SAFETY: no instruction at all; the value stays where it is.
    unsafe {
        core::arch::asm!("/* {:v} */", inout(vreg) digit, options(pure, nomem, nostack, preserves_flags));
    }
    digit
}

/// Products of one half of codes below 128 and activations.
#[inline]
#[target_feature(enable = "neon")]
fn products(codes: uint8x16_t, q: uint8x16_t) -> (int16x8_t, int16x8_t) {
    let (codes, q) = (vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(q));
    (vmull_s8(vget_low_s8(codes), vget_low_s8(q)), vmull_high_s8(codes, q))
}

/// Sums of neighbouring products of codes below 128 and signed `q`: `smull`, `smull2`, `addp`.
///
/// # Safety
/// Outside of functions with NEON enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "neon")]
pub fn mul_add_pairs(codes: uint8x16_t, q: uint8x16_t) -> int16x8_t {
    let (low, high) = products(codes, q);
    vpaddq_s16(low, high)
}

/// Sums of products of codes below 128 and signed `q`, eight bytes apart: `smull`, `smlal2`; both are
/// multiply-accumulates where the sum is added to another.
///
/// # Safety
/// Outside of functions with NEON enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "neon")]
pub fn mul_add_any(codes: uint8x16_t, q: uint8x16_t) -> int16x8_t {
    let (low, high) = products(codes, q);
    vaddq_s16(low, high)
}

/// Asks for the cache line at an address, which may be any.
///
/// # Safety
/// Outside of functions with NEON enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "neon")]
pub fn prefetch(at: *const u8) {
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
}
