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

/// The leading base-3 digit of flipped bytes: with `x = v ^ 0x80`, `3 x / 256`.
///
/// # Safety
/// Outside of functions with AVX-512 F and BW enabled, the CPU must be known to support them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn digit(v: __m512i) -> __m512i {
    // x > 85 and x > 170, as signed comparisons of the flipped bytes.
    let one = _mm512_cmpgt_epi8_mask(v, _mm512_set1_epi8(-43));
    let two = _mm512_cmpgt_epi8_mask(v, _mm512_set1_epi8(42));
    let digit = _mm512_maskz_mov_epi8(one, _mm512_set1_epi8(1));
    _mm512_mask_mov_epi8(digit, two, _mm512_set1_epi8(2))
}

/// The sums of the sixteen int32 lanes of each of four vectors, less a number.
///
/// # Safety
/// Outside of functions with AVX-512 F and AVX2 enabled, the CPU must be known to support them.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
pub fn sums(a: __m512i, b: __m512i, c: __m512i, d: __m512i, minus: i32) -> [i32; 4] {
    let pairs = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (pairs(a, b), pairs(c, d));
    // Each 16-byte lane has a part of all four sums.
    let parts = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let low = _mm512_castsi512_si256(parts);
    let half = _mm256_add_epi32(low, _mm512_extracti64x4_epi64::<1>(parts));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    let sums = _mm_sub_epi32(sums, _mm_set1_epi32(minus));
    let mut out = [0; 4];
    // SAFETY: 16 bytes are stored to an array of as many.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sums) };
    out
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
