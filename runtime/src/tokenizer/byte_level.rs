//! The alphabet of byte-level vocabularies: one printable character for each byte.
//!
//! Bytes that are printable in Latin-1 stand for themselves; the others take the characters from
//! U+0100 on, in order. So a space is `Ġ` and a newline `Ċ`.

use std::sync::LazyLock;

/// Whether a byte is its own character.
const fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte if is_itself(byte) => char::from(byte),
        _ => others.next().expect("68 characters of an open range"),
    })
});

/// The bytes of the characters up to the last that stands for one.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, &char) in CHARS.iter().enumerate() {
        bytes[char as usize] = Some(byte as u8);
    }
    bytes
});

/// The character of a byte.
pub(crate) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The byte of a character, if it stands for one.
pub(crate) fn byte_of(char: char) -> Option<u8> {
    *BYTES.get(char as usize)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!((char_of(0xad), char_of(0)), ('\u{143}', '\u{100}'));
        assert!([' ', '\n', '\u{ad}', '\u{144}', 'я'].iter().all(|&c| byte_of(c).is_none()));
    }
}
