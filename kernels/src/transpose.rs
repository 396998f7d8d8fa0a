//! Rows become columns: small blocks of what has tokens side by side on one side and inputs or outputs on
//! the other.

/// Element `j` of row `i` goes to element `i` of row `j`.
///
/// Four by four, which the compiler turns into shuffles of whole registers for elements of four bytes.
#[inline(always)]
pub(crate) fn transposed<T: Copy + Default>(block: &[[T; 16]; 16]) -> [[T; 16]; 16] {
    let mut columns = [[T::default(); 16]; 16];
    for i in (0..16).step_by(4) {
        for j in (0..16).step_by(4) {
            for column in 0..4 {
                for row in 0..4 {
                    columns[j + column][i + row] = block[i + row][j + column];
                }
            }
        }
    }
    columns
}

/// Byte `j` of word `i` goes to byte `i` of word `j`.
#[inline(always)]
pub(crate) fn transposed_bytes(mut words: [u64; 8]) -> [u64; 8] {
    // Blocks of 4, then 2, then 1 bytes change places across the diagonal.
    for (step, bits, mask) in [
        (4, 32, 0x0000_0000_ffff_ffffu64),
        (2, 16, 0x0000_ffff_0000_ffff),
        (1, 8, 0x00ff_00ff_00ff_00ff),
    ] {
        for low in (0..8).filter(|i| i & step == 0) {
            let (a, b) = (words[low], words[low + step]);
            words[low] = a & mask | (b & mask) << bits;
            words[low + step] = a >> bits & mask | b & !mask;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_changes_its_row_for_its_column() {
        let block = std::array::from_fn(|i| std::array::from_fn(|j| i * 16 + j));
        for (i, row) in transposed(&block).iter().enumerate() {
            for (j, &element) in row.iter().enumerate() {
                assert_eq!(element, j * 16 + i);
            }
        }
    }

    #[test]
    fn every_byte_changes_its_row_for_its_column() {
        let words =
            std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| (i * 8 + j) as u8)));
        for (i, word) in transposed_bytes(words).into_iter().enumerate() {
            assert_eq!(word.to_le_bytes(), std::array::from_fn(|j| (j * 8 + i) as u8));
        }
    }
}
