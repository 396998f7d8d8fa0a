//! The lanes as four 128-bit registers: NEON.

use super::sums::SumsQuads;
use super::{HalfLanes, Lanes, q6_k, wide};
use crate::{Isa, Supported};
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;

/// Whether the proof covers NEON: each AArch64 ISA of the vocabulary includes it.
#[inline(always)]
pub(crate) fn has_neon(isa: Supported) -> bool {
    matches!(isa.isa(), Isa::Neon | Isa::Dotprod | Isa::I8mm)
}

/// The lanes as four 128-bit registers.
///
/// Private to instances made by `instantiate!`: every block below relies on the calling function
/// having been reached through a proof of NEON.
#[derive(Clone, Copy)]
pub(crate) struct Quads([float32x4_t; 4]);

impl Quads {
    #[inline(always)]
    fn map(self, f: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Self(from_fn(|i| f(self.0[i])))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(from_fn(|i| f(self.0[i], other.0[i])))
    }

    /// The first two steps of a fold: lanes 8 apart, then 4.
    #[inline(always)]
    fn fold(self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> float32x4_t {
        let [a, b, c, d] = self.0;
        f(f(a, c), f(b, d))
    }
}

/// `if a > b { a } else { b }`.
#[inline(always)]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON was proven, see `Quads`.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// Eight halves as numbers of 32 bits. (The intrinsics are not stable yet.)
#[inline(always)]
fn widen_eight(halves: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: registers alone; NEON was proven, see `Quads`.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {halves:v}.4h",
            "fcvtl2 {high:v}.4s, {halves:v}.8h",
            low = out(vreg) low, high = lateout(vreg) high, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [low, high]
}

/// Eight numbers as halves, rounded to nearest even, the mode that Rust code always runs in.
#[inline(always)]
fn narrow_eight(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let halves: uint16x8_t;
    // SAFETY: registers alone; NEON was proven, see `Quads`.
    unsafe {
        asm!(
            "fcvtn {halves:v}.4h, {low:v}.4s",
            "fcvtn2 {halves:v}.8h, {high:v}.4s",
            halves = out(vreg) halves, low = in(vreg) low, high = in(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    halves
}

/// Half of the lanes as two 128-bit registers; private to the same instances.
#[derive(Clone, Copy)]
pub(crate) struct HalfQuads([float32x4_t; 2]);

impl HalfLanes for HalfQuads {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: NEON was proven, see `Quads`.
        Self([unsafe { vdupq_n_f32(0.0) }; 2])
    }

    #[inline(always)]
    fn load(x: &[f32; 8]) -> Self {
        let (quads, _) = x.as_chunks::<4>();
        // SAFETY: NEON was proven, see `Quads`; each load is of all 4 elements of an array.
        Self(from_fn(|i| unsafe { vld1q_f32(quads[i].as_ptr()) }))
    }

    #[inline(always)]
    fn widen(x: &[f16; 8]) -> Self {
        // SAFETY: NEON was proven, see `Quads`; the load is of all 8 elements.
        Self(widen_eight(unsafe { vld1q_u16(x.as_ptr().cast()) }))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: NEON was proven, see `Quads`.
        Self(from_fn(|i| unsafe { vaddq_f32(self.0[i], other.0[i]) }))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: NEON was proven, see `Quads`.
        Self(from_fn(|i| unsafe { vmulq_f32(self.0[i], other.0[i]) }))
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: NEON was proven, see `Quads`.
        let quad = unsafe { vdupq_n_f32(value) };
        Self([quad; 2])
    }

    #[inline(always)]
    fn round_i32(x: &[i32; 8]) -> Self {
        // SAFETY: NEON was proven, see `Quads`; each load is of 4 of the 8 elements.
        let quad = |at: usize| unsafe { vcvtq_f32_s32(vld1q_s32(x[4 * at..].as_ptr())) };
        Self([quad(0), quad(1)])
    }
}

impl Lanes for Quads {
    const WIDE: bool = false;

    type Half = HalfQuads;

    type Sums = SumsQuads;

    #[inline(always)]
    fn join(low: HalfQuads, high: HalfQuads) -> Self {
        let ([a, b], [c, d]) = (low.0, high.0);
        Self([a, b, c, d])
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: NEON was proven, see the type.
        Self([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        let (quads, _) = x.as_chunks::<4>();
        // SAFETY: NEON was proven, see the type; each load is of all 4 elements of an array.
        Self(from_fn(|i| unsafe { vld1q_f32(quads[i].as_ptr()) }))
    }

    #[inline(always)]
    fn widen(x: &[f16; 16]) -> Self {
        let (eights, _) = x.as_chunks::<8>();
        // SAFETY: NEON was proven, see the type; each load is of all 8 elements of an array.
        let [a, b] = [0, 1].map(|i| unsafe { vld1q_u16(eights[i].as_ptr().cast()) });
        let ([a, b], [c, d]) = (widen_eight(a), widen_eight(b));
        Self([a, b, c, d])
    }

    #[inline(always)]
    fn splat_f16(value: f16) -> Self {
        Self::splat(wide(value))
    }

    #[inline(always)]
    fn widen_i8(x: &[i8; 16]) -> Self {
        // SAFETY: NEON was proven, see the type; the load is of all 16 elements.
        unsafe {
            let bytes = vld1q_s8(x.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let quads = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            Self(quads.map(|quad| vcvtq_f32_s32(quad)))
        }
    }

    #[inline(always)]
    fn round_i32(x: &[i32; 16]) -> Self {
        // SAFETY: NEON was proven, see the type; each load is of 4 of the 16 elements.
        let quad = |at: usize| unsafe { vcvtq_f32_s32(vld1q_s32(x[4 * at..].as_ptr())) };
        Self([quad(0), quad(1), quad(2), quad(3)])
    }

    #[inline(always)]
    fn products_q6<const T: usize>(block: &[u8; 210], xs: [&[i16; 256]; T]) -> [[i32; 8]; T] {
        q6_k::products(block, xs)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; 16]) {
        for (out, quad) in out.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            // SAFETY: NEON was proven, see the type; the store is of all 4 elements of an array.
            unsafe { vst1q_f32(out.as_mut_ptr(), quad) };
        }
    }

    #[inline(always)]
    fn narrow(self, out: &mut [f16; 16]) {
        for (out, pair) in out.as_chunks_mut::<8>().0.iter_mut().zip(self.0.as_chunks::<2>().0) {
            // SAFETY: NEON was proven, see the type; the store is of all 8 elements of an array.
            unsafe { vst1q_u16(out.as_mut_ptr().cast(), narrow_eight(pair[0], pair[1])) };
        }
    }

    #[inline(always)]
    fn round_i16(self, out: &mut [i16; 16]) {
        for (out, quads) in out.as_chunks_mut::<8>().0.iter_mut().zip(self.0.as_chunks::<2>().0) {
            // SAFETY: NEON was proven, see the type; the store is of all 8 elements. Conversion rounds to
            // nearest even.
            unsafe {
                let [low, high] = quads.map(|quad| vmovn_s32(vcvtnq_s32_f32(quad)));
                vst1q_s16(out.as_mut_ptr(), vcombine_s16(low, high));
            }
        }
    }

    #[inline(always)]
    fn round_i8(self, out: &mut [i8; 16]) {
        // SAFETY: NEON was proven, see the type; the store is of all 16 elements. Conversion rounds to
        // nearest even.
        unsafe {
            let [a, b, c, d] = self.0.map(|quad| vmovn_s32(vcvtnq_s32_f32(quad)));
            let [low, high] =
                [vcombine_s16(a, b), vcombine_s16(c, d)].map(|words| vmovn_s16(words));
            vst1q_s8(out.as_mut_ptr(), vcombine_s8(low, high));
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: NEON was proven, see the type.
        self.zip(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: NEON was proven, see the type.
        self.zip(other, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: NEON was proven, see the type.
        self.zip(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, larger)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: NEON was proven, see the type.
        self.zip(other, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: NEON was proven, see the type.
        self.map(|quad| unsafe { vabsq_f32(quad) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: NEON was proven, see the type.
        unsafe {
            let one = vdupq_n_s32(0x3F80_0000);
            self.map(|quad| {
                let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(quad));
                vreinterpretq_f32_s32(vaddq_s32(exponent, one))
            })
        }
    }

    #[inline(always)]
    fn keep_at_least(self, key: Self, limit: f32) -> Self {
        // SAFETY: NEON was proven, see the type.
        unsafe {
            let limit = vdupq_n_f32(limit);
            self.zip(key, |quad, key| {
                let kept = vandq_u32(vreinterpretq_u32_f32(quad), vcgeq_f32(key, limit));
                vreinterpretq_f32_u32(kept)
            })
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: NEON was proven, see the type.
        unsafe {
            let four = self.fold(|a, b| vaddq_f32(a, b));
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }

    #[inline(always)]
    fn sums(vectors: &[Self; 16]) -> Self {
        // SAFETY: NEON was proven, see the type.
        unsafe {
            let four = |i: usize| vectors[i].fold(|a, b| vaddq_f32(a, b));
            // Each step folds two vectors into the halves of one.
            let two = |i: usize| {
                let (a, b) = (four(i), four(i + 1));
                let low = vcombine_f32(vget_low_f32(a), vget_low_f32(b));
                vaddq_f32(low, vcombine_f32(vget_high_f32(a), vget_high_f32(b)))
            };
            Self(from_fn(|i| vpaddq_f32(two(4 * i), two(4 * i + 2))))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let four = self.fold(larger);
        // SAFETY: NEON was proven, see the type.
        unsafe {
            let two = larger(four, vextq_f32::<2>(four, four));
            vgetq_lane_f32::<0>(larger(two, vextq_f32::<1>(two, two)))
        }
    }
}
