//! A position in the bytes of a file that never reads past their end.

use super::GgufError;
use std::ops::Range;

/// Reads little-endian numbers and length-prefixed texts.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The position in the file.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The number of bytes to the end.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes; `what` names them in the error.
    pub(super) fn take(
        &mut self,
        count: u64,
        what: impl FnOnce() -> String,
    ) -> Result<&'a [u8], GgufError> {
        let left = self.left();
        match usize::try_from(count).ok().filter(|&count| count <= left) {
            Some(count) => {
                let taken = &self.bytes[self.at..][..count];
                self.at += count;
                Ok(taken)
            }
            None => Err(GgufError::Truncated {
                what: what(),
                at: self.at,
                missing: count - left as u64,
            }),
        }
    }

    pub(super) fn u32(&mut self, what: impl FnOnce() -> String) -> Result<u32, GgufError> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("4 bytes were taken")))
    }

    pub(super) fn u64(&mut self, what: impl FnOnce() -> String) -> Result<u64, GgufError> {
        let bytes = self.take(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("8 bytes were taken")))
    }

    /// A count of things that take at least `each` bytes, refused when the file cannot hold them, so
    /// that nothing is ever allocated for a count that is a lie.
    pub(super) fn count(
        &mut self,
        each: u64,
        what: impl Fn() -> String,
    ) -> Result<usize, GgufError> {
        let count = self.u64(|| format!("the number of {}", what()))?;
        self.check_count(count, each, what)
    }

    pub(super) fn check_count(
        &self,
        count: u64,
        each: u64,
        what: impl Fn() -> String,
    ) -> Result<usize, GgufError> {
        let left = self.left();
        match usize::try_from(count) {
            Ok(fits) if count.checked_mul(each).is_some_and(|n| n <= left as u64) => Ok(fits),
            _ => Err(GgufError::Count { what: what(), count, left }),
        }
    }

    /// A text and the range of its bytes.
    pub(super) fn text(
        &mut self,
        what: impl Fn() -> String,
    ) -> Result<(&'a str, Range<usize>), GgufError> {
        let length = self.u64(&what)?;
        let at = self.at;
        let bytes = self.take(length, &what)?;
        let text = std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 { what: what(), at })?;
        Ok((text, at..self.at))
    }
}
