//! Sequences of AVX-512 instructions that generated kernels share.

use core::arch::x86_64::*;

/// Bytes times 3, modulo 256.
///
/// # Safety
/// Outside of functions with AVX-512 F and BW enabled, the CPU must be known to support them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn triple(v: __m512i) -> __m512i {
    let mut triple = _mm512_add_epi8(_mm512_add_epi8(v, v), v);
    // Hides what the value is: two triples in a row would become a product with 9, for which there is
    // no instruction on bytes, only longer sequences.
    // SAFETY: no instruction at all; the value stays where it is.
    unsafe {
        core::arch::asm!("/* {} */", inout(zmm_reg) triple, options(pure, nomem, nostack, preserves_flags));
    }
    triple
}
