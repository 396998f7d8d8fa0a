//! Vectors as arrays of `W` bytes, `H = W / 2` int16 or `D = W / 4` int32 lanes.
//!
//! The meaning of every op is defined by what is written here; int16 sums wrap, as vector instructions
//! do, so that a missing widening shows up as a wrong result instead of a panic.

use std::array::from_fn;

/// `W` bytes from `at`.
#[inline(always)]
pub fn load<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    bytes[at..at + W].try_into().expect("a slice of W bytes")
}

/// `W / 2` bytes from each of two places.
#[inline(always)]
pub fn load_two<const W: usize>(bytes: &[u8], low: usize, high: usize) -> [u8; W] {
    let half = |at: usize| &bytes[at..at + W / 2];
    let (low, high) = (half(low), half(high));
    from_fn(|i| if i < W / 2 { low[i] } else { high[i - W / 2] })
}

/// `W / 2` bytes from the same place of each of two slices.
#[inline(always)]
pub fn load_pair<const W: usize>(low: &[u8], high: &[u8], at: usize) -> [u8; W] {
    let (low, high) = (&low[at..at + W / 2], &high[at..at + W / 2]);
    from_fn(|i| if i < W / 2 { low[i] } else { high[i - W / 2] })
}

/// The 16 bytes from `at`, repeated.
#[inline(always)]
pub fn table<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    let table = &bytes[at..at + 16];
    from_fn(|i| table[i % 16])
}

/// Each of `W` bits from byte `at` widened to a byte of 0x00 or 0xff.
#[inline(always)]
pub fn expand_bits<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    let bits = &bytes[at..at + W / 8];
    from_fn(|i| 0u8.wrapping_sub(bits[i / 8] >> (i % 8) & 1))
}

/// `W / 2` bits from each of two places, likewise.
#[inline(always)]
pub fn expand_two<const W: usize>(bytes: &[u8], low: usize, high: usize) -> [u8; W] {
    let (low, high) = (&bytes[low..low + W / 16], &bytes[high..high + W / 16]);
    from_fn(|i| {
        let (bits, i) = if i < W / 2 { (low, i) } else { (high, i - W / 2) };
        0u8.wrapping_sub(bits[i / 8] >> (i % 8) & 1)
    })
}

/// `(a >> shift) & mask`.
#[inline(always)]
pub fn field<const W: usize>(a: [u8; W], shift: u32, mask: u8) -> [u8; W] {
    a.map(|a| a >> shift & mask)
}

/// Bytes times 3, modulo 256.
#[inline(always)]
pub fn triple<const W: usize>(a: [u8; W]) -> [u8; W] {
    a.map(|a| a.wrapping_mul(3))
}

/// Bytes with the top bit inverted.
#[inline(always)]
pub fn flip<const W: usize>(a: [u8; W]) -> [u8; W] {
    a.map(|a| a ^ 0x80)
}

/// The leading base-3 digit of flipped bytes: with `x = a ^ 0x80`, `3 x / 256`.
#[inline(always)]
pub fn digit<const W: usize>(a: [u8; W]) -> [u8; W] {
    a.map(|a| ((u16::from(a ^ 0x80) * 3) >> 8) as u8)
}

/// Bytes through a table.
#[inline(always)]
pub fn map<const W: usize>(a: [u8; W], table: &[u8; 256]) -> [u8; W] {
    a.map(|a| table[usize::from(a)])
}

/// Sums of neighbouring products of unsigned `codes` and signed `q`.
#[inline(always)]
pub fn mul_add_pairs<const W: usize, const H: usize>(codes: [u8; W], q: [u8; W]) -> [i16; H] {
    let product = |i: usize| i16::from(codes[i]) * i16::from(q[i] as i8);
    from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1)))
}

/// Sums of two products each, of any bytes; here of neighbours.
#[inline(always)]
pub fn mul_add_any<const W: usize, const H: usize>(codes: [u8; W], q: [u8; W]) -> [i16; H] {
    mul_add_pairs(codes, q)
}

/// `acc` plus sums of four neighbouring products of unsigned `codes` and signed `q`, wrapping.
#[inline(always)]
pub fn dot<const W: usize, const D: usize>(acc: [i32; D], codes: [u8; W], q: [u8; W]) -> [i32; D] {
    let product = |i: usize| i32::from(codes[i]) * i32::from(q[i] as i8);
    from_fn(|i| acc[i].wrapping_add((4 * i..4 * i + 4).map(product).sum()))
}

