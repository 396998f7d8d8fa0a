//! Sixteen sums of products of 16-bit integers, spelled for each ISA. They are exact, so their order is
//! free.

/// Sixteen sums in 32 bits that are added to side by side.
pub(crate) trait Sums: Copy {
    /// 32 integers: two for each sum.
    type Pairs: Copy;
    /// 0 everywhere.
    fn zero() -> Self;
    /// Integers `2 i` and `2 i + 1` for sum `i`.
    fn load(x: &[i16; 32]) -> Self::Pairs;
    /// Integer `i` of each for sum `i`.
    fn join(first: &[i16; 16], second: &[i16; 16]) -> Self::Pairs;
    /// Adds `pair[0] * with[2 i] + pair[1] * with[2 i + 1]` to sum `i`, whose value must stay within 32
    /// bits.
    fn add_products(self, pair: &[i16; 2], with: Self::Pairs) -> Self;
    /// Adds `a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1]` to sum `i`.
    fn add_each(self, a: Self::Pairs, b: Self::Pairs) -> Self;
    /// These sums.
    fn of(sums: &[i32; 16]) -> Self;
    /// The sums.
    fn get(self) -> [i32; 16];
    /// The sum of all of each.
    fn totals(each: &[Self; 16]) -> [i32; 16];
}

impl Sums for [i32; 16] {
    type Pairs = [i16; 32];

    #[inline(always)]
    fn zero() -> Self {
        [0; 16]
    }

    #[inline(always)]
    fn load(x: &[i16; 32]) -> [i16; 32] {
        *x
    }

    #[inline(always)]
    fn join(first: &[i16; 16], second: &[i16; 16]) -> [i16; 32] {
        let mut pairs = [0; 32];
        for lane in 0..16 {
            pairs[2 * lane] = first[lane];
            pairs[2 * lane + 1] = second[lane];
        }
        pairs
    }

    #[inline(always)]
    fn add_products(mut self, pair: &[i16; 2], with: [i16; 32]) -> Self {
        let [a, b] = [i32::from(pair[0]), i32::from(pair[1])];
        for (sum, with) in self.iter_mut().zip(with.as_chunks::<2>().0) {
            *sum += a * i32::from(with[0]) + b * i32::from(with[1]);
        }
        self
    }

