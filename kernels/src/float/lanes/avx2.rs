//! The lanes as two 256-bit registers: AVX2 and F16C.

use super::sums::SumsYmm;
use super::{HalfLanes, Lanes, part};
use crate::{Isa, Supported};
use half::f16;
use std::arch::x86_64::*;

/// Whether the proof covers AVX2 and F16C: each x86-64 ISA of the vocabulary includes them.
#[inline(always)]
pub(crate) fn has_avx2(isa: Supported) -> bool {
    matches!(isa.isa(), Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vbmi)
}

/// The lanes as two 256-bit registers.
///
/// Private to instances made by `instantiate!`: every block below relies on the calling function
/// having been reached through a proof of AVX2 and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Ymm(__m256, __m256);

/// Half of the lanes as a 256-bit register.
///
/// Private to the instances for [`Ymm`] and for 512-bit lanes: the ISAs of both include AVX2 and F16C, see
/// [`has_avx2`].
#[derive(Clone, Copy)]
pub(crate) struct HalfYmm(pub(super) __m256);

impl HalfLanes for HalfYmm {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: AVX2 was proven, see the type.
        Self(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    fn load(x: &[f32; 8]) -> Self {
        // SAFETY: AVX2 was proven, see the type; the load is of all 8 elements.
        Self(unsafe { _mm256_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn widen(x: &[f16; 8]) -> Self {
        // SAFETY: F16C was proven, see the type; the load is of all 8 elements.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn round_i32(x: &[i32; 8]) -> Self {
        // SAFETY: AVX2 was proven, see the type; the load is of all 8 elements.
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_loadu_si256(x.as_ptr().cast())) })
    }
}

impl Ymm {
    /// The lanes as 16-bit integers.
    #[inline(always)]
    fn rounded(self) -> __m256i {
        // SAFETY: AVX2 was proven, see the type. Conversion rounds to nearest even, the mode that Rust
        // code always runs in.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works within 128-bit halves; the permutation restores the order.
            _mm256_permute4x64_epi64::<0xD8>(_mm256_packs_epi32(low, high))
        }
    }
}

impl Lanes for Ymm {
    const WIDE: bool = false;

    type Half = HalfYmm;

    type Sums = SumsYmm;

