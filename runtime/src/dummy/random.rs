//! Random weights at the speed of memory: splitmix64, and tables that shape its output.

/// The number of sums of four bytes.
const SUMS: usize = 4 * 255 + 1;

/// The packed bytes of all 81 ways to choose four codes of 0, 1 and 2.
const CODES: [u8; 81] = {
    let mut codes = [0; 81];
    let mut i = 0;
    while i < 81 {
        codes[i] = (((i / 27) << 6) | ((i / 9 % 3) << 4) | ((i / 3 % 3) << 2) | (i % 3)) as u8;
        i += 1;
    }
    codes
};

/// A stream of random numbers (splitmix64).
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of one chunk of one tensor, so that chunks can be made in any order.
    pub(super) fn new(seed: u64, tensor: u64, chunk: u64) -> Self {
        let mut of_tensor = Self(seed ^ tensor.wrapping_mul(0xd134_2543_de82_ef95));
        let mut of_chunk = Self(of_tensor.next() ^ chunk.wrapping_mul(0xaf25_1af3_b0f0_25b5));
        Self(of_chunk.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fills with packed ternary codes, each value of a code equally likely; never 3.
    pub(super) fn codes(&mut self, out: &mut [u8]) {
        for out in out.chunks_mut(4) {
            let random = self.next();
            for (i, byte) in out.iter_mut().enumerate() {
                let part = random >> (16 * i) & 0xffff;
                *byte = CODES[((part * 81) >> 16) as usize];
            }
        }
    }

    /// Fills with values of `table`, which is indexed by the sum of four random bytes.
    pub(super) fn gaussian<const N: usize>(&mut self, table: &[[u8; N]; SUMS], out: &mut [u8]) {
        for out in out.chunks_mut(2 * N) {
            let random = self.next();
            // Sums of neighbouring bytes, then of neighbouring pairs: two sums of four bytes.
            let pairs = (random & 0x00ff_00ff_00ff_00ff) + (random >> 8 & 0x00ff_00ff_00ff_00ff);
            let sums = (pairs & 0x0000_ffff_0000_ffff) + (pairs >> 16 & 0x0000_ffff_0000_ffff);
            for (value, sum) in out.chunks_mut(N).zip([sums & 0xffff, sums >> 32]) {
                value.copy_from_slice(&table[sum as usize]);
            }
        }
    }
}

/// Values by the sum of four random bytes: nearly normal, with mean 0 and the given deviation.
pub(super) fn gaussian(deviation: f32) -> [f32; SUMS] {
    // A byte has variance (256^2 - 1) / 12, four of them four times that; the mean is 510.
    let unit = deviation / (65535.0f32 / 3.0).sqrt();
    std::array::from_fn(|sum| (sum as f32 - 510.0) * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_even_and_never_3() {
        let mut out = vec![0; 1 << 16];
        Stream::new(1, 2, 3).codes(&mut out);
        let mut counts = [0usize; 4];
        for byte in &out {
            (0..4).for_each(|i| counts[usize::from(byte >> (2 * i) & 3)] += 1);
        }
        assert_eq!(counts[3], 0);
        assert!(counts[..3].iter().all(|n| n.abs_diff((1 << 18) / 3) < 2000), "{counts:?}");
    }

    #[test]
    fn gaussians_have_the_deviation_asked_for() {
        let table = gaussian(0.5).map(f32::to_le_bytes);
        let mut out = vec![0; 1 << 18];
        Stream::new(1, 2, 3).gaussian(&table, &mut out);
        let values: Vec<f64> = out
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (square.sqrt() - 0.5).abs() < 0.01, "{mean} {square}");
    }

    #[test]
    fn streams_differ() {
        let first = |seed, tensor, chunk| Stream::new(seed, tensor, chunk).next();
        let all = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), first(0, 1, 1)];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
