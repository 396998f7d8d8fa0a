//! The buffers of a forward pass: allocated once, grown to the largest batch, shared by the workers of
//! a region.

use super::attention;
use super::buffer::Buffer;
use super::config::Config;
use super::forward::BLOCK_ROWS;
use super::passage::PassageScratch;
use super::stack::StackScratch;
use trilut_kernels::pool::Parts;
use trilut_kernels::{Activations, MOST_SMALL_BATCH, TokenTile};

/// Buffers for a batch of `n` tokens; in comments, the shape of each.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// n x hidden: the residual stream
    pub(crate) h: Buffer<f32>,
    /// n x hidden: what is to be normed before it joins the residual stream, in models that do that
    delta: Buffer<f32>,
    /// n x max(ffn, 2 q_len + 2 kv_len): what attention computes, then what the feed-forward network does
    work: Buffer<f32>,
    /// max(n, threads): the quantised input of the linear layer at hand, by token, or, for a single
    /// token, by worker
    pub(crate) inputs: Vec<Input>,
    /// max(n / tokens of a tile): the same of several tokens, arranged for a gemm kernel
    pub(crate) tiles: Vec<TokenTile>,
    /// n: the largest magnitude of each of these inputs
    pub(crate) amax: Vec<f32>,
    /// by worker
    pub(crate) own: Vec<Own>,
    /// logits wanted x vocab
    pub(crate) logits: Buffer<f32>,
}

/// A quantised activation.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) activations: Activations,
    /// The same by groups of inputs, for weights that have scales for each.
    pub(crate) parts: Vec<Activations>,
    pub(crate) amax: f32,
}

/// What a worker needs for itself.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// A normed token.
    pub(crate) normed: Buffer<f32>,
    /// A token that is normed again.
    pub(crate) again: Buffer<f32>,
    /// Sums of the rows of one or two linear layers.
    pub(crate) sums: Buffer<i32>,
    /// Sums of a group of inputs, where there are such.
    pub(crate) group_sums: Vec<i32>,
    /// Their floats, where they are added to something.
    pub(crate) floats: Buffer<f32>,
    /// What running a stack of linear layers needs.
    pub(crate) stack: StackScratch,
    /// Attention scores of a chunk of positions, for the heads of a task.
    pub(crate) scores: Buffer<f32>,
    /// The weighted values of a chunk of positions, for the same heads.
    pub(crate) partial: Buffer<f32>,
    /// What attention of a passage needs.
    pub(crate) passage: PassageScratch,
}

impl Input {
    /// Cuts the activations into groups of `inputs`.
    pub(crate) fn split(&mut self, inputs: usize) {
        let groups = self.activations.q().chunks(inputs);
        self.parts.resize_with(groups.len(), Activations::default);
        self.parts.iter_mut().zip(groups).for_each(|(part, q)| part.set(q));
    }
}

impl Scratch {
    /// Makes room for a batch of `n` tokens, `logits` of which want logits, and for layers that are run as
    /// up to `groups` matrices.
    pub(crate) fn resize(
        &mut self,
        config: &Config,
        threads: usize,
        n: usize,
        logits: usize,
        groups: usize,
    ) {
        for (buffer, width) in [
            (&mut self.h, config.hidden),
            (&mut self.delta, if config.family.post_norms { config.hidden } else { 0 }),
            (&mut self.work, config.ffn.max(2 * (config.q_len() + config.kv_len()))),
        ] {
            buffer.resize(n * width);
        }
        self.logits.resize(logits * config.vocab);
        if self.inputs.len() < n.max(threads) {
            self.inputs.resize_with(n.max(threads), Input::default);
        }
        // No tile has fewer than 4 tokens.
        let tiles = n.div_ceil(4) * groups;
        if self.tiles.len() < tiles {
            self.tiles.resize_with(tiles, TokenTile::default);
        }
        self.amax.resize(n, 0.0);
        self.own.resize_with(threads, Own::default);
        for own in &mut self.own {
            let widest = config.ffn.max(config.q_len()).max(config.hidden);
            own.normed.resize(widest);
            own.again.resize(widest);
            // Gate and up of one token, or a block of rows of each of several.
            let block = BLOCK_ROWS * n.min(MOST_SMALL_BATCH);
            own.sums.resize(2 * widest.max(block));
            own.floats.resize(widest);
            let shared = config.heads / config.kv_heads;
            own.scores.resize(shared * attention::SCRATCH);
            own.partial.resize(shared * config.head_dim);
        }
    }

    /// Lends the buffers, which have room for `n` tokens, to a region.
    pub(crate) fn parts(&mut self, config: &Config, n: usize) -> ScratchParts<'_> {
        let work = Parts::new(&mut self.work);
        let (q, kv) = (n * config.q_len(), n * config.kv_len());
        ScratchParts {
            h: Parts::new(&mut self.h),
            delta: Parts::new(&mut self.delta),
            q: work.part(0..q),
            heads: work.part(q..2 * q),
            k: work.part(2 * q..2 * q + kv),
            v: work.part(2 * q + kv..2 * (q + kv)),
            gate: work.part(0..n * config.ffn),
            inputs: Parts::new(&mut self.inputs),
            tiles: Parts::new(&mut self.tiles),
            amax: Parts::new(&mut self.amax),
            own: Parts::new(&mut self.own),
            logits: Parts::new(&mut self.logits),
        }
    }
}

/// The buffers of [`Scratch`], lent to the workers of a region.
pub(crate) struct ScratchParts<'a> {
    pub(crate) h: Parts<'a, f32>,
    /// n x hidden, or nothing
    pub(crate) delta: Parts<'a, f32>,
    /// n x q_len
    pub(crate) q: Parts<'a, f32>,
    /// n x kv_len
    pub(crate) k: Parts<'a, f32>,
    /// n x kv_len
    pub(crate) v: Parts<'a, f32>,
    /// n x q_len: the heads' outputs
    pub(crate) heads: Parts<'a, f32>,
    /// n x ffn: the gated product; in the memory of the four before it
    pub(crate) gate: Parts<'a, f32>,
    pub(crate) inputs: Parts<'a, Input>,
    pub(crate) tiles: Parts<'a, TokenTile>,
    pub(crate) amax: Parts<'a, f32>,
    pub(crate) own: Parts<'a, Own>,
    pub(crate) logits: Parts<'a, f32>,
}
