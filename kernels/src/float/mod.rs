//! The float operations of the token loop, each in one fixed evaluation order.
//!
//! Every operation is written once, over sixteen virtual lanes ([`lanes`]), and instantiated for each
//! ISA, so its result is the same bit for bit on all of them: reductions put element `i` into lane
//! `i % 16`, pad the tail with +0 and fold the lanes by one fixed tree; a product is rounded before it
//! is added (no FMA); nothing but `+ - * /`, `sqrt` and our own [`exp`](softmax::exp) is used. Sums of
//! integers are exact, and have orders of their own ([`blocks::q6_k`], [`fixed_attention`]). What a
//! function returns depends on its arguments alone, never on the ISA, the thread or the batch.
//!
//! | module | operations |
//! |---|---|
//! | [`reduce`] | dot product, sum of squares, largest value |
//! | [`norm`] | root-mean-square norm |
//! | [`matvec`] | stored rows times vectors: the LM head |
//! | [`blocks`] | rows of quantised blocks: embeddings and heads in Q8_0, Q6_K and others |
//! | [`vectors`] | vectors as floats or as integers, whichever such rows are multiplied with |
//! | [`softmax`] | exp with its sum, scaling with the largest value |
//! | [`attention`] | scores of keys and weighted sums of values, for several query heads at once |
//! | [`dequantise`] | exact sums of a prompt's tokens to floats, token by token |
//! | [`stored`] | keys, values and queries as integers |
//! | [`fixed_attention`] | attention over keys and values that are integers, for the heads of many tokens |
//! | [`fixed_rows`] | the same for a few heads |
//! | [`elementwise`] | add, scale, relu²·up, f32 to f16 and back |
//! | [`rope`] | rotary position tables and their application |

pub mod attention;
pub mod blocks;
pub mod dequantise;
pub mod elementwise;
pub mod fixed_attention;
pub mod fixed_rows;
mod lanes;
pub mod matvec;
pub mod norm;
pub mod reduce;
pub mod rope;
pub mod softmax;
pub mod stored;
pub mod vectors;

pub(crate) use lanes::{Array, Lanes, padded};
#[cfg(target_arch = "aarch64")]
pub(crate) use lanes::{Quads, has_neon};
#[cfg(target_arch = "x86_64")]
pub(crate) use lanes::{Ymm, Zmm, has_avx2, has_avx512};

/// Makes functions out of bodies that are generic over [`Lanes`]: one instance per ISA, and
/// the dispatch between them by the proof that is passed first.
macro_rules! instantiate {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;)*) => {
        $(
            $(#[$doc])*
            $vis fn $name(isa: $crate::Supported, $($arg: $ty),*) $(-> $ret)? {
                #[cfg(target_arch = "x86_64")]
                if $crate::float::has_avx512(isa) {
                    #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
                    fn avx512($($arg: $ty),*) $(-> $ret)? {
                        $body::<$crate::float::Zmm>($($arg),*)
                    }
                    // SAFETY: `isa` is the proof that the CPU has all of them.
                    return unsafe { avx512($($arg),*) };
                }
                #[cfg(target_arch = "x86_64")]
                if $crate::float::has_avx2(isa) {
                    #[target_feature(enable = "avx2,f16c")]
                    fn avx2($($arg: $ty),*) $(-> $ret)? {
                        $body::<$crate::float::Ymm>($($arg),*)
                    }
                    // SAFETY: `isa` is the proof that the CPU has AVX2 and F16C.
                    return unsafe { avx2($($arg),*) };
                }
                #[cfg(target_arch = "aarch64")]
                if $crate::float::has_neon(isa) {
                    #[target_feature(enable = "neon")]
                    fn neon($($arg: $ty),*) $(-> $ret)? {
                        $body::<$crate::float::Quads>($($arg),*)
                    }
                    // SAFETY: `isa` is the proof that the CPU has NEON.
                    return unsafe { neon($($arg),*) };
                }
                let _ = isa;
                $body::<$crate::float::Array>($($arg),*)
            }
        )*
    };
}
pub(crate) use instantiate;

#[cfg(test)]
pub(crate) mod tests {
    use crate::{Isa, Supported};

    /// Lengths around every boundary of the sixteen lanes and of the row blocks.
    pub(crate) const LENGTHS: &[usize] = &[0, 1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 127, 129, 640];

    /// The proofs for every ISA that this CPU has, scalar first.
    pub(crate) fn isas() -> Vec<Supported> {
        Isa::ALL.iter().copied().filter_map(Supported::detect).collect()
    }

    /// `n` values of mixed sign and magnitude.
    pub(crate) fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let value = |bits: u64| {
            let unit = (bits >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            unit * [0.01, 1.0, 30.0][(bits % 3) as usize]
        };
        (0..n).map(|_| value(next())).collect()
    }

    /// Asserts that `f` returns the same bits for every ISA.
    pub(crate) fn same_on_every_isa(f: impl Fn(Supported) -> Vec<f32>) {
        let bits = |isa| f(isa).into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let isas = isas();
        for &isa in &isas[1..] {
            assert_eq!(bits(isas[0]), bits(isa), "scalar against {:?}", isa.isa());
        }
    }
}
