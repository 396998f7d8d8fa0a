//! Numbers that begin at a cache line. A vector load that crosses one takes two turns, and a 32-byte load
//! from 16 bytes behind one does so every second time.

use bytemuck::Pod;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use trilut_kernels::AlignedBytes;

/// Numbers whose memory is kept when there are fewer of them.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    bytes: AlignedBytes,
    of: PhantomData<T>,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self { bytes: AlignedBytes::default(), of: PhantomData }
    }
}

impl<T: Pod> Buffer<T> {
    /// All of them, of which there are `len` from now on. Those that were there before are as they were, or
    /// zeros.
    pub(crate) fn resize(&mut self, len: usize) -> &mut [T] {
        let bytes = len * size_of::<T>();
        if self.bytes.len() != bytes {
            self.bytes.resize(bytes);
        }
        self
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // Bytes that are none may be anywhere.
        if self.bytes.is_empty() { &[] } else { bytemuck::cast_slice(&self.bytes) }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if self.bytes.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(&mut self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_a_cache_line_and_stay() {
        let mut buffer = Buffer::<f32>::default();
        assert!(buffer.is_empty());
        for len in [3, 1000, 5, 0, 70_000, 80] {
            let numbers = buffer.resize(len);
            assert!(numbers.len() == len && (len == 0 || numbers.as_ptr().addr() % 64 == 0));
            numbers.iter_mut().for_each(|x| *x = 1.5);
        }
        assert_eq!(*buffer.resize(80), [1.5; 80]);
        assert_eq!(buffer.resize(81)[80], 0.0);
    }
}
