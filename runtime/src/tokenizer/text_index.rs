//! Token ids by what the tokens stand for.

use super::TokenizerError;
use super::vocabulary::{Kind, Vocabulary};
use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};
use std::hash::BuildHasher;

/// A hash table of ids whose keys lie in the vocabulary.
pub(super) struct TextIndex {
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The bytes of the longest.
    longest: usize,
}

impl TextIndex {
    /// Of the ordinary tokens, which must be distinct.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let hasher = DefaultHashBuilder::default();
        let mut ids = HashTable::with_capacity(vocabulary.len());
        let mut longest = 0;
        for (bytes, id) in vocabulary.of(&[Kind::Normal]).filter(|(bytes, _)| !bytes.is_empty()) {
            longest = longest.max(bytes.len());
            let same = |&other: &u32| vocabulary.bytes(other) == bytes;
            let hash = |&id: &u32| hasher.hash_one(vocabulary.bytes(id));
            match ids.entry(hasher.hash_one(bytes), same, hash) {
                Entry::Vacant(place) => _ = place.insert(id),
                Entry::Occupied(place) => {
                    let text = vocabulary.text(id).unwrap_or_default().to_owned();
                    return Err(TokenizerError::Duplicate {
                        first: *place.get(),
                        second: id,
                        text,
                    });
                }
            }
        }
        Ok(Self { ids, hasher, longest })
    }

    /// The token that stands for these bytes, of the vocabulary that this was made of.
    pub(super) fn get(&self, vocabulary: &Vocabulary, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        let same = |&id: &u32| vocabulary.bytes(id) == bytes;
        self.ids.find(self.hasher.hash_one(bytes), same).copied()
    }
}
