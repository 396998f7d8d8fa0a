//! Text from tokens that arrive one by one.

use super::Tokenizer;

/// Turns tokens into text piece by piece, holding back the bytes of a character that is not complete.
/// Control tokens give no text.
pub struct TokenStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The beginning of a character, at most 3 bytes between calls.
    held: Vec<u8>,
    /// Whether the next space is the one that is put before texts.
    at_prefix: bool,
}

impl<'t> TokenStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, at_prefix: bool) -> Self {
        Self { tokenizer, held: Vec::new(), at_prefix }
    }

    /// The text that a token completes, if any. Bytes that can never become a character give U+FFFD.
    pub fn push(&mut self, id: u32) -> Option<String> {
        if self.tokenizer.is_control(id) {
            return None;
        }
        let mut bytes = self.tokenizer.token_bytes(id);
        if self.at_prefix && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.at_prefix = false;
        }
        self.held.extend_from_slice(bytes);
        let keep = incomplete_tail(&self.held);
        let done = self.held.len() - keep;
        let text = String::from_utf8_lossy(&self.held[..done]).into_owned();
        self.held.drain(..done);
        (!text.is_empty()).then_some(text)
    }

    /// What is held back when no more tokens come: U+FFFD for half a character, if there is one.
    pub fn finish(self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// The number of bytes at the end that begin a character which more bytes could complete.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let tail = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    // An invalid part at the very end whose error is only that it ends is reported without a length.
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_completed_is_held_back() {
        let tail = |bytes: &[u8]| incomplete_tail(bytes);
        assert_eq!(tail(b""), 0);
        assert_eq!(tail("añ".as_bytes()), 0);
        assert_eq!(tail(&"añ".as_bytes()[..2]), 1);
        assert_eq!(tail(&"😀".as_bytes()[..3]), 3);
        assert_eq!(tail(b"\xff"), 0);
        assert_eq!(tail(b"\x80\x80"), 0);
        assert_eq!(tail(b"\xff\xf0\x9f"), 2);
    }
}
