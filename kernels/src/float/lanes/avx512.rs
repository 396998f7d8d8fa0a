//! The lanes as one 512-bit register: AVX-512 F, BW, VL and VNNI.

use super::avx2::{HalfYmm, largest_of_eight, sum_of_eight};
use super::sums::{SumsZmm, add_pairs};
use super::{Lanes, part};
use crate::{Isa, Supported};
use half::f16;
use std::arch::x86_64::*;

/// Whether the proof covers AVX-512 F, BW, VL and VNNI.
#[inline(always)]
pub(crate) fn has_avx512(isa: Supported) -> bool {
    matches!(isa.isa(), Isa::Avx512 | Isa::Avx512Vbmi)
}

/// The lanes as one 512-bit register.
///
/// Private to instances made by `instantiate!`: every block below relies on the calling function
/// having been reached through a proof of AVX-512 F, BW, VL and VNNI.
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
    const WIDE: bool = true;

    type Half = HalfYmm;

    type Sums = SumsZmm;

    #[inline(always)]
    fn join(low: HalfYmm, high: HalfYmm) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        unsafe {
            let low = _mm512_castpd256_pd512(_mm256_castps_pd(low.0));
            Self(_mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(high.0))))
        }
    }

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
    fn round_i32(x: &[i32; 16]) -> Self {
        // SAFETY: AVX-512 was proven, see the type; the load is of the 16 elements.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_loadu_si512(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn products_q6<const T: usize>(block: &[u8; 210], xs: [&[i16; 256]; T]) -> [[i32; 8]; T] {
        // SAFETY: AVX-512 was proven, see the type.
        unsafe { products_q6(block, xs) }
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
    fn round_i16(self, out: &mut [i16; 16]) {
        // SAFETY: AVX-512 was proven, see the type; the store is of the 16 elements. Conversion rounds to
        // nearest even, the mode that Rust code always runs in.
        unsafe {
            let words = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(self.0));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), words);
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
    fn sums(vectors: &[Self; 16]) -> Self {
        // SAFETY: AVX-512 was proven, see the type.
        unsafe { sums(vectors) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let (low, high) = self.halves();
        // SAFETY: AVX-512 was proven, see the type.
        unsafe { largest_of_eight(_mm256_max_ps(low, high)) }
    }
}

// Functions of their own, so that the closures in them have their target features too.

/// [`Lanes::products_q6`], 64 weights at a time: the low nibbles of 64 bytes are the first half of 128.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn products_q6<const T: usize>(block: &[u8; 210], xs: [&[i16; 256]; T]) -> [[i32; 8]; T] {
    let load = |at: usize| {
        let bytes: &[u8; 64] = part(block, at);
        // SAFETY: the load is of all 64 bytes of an array.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    };
    let halves =
        |low, high| _mm512_inserti64x4::<1>(_mm512_set1_epi16(low), _mm256_set1_epi16(high));
    let (nibble, code_bits) = (_mm512_set1_epi8(0x0F), _mm512_set1_epi8(0x3F));
    let offset = _mm512_set1_epi8(32);
    let scales: &[u8; 16] = part(block, 192);
    // SAFETY: the load is of all 16 bytes of an array.
    let scales = unsafe { _mm_loadu_si128(scales.as_ptr().cast()) };
    let scales = _mm256_cvtepi8_epi16(scales);
    // Words of both bytes of a scale, another one in each 128-bit quarter.
    let first = _mm512_set_epi64(
        0x0706_0706_0706_0706,
        0x0706_0706_0706_0706,
        0x0504_0504_0504_0504,
        0x0504_0504_0504_0504,
        0x0302_0302_0302_0302,
        0x0302_0302_0302_0302,
        0x0100_0100_0100_0100,
        0x0100_0100_0100_0100,
    );
    let pairs = load(128);
    let mut sums = [_mm512_setzero_si512(); T];
    for half in 0..2 {
        let (scales, high) = match half {
            0 => (
                _mm512_broadcast_i32x4(_mm256_castsi256_si128(scales)),
                _mm512_shuffle_i64x2::<0b01_00_01_00>(pairs, pairs),
            ),
            _ => (
                _mm512_broadcast_i32x4(_mm256_extracti128_si256::<1>(scales)),
                _mm512_shuffle_i64x2::<0b11_10_11_10>(pairs, pairs),
            ),
        };
        let low = load(64 * half);
        // Words are shifted, those of each half by a number of bits of their own: what crosses into a
        // neighbouring byte is masked away.
        let parts = [
            (low, _mm512_sllv_epi16(high, halves(4, 2))),
            (_mm512_srli_epi16::<4>(low), _mm512_srlv_epi16(high, halves(0, 2))),
        ];
        for (index, &(low, high)) in parts.iter().enumerate() {
            // mask ? low : high, bit by bit
            let code = _mm512_ternarylogic_epi32::<0xCA>(nibble, low, high);
            let code = _mm512_sub_epi8(_mm512_and_si512(code, code_bits), offset);
            let place = _mm512_add_epi8(first, _mm512_set1_epi8(8 * index as i8));
            let scale = _mm512_shuffle_epi8(scales, place);
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(code));
            let even = _mm512_mullo_epi16(even, scale);
            let odd = _mm512_mullo_epi16(_mm512_srai_epi16::<8>(code), scale);
            let at = 128 * half + 64 * index;
            for (sum, x) in sums.iter_mut().zip(&xs) {
                // SAFETY: `at` is at most 192, and both loads are of 32 of the 256 elements.
                let (x_even, x_odd) = unsafe {
                    let at = x.as_ptr().add(at);
                    (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(32).cast()))
                };
                *sum = add_pairs(*sum, even, x_even);
                *sum = add_pairs(*sum, odd, x_odd);
            }
        }
    }
    let mut out = [[0; 8]; T];
    for (out, sum) in out.iter_mut().zip(sums) {
        let (low, high) = (_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
        // SAFETY: the store is of all 8 elements.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_add_epi32(low, high)) };
    }
    out
}

/// [`Lanes::sums`]; each step folds two vectors into the halves of one.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums(v: &[Zmm; 16]) -> Zmm {
    let eight = |a: Zmm, b: Zmm| {
        let low = _mm512_shuffle_f32x4::<0x44>(a.0, b.0);
        _mm512_add_ps(low, _mm512_shuffle_f32x4::<0xEE>(a.0, b.0))
    };
    let four = |a, b| {
        let low = _mm512_shuffle_f32x4::<0x88>(a, b);
        _mm512_add_ps(low, _mm512_shuffle_f32x4::<0xDD>(a, b))
    };
    let two = |a, b| {
        let low = _mm512_shuffle_ps::<0x44>(a, b);
        _mm512_add_ps(low, _mm512_shuffle_ps::<0xEE>(a, b))
    };
    let one = |a, b| {
        let low = _mm512_shuffle_ps::<0x88>(a, b);
        _mm512_add_ps(low, _mm512_shuffle_ps::<0xDD>(a, b))
    };
    let part = |i: usize| four(eight(v[i], v[i + 4]), eight(v[i + 8], v[i + 12]));
    Zmm(one(two(part(0), part(1)), two(part(2), part(3))))
}
