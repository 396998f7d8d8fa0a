//! Merging: of all neighbours that make a token, those of the best rank are joined, the leftmost
//! first, until none are left.
//!
//! Both kinds of vocabulary do this; they differ in which neighbours join and at what rank. Short
//! sequences, which almost all words are, are searched for the best pair each time; long ones keep
//! the pairs in a heap, so that no text takes quadratic time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The longest sequence that is searched.
const SHORT: usize = 48;

/// A token under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol {
    /// The token; what single characters without one have is up to the vocabulary.
    pub(super) id: u32,
    /// Where it begins in the word.
    pub(super) start: usize,
    /// Where it ends; empty once it is part of another.
    pub(super) end: usize,
}

/// What two neighbours make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Joined {
    /// Smaller is sooner; never `u32::MAX`.
    pub(super) rank: u32,
    /// The token.
    pub(super) id: u32,
}

/// No token.
const NONE: Joined = Joined { rank: u32::MAX, id: 0 };

/// The memory that merging needs, kept from word to word.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// What each makes with the next.
    joined: Vec<Joined>,
    /// The one before and after each, by position, in long sequences.
    links: Vec<(usize, usize)>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

/// A pair in the heap, in the order in which pairs are joined.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    /// Where the right one ended: if it does no more, one of the two has changed.
    end: usize,
    id: u32,
}

impl Merger {
    /// Merges symbols with what `join` says of neighbours, and gives those that are left in order.
    pub(super) fn run(
        &mut self,
        symbols: impl Iterator<Item = Symbol>,
        join: impl Fn(Symbol, Symbol) -> Option<Joined>,
    ) -> impl Iterator<Item = Symbol> {
        self.symbols.clear();
        self.symbols.extend(symbols);
        if self.symbols.len() <= SHORT {
            self.short(|a, b| join(a, b).unwrap_or(NONE));
        } else {
            self.long(join);
        }
        self.symbols.iter().copied().filter(|symbol| symbol.start < symbol.end)
    }

    fn short(&mut self, join: impl Fn(Symbol, Symbol) -> Joined) {
        let Self { symbols, joined, .. } = self;
        joined.clear();
        joined.extend(symbols.windows(2).map(|pair| join(pair[0], pair[1])));
        // `min_by_key` takes the first of equals, which is the leftmost.
        while let Some((at, best)) = joined.iter().enumerate().min_by_key(|(_, joined)| joined.rank)
            && best.rank != NONE.rank
        {
            symbols[at] = Symbol { id: best.id, end: symbols[at + 1].end, ..symbols[at] };
            symbols.remove(at + 1);
            joined.remove(at);
            if at > 0 {
                joined[at - 1] = join(symbols[at - 1], symbols[at]);
            }
            if at + 1 < symbols.len() {
                joined[at] = join(symbols[at], symbols[at + 1]);
            }
        }
    }

    fn long(&mut self, join: impl Fn(Symbol, Symbol) -> Option<Joined>) {
        let Self { symbols, links, heap, .. } = self;
        let count = symbols.len();
        links.clear();
        links.extend((0..count).map(|at| (at.wrapping_sub(1), at + 1)));
        heap.clear();
        let candidate = |symbols: &[Symbol], left: usize, right: usize| {
            let Joined { rank, id } = join(symbols[left], symbols[right])?;
            Some(Reverse(Candidate { rank, left, end: symbols[right].end, id }))
        };
        heap.extend((1..count).filter_map(|right| candidate(symbols, right - 1, right)));
        while let Some(Reverse(Candidate { left, end, id, .. })) = heap.pop() {
            let (before, right) = links[left];
            let alive = symbols[left].start < symbols[left].end;
            if !alive || right >= count || symbols[right].end != end {
                continue;
            }
            symbols[left] = Symbol { id, end, ..symbols[left] };
            symbols[right].start = end;
            let after = links[right].1;
            links[left].1 = after;
            if after < count {
                links[after].0 = left;
                heap.extend(candidate(symbols, left, after));
            }
            if before < count {
                heap.extend(candidate(symbols, before, left));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Merges as the definition says.
    fn plainly(mut ids: Vec<u32>, join: impl Fn(u32, u32) -> Option<Joined>) -> Vec<u32> {
        while let Some((joined, at)) = (1..ids.len())
            .filter_map(|right| Some((join(ids[right - 1], ids[right])?, right - 1)))
            .min_by_key(|&(joined, at)| (joined.rank, at))
        {
            ids.splice(at..at + 2, [joined.id]);
        }
        ids
    }

    proptest! {
        #[test]
        fn both_ways_are_the_definition(
            ids in proptest::collection::vec(0u32..4, 0..200),
            merges in proptest::collection::vec((0u32..12, 0u32..12, 0u32..6), 0..40),
        ) {
            let join = |a, b| {
                let found = merges.iter().position(|&(left, right, _)| (left, right) == (a, b))?;
                Some(Joined { rank: merges[found].2, id: 4 + found as u32 % 8 })
            };
            let symbols = || {
                let symbol = |(at, &id)| Symbol { id, start: at, end: at + 1 };
                ids.iter().enumerate().map(symbol)
            };
            let wanted = plainly(ids.clone(), join);
            let mut merger = Merger::default();
            let got: Vec<u32> =
                merger.run(symbols(), |a, b| join(a.id, b.id)).map(|symbol| symbol.id).collect();
            prop_assert_eq!(&got, &wanted);
            merger.symbols.clear();
            merger.symbols.extend(symbols());
            merger.long(|a, b| join(a.id, b.id));
            let alive = merger.symbols.iter().filter(|symbol| symbol.start < symbol.end);
            prop_assert_eq!(alive.map(|symbol| symbol.id).collect::<Vec<_>>(), wanted);
        }
    }
}
