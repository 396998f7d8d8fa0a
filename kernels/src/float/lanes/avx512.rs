//! The lanes as one 512-bit register: AVX-512 F, BW and VL.

use super::Lanes;
use super::avx2::{largest_of_eight, sum_of_eight};
use crate::{Isa, Supported};
use half::f16;
use std::arch::x86_64::*;

/// Whether the proof covers AVX-512 F, BW and VL.
#[inline(always)]
pub(crate) fn has_avx512(isa: Supported) -> bool {
    isa.isa() == Isa::Avx512
}

/// The lanes as one 512-bit register.
///
/// Private to instances made by `instantiate!`: every block below relies on the calling function
/// having been reached through a proof of AVX-512 F, BW and VL.
#[derive(Clone, Copy)]
pub(crate) struct Zmm(__m512);

impl Zmm {
    /// Lanes 0..8 and 8..16.
    #[inline(always)]
    fn halves(self) -> (__m256, __m256) {
        // SAFETY: AVX-512 was proven, see the type.
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            (_mm512_castps512_ps256(self.0), _mm256_castpd_ps(high))
        }
    }
}

impl Lanes for Zmm {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        // SAFETY: AVX-512 was proven, see the type; the load is of the 16 elements.
        Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn widen(x: &[f16; 16]) -> Self {
        // SAFETY: AVX-512 was proven, see the type; the load is of the 16 elements.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) })
    }

    #[inline(always)]
    fn splat_f16(value: f16) -> Self {
        // SAFETY: AVX-512 and, with it, F16C were proven, see the type.
        unsafe {
            let wide = _mm_cvtph_ps(_mm_cvtsi32_si128(value.to_bits().into()));
            Self(_mm512_broadcastss_ps(wide))
        }
    }

    #[inline(always)]
    fn widen_i8(x: &[i8; 16]) -> Self {
        // SAFETY: AVX-512 was proven, see the type; the load is of the 16 elements.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
        }
    }

    #[inline(always)]
    fn codes_q6(low: &[u8; 64], high: &[u8; 32], codes: &mut [[i8; 16]; 8]) {
        // SAFETY: AVX-512 was proven, see the type; the loads are of all bytes, the stores of 64 of
        // the 128.
        unsafe {
            let low = _mm512_loadu_si512(low.as_ptr().cast());
            let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(high.as_ptr().cast()));
            let (nibble, pair) = (_mm512_set1_epi8(0x0F), _mm512_set1_epi8(0x30));
            let offset = _mm512_set1_epi8(32);
            // Each half of `high` has its own pair of bits. Words are shifted: what crosses into a
            // neighbouring byte is masked away.
            let shifts = |first, second| {
                _mm512_inserti64x4::<1>(_mm512_set1_epi16(first), _mm256_set1_epi16(second))
            };
            let parts = [
                (low, _mm512_sllv_epi16(high, shifts(4, 2))),
                (_mm512_srli_epi16::<4>(low), _mm512_srlv_epi16(high, shifts(0, 2))),
            ];
            for (i, (low, high)) in parts.into_iter().enumerate() {
                // high | (low & nibble)
                let high = _mm512_and_si512(high, pair);
                let code = _mm512_ternarylogic_epi32::<0xF8>(high, low, nibble);
                let at = codes.as_mut_ptr().add(4 * i).cast();
                _mm512_storeu_si512(at, _mm512_sub_epi8(code, offset));
            }
        }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; 16]) {
        // SAFETY: AVX-512 was proven, see the type; the store is of the 16 elements.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn narrow(self, out: &mut [f16; 16]) {
        // SAFETY: AVX-512 was proven, see the type; the store is of the 16 elements.
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn round_i8(self, out: &mut [i8; 16]) {
        // SAFETY: AVX-512 was proven, see the type; the store is of 16 bytes. Conversion rounds to
        // nearest even, the mode that Rust code always runs in.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
            let one = _mm512_set1_epi32(0x3F80_0000);
            Self(_mm512_castsi512_ps(_mm512_add_epi32(exponent, one)))
        }
    }

    #[inline(always)]
    fn keep_at_least(self, key: Self, limit: f32) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(key.0, _mm512_set1_ps(limit));
            Self(_mm512_maskz_mov_ps(kept, self.0))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let (low, high) = self.halves();
        // SAFETY: AVX-512 was proven, see the type.
        unsafe { sum_of_eight(_mm256_add_ps(low, high)) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let (low, high) = self.halves();
        // SAFETY: AVX-512 was proven, see the type.
        unsafe { largest_of_eight(_mm256_max_ps(low, high)) }
    }
}
