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

/// Bytes through a table.
///
/// # Safety
/// Outside of functions with AVX-512 F, BW and VBMI enabled, the CPU must be known to support them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub fn map(a: __m512i, table: &[u8; 256]) -> __m512i {
    let (quarters, _) = table.as_chunks::<64>();
    // SAFETY: 64 bytes are loaded from an array of as many.
    let quarter = |i: usize| unsafe { _mm512_loadu_si512(quarters[i].as_ptr().cast()) };
    let low = _mm512_permutex2var_epi8(quarter(0), a, quarter(1));
    let high = _mm512_permutex2var_epi8(quarter(2), a, quarter(3));
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(a), low, high)
}
