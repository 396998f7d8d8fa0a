//! The forward pass of `bitnet-b1.58`, to be read from top to bottom.
//!
//! One parallel region per call; inside, every operation is split over the workers by position and
//! ended by a barrier where the next one reads what others wrote. Rows of a matrix go to the same
//! worker for all tokens of the batch, a block of them at a time, so that weights read once serve every
//! token. Each value is computed by one fixed sequence of operations, whatever the batch, the threads,
//! the kernels and the ISA.

use super::attention::attend;
use super::linear::Linear;
use super::scratch::{Input, ScratchParts};
use super::weights::{Block, Weights};
use super::{Config, Row};
use crate::cache::Layout;
use crate::trace::Trace;
use half::f16;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use trilut_kernels::float::{elementwise, norm, reduce, rope::Rope};
use trilut_kernels::pool::{Parts, Worker};
use trilut_kernels::{Supported, Tile};

/// Rows of a weight matrix that are kept in cache while all tokens of a batch pass over them.
const BLOCK_ROWS: usize = Tile::ROW_QUANTUM;

/// What all workers of a region share.
pub(crate) struct Forward<'a> {
    pub(crate) config: &'a Config,
    pub(crate) weights: &'a Weights,
    pub(crate) rope: &'a Rope,
    pub(crate) isa: Supported,
    pub(crate) rows: &'a [Row],
    pub(crate) cache: Layout,
    pub(crate) keys: Parts<'a, f16>,
    pub(crate) values: Parts<'a, f16>,
    pub(crate) scratch: ScratchParts<'a>,
    pub(crate) trace: Option<&'a Mutex<Trace>>,
    /// Set when a norm or the logits met a value that is not finite.
    pub(crate) not_finite: AtomicBool,
}

// A note on the `unsafe` blocks below: each takes parts of shared buffers. "Own" parts are those that
// `Worker::share` (or `tasks`, or the worker's index) gives to this worker and no other; "complete"
// buffers were written before the last barrier and are not written before the next one.
impl Forward<'_> {
    /// One worker's run through the whole model.
    pub(crate) fn run(&self, worker: &Worker) {
        self.embed(worker);
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            self.attention(worker, layer, block);
            self.feed_forward(worker, layer, block);
        }
        self.logits(worker);
    }

    /// h = embedding[token]
    fn embed(&self, worker: &Worker) {
        for t in worker.share(self.rows.len(), 1) {
            // SAFETY: an own token.
            let h = unsafe { self.scratch.h.get_mut(at(t, self.config.hidden)) };
            self.weights.embedding.row(self.isa, self.rows[t].token as usize, h);
        }
        worker.barrier();
    }

    /// h += attn_output(norm(attention(rope(q), rope(k), v))) with q, k, v of norm(h)
    fn attention(&self, worker: &Worker, layer: usize, block: &Block) {
        let (config, scratch) = (self.config, &self.scratch);
        let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);

        let linears = [&block.q, &block.k, &block.v];
        let inputs = self.quantised(worker, &scratch.h, &block.attn_norm, &linears);
        self.record(worker, || format!("blk.{layer}.attn_qkv"), inputs);
        self.linear(worker, &block.q, inputs, &scratch.q); // n x heads x head_dim
        self.linear(worker, &block.k, inputs, &scratch.k); // n x kv_heads x head_dim
        self.linear(worker, &block.v, inputs, &scratch.v); // n x kv_heads x head_dim
        worker.barrier();

        // Queries are turned in place; keys and values go to the cache as f16.
        for unit in worker.share(self.rows.len() * heads, 1) {
            // SAFETY: an own head of a token's query.
            let q = unsafe { scratch.q.get_mut(at(unit, head_dim)) };
            self.rope.rotate(self.isa, self.rows[unit / heads].position, q);
        }
        for unit in worker.share(self.rows.len() * kv_heads, 1) {
            let (row, head) = (self.rows[unit / kv_heads], unit % kv_heads);
            let place = row.position..row.position + 1;
            let place = self.cache.range(row.sequence, layer, head, place);
            // SAFETY: an own head of a token's key and value, and its place in the cache, which no
            // other token has: positions of a sequence differ.
            let (k, v, key, value) = unsafe {
                (
                    scratch.k.get_mut(at(unit, head_dim)),
                    scratch.v.get(at(unit, head_dim)),
                    self.keys.get_mut(place.clone()),
                    self.values.get_mut(place),
                )
            };
            self.rope.rotate(self.isa, row.position, k);
            elementwise::narrow_f16(self.isa, k, key);
            elementwise::narrow_f16(self.isa, v, value);
        }
        worker.barrier();
        self.record_cache(worker, layer);

        let scale = 1.0 / (head_dim as f32).sqrt();
        // SAFETY: the worker's own.
        let own = unsafe { &mut scratch.own.get_mut(at(worker.index, 1))[0] };
        for unit in worker.share(self.rows.len() * heads, 1) {
            let (row, kv_head) = (self.rows[unit / heads], unit % heads / (heads / kv_heads));
            let seen = self.cache.range(row.sequence, layer, kv_head, 0..row.position + 1);
            // SAFETY: queries and cache are complete; the output is an own head of a token.
            let (q, keys, values, out) = unsafe {
                (
                    scratch.q.get(at(unit, head_dim)),
                    self.keys.get(seen.clone()),
                    self.values.get(seen),
                    scratch.heads.get_mut(at(unit, head_dim)),
                )
            };
            attend(self.isa, q, scale, keys, values, &mut own.scores, &mut own.partial, out);
        }
        worker.barrier();

        let linears = [&block.attn_output];
        let inputs = self.quantised(worker, &scratch.heads, &block.attn_sub_norm, &linears);
        self.record(worker, || format!("blk.{layer}.attn_output"), inputs);
        self.add_linear(worker, &block.attn_output, inputs, &scratch.h); // n x hidden
        worker.barrier();
    }

    /// h += ffn_down(norm(relu²(gate) * up)) with gate, up of norm(h)
    fn feed_forward(&self, worker: &Worker, layer: usize, block: &Block) {
        let scratch = &self.scratch;

        let linears = [&block.gate, &block.up];
        let inputs = self.quantised(worker, &scratch.h, &block.ffn_norm, &linears);
        self.record(worker, || format!("blk.{layer}.ffn_gate_up"), inputs);
        self.linear(worker, &block.gate, inputs, &scratch.gate); // n x ffn
        self.linear(worker, &block.up, inputs, &scratch.up); // n x ffn
        worker.barrier();

        for unit in worker.share(self.rows.len() * self.config.ffn, 16) .. {
        }
    }
}

fn at(index: usize, width: usize) -> Range<usize> {
    index * width..(index + 1) * width
}