    #[inline(always)]
    fn add_each(mut self, a: [i16; 32], b: [i16; 32]) -> Self {
        let each = a.as_chunks::<2>().0.iter().zip(b.as_chunks::<2>().0);
        for (sum, (a, b)) in self.iter_mut().zip(each) {
            *sum += i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1]);
        }
        self
    }

    #[inline(always)]
    fn of(sums: &[i32; 16]) -> Self {
        *sums
    }

    #[inline(always)]
    fn get(self) -> [i32; 16] {
        self
    }

    #[inline(always)]
    fn totals(each: &[Self; 16]) -> [i32; 16] {
        each.map(|sums| sums.iter().sum())
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{SumsYmm, SumsZmm, add_pairs};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Sums;
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// Both integers of a pair as one.
    #[inline(always)]
    fn joined(pair: &[i16; 2]) -> i32 {
        // SAFETY: a pair has the size of an i32, each of whose bit patterns is valid.
        unsafe { pair.as_ptr().cast::<i32>().read_unaligned() }
    }

    /// The sums as two 256-bit registers.
    ///
    /// Private to instances for [`Ymm`](super::super::Ymm): AVX2 was proven.
    #[derive(Clone, Copy)]
    pub(crate) struct SumsYmm(__m256i, __m256i);

    impl Sums for SumsYmm {
        type Pairs = (__m256i, __m256i);

        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: AVX2 was proven, see the type.
            let zero = unsafe { _mm256_setzero_si256() };
            Self(zero, zero)
        }

        #[inline(always)]
        fn load(x: &[i16; 32]) -> Self::Pairs {
            let at = x.as_ptr().cast::<__m256i>();
            // SAFETY: AVX2 was proven, see the type; both loads are within the 32 elements.
            unsafe { (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))) }
        }

        #[inline(always)]
        fn join(first: &[i16; 16], second: &[i16; 16]) -> Self::Pairs {
            // SAFETY: AVX2 was proven, see the type; the loads are of all 16 elements.
            unsafe {
                let first = _mm256_loadu_si256(first.as_ptr().cast());
                let second = _mm256_loadu_si256(second.as_ptr().cast());
                // Unpacking works within 128-bit halves; the permutation restores the order.
                let low = _mm256_unpacklo_epi16(first, second);
                let high = _mm256_unpackhi_epi16(first, second);
                (
                    _mm256_permute2x128_si256::<0x20>(low, high),
                    _mm256_permute2x128_si256::<0x31>(low, high),
                )
            }
        }

        #[inline(always)]
        fn add_products(self, pair: &[i16; 2], with: Self::Pairs) -> Self {
            // SAFETY: AVX2 was proven, see the type.
            unsafe {
                let pair = _mm256_set1_epi32(joined(pair));
                Self(
                    _mm256_add_epi32(self.0, _mm256_madd_epi16(pair, with.0)),
                    _mm256_add_epi32(self.1, _mm256_madd_epi16(pair, with.1)),
                )
            }
        }

        #[inline(always)]
        fn add_each(self, a: Self::Pairs, b: Self::Pairs) -> Self {
            // SAFETY: AVX2 was proven, see the type.
            unsafe {
                Self(
                    _mm256_add_epi32(self.0, _mm256_madd_epi16(a.0, b.0)),
                    _mm256_add_epi32(self.1, _mm256_madd_epi16(a.1, b.1)),
                )
            }
        }

        #[inline(always)]
        fn of(sums: &[i32; 16]) -> Self {
            let at = sums.as_ptr().cast::<__m256i>();
            // SAFETY: AVX2 was proven, see the type; both loads are within the 16 elements.
            unsafe { Self(_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))) }
        }

        #[inline(always)]
        fn totals(each: &[Self; 16]) -> [i32; 16] {
            // SAFETY: AVX2 was proven, see the type.
            unsafe { totals_in_ymm(each) }
        }

        #[inline(always)]
        fn get(self) -> [i32; 16] {
            let mut sums = [0; 16];
            let at = sums.as_mut_ptr().cast::<__m256i>();
            // SAFETY: AVX2 was proven, see the type; both stores are within the 16 elements.
            unsafe {
                _mm256_storeu_si256(at, self.0);
                _mm256_storeu_si256(at.add(1), self.1);
            }
            sums
        }
    }

    /// Takes an integer of the first half and one of the second in turn.
    const IN_TURN: [i16; 32] = {
        let mut order = [0; 32];
        let mut lane = 0;
        while lane < 16 {
            order[2 * lane] = lane as i16;
            order[2 * lane + 1] = lane as i16 + 16;
            lane += 1;
        }
        order
    };

    /// The sums as one 512-bit register.
    ///
    /// Private to instances for [`Zmm`](super::super::Zmm): AVX-512 F, BW and VNNI were proven.
    #[derive(Clone, Copy)]
    pub(crate) struct SumsZmm(__m512i);

    impl Sums for SumsZmm {
        type Pairs = __m512i;

        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: AVX-512 was proven, see the type.
            Self(unsafe { _mm512_setzero_si512() })
        }

        #[inline(always)]
        fn load(x: &[i16; 32]) -> __m512i {
            // SAFETY: AVX-512 was proven, see the type; the load is of the 32 elements.
            unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
        }

        #[inline(always)]
        fn join(first: &[i16; 16], second: &[i16; 16]) -> __m512i {
            // SAFETY: AVX-512 was proven, see the type; the loads are of all 16 elements.
            unsafe {
                let both = _mm512_castsi256_si512(_mm256_loadu_si256(first.as_ptr().cast()));
                let second = _mm256_loadu_si256(second.as_ptr().cast());
                let both = _mm512_inserti64x4::<1>(both, second);
                _mm512_permutexvar_epi16(_mm512_loadu_si512(IN_TURN.as_ptr().cast()), both)
            }
        }

        #[inline(always)]
        fn add_products(self, pair: &[i16; 2], with: __m512i) -> Self {
            // SAFETY: AVX-512 was proven, see the type.
            unsafe {
                let pair = _mm512_set1_epi32(joined(pair));
                Self(add_pairs(self.0, pair, with))
            }
        }

        #[inline(always)]
        fn add_each(self, a: __m512i, b: __m512i) -> Self {
            // SAFETY: AVX-512 was proven, see the type.
            Self(unsafe { add_pairs(self.0, a, b) })
        }

        #[inline(always)]
        fn of(sums: &[i32; 16]) -> Self {
            // SAFETY: AVX-512 was proven, see the type; the load is of the 16 elements.
            Self(unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) })
        }

        #[inline(always)]
        fn totals(each: &[Self; 16]) -> [i32; 16] {
            // SAFETY: AVX-512 was proven, see the type.
            unsafe { totals_in_zmm(each) }
        }

        #[inline(always)]
        fn get(self) -> [i32; 16] {
            let mut sums = [0; 16];
            // SAFETY: AVX-512 was proven, see the type; the store is of the 16 elements.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), self.0) };
            sums
        }
    }

    /// `sums[i] + a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1]`: `_mm512_dpwssd_epi32` as it is written. LLVM
    /// takes the intrinsic apart into `vpmaddwd` and `vpaddd`, which makes a chain of sums shorter; where
    /// there are many chains side by side it makes them half as fast.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(in super::super) fn add_pairs(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the instruction reads and writes these registers alone, and the CPU has it.
        unsafe {
            asm!(
                "vpdpwssd {sums}, {a}, {b}",
                sums = inout(zmm_reg) sums,
                a = in(zmm_reg) a,
                b = in(zmm_reg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    // Functions of their own, so that the closures in them have their target features too. Each step folds
    // two vectors into the halves of one.

    /// [`Sums::totals`] of [`SumsYmm`].
    #[inline]
    #[target_feature(enable = "avx2")]
    fn totals_in_ymm(v: &[SumsYmm; 16]) -> [i32; 16] {
        let eight = |i: usize| _mm256_add_epi32(v[i].0, v[i].1);
        let four = |a, b| {
            let low = _mm256_permute2x128_si256::<0x20>(a, b);
            _mm256_add_epi32(low, _mm256_permute2x128_si256::<0x31>(a, b))
        };
        let two = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        // The even integers of both, and the odd ones.
        let one = |a, b| {
            let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
            let even = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(a, b));
            _mm256_add_epi32(even, _mm256_castps_si256(_mm256_shuffle_ps::<0xDD>(a, b)))
        };
        let total = |first: usize| {
            let part = |i: usize| four(eight(first + i), eight(first + 4 + i));
            one(two(part(0), part(1)), two(part(2), part(3)))
        };
        SumsYmm(total(0), total(8)).get()
    }

    /// [`Sums::totals`] of [`SumsZmm`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn totals_in_zmm(v: &[SumsZmm; 16]) -> [i32; 16] {
        let eight = |a: SumsZmm, b: SumsZmm| {
            let low = _mm512_shuffle_i64x2::<0x44>(a.0, b.0);
            _mm512_add_epi32(low, _mm512_shuffle_i64x2::<0xEE>(a.0, b.0))
        };
        let four = |a, b| {
            let low = _mm512_shuffle_i64x2::<0x88>(a, b);
            _mm512_add_epi32(low, _mm512_shuffle_i64x2::<0xDD>(a, b))
        };
        let two = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        // The even integers of both, and the odd ones.
        let one = |a, b| {
            let (a, b) = (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
            let even = _mm512_castps_si512(_mm512_shuffle_ps::<0x88>(a, b));
            _mm512_add_epi32(even, _mm512_castps_si512(_mm512_shuffle_ps::<0xDD>(a, b)))
        };
        let part = |i: usize| four(eight(v[i], v[i + 4]), eight(v[i + 8], v[i + 12]));
        SumsZmm(one(two(part(0), part(1)), two(part(2), part(3)))).get()
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) use aarch64::SumsQuads;

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::Sums;
    use std::arch::aarch64::*;
    use std::array::from_fn;

    /// The sums as four 128-bit registers.
    ///
    /// Private to instances for [`Quads`](super::super::Quads): NEON was proven.
    #[derive(Clone, Copy)]
    pub(crate) struct SumsQuads([int32x4_t; 4]);

    impl Sums for SumsQuads {
        /// The first integer of each of four sums, and the second.
        type Pairs = [int16x4x2_t; 4];

        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: NEON was proven, see the type.
            Self([unsafe { vdupq_n_s32(0) }; 4])
        }

        #[inline(always)]
        fn load(x: &[i16; 32]) -> Self::Pairs {
            let (eights, _) = x.as_chunks::<8>();
            // SAFETY: NEON was proven, see the type; each load is of all 8 elements of an array.
            from_fn(|i| unsafe { vld2_s16(eights[i].as_ptr()) })
        }

        #[inline(always)]
        fn join(first: &[i16; 16], second: &[i16; 16]) -> Self::Pairs {
            let ((first, _), (second, _)) = (first.as_chunks::<4>(), second.as_chunks::<4>());
            // SAFETY: NEON was proven, see the type; each load is of all 4 elements of an array.
            from_fn(|i| unsafe {
                int16x4x2_t(vld1_s16(first[i].as_ptr()), vld1_s16(second[i].as_ptr()))
            })
        }

        #[inline(always)]
        fn add_products(self, pair: &[i16; 2], with: Self::Pairs) -> Self {
            // SAFETY: NEON was proven, see the type.
            Self(from_fn(|i| unsafe {
                let sum = vmlal_n_s16(self.0[i], with[i].0, pair[0]);
                vmlal_n_s16(sum, with[i].1, pair[1])
            }))
        }

        #[inline(always)]
        fn add_each(self, a: Self::Pairs, b: Self::Pairs) -> Self {
            // SAFETY: NEON was proven, see the type.
            Self(from_fn(|i| unsafe {
                let sum = vmlal_s16(self.0[i], a[i].0, b[i].0);
                vmlal_s16(sum, a[i].1, b[i].1)
            }))
        }

        #[inline(always)]
        fn of(sums: &[i32; 16]) -> Self {
            let (quads, _) = sums.as_chunks::<4>();
            // SAFETY: NEON was proven, see the type; each load is of all 4 elements of an array.
            Self(from_fn(|i| unsafe { vld1q_s32(quads[i].as_ptr()) }))
        }

        #[inline(always)]
        fn totals(each: &[Self; 16]) -> [i32; 16] {
            let mut totals = [0; 16];
            for (out, four) in totals.as_chunks_mut::<4>().0.iter_mut().zip(each.as_chunks::<4>().0)
            {
                // SAFETY: NEON was proven, see the type; the store is of 4 elements.
                unsafe {
                    let [a, b, c, d]: [int32x4_t; 4] = from_fn(|i| {
                        let Self([a, b, c, d]) = four[i];
                        vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d))
                    });
                    let total = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
                    vst1q_s32(out.as_mut_ptr(), total);
                }
            }
            totals
        }

        #[inline(always)]
        fn get(self) -> [i32; 16] {
            let mut sums = [0; 16];
            for (out, quad) in sums.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
                // SAFETY: NEON was proven, see the type; the store is of 4 elements.
                unsafe { vst1q_s32(out.as_mut_ptr(), quad) };
            }
            sums
        }
    }
}
