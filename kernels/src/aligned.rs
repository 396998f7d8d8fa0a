//! Bytes that begin at a cache line.

/// What the first byte's address is a multiple of.
const ALIGNMENT: usize = 64;

/// Bytes of a large page of memory on the machines that have them.
const LARGE_PAGE: usize = 2 << 20;

/// Bytes that pages of memory are multiples of, on the systems that are asked to give some back.
#[cfg(target_os = "linux")]
const PAGE: usize = 1 << 16;

/// A growable byte buffer whose first byte is aligned to 64 bytes.
#[derive(Default)]
pub struct AlignedBytes {
    /// Up to 63 bytes, then those of the buffer, then room to grow.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes. The system provides them as they are first used, in large pages where there
    /// are many of them.
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        // A vector of integer zeros is not written.
        let memory = vec![0u8; len + ALIGNMENT - 1];
        advise_large_pages(&memory);
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, len }
    }

    /// Zero bytes that no thread has touched: each page comes from the memory that is near to the thread which
    /// writes to it first.
    pub(crate) fn untouched(len: usize) -> Self {
        let bytes = Self::zeroed(len);
        // What the allocator has used before is touched already; given back, it comes anew.
        #[cfg(target_os = "linux")]
        {
            let range = bytes.memory.as_ptr_range();
            let first = range.start.addr().next_multiple_of(PAGE);
            let end = range.end.addr() / PAGE * PAGE;
            if first < end {
                let at = range.start.with_addr(first).cast_mut().cast();
                // SAFETY: whole pages within bytes that are owned here alone and zero. Anonymous memory that
                // is given back reads as zero, and what it held was zero. A system that refuses changes nothing.
                unsafe { libc::madvise(at, end - first, libc::MADV_DONTNEED) };
            }
        }
        bytes
    }

    /// Changes the length; new bytes are zero, kept bytes keep their values.
    pub fn resize(&mut self, len: usize) {
        let kept = self.len.min(len);
        if self.start + len > self.memory.len() {
            let mut larger = Self::zeroed(len);
            larger[..kept].copy_from_slice(&self[..kept]);
            *self = larger;
        }
        self.len = len;
        self[kept..].fill(0);
    }
}

impl AlignedBytes {
    /// The bytes as int16 values, a last odd byte left out.
    pub(crate) fn as_i16_mut(&mut self) -> &mut [i16] {
        // SAFETY: any bits are an i16. The first byte is aligned, so nothing is left out in front.
        unsafe { self.align_to_mut().1 }
    }

    /// The bytes as int32 values, up to three last bytes left out.
    pub(crate) fn as_i32_mut(&mut self) -> &mut [i32] {
        // SAFETY: as in `as_i16_mut`.
        unsafe { self.align_to_mut().1 }
    }
}

/// Asks the system to back the bytes with large pages: fewer page faults while they are filled, fewer
/// address translations while they are streamed.
fn advise_large_pages(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    {
        let range = bytes.as_ptr_range();
        let first = range.start.addr().next_multiple_of(LARGE_PAGE);
        let end = range.end.addr() / LARGE_PAGE * LARGE_PAGE;
        if first < end {
            let at = range.start.with_addr(first).cast_mut().cast();
            // SAFETY: the range lies within the bytes, and the advice changes no contents. A system
            // that does not take it merely keeps small pages.
            unsafe { libc::madvise(at, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (bytes, LARGE_PAGE);
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
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
        bytes.fill(5);
        // Large enough for large pages.
        bytes.resize(5 << 20);
        assert!(bytes[..64].iter().all(|&b| b == 5) && bytes[64..].iter().all(|&b| b == 0));
        let copy = bytes.clone();
        assert!(*copy == *bytes && copy.as_ptr().addr().is_multiple_of(64));
    }
}
