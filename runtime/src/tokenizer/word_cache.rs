//! The tokens of words that were seen a moment ago.

use hashbrown::DefaultHashBuilder;
use std::hash::BuildHasher;
use std::ops::Range;

/// Slots; a word that falls on a taken one replaces it.
const SLOTS: usize = 4096;

/// Texts shorter than this have too few words twice.
const LEAST_TEXT: usize = 2048;

/// Words longer than this are not kept.
const LONGEST: usize = 255;

/// Words of one text, with the place of their tokens in its result. It copies neither, has a fixed
/// size, and lives as long as one text is encoded.
pub(super) struct WordCache<'t> {
    text: &'t [u8],
    slots: Vec<Slot>,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    word: usize,
    ids: usize,
    word_len: u8,
    ids_len: u8,
}

impl<'t> WordCache<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let slots = if text.len() < LEAST_TEXT { 0 } else { SLOTS };
        let hasher = DefaultHashBuilder::default();
        Self { text: text.as_bytes(), slots: vec![Slot::default(); slots], hasher }
    }

    /// Appends the tokens of the word at a place in the text, from an earlier place in `ids`, which is
    /// only appended to, or by `make`.
    pub(super) fn append(
        &mut self,
        word: Range<usize>,
        ids: &mut Vec<u32>,
        make: impl FnOnce(&[u8], &mut Vec<u32>),
    ) {
        let text = self.text;
        let bytes = &text[word.clone()];
        if self.slots.is_empty() || bytes.len() > LONGEST {
            return make(bytes, ids);
        }
        let slot = &mut self.slots[self.hasher.hash_one(bytes) as usize % SLOTS];
        if usize::from(slot.word_len) == bytes.len()
            && &text[slot.word..][..usize::from(slot.word_len)] == bytes
        {
            ids.extend_from_within(slot.ids..slot.ids + usize::from(slot.ids_len));
            return;
        }
        let before = ids.len();
        make(bytes, ids);
        if let Ok(ids_len) = u8::try_from(ids.len() - before) {
            let word_len = bytes.len() as u8;
            *slot = Slot { word: word.start, ids: before, word_len, ids_len };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_were_made() {
        let text: String = (0..9000u32).map(|i| char::from(b'a' + (i / 3 % 7) as u8)).collect();
        let mut cache = WordCache::new(&text);
        let (mut ids, mut made) = (Vec::new(), 0);
        for start in (0..text.len()).step_by(3) {
            cache.append(start..start + 3, &mut ids, |word, ids| {
                made += 1;
                ids.extend([word[0].into(), 7]);
            });
        }
        let wanted: Vec<u32> = text.bytes().step_by(3).flat_map(|b| [b.into(), 7]).collect();
        assert_eq!(ids, wanted);
        assert!((7..100).contains(&made), "{made}");
    }
}
