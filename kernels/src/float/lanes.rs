//! Sixteen virtual lanes of f32, spelled for each ISA.
//!
//! The trait has only operations that IEEE 754 rounds correctly, and exact sums of integers, so two spellings
//! of it cannot differ.
//! Its methods are `inline(always)`: they vanish into the function that `instantiate!` makes, and that
//! function carries the target features.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod sums;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Ymm, has_avx2};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Zmm, has_avx512};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Quads, has_neon};
pub(crate) use sums::Sums;

use super::blocks::q6_k;
use half::f16;

/// Sixteen f32 values that are computed on side by side.
pub(crate) trait Lanes: Copy {
    /// Whether there are registers for more than sixteen of these.
    const WIDE: bool;
    /// Eight of the lanes: where registers are short, a loop takes first one half of its chunks, then the
    /// other, and has room for twice as many sums.
    type Half: HalfLanes;
    /// Sums of products of 16-bit integers, one for each lane.
    type Sums: Sums;
    /// Lanes 0..8 and 8..16.
    fn join(low: Self::Half, high: Self::Half) -> Self;
    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// Lane `i` from `x[i]`.
    fn load(x: &[f32; 16]) -> Self;
    /// Lane `i` from `x[i]`, which is exact.
    fn widen(x: &[f16; 16]) -> Self;
    /// The value of `value`, which is exact, in every lane.
    fn splat_f16(value: f16) -> Self;
    /// Lane `i` from `x[i]`, which is exact.
    fn widen_i8(x: &[i8; 16]) -> Self;
    /// Lane `i` from `x[i]`, rounded to nearest even.
    fn round_i32(x: &[i32; 16]) -> Self;
    /// The products of a block of Q6_K with each of `T` vectors of integers, which lie in the order of
    /// [`super::blocks::q6_k`], in eight sums.
    fn products_q6<const T: usize>(block: &[u8; 210], xs: [&[i16; 256]; T]) -> [[i32; 8]; T];
    /// `out[i]` from lane `i`.
    fn store(self, out: &mut [f32; 16]);
    /// `out[i]` from lane `i`, rounded to nearest even.
    fn narrow(self, out: &mut [f16; 16]);
    /// `out[i]` from lane `i`, rounded to nearest even; lanes must be within -32767..=32767.
    fn round_i16(self, out: &mut [i16; 16]);
    /// `out[i]` from lane `i`, rounded to nearest even; lanes must be within -127..=127.
    fn round_i8(self, out: &mut [i8; 16]);
    /// Lane-wise sum.
    fn add(self, other: Self) -> Self;
    /// Lane-wise difference.
    fn sub(self, other: Self) -> Self;
    /// Lane-wise product.
    fn mul(self, other: Self) -> Self;
    /// Lane-wise quotient.
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        let (mut x, mut y) = ([0.0; 16], [0.0; 16]);
        self.store(&mut x);
        other.store(&mut y);
        for (x, y) in x.iter_mut().zip(y) {
            *x /= y;
        }
        Self::load(&x)
    }
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
    /// Lane `i` is the [`Lanes::sum`] of vector `i`.
    fn sums(vectors: &[Self; 16]) -> Self;
    /// The largest lane; folded like [`Lanes::sum`].
    fn largest(self) -> f32;
}

/// Eight f32 values that are computed on side by side: half of some [`Lanes`].
pub(crate) trait HalfLanes: Copy {
    /// +0 in every lane.
    fn zero() -> Self;
    /// Lane `i` from `x[i]`.
    fn load(x: &[f32; 8]) -> Self;
    /// Lane `i` from `x[i]`, which is exact.
    fn widen(x: &[f16; 8]) -> Self;
    /// Lane-wise sum.
    fn add(self, other: Self) -> Self;
    /// Lane-wise product.
    fn mul(self, other: Self) -> Self;
    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// Lane `i` from `x[i]`, rounded to nearest even.
    fn round_i32(x: &[i32; 8]) -> Self;
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

/// The `N` bytes from `at` on.
#[inline(always)]
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().expect("the bytes go on that far")
}

/// Bytes as numbers with a sign.
#[inline(always)]
pub(super) fn as_i8<const N: usize>(bytes: &[u8; N]) -> &[i8; N] {
    // SAFETY: u8 and i8 have the same size, alignment and validity.
    unsafe { &*std::ptr::from_ref(bytes).cast() }
}

/// The value of an f16.
#[inline(always)]
fn wide(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    // The exponent is rebased by an exact product, which also normalises subnormals; infinities and
    // NaNs then need the full exponent back.
    let magnitude = f32::from_bits((bits & 0x7FFF) << 13) * f32::from_bits(0x7780_0000);
    let special = if bits & 0x7C00 == 0x7C00 { 0x7F80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
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

/// Half of an [`Array`].
#[derive(Clone, Copy)]
pub(crate) struct HalfArray([f32; 8]);

impl HalfLanes for HalfArray {
    #[inline(always)]
    fn zero() -> Self {
        Self([0.0; 8])
    }

    #[inline(always)]
    fn load(x: &[f32; 8]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn widen(x: &[f16; 8]) -> Self {
        let mut out = [0.0; 8];
        for (lane, x) in out.iter_mut().zip(x) {
            *lane = wide(*x);
        }
        Self(out)
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane += other;
        }
        self
    }

    #[inline(always)]
    fn mul(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane *= other;
        }
        self
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    fn round_i32(x: &[i32; 8]) -> Self {
        Self(x.map(|x| x as f32))
    }
}

impl Lanes for Array {
    const WIDE: bool = false;

    type Half = HalfArray;

    type Sums = [i32; 16];

    #[inline(always)]
    fn join(low: HalfArray, high: HalfArray) -> Self {
        let mut lanes = [0.0; 16];
        lanes[..8].copy_from_slice(&low.0);
        lanes[8..].copy_from_slice(&high.0);
        Self(lanes)
    }

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
            *lane = wide(*x);
        }
        Self(out)
    }

    #[inline(always)]
    fn splat_f16(value: f16) -> Self {
        Self::splat(wide(value))
    }

    #[inline(always)]
    fn widen_i8(x: &[i8; 16]) -> Self {
        Self(x.map(f32::from))
    }

    #[inline(always)]
    fn round_i32(x: &[i32; 16]) -> Self {
        let mut out = [0.0; 16];
        for (lane, x) in out.iter_mut().zip(x) {
            *lane = *x as f32;
        }
        Self(out)
    }

    #[inline(always)]
    fn products_q6<const T: usize>(block: &[u8; 210], xs: [&[i16; 256]; T]) -> [[i32; 8]; T] {
        q6_k::products(block, xs)
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
    fn round_i16(self, out: &mut [i16; 16]) {
        for (out, lane) in out.iter_mut().zip(self.0) {
            *out = (lane + MAGIC).to_bits() as i16;
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
    fn sums(vectors: &[Self; 16]) -> Self {
        let mut sums = [0.0; 16];
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = vector.sum();
        }
        Self(sums)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.fold(|a, b| if a > b { a } else { b })
    }
}