/// `acc[2 i + j]` plus the sum of `codes[8 i + n] * q[8 j + n]`, wrapping.
#[inline(always)]
pub fn mat_mul<const W: usize, const D: usize>(
    acc: [i32; D],
    codes: [u8; W],
    q: [u8; W],
) -> [i32; D] {
    let product = |i: usize, j: usize| i32::from(codes[i] as i8) * i32::from(q[j] as i8);
    from_fn(|at| {
        let (i, j) = (at / 2, at % 2);
        acc[at].wrapping_add((0..8).map(|n| product(8 * i + n, 8 * j + n)).sum())
    })
}

/// One half of `a`, then the same half of `b`.
#[inline(always)]
pub fn join<const D: usize>(a: [i32; D], b: [i32; D], upper: bool) -> [i32; D] {
    let from = usize::from(upper) * D / 2;
    from_fn(|i| if i < D / 2 { a[from + i] } else { b[from + i - D / 2] })
}

/// `table[index]` within each 16-byte lane; indices are 0..=15.
#[inline(always)]
pub fn lookup<const W: usize>(table: [u8; W], index: [u8; W]) -> [u8; W] {
    from_fn(|i| table[(i & !15) | usize::from(index[i] & 15)])
}

/// Bitwise exclusive or.
#[inline(always)]
pub fn xor<const W: usize>(a: [u8; W], b: [u8; W]) -> [u8; W] {
    from_fn(|i| a[i] ^ b[i])
}

/// int16 lanes `high << 8 | low` of one half of every 16-byte lane.
#[inline(always)]
pub fn interleave<const W: usize, const H: usize>(
    low: [u8; W],
    high: [u8; W],
    upper: bool,
) -> [i16; H] {
    from_fn(|i| {
        let byte = i / 8 * 16 + usize::from(upper) * 8 + i % 8;
        i16::from_le_bytes([low[byte], high[byte]])
    })
}

/// Lanewise sum, wrapping.
#[inline(always)]
pub fn add_i16<const H: usize>(a: [i16; H], b: [i16; H]) -> [i16; H] {
    from_fn(|i| a[i].wrapping_add(b[i]))
}

/// Lanewise sum.
#[inline(always)]
pub fn add_i32<const D: usize>(a: [i32; D], b: [i32; D]) -> [i32; D] {
    from_fn(|i| a[i].wrapping_add(b[i]))
}

/// Lanewise difference, wrapping.
#[inline(always)]
pub fn sub_i32<const D: usize>(a: [i32; D], b: [i32; D]) -> [i32; D] {
    from_fn(|i| a[i].wrapping_sub(b[i]))
}

/// `acc` plus sums of neighbouring int16 lanes.
#[inline(always)]
pub fn widen_pairs<const H: usize, const D: usize>(acc: [i32; D], a: [i16; H]) -> [i32; D] {
    from_fn(|i| acc[i] + i32::from(a[2 * i]) + i32::from(a[2 * i + 1]))
}

/// `acc` plus the lower or upper half of the int16 lanes, in order.
#[inline(always)]
pub fn widen_half<const H: usize, const D: usize>(
    acc: [i32; D],
    a: [i16; H],
    upper: bool,
) -> [i32; D] {
    from_fn(|i| acc[i] + i32::from(a[usize::from(upper) * D + i]))
}

/// Lanewise difference, wrapping.
#[inline(always)]
pub fn sub_i16<const H: usize>(a: [i16; H], b: [i16; H]) -> [i16; H] {
    from_fn(|i| a[i].wrapping_sub(b[i]))
}

/// `H` int8 activations from byte `at`, widened.
#[inline(always)]
pub fn load_tokens<const H: usize>(bytes: &[u8], at: usize) -> [i16; H] {
    let bytes = &bytes[at..at + H];
    from_fn(|i| i16::from(bytes[i] as i8))
}

/// `N` lanes of a buffer from element `at`.
#[inline(always)]
pub fn load_lanes<T: Copy, const N: usize>(buffer: &[T], at: usize) -> [T; N] {
    let lanes = &buffer[at..at + N];
    from_fn(|i| lanes[i])
}

/// The 4 bytes from `at`, repeated.
#[inline(always)]
pub fn broadcast<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    let four = &bytes[at..at + 4];
    from_fn(|i| four[i % 4])
}

/// Arithmetic shift right.
#[inline(always)]
pub fn shift_right<const D: usize>(a: [i32; D], bits: u32) -> [i32; D] {
    a.map(|a| a >> bits)
}

/// Stores sums of rows: eight neighbours at most, the next eight 16 on.
#[inline(always)]
pub fn store_rows<const D: usize>(sums: &mut [i32], a: &[i32; D]) {
    for (at, rows) in a.chunks(8).enumerate() {
        sums[16 * at..][..rows.len()].copy_from_slice(rows);
    }
}

/// The sum of all lanes.
#[inline(always)]
pub fn sum<const D: usize>(a: [i32; D]) -> i32 {
    a.iter().sum()
}
