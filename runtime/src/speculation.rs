//! Prompt-lookup speculation: what followed the last few tokens when they were there before is a guess at
//! what follows them now. Guesses are read in the same step as the token they follow and kept as far as the
//! sampler chooses the same ones, so that they change the speed and never the text.

/// The longest run of tokens that is looked up.
const LONGEST: usize = 4;

/// The shortest one: a single token says too little about what follows.
const SHORTEST: usize = 2;

/// Up to `most` tokens that may follow `tokens`: those that followed the last occurrence of its longest
/// repeated ending. Where that runs into the end of the tokens, the guess goes on with itself, as
/// repetitive text does. Nothing when no ending of at least two tokens was there before.
pub fn lookup(tokens: &[u32], most: usize) -> Vec<u32> {
    let len = tokens.len();
    let mut best: Option<(usize, usize)> = None;
    // `end` is where an earlier occurrence ends and its continuation begins.
    for end in (SHORTEST..len).rev() {
        let same = |n: &usize| tokens[end - 1 - n] == tokens[len - 1 - n];
        let matching = (0..LONGEST.min(end)).take_while(same).count();
        if matching >= SHORTEST && best.is_none_or(|(longest, _)| matching > longest) {
            best = Some((matching, end));
        }
        if matching == LONGEST {
            break;
        }
    }
    let Some((_, start)) = best else { return Vec::new() };
    let mut draft: Vec<u32> = Vec::with_capacity(most);
    for index in start..start + most {
        let token = tokens.get(index).copied().unwrap_or_else(|| draft[index - len]);
        draft.push(token);
    }
    draft
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn the_longest_and_then_the_latest_ending_is_continued() {
        assert_eq!(lookup(&[1, 2, 3, 4, 9, 2, 3], 2), [4, 9]);
        // Three tokens say more than two.
        assert_eq!(lookup(&[7, 1, 2, 5, 8, 1, 2, 6, 7, 1, 2], 1), [5]);
        assert_eq!(lookup(&[1, 2, 5, 1, 2, 6, 1, 2], 1), [6]);
    }

    #[test]
    fn repetition_is_carried_on() {
        assert_eq!(lookup(&[1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
        assert_eq!(lookup(&[9, 4, 4, 4], 3), [4, 4, 4]);
    }

    #[test]
    fn new_text_has_no_guess() {
        assert!(lookup(&[], 4).is_empty());
        assert!(lookup(&[1, 2, 3, 4], 4).is_empty());
        assert!(lookup(&[1, 2, 3, 2], 4).is_empty());
        assert!(lookup(&[1, 2, 1, 2], 0).is_empty());
    }
}
