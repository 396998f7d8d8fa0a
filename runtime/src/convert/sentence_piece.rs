//! The `tokenizer.model` of SentencePiece: the part of its protocol buffer that a vocabulary needs.
//!
//! ModelProto: 1 pieces (1 text, 2 score as a float, 3 type), 3 normaliser (3 whether a space is put before
//! texts). The numbers of the types are those of GGUF files.

use super::ConvertError;
use super::vocabulary::{Rules, Vocabulary, token_type};

/// Reads a model.
pub(super) fn read(bytes: &[u8]) -> Result<Vocabulary, ConvertError> {
    let bad = || ConvertError::Vocabulary("tokenizer.model is no SentencePiece model".to_owned());
    let mut this = Vocabulary::default();
    let (mut scores, mut space_prefix) = (Vec::new(), true);
    for field in fields(bytes) {
        match field.ok_or_else(bad)? {
            (1, Field::Bytes(piece)) => {
                let (mut text, mut score, mut kind) = (None, 0.0, token_type::NORMAL);
                for field in fields(piece) {
                    match field.ok_or_else(bad)? {
                        (1, Field::Bytes(bytes)) => text = std::str::from_utf8(bytes).ok(),
                        (2, Field::Four(bytes)) => score = f32::from_le_bytes(bytes),
                        (3, Field::Number(number @ 1..=6)) => kind = number as i32,
                        _ => {}
                    }
                }
                this.tokens.push(text.ok_or_else(bad)?.to_owned());
                this.types.push(kind);
                scores.push(if score.is_finite() { score } else { return Err(bad()) });
            }
            (3, Field::Bytes(normaliser)) => {
                for field in fields(normaliser) {
                    if let (3, Field::Number(flag)) = field.ok_or_else(bad)? {
                        space_prefix = flag != 0;
                    }
                }
            }
            _ => {}
        }
    }
    if this.tokens.is_empty() {
        return Err(bad());
    }
    this.rules = Rules::Pieces { scores, space_prefix };
    Ok(this)
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Field<'a> {
    Number(u64),
    Four([u8; 4]),
    Eight,
    Bytes(&'a [u8]),
}

/// The numbered fields of a message; `None` and the end where it is broken.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = next(&mut bytes);
        if field.is_none() {
            bytes = &[];
        }
        Some(field)
    })
}

fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint(bytes)?;
    let field = match key & 7 {
        0 => Field::Number(varint(bytes)?),
        1 => {
            take(bytes, 8)?;
            Field::Eight
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Field::Bytes(take(bytes, length)?)
        }
        5 => Field::Four(take(bytes, 4)?.try_into().ok()?),
        _ => return None,
    };
    Some((key >> 3, field))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(first)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut piece = vec![10, text.len() as u8];
        piece.extend(text.as_bytes());
        piece.push(21);
        piece.extend(score.to_le_bytes());
        piece.extend([24, kind]);
        let mut field = vec![10, piece.len() as u8];
        field.extend(piece);
        field
    }

    #[test]
    fn pieces_keep_their_texts_scores_and_types() {
        let mut model =
            [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("\u{2581}the", -1.5, 1)].concat();
        // Something unknown with eight bytes, and a normaliser without a space before texts.
        model.extend([0x79, 0, 0, 0, 0, 0, 0, 0, 0]);
        model.extend([26, 2, 24, 0]);
        let vocabulary = read(&model).unwrap();
        assert_eq!(vocabulary.tokens, ["<unk>", "<s>", "\u{2581}the"]);
        assert_eq!(vocabulary.types, [2, 3, 1]);
        let Rules::Pieces { scores, space_prefix } = vocabulary.rules else { panic!() };
        assert_eq!((scores, space_prefix), (vec![0.0, 0.0, -1.5], false));
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for broken in [&b""[..], b"hello", &[10, 200, 1], &[10, 2, 24, 1], &[0xFF; 12]] {
            assert!(read(broken).is_err(), "{broken:?}");
        }
    }
}
