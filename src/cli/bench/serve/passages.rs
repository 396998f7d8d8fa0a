//! Prompts of any length that have nothing in common, so that no server finds one in its cache.

use super::super::super::failure::Failure;

/// Ordinary prose; its tokens are what prompts are made of.
const PROSE: &str = "Early in the morning the miller's daughter went down to the river with a basket of \
    bread, because her brother had promised to bring fish from the other side. The water was high and \
    brown after three days of rain. On the bridge stood an old man who asked everybody the same question: \
    how many stones are there in a wall that nobody has built? She thought about it, laughed, and gave \
    him half a loaf. In return he told her where the ferry was hidden, which road the merchants took in \
    winter, and why the bells of the town had been silent since the great fire. When evening came she had \
    learned more than in a whole year at school, and her basket was empty.";

/// Draws prompts.
#[derive(Debug)]
pub(super) struct Passages {
    tokens: Vec<u32>,
    state: u64,
}

impl Passages {
    /// The text whose tokens [`new`](Self::new) takes.
    pub(super) const TEXT: &str = PROSE;

    /// Draws from tokens, with the same seed the same ones in the same order.
    ///
    /// # Errors
    /// When there is no token.
    pub(super) fn new(mut tokens: Vec<u32>, seed: u64) -> Result<Self, Failure> {
        tokens.sort_unstable();
        tokens.dedup();
        if tokens.is_empty() {
            return Err(Failure::new("the server finds no tokens in a text"));
        }
        Ok(Self { tokens, state: seed })
    }

    /// A prompt.
    pub(super) fn draw(&mut self, len: usize) -> Vec<u32> {
        let mut one = || {
            let place = self.next() as usize % self.tokens.len();
            self.tokens[place]
        };
        (0..len).map(|_| one()).collect()
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::Passages;

    #[test]
    fn prompts_differ_from_their_beginning_and_are_the_same_every_time() {
        let tokens: Vec<u32> = (100..164).collect();
        let new = |seed| Passages::new(tokens.clone(), seed).unwrap();
        let (mut passages, mut again, mut others) = (new(1), new(1), new(2));
        let drawn: Vec<_> = (0..20).map(|_| passages.draw(64)).collect();
        assert!(drawn.iter().all(|prompt| prompt.len() == 64));
        let shared = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        for (index, prompt) in drawn.iter().enumerate() {
            assert!(drawn[..index].iter().all(|earlier| shared(earlier, prompt) < 4));
            assert_eq!(*prompt, again.draw(64));
            assert!(shared(prompt, &others.draw(64)) < 4);
        }
    }

    #[test]
    fn no_tokens_make_no_prompts() {
        assert!(Passages::new(Vec::new(), 1).is_err());
    }
}
