//! Sequences of AVX2 instructions that generated kernels share.

use core::arch::x86_64::*;

/// The sum of eight int32 lanes.
///
/// # Safety
/// Outside of functions with AVX2 enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "avx2")]
pub fn sum(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v));
    _mm_cvtsi128_si32(v)
}

/// The sums of the eight int32 lanes of each of four vectors, less a number.
///
/// # Safety
/// Outside of functions with AVX2 enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "avx2")]
pub fn sums(a: __m256i, b: __m256i, c: __m256i, d: __m256i, minus: i32) -> [i32; 4] {
    let pairs = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (ab, cd) = (pairs(a, b), pairs(c, d));
    // Each 16-byte lane has a part of all four sums.
    let parts = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(parts), _mm256_extracti128_si256::<1>(parts));
    let sums = _mm_sub_epi32(sums, _mm_set1_epi32(minus));
    let mut out = [0; 4];
    // SAFETY: 16 bytes are stored to an array of as many.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sums) };
    out
}

/// Bit `i` of `bits` widened to byte `i`: 0x00 or 0xff.
///
/// # Safety
/// Outside of functions with AVX2 enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "avx2")]
pub fn expand_bits(bits: i32) -> __m256i {
    // Byte i of the shuffle is the byte of `bits` that holds bit i.
    let holders =
        _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), holders);
    let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select)
}

/// Bytes times 3, modulo 256.
///
/// # Safety
/// Outside of functions with AVX2 enabled, the CPU must be known to support it.
#[inline]
#[target_feature(enable = "avx2")]
pub fn triple(v: __m256i) -> __m256i {
    let mut triple = _mm256_add_epi8(_mm256_add_epi8(v, v), v);
    // Hides what the value is: two triples in a row would become a product with 9, for which there is
    // no instruction on bytes, only longer sequences.
    // SAFETY: no instruction at all; the value stays where it is.
    unsafe {
        core::arch::asm!("/* {} */", inout(ymm_reg) triple, options(pure, nomem, nostack, preserves_flags));
    }
    triple
}
