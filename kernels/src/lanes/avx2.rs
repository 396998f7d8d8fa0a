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
