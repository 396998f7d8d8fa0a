//! Bytes that begin at a cache line.

/// A growable byte buffer whose first byte is aligned to 64 bytes.
#[derive(Clone, Default)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; 64]); len.div_ceil(64)], len }
    }

    /// Changes the length; new bytes are zero, kept bytes keep their values.
    pub fn resize(&mut self, len: usize) {
        let kept = self.len.min(len);
        self.lines.resize(len.div_ceil(64), Line([0; 64]));
        self.len = len;
        self[kept..].fill(0);
    }
}

impl AlignedBytes {
    /// The bytes as int16 values, a last odd byte left out.
    pub(crate) fn as_i16_mut(&mut self) -> &mut [i16] {
        let len = self.len / 2;
        // SAFETY: the first `len * 2` bytes are initialised and begin at a line of 64 bytes; any bits
        // are an i16; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    /// The bytes as int32 values, up to three last bytes left out.
    pub(crate) fn as_i32_mut(&mut self) -> &mut [i32] {
        let len = self.len / 4;
        // SAFETY: as in `as_i16_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `lines` holds `len.div_ceil(64)` lines of 64 initialised bytes without padding
        // (`repr(C)`, size 64 = align 64), so its first `len` bytes are valid.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_with_zeros() {
        let mut bytes = AlignedBytes::zeroed(3);
        bytes.fill(7);
        bytes.resize(100);
        assert_eq!(&bytes[..4], [7, 7, 7, 0]);
        bytes.fill(9);
        bytes.resize(1);
        bytes.resize(64);
        assert_eq!(bytes[0], 9);
        assert!(bytes[1..].iter().all(|&b| b == 0));
        assert_eq!(bytes.as_ptr() as usize % 64, 0);
    }
}
