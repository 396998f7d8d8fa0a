//! The dot-product extension of AArch64. Its intrinsics are not stable yet.

use core::arch::aarch64::*;
use core::arch::asm;

/// `acc` plus sums of four neighbouring products of signed codes and signed `q`, wrapping.
///
/// # Safety
/// Outside of functions with NEON and dot products enabled, the CPU must be known to support them.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub fn dot(mut acc: int32x4_t, codes: uint8x16_t, q: uint8x16_t) -> int32x4_t {
    // SAFETY: registers alone; the function's features include the instruction.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {codes:v}.16b, {q:v}.16b",
            acc = inout(vreg) acc, codes = in(vreg) codes, q = in(vreg) q,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}
