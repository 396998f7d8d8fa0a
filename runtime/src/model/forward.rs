//! The forward pass, to be read from top to bottom. What differs between the families of models is in
//! [`Family`](super::Family) and, with it, in the [`Entry`]s of a block.
//!
//! One parallel region per call; inside, every operation is split over the workers by position and
//! ended by a barrier where the next one reads what others wrote. Rows of a matrix go to the same
//! worker for all tokens of the batch. One token goes through the gemv kernels and a few through those of
//! small batches, a block of rows at a time, so that weights read once serve every token; more go through
//! a gemm kernel, in tiles, the layers that share an input stacked into one matrix. Each value is computed
//! by one fixed sequence of operations, whatever the batch, the threads, the kernels and the ISA.

use super::attention::{Past, heads_per_task};
use super::linear::Linear;
use super::passage::{Token, most_tokens, passages};
use super::scratch::{Input, Own, ScratchParts};
use super::stack::{Order, Outputs, PrefillChoice, Stack};
use super::weights::{Block, Entry, Weights};
use super::window::Ropes;
use super::{Config, Row};
use crate::cache::{Layout, StoreParts, Stored};
use crate::trace::Trace;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use trilut_kernels::float::{elementwise, norm, reduce};
use trilut_kernels::pool::{Parts, Worker};
use trilut_kernels::{Panel, Supported, Tile};
use trilut_presets::models::Activation;

/// Rows of a ternary matrix that are kept in cache while all tokens of a batch pass over them: the most
/// that a lookup kernel takes in one pass.
pub(super) const BLOCK_ROWS: usize = 4 * Tile::ROW_QUANTUM;

/// The same of the head, whose rows are longer.
const HEAD_BLOCK_ROWS: usize = 32;

/// What all workers of a region share.
pub(crate) struct Forward<'a, 't> {
    pub(crate) config: &'a Config,
    pub(crate) weights: &'a Weights,
    /// In the order of [`Config::stacks`].
    pub(crate) stacks: &'a [PrefillChoice],
    pub(crate) ropes: &'a Ropes,
    pub(crate) isa: Supported,
    pub(crate) rows: &'a [Row],
    pub(crate) cache: Layout,
    pub(crate) stored: StoreParts<'a>,
    pub(crate) scratch: ScratchParts<'a>,
    pub(crate) trace: Option<&'a Mutex<&'t mut Trace>>,
    /// Whether the wanted rows go through the head; else the normed `h` is what is wanted.
    pub(crate) head: bool,
    /// Set when a norm, the attention or the logits met a value that is not finite.
    pub(crate) not_finite: AtomicBool,
}

