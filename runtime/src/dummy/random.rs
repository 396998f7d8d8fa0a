//! Random weights at the speed of memory: splitmix64, and tables that shape its output.

use half::f16;
use trilut_kernels::float::blocks::BlockFormat;

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
pub(crate) struct Stream(u64);

impl Stream {
    /// The stream of one chunk of one tensor, so that chunks can be made in any order.
    pub(crate) fn new(seed: u64, tensor: u64, chunk: u64) -> Self {
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
    pub(crate) fn codes(&mut self, out: &mut [u8]) {
        for out in out.chunks_mut(4) {
            let random = self.next();
            for (i, byte) in out.iter_mut().enumerate() {
                let part = random >> (16 * i) & 0xffff;
                *byte = CODES[((part * 81) >> 16) as usize];
            }
        }
    }

    /// Fills with blocks of Q8_0: codes from -127 to 127, equally likely, whose weights have the given deviation.
    pub(crate) fn q8_0(&mut self, deviation: f32, out: &mut [u8]) {
        // 255 equally likely codes have variance (255^2 - 1) / 12.
        let d = f16::from_f32(deviation / (65024.0f32 / 12.0).sqrt()).to_le_bytes();
        for block in out.chunks_exact_mut(BlockFormat::Q8_0.bytes()) {
            let (factor, codes) = block.split_at_mut(2);
            factor.copy_from_slice(&d);
            self.bytes(codes);
            codes.iter_mut().filter(|code| **code == 0x80).for_each(|code| *code = 0x81);
        }
    }

    /// Fills with blocks of Q6_K: codes from -32 to 31, scales from 64 to 127 of either sign, all equally
    /// likely; the weights have about the given deviation.
    pub(crate) fn q6_k(&mut self, deviation: f32, out: &mut [u8]) {
        // 64 equally likely codes have variance (64^2 - 1) / 12, the scales' mean square is about 97^2.
        let d = f16::from_f32(deviation / (97.0 * (4095.0f32 / 12.0).sqrt())).to_le_bytes();
        for block in out.chunks_exact_mut(BlockFormat::Q6K.bytes()) {
            let (codes, rest) = block.split_at_mut(192);
            let (scales, factor) = rest.split_at_mut(16);
            self.bytes(codes);
            self.bytes(scales);
            for scale in scales {
                let size = 64 + (*scale & 63) as i8;
                *scale = if *scale & 64 == 0 { size } else { -size } as u8;
            }
            factor.copy_from_slice(&d);
        }
    }

    /// Fills with f32 from 0.75 to 1.25, all equally likely.
    pub(super) fn norm(&mut self, out: &mut [u8]) {
        for out in out.chunks_exact_mut(4) {
            let unit = (self.next() >> 40) as f32 / (1u64 << 24) as f32;
            out.copy_from_slice(&(0.75 + 0.5 * unit).to_le_bytes());
        }
    }

    /// Fills with blocks of a format whose codes are all equally likely and whose weights have about the
    /// given deviation.
    pub(super) fn blocks(&mut self, format: BlockFormat, deviation: f32, out: &mut [u8]) {
        match format {
            BlockFormat::Q8_0 => self.q8_0(deviation, out),
            BlockFormat::Q6K => self.q6_k(deviation, out),
            BlockFormat::Q4_0 => self.coded(16, &[1.0], deviation, format, out),
            BlockFormat::Q5_0 => self.coded(32, &[1.0], deviation, format, out),
            // The offset brings the codes' mean, 7.5, to 0.
            BlockFormat::Q4_1 => self.coded(16, &[1.0, -7.5], deviation, format, out),
            BlockFormat::Q4K => {
                // Scales and offsets of 33, spread over their bytes.
                self.coded(16, &[1.0 / 33.0, 7.5 / 33.0], deviation, format, out);
                for block in out.chunks_exact_mut(format.bytes()) {
                    block[4..12].fill(33 | (2 << 6));
                    block[12..16].fill(1 | (1 << 4));
                }
            }
        }
    }

    /// Fills with blocks of equally likely codes behind f16 factors, which are `factors` times what gives
    /// `count` codes the deviation.
    fn coded(
        &mut self,
        count: u16,
        factors: &[f32],
        deviation: f32,
        format: BlockFormat,
        out: &mut [u8],
    ) {
        let unit = deviation / ((f32::from(count * count) - 1.0) / 12.0).sqrt();
        for block in out.chunks_exact_mut(format.bytes()) {
            let (head, codes) = block.split_at_mut(2 * factors.len());
            self.bytes(codes);
            for (out, factor) in head.chunks_exact_mut(2).zip(factors) {
                out.copy_from_slice(&f16::from_f32(unit * factor).to_le_bytes());
            }
        }
    }

    /// Fills with bytes, each value equally likely.
    fn bytes(&mut self, out: &mut [u8]) {
        for out in out.chunks_mut(8) {
            out.copy_from_slice(&self.next().to_le_bytes()[..out.len()]);
        }
    }

    /// Fills with values of `table`, which is indexed by the sum of four random bytes.
    pub(crate) fn gaussian<const N: usize>(&mut self, table: &[[u8; N]; SUMS], out: &mut [u8]) {
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
pub(crate) fn gaussian(deviation: f32) -> [f32; SUMS] {
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
    fn blocks_have_the_deviation_asked_for() {
        let isa = trilut_kernels::Cpu::detect().best();
        for &format in BlockFormat::ALL {
            let mut out = vec![0; 2000 * format.bytes()];
            Stream::new(1, 2, 3).blocks(format, 0.04, &mut out);
            let mut values = vec![0.0; 2000 * format.weights()];
            format.widen(isa, &out, &mut values);
            let n = values.len() as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
            // Without an offset the codes have the mean -1/2.
            assert!(mean.abs() < 0.005 && (square.sqrt() / 0.04 - 1.0).abs() < 0.02, "{square}");
        }
    }

    #[test]
    fn streams_differ() {
        let first = |seed, tensor, chunk| Stream::new(seed, tensor, chunk).next();
        let all = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), first(0, 1, 1)];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
