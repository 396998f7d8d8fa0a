//! Slots: the sequences of the cache, each with what it holds and the answer that uses it.

use super::answer::Answer;

/// A sequence of the cache.
#[derive(Default)]
pub(crate) struct Slot<'m> {
    /// The tokens whose keys and values the cache holds, also after the answer has ended.
    pub(crate) cached: Vec<u32>,
    /// When it was last used, in steps.
    pub(crate) used: u64,
    /// The answer at work.
    pub(crate) answer: Option<Answer<'m>>,
}

impl Slot<'_> {
    /// Tokens of a prompt that need not be read again. The last one always is: its logits are wanted.
    pub(crate) fn shared(&self, prompt: &[u32]) -> usize {
        shared(&self.cached, prompt)
    }

    /// The same, once the answer at work has read its prompt.
    pub(crate) fn shared_soon(&self, prompt: &[u32]) -> usize {
        let reading = self.answer.as_ref().filter(|answer| answer.pending.is_none());
        reading.map_or(0, |answer| shared(&answer.prompt, prompt)).max(self.shared(prompt))
    }

    /// Whether the answer at work still reads its prompt.
    pub(crate) fn is_reading(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.pending.is_none())
    }
}

fn shared(cached: &[u32], prompt: &[u32]) -> usize {
    let most = prompt.len().saturating_sub(1);
    cached.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count()
}

/// Where a prompt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The slot.
    pub(crate) slot: usize,
    /// Positions that are in the cache already.
    pub(crate) shared: usize,
    /// The slot to copy them from, unless they are in place.
    pub(crate) source: Option<usize>,
}

/// The best free slot for a prompt, `None` when all are busy. The one that shares the longest beginning
/// is continued if that is most of what it holds; otherwise it may be another conversation's that only
/// begins alike, so the beginning is copied to the slot that has been idle for longest.
pub(crate) fn place(slots: &[Slot<'_>], prompt: &[u32]) -> Option<Placement> {
    let free = || (0..slots.len()).filter(|&index| slots[index].answer.is_none());
    let oldest = free().min_by_key(|&index| (slots[index].used, index))?;
    let share = |index: usize| slots[index].shared(prompt);
    let longest = (0..slots.len()).max_by_key(|&i| (share(i), slots[i].answer.is_none()))?;
    if share(longest) == 0 {
        return Some(Placement { slot: oldest, shared: 0, source: None });
    }
    let in_place = free().max_by_key(|&index| share(index)).filter(|&index| {
        share(index) == share(longest) && 2 * share(index) >= slots[index].cached.len()
    });
    let slot = in_place.unwrap_or(oldest);
    let source = (share(slot) < share(longest)).then_some(longest);
    Some(Placement { slot, shared: share(longest), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(cached: &[&[u32]]) -> Vec<Slot<'static>> {
        let slot = |(used, tokens): (u64, &&[u32])| Slot {
            cached: tokens.to_vec(),
            used,
            ..Slot::default()
        };
        (1..).zip(cached).map(slot).collect()
    }

    #[test]
    fn a_conversation_goes_on_where_it_was() {
        let slots = slots(&[&[9, 9], &[1, 2, 3, 4], &[]]);
        let placement = place(&slots, &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(placement, Placement { slot: 1, shared: 4, source: None });
    }

    #[test]
    fn a_common_beginning_is_copied() {
        let slots = slots(&[&[9, 9], &[1, 2, 3, 4, 5, 6], &[]]);
        let placement = place(&slots, &[1, 2, 7, 8]).unwrap();
        assert_eq!(placement, Placement { slot: 0, shared: 2, source: Some(1) });
    }

    #[test]
    fn the_last_token_is_always_read() {
        let slots = slots(&[&[1, 2, 3]]);
        let placement = place(&slots, &[1, 2, 3]).unwrap();
        assert_eq!(placement, Placement { slot: 0, shared: 2, source: None });
        assert_eq!(place(&slots, &[1]).unwrap().shared, 0);
    }

    #[test]
    fn a_new_text_takes_the_slot_that_was_idle_for_longest() {
        let mut slots = slots(&[&[9, 9], &[8], &[]]);
        slots[2].used = 0;
        assert_eq!(place(&slots, &[1, 2]).unwrap().slot, 2);
        slots[2].used = 9;
        assert_eq!(place(&slots, &[1, 2]), Some(Placement { slot: 0, shared: 0, source: None }));
        assert!(place(&[], &[1]).is_none());
    }
}
