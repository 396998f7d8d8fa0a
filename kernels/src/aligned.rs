//! Bytes that begin at a cache line.

use std::alloc::Layout;

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
        let count = len.div_ceil(64);
        if count == 0 {
            return Self::default();
        }
        let layout = Layout::array::<Line>(count).expect("fewer bytes than addresses");
        // Zeros from the system cost nothing before they are used; a vector would write them.
        // SAFETY: the layout is that of `count` lines, not empty, and so the one that a vector of this
        // capacity frees; zero bytes are lines.
        let lines = unsafe {
            let memory = std::alloc::alloc_zeroed(layout).cast::<Line>();
            if memory.is_null() {
                std::alloc::handle_alloc_error(layout);
            }
            Vec::from_raw_parts(memory, count, count)
        };
        Self { lines, len }
    }

    /// Changes the length; new bytes are zero, kept bytes keep their values.
    pub fn resize(&mut self, len: usize) {
        let kept = self.len.min(len);
        self.lines.resize(len.div_ceil(64), Line([0; 64]));
        self.len = len;
        self[kept..].fill(0);
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
