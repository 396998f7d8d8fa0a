//! The lanes as one 512-bit register: AVX-512 F, BW and VL.

use super::avx2::{HalfYmm, largest_of_eight, sum_of_eight};
use super::sums::SumsZmm;
use super::{Lanes, part, scales_q6};
use crate::{Isa, Supported};
use half::f16;
use std::arch::x86_64::*;

/// Whether the proof covers AVX-512 F, BW and VL.
#[inline(always)]
pub(crate) fn has_avx512(isa: Supported) -> bool {
    matches!(isa.isa(), Isa::Avx512 | Isa::Avx512Vbmi)
}

/// The lanes as one 512-bit register.
///
/// Private to instances made by `instantiate!`: every block below relies on the calling function
/// having been reached through a proof of AVX-512 F, BW and VL.
#[derive(Clone, Copy)]
pub(crate) struct Zmm(__m512);

/// The codes of a block of Q6_K, not yet less 32, and `d * scale` for each 16.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(crate) struct TransposedQ6 {
    /// Byte c of dword l of line g is the code of weight 64 g + 16 c + l in its low six bits.
    codes: [[u32; 16]; 4],
    scales: [f32; 16],
    /// -160 times the scales, which is exact: 160 has three significant bits.
    offsets: [f32; 16],
}

#[repr(align(64))]
struct Order([i32; 16]);

/// Orders of dwords after which a 4 x 4 transposition in each quarter brings byte 16 c + l of 64 to
/// byte c of dword l.
static ROWS: Order = Order([0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]);

/// The same for 32 bytes of each half, of which each dword gets its two bytes twice.
static PAIRS: [Order; 2] = [
    Order([0, 4, 0, 4, 1, 5, 1, 5, 2, 6, 2, 6, 3, 7, 3, 7]),
    Order([8, 12, 8, 12, 9, 13, 9, 13, 10, 14, 10, 14, 11, 15, 11, 15]),
];

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

    type Q6 = TransposedQ6;

    #[inline(always)]
    fn unpack_q6(block: &[u8; 210], unpacked: &mut TransposedQ6) {
        // SAFETY: AVX-512 was proven, see the type.
        unsafe { transpose(block, &mut unpacked.codes) };
        let scales = scales_q6::<Self>(block);
        scales.store(&mut unpacked.scales);
        scales.mul(Self::splat(-160.0)).store(&mut unpacked.offsets);
    }

    #[inline(always)]
    fn weights_q6(unpacked: &TransposedQ6, chunk: usize) -> Self {
        let (scale, offset) = (unpacked.scales[chunk], unpacked.offsets[chunk]);
        // SAFETY: AVX-512 was proven, see the type; the load is of a line of 64 bytes, aligned.
        unsafe {
            let codes = _mm512_load_si512((&raw const unpacked.codes[chunk / 4]).cast());
            // The code as the top bits of a mantissa: with the exponent of 128, the float 128 + code.
            let placed = match chunk % 4 {
                0 => _mm512_slli_epi32::<16>(codes),
                1 => _mm512_slli_epi32::<8>(codes),
                2 => codes,
                _ => _mm512_srli_epi32::<8>(codes),
            };
            let (mask, exponent) = (_mm512_set1_epi32(0x003F_0000), _mm512_set1_epi32(0x4300_0000));
            let float = _mm512_ternarylogic_epi32::<0xEA>(placed, mask, exponent);
            let (scale, offset) = (_mm512_set1_ps(scale), _mm512_set1_ps(offset));
            // scale * (128 + code) - scale * 160 in one rounding, which has nothing to round.
            Self(_mm512_fmadd_ps(scale, _mm512_castsi512_ps(float), offset))
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

/// Brings the codes of a block of Q6_K to the order of [`TransposedQ6`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(block: &[u8; 210], codes: &mut [[u32; 16]; 4]) {
    // SAFETY: each load is of all 64 bytes of an array.
    let load = |bytes: &[u8; 64]| unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
    // Volatile, because the compiler would turn shuffles that it knows into many more.
    // SAFETY: the order is as large as a vector and as aligned.
    let order = |order: &Order| unsafe { (&raw const order.0).cast::<__m512i>().read_volatile() };
    let turn =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let permuted =
        |order: __m512i, bytes| _mm512_shuffle_epi8(_mm512_permutexvar_epi32(order, bytes), turn);
    let (rows, pairs) = (order(&ROWS), load(part(block, 128)));
    for (half, codes) in codes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let low = permuted(rows, load(part(block, 64 * half)));
        let high = permuted(order(&PAIRS[half]), pairs);
        // Words are shifted, each of a dword by its own number of bits: what crosses into a
        // neighbouring byte and the top bits are masked away later.
        let parts = [
            (low, _mm512_sllv_epi16(high, _mm512_set1_epi32(0x0002_0004))),
            (_mm512_srli_epi16::<4>(low), _mm512_srlv_epi16(high, _mm512_set1_epi32(0x0002_0000))),
        ];
        for (codes, (low, high)) in codes.iter_mut().zip(parts) {
            // mask ? low : high, bit by bit
            let mask = _mm512_set1_epi8(0x0F);
            let code = _mm512_ternarylogic_epi32::<0xCA>(mask, low, high);
            // SAFETY: the store is of all 64 bytes of an array.
            unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), code) };
        }
    }
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