    #[inline(always)]
    fn join(low: HalfYmm, high: HalfYmm) -> Self {
        Self(low.0, high.0)
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        let v = unsafe { _mm256_set1_ps(value) };
        Self(v, v)
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        // SAFETY: AVX2 was proven, see the type; both loads are within the 16 elements.
        unsafe { Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn widen(x: &[f16; 16]) -> Self {
        let at = x.as_ptr().cast::<__m128i>();
        // SAFETY: F16C was proven, see the type; both loads are within the 16 elements.
        unsafe {
            let (low, high) = (_mm_loadu_si128(at), _mm_loadu_si128(at.add(1)));
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; 16]) {
        let at = out.as_mut_ptr();
        // SAFETY: AVX2 was proven, see the type; both stores are within the 16 elements.
        unsafe {
            _mm256_storeu_ps(at, self.0);
            _mm256_storeu_ps(at.add(8), self.1);
        }
    }

    #[inline(always)]
    fn narrow(self, out: &mut [f16; 16]) {
        let at = out.as_mut_ptr().cast::<__m128i>();
        // SAFETY: F16C was proven, see the type; both stores are within the 16 elements.
        unsafe {
            _mm_storeu_si128(at, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
            _mm_storeu_si128(at.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
        }
    }

    #[inline(always)]
    fn round_i16(self, out: &mut [i16; 16]) {
        // SAFETY: AVX2 was proven, see the type; the store is of all 16 elements.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), self.rounded()) };
    }

    #[inline(always)]
    fn round_i8(self, out: &mut [i8; 16]) {
        let words = self.rounded();
        // SAFETY: AVX2 was proven, see the type; the store is of 16 bytes.
        unsafe {
            let bytes = _mm_packs_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Self(_mm256_andnot_ps(sign, self.0), _mm256_andnot_ps(sign, self.1))
        }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe {
            let one = _mm256_set1_epi32(0x3F80_0000);
            let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
            let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.1));
            Self(
                _mm256_castsi256_ps(_mm256_add_epi32(low, one)),
                _mm256_castsi256_ps(_mm256_add_epi32(high, one)),
            )
        }
    }

    #[inline(always)]
    fn keep_at_least(self, key: Self, limit: f32) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe {
            let limit = _mm256_set1_ps(limit);
            Self(
                _mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_GE_OQ>(key.0, limit)),
                _mm256_and_ps(self.1, _mm256_cmp_ps::<_CMP_GE_OQ>(key.1, limit)),
            )
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { sum_of_eight(_mm256_add_ps(self.0, self.1)) }
    }

    #[inline(always)]
    fn sums(vectors: &[Self; 16]) -> Self {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { sums(vectors) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { largest_of_eight(_mm256_max_ps(self.0, self.1)) }
    }

    #[inline(always)]
    fn splat_f16(value: f16) -> Self {
        // SAFETY: AVX2 and F16C were proven, see the type.
        unsafe {
            let wide = _mm_cvtph_ps(_mm_cvtsi32_si128(value.to_bits().into()));
            let v = _mm256_broadcastss_ps(wide);
            Self(v, v)
        }
    }

    #[inline(always)]
    fn widen_i8(x: &[i8; 16]) -> Self {
        // SAFETY: AVX2 was proven, see the type; the loads are of 8 of the 16 elements.
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().add(8).cast()));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn round_i32(x: &[i32; 16]) -> Self {
        // SAFETY: AVX2 was proven, see the type; the loads are of 8 of the 16 elements.
        unsafe {
            let low = _mm256_loadu_si256(x.as_ptr().cast());
            let high = _mm256_loadu_si256(x.as_ptr().add(8).cast());
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn products_q6<const T: usize>(block: &[u8; 210], xs: [&[i16; 256]; T]) -> [[i32; 8]; T] {
        // SAFETY: AVX2 was proven, see the type.
        unsafe { products_q6(block, xs) }
    }
}

// Functions of their own, so that the closures in them have their target features too.

/// [`Lanes::products_q6`], 32 weights at a time.
#[inline]
#[target_feature(enable = "avx2")]
fn products_q6<const T: usize>(block: &[u8; 210], xs: [&[i16; 256]; T]) -> [[i32; 8]; T] {
    let load = |at: usize| {
        let bytes: &[u8; 32] = part(block, at);
        // SAFETY: the load is of all 32 bytes of an array.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    };
    let (nibble, pair) = (_mm256_set1_epi8(0x0F), _mm256_set1_epi8(0x30));
    let offset = _mm256_set1_epi8(32);
    let scales: &[u8; 16] = part(block, 192);
    // SAFETY: the load is of all 16 bytes of an array.
    let scales = unsafe { _mm_loadu_si128(scales.as_ptr().cast()) };
    let scales = _mm256_cvtepi8_epi16(scales);
    // Words of both bytes of the first scale in one 128-bit half, of the second in the other.
    let first = _mm256_set_m128i(_mm_set1_epi16(0x0302), _mm_set1_epi16(0x0100));
    let mut sums = [_mm256_setzero_si256(); T];
    for half in 0..2 {
        let scales = match half {
            0 => _mm256_permute4x64_epi64::<0b01_00_01_00>(scales),
            _ => _mm256_permute4x64_epi64::<0b11_10_11_10>(scales),
        };
        let (low, low_too) = (load(64 * half), load(64 * half + 32));
        let high = load(128 + 32 * half);
        // Words are shifted: what crosses into a neighbouring byte is masked away.
        let quarters = [
            (low, _mm256_slli_epi16::<4>(high)),
            (low_too, _mm256_slli_epi16::<2>(high)),
            (_mm256_srli_epi16::<4>(low), high),
            (_mm256_srli_epi16::<4>(low_too), _mm256_srli_epi16::<2>(high)),
        ];
        for (quarter, &(low, high)) in quarters.iter().enumerate() {
            let low = _mm256_and_si256(low, nibble);
            let code = _mm256_or_si256(low, _mm256_and_si256(high, pair));
            let code = _mm256_sub_epi8(code, offset);
            let place = _mm256_add_epi8(first, _mm256_set1_epi8(4 * quarter as i8));
            let scale = _mm256_shuffle_epi8(scales, place);
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(code));
            let even = _mm256_mullo_epi16(even, scale);
            let odd = _mm256_mullo_epi16(_mm256_srai_epi16::<8>(code), scale);
            let at = 128 * half + 64 * (quarter / 2) + 16 * (quarter % 2);
            for (sum, x) in sums.iter_mut().zip(&xs) {
                // SAFETY: `at` is at most 208, and both loads are of 16 of the 256 elements.
                let (x_even, x_odd) = unsafe {
                    let at = x.as_ptr().add(at);
                    (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast()))
                };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(even, x_even));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(odd, x_odd));
            }
        }
    }
    let mut out = [[0; 8]; T];
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: the store is of all 8 elements.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
    }
    out
}

/// [`Lanes::sums`]; each step folds two vectors into the halves of one.
#[inline]
#[target_feature(enable = "avx2")]
fn sums(v: &[Ymm; 16]) -> Ymm {
    let eight = |i: usize| _mm256_add_ps(v[i].0, v[i].1);
    let four = |a, b| {
        let low = _mm256_permute2f128_ps::<0x20>(a, b);
        _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(a, b))
    };
    let two = |a, b| {
        let low = _mm256_shuffle_ps::<0x44>(a, b);
        _mm256_add_ps(low, _mm256_shuffle_ps::<0xEE>(a, b))
    };
    let one = |a, b| {
        let low = _mm256_shuffle_ps::<0x88>(a, b);
        _mm256_add_ps(low, _mm256_shuffle_ps::<0xDD>(a, b))
    };
    let sums = |first: usize| {
        let part = |i: usize| four(eight(first + i), eight(first + 4 + i));
        one(two(part(0), part(1)), two(part(2), part(3)))
    };
    Ymm(sums(0), sums(8))
}

/// The last steps of [`Lanes::sum`].
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(eight: __m256) -> f32 {
    // SAFETY: AVX is promised.
    unsafe {
        let low = _mm256_castps256_ps128(eight);
        let four = _mm_add_ps(low, _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The last steps of [`Lanes::largest`].
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
pub(super) unsafe fn largest_of_eight(eight: __m256) -> f32 {
    // SAFETY: AVX is promised.
    unsafe {
        let low = _mm256_castps256_ps128(eight);
        let four = _mm_max_ps(low, _mm256_extractf128_ps::<1>(eight));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}