// A note on the `unsafe` blocks below: each takes parts of shared buffers. "Own" parts are those that
// `Worker::share` (or `tasks`, or the worker's index) gives to this worker and no other; "complete"
// buffers were written before the last barrier and are not written before the next one.
impl Forward<'_, '_> {
    /// One worker's run through the whole model.
    pub(crate) fn run(&self, worker: &Worker) {
        self.embed(worker);
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            self.attention(worker, layer, block);
            self.feed_forward(worker, layer, block);
        }
        self.logits(worker);
    }

    /// h = embedding[token], scaled where the family does
    fn embed(&self, worker: &Worker) {
        for t in worker.share(self.rows.len(), 1) {
            // SAFETY: an own token.
            let h = unsafe { self.scratch.h.get_mut(at(t, self.config.hidden)) };
            self.weights.embedding.row(self.isa, self.rows[t].token as usize, h);
            if self.config.family.scaled_embedding {
                elementwise::scale(self.isa, h, (self.config.hidden as f32).sqrt());
            }
        }
        worker.barrier();
    }

    /// h += attn_output(attention(rope(q), rope(k), v)) with q, k, v of norm(h); the heads' outputs, and
    /// what is added to h, are normed where the family does
    fn attention(&self, worker: &Worker, layer: usize, block: &Block) {
        let (config, scratch) = (self.config, &self.scratch);
        let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);

        // n x heads x head_dim, n x kv_heads x head_dim twice
        let mut outs = &[&scratch.q, &scratch.k, &scratch.v][..];
        for entry in &block.qkv {
            let (own_outs, rest) = outs.split_at(entry.linears.len());
            let stack = self.stack_of(entry, Order::OneByOne);
            let inputs = self.quantised(worker, &scratch.h, entry, &stack);
            self.record(worker, layer, entry, inputs);
            self.write_linears(worker, &stack, inputs, own_outs);
            worker.barrier();
            outs = rest;
        }

        // Queries are turned in place; keys and values go to the cache. Heads are normed first where
        // the family does.
        let (norms, rope) = (block.head_norms.as_ref(), self.ropes.of(config, layer));
        for unit in worker.share(self.rows.len() * heads, 1) {
            // SAFETY: an own head of a token's query.
            let q = unsafe { scratch.q.get_mut(at(unit, head_dim)) };
            if let Some([norm, _]) = norms {
                self.norm_in_place(worker, norm, q);
            }
            rope.rotate(self.isa, self.rows[unit / heads].position, q);
        }
        for unit in worker.share(self.rows.len() * kv_heads, 1) {
            let (row, head) = (self.rows[unit / kv_heads], unit % kv_heads);
            let positions = row.position..row.position + 1;
            let place = self.cache.rows(row.sequence, layer, head, positions).start;
            // SAFETY: an own head of a token's key and value.
            let (k, v) = unsafe {
                (scratch.k.get_mut(at(unit, head_dim)), scratch.v.get(at(unit, head_dim)))
            };
            if let Some([_, norm]) = norms {
                self.norm_in_place(worker, norm, k);
            }
            rope.rotate(self.isa, row.position, k);
            // SAFETY: its place in the cache, which no other token has: positions of a sequence differ.
            unsafe {
                self.stored.set(self.isa, place, k, v);
            }
        }
        worker.barrier();
        self.record_cache(worker, layer);

        let most = most_tokens(&self.stored);
        let passages = passages(self.rows, kv_heads, worker.threads, most);
        if passages.len() == self.rows.len() {
            self.attend_tokens(worker, layer);
        } else {
            self.attend_passages(worker, layer, &passages);
        }
        worker.barrier();

        self.add_entry(worker, layer, &block.attn_output, &scratch.heads, &block.attn_post_norm);
    }

    /// heads = attention(q, keys, values), a token at a time
    fn attend_tokens(&self, worker: &Worker, layer: usize) {
        let (&Config { heads, kv_heads, head_dim, .. }, scratch) = (self.config, &self.scratch);
        // SAFETY: the worker's own.
        let own = unsafe { &mut scratch.own.get_mut(at(worker.index, 1))[0] };
        let shared = heads / kv_heads;
        let group = heads_per_task(shared, self.rows.len() * kv_heads, worker.threads);
        let (groups, width) = (heads / group, group * head_dim);
        // Dealt in turn: later tokens see more, so even parts in their order would be uneven work.
        for unit in (worker.index..self.rows.len() * groups).step_by(worker.threads) {
            let (row, kv_head) = (self.rows[unit / groups], unit % groups * group / shared);
            let past = self.past(layer, row.sequence, kv_head, self.seen(layer, row));
            // SAFETY: queries are complete; the output is own heads of a token.
            let (q, out) =
                unsafe { (scratch.q.get(at(unit, width)), scratch.heads.get_mut(at(unit, width))) };
            let Own { scores, partial, passage, .. } = own;
            let finite = past.attend(q, scores, partial, passage, out);
            self.check(finite);
        }
    }

    /// The same, tokens that follow each other together
    fn attend_passages(&self, worker: &Worker, layer: usize, passages: &[Range<usize>]) {
        let (&Config { heads, kv_heads, head_dim, .. }, scratch) = (self.config, &self.scratch);
        // SAFETY: the worker's own.
        let own = unsafe { &mut scratch.own.get_mut(at(worker.index, 1))[0] };
        let width = heads / kv_heads * head_dim;
        // Dealt in turn, as single tokens are.
        for unit in (worker.index..passages.len() * kv_heads).step_by(worker.threads) {
            let (passage, kv_head) = (passages[unit / kv_heads].clone(), unit % kv_heads);
            let (first, last) = (self.rows[passage.start], self.rows[passage.end - 1]);
            let seen = self.seen(layer, first).start..self.seen(layer, last).end;
            let past = self.past(layer, first.sequence, kv_head, seen);
            let token = |t: usize| {
                let place = at(t * kv_heads + kv_head, width);
                // SAFETY: queries are complete; the output is own heads of a token.
                let (queries, out) =
                    unsafe { (scratch.q.get(place.clone()), scratch.heads.get_mut(place)) };
                Token { queries, out, seen: self.seen(layer, self.rows[t]) }
            };
            let mut tokens: Vec<_> = passage.map(token).collect();
            self.check(past.attend_each(&mut tokens, &mut own.passage));
        }
    }

    /// The positions that a token sees in a layer.
    fn seen(&self, layer: usize, row: Row) -> Range<usize> {
        self.config.first_seen(layer, row.position)..row.position + 1
    }

    /// The keys and values of `positions` of a head.
    fn past(
        &self,
        layer: usize,
        sequence: usize,
        kv_head: usize,
        positions: Range<usize>,
    ) -> Past<'_> {
        let (width, first) = (self.config.head_dim, positions.start);
        let scale = 1.0 / (width as f32).sqrt();
        let rows = self.cache.rows(sequence, layer, kv_head, positions);
        // SAFETY: the cache is complete.
        let stored = unsafe { self.stored.get(rows, width) };
        Past { isa: self.isa, width, scale, first, stored }
    }

    /// h += ffn_down(activation(gate) * up) with gate, up of norm(h); the product, and what is added to h,
    /// are normed where the family does
    fn feed_forward(&self, worker: &Worker, layer: usize, block: &Block) {
        let scratch = &self.scratch;
        // Whether the entry begins with the gate or with up.
        let mut first = 0;
        for entry in &block.gate_up {
            let stack = self.stack_of(entry, Order::SideBySide);
            let inputs = self.quantised(worker, &scratch.h, entry, &stack);
            self.record(worker, layer, entry, inputs);
            if self.is_prompt(&stack) {
                self.stack(worker, &stack, |Outputs { layer, rows, token, values }| {
                    // SAFETY: own rows of a token.
                    let gate =
                        unsafe { scratch.gate.get_mut(within(token, self.config.ffn, &rows)) };
                    match first + layer {
                        0 => gate.copy_from_slice(values),
                        _ => self.activate(gate, values),
                    }
                });
            } else {
                self.gate_up(worker, &entry.linears, first, inputs);
            }
            worker.barrier();
            first += entry.linears.len();
        }
        self.add_entry(worker, layer, &block.down, &scratch.gate, &block.ffn_post_norm);
    }

    /// gate = gate, then gate = activation(gate) * up, n x ffn, for those of the two layers that are
    /// given, by gemv kernels
    fn gate_up(&self, worker: &Worker, linears: &[Linear], first: usize, inputs: &[Input]) {
        // SAFETY: the worker's own.
        let own = unsafe { &mut self.scratch.own.get_mut(at(worker.index, 1))[0] };
        if inputs.is_empty() {
            return;
        }
        // Both have one shape, so one kernel and one division of the rows.
        for rows in self.row_blocks(worker, &linears[0]) {
            let (n, len) = (inputs.len(), rows.len());
            let sums = &mut own.sums[..linears.len() * n * len];
            for (linear, sums) in linears.iter().zip(sums.chunks_exact_mut(n * len)) {
                linear.sums(inputs, rows.clone(), sums, &mut own.group_sums);
            }
            let up = &mut own.floats[..len];
            for (t, input) in inputs.iter().enumerate() {
                // SAFETY: own rows of a token.
                let gate = unsafe { self.scratch.gate.get_mut(within(t, self.config.ffn, &rows)) };
                let each = (first..).zip(linears).zip(sums.chunks_exact(n * len));
                for ((layer, linear), sums) in each {
                    let out = if layer == 0 { &mut *gate } else { &mut *up };
                    linear.floats(rows.clone(), &sums[at(t, len)], input.amax, out);
                    if layer == 1 {
                        self.activate(gate, up);
                    }
                }
            }
        }
    }

    /// gate = activation(gate) * up
    fn activate(&self, gate: &mut [f32], up: &[f32]) {
        match self.config.family.activation {
            Activation::Relu2 => elementwise::relu2_mul(self.isa, gate, up),
            Activation::Silu => elementwise::silu_mul(self.isa, gate, up),
            Activation::Gelu => elementwise::gelu_mul(self.isa, gate, up),
        }
    }

    /// x = norm(x), of a head
    fn norm_in_place(&self, worker: &Worker, weight: &[f32], x: &mut [f32]) {
        // SAFETY: the worker's own.
        let own = unsafe { &mut self.scratch.own.get_mut(at(worker.index, 1))[0] };
        let normed = &mut own.normed[..x.len()];
        self.check(norm::rms_norm(self.isa, x, weight, self.config.eps, normed).is_finite());
        x.copy_from_slice(normed);
    }

    /// The stack of an entry's layers.
    fn stack_of<'b>(&'b self, entry: &'b Entry, order: Order) -> Stack<'b> {
        Stack { linears: &entry.linears, order, choice: &self.stacks[entry.stack] }
    }

    /// Whether the batch is large enough for a stack's gemm kernel.
    fn is_prompt(&self, stack: &Stack<'_>) -> bool {
        self.rows.len() >= stack.choice.from
    }

    /// Runs this worker's rows of a stack for all tokens.
    fn stack(&self, worker: &Worker, stack: &Stack<'_>, store: impl FnMut(Outputs<'_>)) {
        let n = self.rows.len();
        // SAFETY: the worker's own scratch; tiles and magnitudes are complete.
        let (own, tiles, amax) = unsafe {
            (
                &mut self.scratch.own.get_mut(at(worker.index, 1))[0],
                self.scratch.tiles.get(0..stack.choice.tiles(n).count() * stack.groups()),
                self.scratch.amax.get(0..n),
            )
        };
        let share = worker.share(stack.rows(), Panel::ROW_QUANTUM);
        stack.run(self.isa, share, tiles, amax, &mut own.stack, store);
    }

    /// logits = head * norm(h), for the tokens that want them
    fn logits(&self, worker: &Worker) {
        let Config { hidden, vocab, eps, .. } = *self.config;
        let (scratch, norm) = (&self.scratch, &self.weights.output_norm);
        let wanted = || self.rows.iter().enumerate().filter(|(_, row)| row.logits);
        // SAFETY: the worker's own.
        let own = unsafe { &mut scratch.own.get_mut(at(worker.index, 1))[0] };
        let share = worker.share(wanted().count(), 1);
        for (t, _) in wanted().skip(share.start).take(share.len()) {
            // SAFETY: an own token.
            let h = unsafe { scratch.h.get_mut(at(t, hidden)) };
            let normed = &mut own.normed[..hidden];
            self.check(norm::rms_norm(self.isa, h, norm, eps, normed).is_finite());
            h.copy_from_slice(normed);
        }
        if !self.head {
            return;
        }
        worker.barrier();

        let head = self.weights.head();
        let share = worker.share(vocab, HEAD_BLOCK_ROWS);
        // One token streams its whole share; several go over a block together.
        let count = wanted().count();
        let block = if count == 1 { share.len().max(1) } else { HEAD_BLOCK_ROWS };
        // SAFETY: the normed tokens are complete.
        let token = |(t, _)| unsafe { scratch.h.get(at(t, hidden)) };
        let tokens = head.vectors(self.isa, wanted().map(token).collect());
        for start in share.clone().step_by(block) {
            let rows = start..share.end.min(start + block);
            let out = |index| {
                // SAFETY: own rows of a token.
                unsafe { scratch.logits.get_mut(within(index, vocab, &rows)) }
            };
            let mut outs: Vec<&mut [f32]> = (0..count).map(out).collect();
            head.rows_times(self.isa, rows.clone(), &tokens, &mut outs);
            outs.iter().for_each(|out| self.check(reduce::all_finite(self.isa, out)));
        }
    }

    /// The int8 form of source[t], behind the entry's norms, for every token, prepared for the stack's
    /// kernels. A single token is normed by every worker for itself, which is cheaper than a barrier;
    /// several are split.
    fn quantised(
        &self,
        worker: &Worker,
        source: &Parts<f32>,
        entry: &Entry,
        stack: &Stack<'_>,
    ) -> &[Input] {
        let (n, scratch, width) = (self.rows.len(), &self.scratch, entry.linears[0].k());
        let alone = n == 1;
        // SAFETY: the worker's own.
        let own = unsafe { &mut scratch.own.get_mut(at(worker.index, 1))[0] };
        for t in if alone { 0..1 } else { worker.share(n, 1) } {
            let slot = if alone { worker.index } else { t };
            // SAFETY: the source is complete; the slot is the worker's or an own token's.
            let (x, input) =
                unsafe { (source.get(at(t, width)), &mut scratch.inputs.get_mut(at(slot, 1))[0]) };
            let (mut from, mut to) = (&mut own.again[..width], &mut own.normed[..width]);
            let (isa, eps) = (self.isa, self.config.eps);
            if let Some((last, before)) = entry.norms.split_last() {
                for (index, weight) in before.iter().enumerate() {
                    let x = if index == 0 { x } else { &*from };
                    self.check(norm::rms_norm(isa, x, weight, eps, to).is_finite());
                    std::mem::swap(&mut from, &mut to);
                }
                let x = if before.is_empty() { x } else { &*from };
                let (mean, amax) = input.activations.norm_and_quantise(isa, x, last, eps, to);
                self.check(mean.is_finite());
                input.amax = amax;
            } else {
                self.check(reduce::all_finite(isa, x));
                input.amax = input.activations.quantise(isa, x);
            }
            self.check(input.amax.is_finite());
            if let Some(inputs) = stack.group_inputs() {
                input.split(inputs);
            }
            if self.is_prompt(stack) {
                // SAFETY: an own token.
                let amax = unsafe { scratch.amax.get_mut(at(t, 1)) };
                amax[0] = input.amax;
            } else {
                stack.linears.iter().for_each(|linear| linear.prepare(input, n));
            }
        }
        if alone {
            // SAFETY: the worker's own; written again only after the caller's next barrier.
            return unsafe { scratch.inputs.get(at(worker.index, 1)) };
        }
        worker.barrier();
        // SAFETY: complete; written again only after the caller's next barrier.
        let inputs = unsafe { scratch.inputs.get(0..n) };
        if self.is_prompt(stack) {
            let tiles: Vec<_> = stack.choice.tiles(n).collect();
            for index in worker.share(tiles.len() * stack.groups(), 1) {
                let (group, (tokens, kernel)) = (index / tiles.len(), &tiles[index % tiles.len()]);
                // SAFETY: an own tile.
                let tile = unsafe { &mut scratch.tiles.get_mut(at(index, 1))[0] };
                let inputs = inputs[tokens.clone()].iter();
                match stack.group_inputs() {
                    None => kernel.arrange(tile, inputs.map(|input| &input.activations)),
                    Some(_) => kernel.arrange(tile, inputs.map(|input| &input.parts[group])),
                }
            }
            worker.barrier();
        }
        inputs
    }

    /// out[t] = linear(inputs[t]) for this worker's rows of each layer of a stack
    fn write_linears(
        &self,
        worker: &Worker,
        stack: &Stack<'_>,
        inputs: &[Input],
        outs: &[&Parts<f32>],
    ) {
        if self.is_prompt(stack) {
            return self.stack(worker, stack, |Outputs { layer, rows, token, values }| {
                let m = stack.linears[layer].m();
                // SAFETY: own rows of a token.
                let out = unsafe { outs[layer].get_mut(within(token, m, &rows)) };
                out.copy_from_slice(values);
            });
        }
        // SAFETY: the worker's own.
        let own = unsafe { &mut self.scratch.own.get_mut(at(worker.index, 1))[0] };
        for (linear, out) in stack.linears.iter().zip(outs) {
            for rows in self.row_blocks(worker, linear) {
                let sums = &mut own.sums[..inputs.len() * rows.len()];
                linear.sums(inputs, rows.clone(), sums, &mut own.group_sums);
                let each = inputs.iter().zip(sums.chunks_exact(rows.len()));
                for (t, (input, sums)) in each.enumerate() {
                    // SAFETY: own rows of a token.
                    let out = unsafe { out.get_mut(within(t, linear.m(), &rows)) };
                    linear.floats(rows.clone(), sums, input.amax, out);
                }
            }
        }
    }

    /// h[t] += linear(source[t]), of an entry of one layer, its output normed where there is a norm
    fn add_entry(
        &self,
        worker: &Worker,
        layer: usize,
        entry: &Entry,
        source: &Parts<f32>,
        post_norm: &Option<Vec<f32>>,
    ) {
        let (scratch, hidden) = (&self.scratch, self.config.hidden);
        let stack = self.stack_of(entry, Order::OneByOne);
        let inputs = self.quantised(worker, source, entry, &stack);
        self.record(worker, layer, entry, inputs);
        let Some(weight) = post_norm else {
            self.add_linear(worker, &stack, inputs, &scratch.h); // n x hidden
            worker.barrier();
            return;
        };
        self.write_linears(worker, &stack, inputs, &[&scratch.delta]); // n x hidden
        worker.barrier();
        for t in worker.share(self.rows.len(), 1) {
            // SAFETY: an own token.
            let (delta, h) =
                unsafe { (scratch.delta.get_mut(at(t, hidden)), scratch.h.get_mut(at(t, hidden))) };
            self.norm_in_place(worker, weight, delta);
            elementwise::add(self.isa, h, delta);
        }
        worker.barrier();
    }

    /// out[t] += linear(inputs[t]) for this worker's rows, the linear layer being the stack's only one
    fn add_linear(&self, worker: &Worker, stack: &Stack<'_>, inputs: &[Input], out: &Parts<f32>) {
        let linear = &stack.linears[0];
        if self.is_prompt(stack) {
            return self.stack(worker, stack, |Outputs { rows, token, values, .. }| {
                // SAFETY: own rows of a token.
                let out = unsafe { out.get_mut(within(token, linear.m(), &rows)) };
                elementwise::add(self.isa, out, values);
            });
        }
        // SAFETY: the worker's own.
        let own = unsafe { &mut self.scratch.own.get_mut(at(worker.index, 1))[0] };
        for rows in self.row_blocks(worker, linear) {
            let sums = &mut own.sums[..inputs.len() * rows.len()];
            let floats = &mut own.floats[..rows.len()];
            linear.sums(inputs, rows.clone(), sums, &mut own.group_sums);
            for (t, (input, sums)) in inputs.iter().zip(sums.chunks_exact(rows.len())).enumerate() {
                linear.floats(rows.clone(), sums, input.amax, floats);
                // SAFETY: own rows of a token.
                let out = unsafe { out.get_mut(within(t, linear.m(), &rows)) };
                elementwise::add(self.isa, out, floats);
            }
        }
    }

    /// This worker's rows of a linear layer: whole tasks for one token, small blocks for several.
    fn row_blocks(&self, worker: &Worker, linear: &Linear) -> impl Iterator<Item = Range<usize>> {
        let block = if self.rows.len() == 1 { usize::MAX } else { BLOCK_ROWS };
        let rows_per_task = linear.tile(self.rows.len()).rows_per_task;
        let tasks = worker.tasks(linear.m(), rows_per_task, Tile::ROW_QUANTUM);
        tasks.flat_map(move |task| {
            let end = task.end;
            task.step_by(block).map(move |start| start..end.min(start.saturating_add(block)))
        })
    }

    fn check(&self, finite: bool) {
        if !finite {
            self.not_finite.store(true, Ordering::Relaxed);
        }
    }

    /// Gives an entry's inputs to the trace, if there is one.
    fn record(&self, worker: &Worker, layer: usize, entry: &Entry, inputs: &[Input]) {
        if let Some(trace) = self.trace.filter(|_| worker.index == 0) {
            let mut trace = trace.lock().unwrap_or_else(|e| e.into_inner());
            let name = format!("blk.{layer}.{}", entry.name);
            for input in inputs {
                trace.i8s(&format!("{name}.q"), input.activations.q());
                trace.f32s(&format!("{name}.amax"), &[input.amax]);
            }
        }
    }

    /// Gives the new keys and values, as they are stored, to the trace, if there is one.
    fn record_cache(&self, worker: &Worker, layer: usize) {
        let Some(trace) = self.trace.filter(|_| worker.index == 0) else { return };
        let mut trace = trace.lock().unwrap_or_else(|e| e.into_inner());
        let width = self.config.head_dim;
        let [key, value] = ["k", "v"].map(|name| format!("blk.{layer}.{name}"));
        for row in self.rows {
            let place = row.position..row.position + 1;
            let (mut halves, mut floats) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for head in 0..self.config.kv_heads {
                let rows = self.cache.rows(row.sequence, layer, head, place.clone());
                // SAFETY: the cache is complete.
                match unsafe { self.stored.get(rows, width) } {
                    Stored::F16 { keys, values } => {
                        halves[0].extend_from_slice(keys);
                        halves[1].extend_from_slice(values);
                    }
                    Stored::Fixed { keys, values } => {
                        floats[0].extend(keys.values(0, width));
                        floats[1].extend(values.values(0, width));
                    }
                }
            }
            for (name, (halves, floats)) in
                [&key, &value].into_iter().zip(halves.iter().zip(&floats))
            {
                match halves.is_empty() {
                    true => trace.f32s(name, floats),
                    false => trace.f16s(name, halves),
                }
            }
        }
    }
}

/// Item `index` of a buffer of items `width` long.
fn at(index: usize, width: usize) -> Range<usize> {
    index * width..(index + 1) * width
}

/// The `rows` of item `index`.
fn within(index: usize, width: usize, rows: &Range<usize>) -> Range<usize> {
    index * width + rows.start..index * width + rows.end
}
