//! Sixteen virtual lanes of f32, spelled for each ISA.
//!
//! The trait has only operations that IEEE 754 rounds correctly, so two spellings of it cannot differ.
//! Its methods are `inline(always)`: they vanish into the function that `instantiate!` makes, and that
//! function carries the target features.

use half::f16;

/// Sixteen f32 values that are computed on side by side.
pub(crate) trait Lanes: Copy {
    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// Lane `i` from `x[i]`.
    fn load(x: &[f32; 16]) -> Self;
    /// Lane `i` from `x[i]`, which is exact.
    fn widen(x: &[f16; 16]) -> Self;
    /// `out[i]` from lane `i`.
    fn store(self, out: &mut [f32; 16]);
    /// `out[i]` from lane `i`, rounded to nearest even.
    fn narrow(self, out: &mut [f16; 16]);
    /// `out[i]` from lane `i`, rounded to nearest even; lanes must be within -127..=127.
    fn round_i8(self, out: &mut [i8; 16]);
    /// Lane-wise sum.
    fn add(self, other: Self) -> Self;
    /// Lane-wise difference.
    fn sub(self, other: Self) -> Self;
    /// Lane-wise product.
    fn mul(self, other: Self) -> Self;
    /// Lane-wise `if self > other { self } else { other }`: a NaN in `self` gives `other`.
    fn max(self, other: Self) -> Self;
    /// Lane-wise `if self < other { self } else { other }`: a NaN in `self` gives `other`.
    fn min(self, other: Self) -> Self;
    /// Lane-wise magnitude.
    fn abs(self) -> Self;
    /// `2^n` for a lane that holds `MAGIC + n`, n in -126..=127: n is read off the mantissa.
    fn power_of_two(self) -> Self;
    /// The lane's value where `key >= limit`, else +0.
    fn keep_at_least(self, key: Self, limit: f32) -> Self;
    /// The sum of all lanes: i + (i + 8), then + 4, + 2, + 1.
    fn sum(self) -> f32;
    /// The largest lane; folded like [`Lanes::sum`].
    fn largest(self) -> f32;
}

/// Adding this to |x| < 2^22 rounds x to the nearest even integer and leaves it in the low bits.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// The elements of a partial chunk, followed by +0 (or the type's zero).
#[inline(always)]
pub(crate) fn padded<T: Copy + Default>(tail: &[T]) -> [T; 16] {
    let mut chunk = [T::default(); 16];
    chunk[..tail.len()].copy_from_slice(tail);
    chunk
}

/// The lanes as an array: portable, and vectorised by the compiler to whatever the target has.
#[derive(Clone, Copy)]
pub(crate) struct Array([f32; 16]);

impl Array {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut out = self.0;
        for lane in &mut out {
            *lane = f(*lane);
        }
        Self(out)
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (lane, other) in out.iter_mut().zip(other.0) {
            *lane = f(*lane, other);
        }
        Self(out)
    }

    #[inline(always)]
    fn fold(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] = f(lanes[i], lanes[i + half]);
            }
        }
        lanes[0]
    }
}

impl Lanes for Array {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 16])
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn widen(x: &[f16; 16]) -> Self {
        let mut out = [0.0; 16];
        for (lane, x) in out.iter_mut().zip(x) {
            let bits = u32::from(x.to_bits());
            // The exponent is rebased by an exact product, which also normalises subnormals;
            // infinities and NaNs then need the full exponent back.
            let magnitude = f32::from_bits((bits & 0x7FFF) << 13) * f32::from_bits(0x7780_0000);
            let special = if bits & 0x7C00 == 0x7C00 { 0x7F80_0000 } else { 0 };
            *lane = f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16);
        }
        Self(out)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; 16]) {
        *out = self.0;
    }

    #[inline(always)]
    fn narrow(self, out: &mut [f16; 16]) {
        for (out, lane) in out.iter_mut().zip(self.0) {
            *out = f16::from_f32_const(lane);
        }
    }

    #[inline(always)]
    fn round_i8(self, out: &mut [i8; 16]) {
        for (out, lane) in out.iter_mut().zip(self.0) {
            *out = (lane + MAGIC).to_bits() as i8;
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        self.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(0x3F80_0000)))
    }

    #[inline(always)]
    fn keep_at_least(self, key: Self, limit: f32) -> Self {
        self.zip(key, |x, key| if key >= limit { x } else { 0.0 })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        self.fold(|a, b| a + b)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.fold(|a, b| if a > b { a } else { b })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Ymm, has_avx2};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
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

    impl Lanes for Ymm {
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
        fn round_i8(self, out: &mut [i8; 16]) {
            // SAFETY: AVX2 was proven, see the type; the store is of 16 bytes. Conversion rounds to
            // nearest even, the mode that Rust code always runs in.
            unsafe {
                let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
                // Packing works within 128-bit halves; the permutation restores the order.
                let words = _mm256_permute4x64_epi64::<0xD8>(_mm256_packs_epi32(low, high));
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
            unsafe {
                let eight = _mm256_add_ps(self.0, self.1);
                let low = _mm256_castps256_ps128(eight);
                let four = _mm_add_ps(low, _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }

        #[inline(always)]
        fn largest(self) -> f32 {
            // SAFETY: AVX2 was proven, see the type.
            unsafe {
                let eight = _mm256_max_ps(self.0, self.1);
                let low = _mm256_castps256_ps128(eight);
                let four = _mm_max_ps(low, _mm256_extractf128_ps::<1>(eight));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }
}
