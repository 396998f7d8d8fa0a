//! I2_S: 2-bit codes, in the three arrangements that builds of bitnet.cpp write. No file says which.

use trilut_presets::Shape;

/// The arrangement of I2_S codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum I2sLayout {
    /// Blocks of 128 weights: builds for x86, and the published files.
    #[default]
    X86,
    /// Blocks of 64 weights: builds for ARM.
    Arm,
    /// Four rows to a byte: builds without activation parallelism.
    Rows,
}

impl I2sLayout {
    /// The byte that holds a weight, and the bit where its code begins.
    fn place(self, k: usize, row: usize, column: usize) -> (usize, usize) {
        let index = row * k + column;
        let (byte, plane) = match self {
            Self::X86 => (index / 128 * 32 + index % 32, index % 128 / 32),
            Self::Arm => (index / 64 * 16 + index % 16, index % 64 / 16),
            Self::Rows => (row / 4 * k + column, row % 4),
        };
        (byte, 6 - 2 * plane)
    }

    /// Writes a row's weights; the error is a code that stands for nothing.
    pub(super) fn row(
        self,
        shape: Shape,
        data: &[u8],
        row: usize,
        out: &mut [i8],
    ) -> Result<(), u8> {
        for (column, out) in out.iter_mut().enumerate() {
            let (byte, bit) = self.place(shape.k, row, column);
            let code = data[byte] >> bit & 3;
            if code == 3 {
                return Err(3);
            }
            *out = code as i8 - 1;
        }
        Ok(())
    }

    pub(super) fn encode(self, shape: Shape, weights: &[i8], out: &mut [u8]) {
        for (row, weights) in weights.chunks_exact(shape.k).enumerate() {
            for (column, &t) in weights.iter().enumerate() {
                let (byte, bit) = self.place(shape.k, row, column);
                out[byte] |= ((t + 1) as u8) << bit;
            }
        }
    }
}
