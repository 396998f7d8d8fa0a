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

    /// Whether a row is whole blocks of 128 weights, which are read and written at once.
    fn rows_are_blocks(self, k: usize) -> bool {
        self == Self::X86 && k.is_multiple_of(128)
    }

    /// Writes a row's weights; the error is a code that stands for nothing.
    pub(super) fn row(
        self,
        shape: Shape,
        data: &[u8],
        row: usize,
        out: &mut [i8],
    ) -> Result<(), u8> {
        if self.rows_are_blocks(shape.k) {
            return row_of_blocks(&data[row * shape.k / 4..][..shape.k / 4], out);
        }
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
        if self.rows_are_blocks(shape.k) {
            return encode_blocks(weights, out);
        }
        for (row, weights) in weights.chunks_exact(shape.k).enumerate() {
            for (column, &t) in weights.iter().enumerate() {
                let (byte, bit) = self.place(shape.k, row, column);
                out[byte] |= ((t + 1) as u8) << bit;
            }
        }
    }
}

/// Blocks of 32 bytes to 128 weights: the four quarters of a block lie in the four places of its bytes.
fn row_of_blocks(data: &[u8], out: &mut [i8]) -> Result<(), u8> {
    let mut threes = 0;
    for (bytes, out) in data.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<128>().0) {
        for (plane, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = (byte >> (6 - 2 * plane) & 3) as i8 - 1;
            }
        }
        bytes.iter().for_each(|byte| threes |= byte & byte >> 1 & 0x55);
    }
    if threes == 0 { Ok(()) } else { Err(3) }
}

/// The way back, into bytes of any content.
fn encode_blocks(weights: &[i8], out: &mut [u8]) {
    for (weights, out) in weights.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        out.fill(0);
        for (plane, weights) in weights.as_chunks::<32>().0.iter().enumerate() {
            for (out, t) in out.iter_mut().zip(weights) {
                *out |= ((t + 1) as u8) << (6 - 2 * plane);
            }
        }
    }
}
