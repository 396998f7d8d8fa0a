//! Rows become columns: small blocks of what has tokens side by side on one side and inputs or outputs on
//! the other.

/// Element `j` of row `i` goes to element `i` of row `j`.
#[inline(always)]
pub(crate) fn transposed(block: &[[f32; 16]; 16]) -> [[f32; 16]; 16] {
    let mut columns = [[0.0; 16]; 16];
    for i in (0..16).step_by(4) {
        for j in (0..16).step_by(4) {
            let four = |row: usize| -> [f32; 4] {
                *block[i + row][j..].first_chunk().expect("a quarter of a row")
            };
            let four = four_by_four([four(0), four(1), four(2), four(3)]);
            for (column, four) in columns[j..j + 4].iter_mut().zip(four) {
                column[i..i + 4].copy_from_slice(&four);
            }
        }
    }
    columns
}

/// The same for four elements of four rows, spelled out where the compiler would move one at a time.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn four_by_four(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use std::arch::x86_64::*;
    // SAFETY: SSE is part of x86-64; loads and stores are of 4 elements of an array.
    unsafe {
        let [mut a, mut b, mut c, mut d] =
            [0, 1, 2, 3].map(|row: usize| _mm_loadu_ps(rows[row].as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        let mut columns = [[0.0; 4]; 4];
        for (column, out) in [a, b, c, d].into_iter().zip(&mut columns) {
            _mm_storeu_ps(out.as_mut_ptr(), column);
        }
        columns
    }
}

/// The same for four elements of four rows.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn four_by_four(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|column| rows.map(|row| row[column]))
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
        let block = std::array::from_fn(|i| std::array::from_fn(|j| (i * 16 + j) as f32));
        for (i, row) in transposed(&block).iter().enumerate() {
            for (j, &element) in row.iter().enumerate() {
                assert_eq!(element, (j * 16 + i) as f32);
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
