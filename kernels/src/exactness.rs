//! The gate: only kernels that reproduce the reference bit for bit are ever timed, or added to those that
//! models run by.
//!
//! Each kernel runs on a few rows with the layer's real number of inputs, where its loops, tails and
//! int16 bounds are the real ones, on random inputs and on the extremes at which sums could wrap.

use crate::{
    Activations, AnyKernel, BatchRunnable, GemmRunnable, GemmScratch, Layout, Packed, PackedView,
    Panel, Runnable, Segment, TokenTile, reference,
};
use trilut_presets::{Shape, Tile};

/// Rows that are checked: more than one group of 32, and an odd tail.
const ROWS: usize = 61;

/// Tokens that differ in random inputs. No tile's width is a multiple, so that tokens which change places
/// are noticed.
const TOKENS: usize = 5;

/// A kernel that does not reproduce the reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inexact {
    /// A sum differs.
    #[error("{kernel} on {shape}, {input}: row {row} of token {token} is {got}, must be {wanted}")]
    Sum {
        /// The kernel's name.
        kernel: String,
        /// The size that was run.
        shape: Shape,
        /// What the inputs were.
        input: &'static str,
        /// The token of the first sum that differs.
        token: usize,
        /// Its row.
        row: usize,
        /// The kernel's sum.
        got: i32,
        /// The reference's sum.
        wanted: i32,
    },
    /// The kernel or the packing refused the call.
    #[error("{kernel} on {shape} cannot be run: {why}")]
    Call {
        /// The kernel's name.
        kernel: String,
        /// The size that was run.
        shape: Shape,
        /// Its refusal.
        why: String,
    },
}

/// A small, fast generator of test inputs (xorshift64*); the seed is part of the call, so a failure can
/// be repeated.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Ternary weights.
    pub fn ternary(&mut self, count: usize) -> Vec<i8> {
        let draw = |_| ((u64::from(self.next_u32()) * 3) >> 32) as i8 - 1;
        (0..count).map(draw).collect()
    }

    /// Any int8 activations.
    pub fn activations(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| (self.next_u32() >> 24) as i8).collect()
    }
}

/// The gate for one layer. Inputs, their packed forms and the reference's sums are made once and serve
/// every kernel.
#[derive(Debug)]
pub struct Gate {
    layer: Shape,
    /// What panels are filled from.
    stored: Layout,
    /// A few rows with the layer's real number of inputs.
    few: Option<Vec<Case>>,
    /// All rows, for kernels that are made for one number of rows.
    all: Option<Vec<Case>>,
}

#[derive(Debug)]
struct Case {
    input: &'static str,
    ternary: Vec<i8>,
    /// Tokens that differ.
    tokens: Vec<Activations>,
    /// The sums of each of them.
    wanted: Vec<Vec<i32>>,
    packed: Vec<Packed>,
}

impl Gate {
    /// The gate for a layer whose panels are filled from `stored`; nothing is made before the first check.
    pub fn new(layer: Shape, stored: Layout) -> Self {
        Self { layer, stored, few: None, all: None }
    }

    /// Checks a kernel against the reference.
    ///
    /// # Errors
    /// With the first difference.
    pub fn check(&mut self, kernel: &AnyKernel) -> Result<(), Inexact> {
        let fixed = match kernel {
            AnyKernel::Gemv(kernel) => kernel.kernel().name.fixed.m.is_some(),
            AnyKernel::Batch(_) | AnyKernel::Gemm(_) => false,
        };
        let m = if fixed { self.layer.m } else { self.layer.m.min(ROWS) };
        let shape = Shape { m, k: self.layer.k };
        let cases = if fixed { &mut self.all } else { &mut self.few };
        let cases = cases.get_or_insert_with(|| cases_of(shape));
        let layout = kernel.layout(self.stored);
        cases.iter_mut().try_for_each(|case| case.check(kernel, shape, layout))
    }
}

/// What it is, the weights, and the activations of tokens that differ.
type Input = (&'static str, Vec<i8>, Vec<Vec<i8>>);

fn cases_of(shape: Shape) -> Vec<Case> {
    let mut random = Random::new(shape.k as u64);
    let (count, k) = (shape.weights(), shape.k);
    let signs: Vec<i8> =
        random.activations(k).iter().map(|q| if *q < 0 { -1 } else { 1 }).collect();
    // Every product is positive, so nothing averages out and every table entry can be the largest.
    let aligned: Vec<i8> = signs.iter().copied().cycle().take(count).collect();
    let loud: Vec<i8> = signs.iter().map(|s| if *s < 0 { -128 } else { 127 }).collect();
    let (weights, others) = (random.ternary(count), random.ternary(count));
    let mixed: Vec<Vec<i8>> = (0..TOKENS).map(|_| random.activations(k)).collect();
    let inputs: [Input; 7] = [
        ("random weights, random activations", weights, mixed),
        ("random weights, all activations -128", others, vec![vec![-128; k]]),
        ("weights 1, activations 127", vec![1; count], vec![vec![127; k]]),
        ("weights -1, activations 127", vec![-1; count], vec![vec![127; k]]),
        ("weights 1, activations -128", vec![1; count], vec![vec![-128; k]]),
        ("weights -1, activations -128", vec![-1; count], vec![vec![-128; k]]),
        ("weights = sign of activations, activations 127 and -128", aligned, vec![loud]),
    ];
    let case = |(input, ternary, tokens): Input| {
        let wanted = tokens.iter().map(|q| reference::gemv(shape, &ternary, q)).collect();
        let tokens = tokens.iter().map(|q| {
            let mut activations = Activations::new();
            activations.set(q);
            activations
        });
        Case { input, ternary, tokens: tokens.collect(), wanted, packed: Vec::new() }
    };
    inputs.into_iter().map(case).collect()
}

impl Case {
    fn check(&mut self, kernel: &AnyKernel, shape: Shape, layout: Layout) -> Result<(), Inexact> {
        let name = kernel.name();
        let call = |why: String| Inexact::Call { kernel: name.to_owned(), shape, why };
        if !self.packed.iter().any(|p| p.layout() == layout) {
            let packed = Packed::pack(layout, shape, &self.ternary);
            self.packed.push(packed.map_err(|error| call(error.to_string()))?);
        }
        for packed in self.packed.iter().filter(|p| p.layout() == layout) {
            let got = match kernel {
                AnyKernel::Gemv(kernel) => gemv(kernel, packed.view(), &mut self.tokens[0]),
                AnyKernel::Batch(kernel) => batch(kernel, packed.view(), &mut self.tokens),
                AnyKernel::Gemm(kernel) => gemm(kernel, packed.view(), &self.tokens),
            };
            for (token, got) in got.map_err(call)?.into_iter().enumerate() {
                let wanted = &self.wanted[token % self.wanted.len()];
                if let Some(row) = got.iter().zip(wanted).position(|(a, b)| a != b) {
                    return Err(Inexact::Sum {
                        kernel: name.to_owned(),
                        shape,
                        input: self.input,
                        token,
                        row,
                        got: got[row],
                        wanted: wanted[row],
                    });
                }
            }
        }
        Ok(())
    }
}

/// The sums of one token, in two calls as two threads would make them, so that a start inside the matrix
/// is checked too.
fn gemv(
    kernel: &Runnable,
    weights: PackedView<'_>,
    activations: &mut Activations,
) -> Result<Vec<Vec<i32>>, String> {
    activations.prepare(kernel.activation());
    let m = weights.shape().m;
    let mut got = vec![i32::MIN; m];
    let middle = m.min(Tile::ROW_QUANTUM);
    let (first, second) = got.split_at_mut(middle);
    for (rows, out, prefetch) in [(0..middle, first, 0), (middle..m, second, 4096)] {
        let tile = Tile { rows_per_task: 0, prefetch };
        if !rows.is_empty() {
            let done = kernel.gemv(weights, activations, rows, tile, out);
            done.map_err(|error| error.to_string())?;
        }
    }
    Ok(vec![got])
}

/// The sums of each token of a batch that repeats the given ones: by calls of 1 to 5 tokens and by one of
/// all, rows in two calls.
fn batch(
    kernel: &BatchRunnable,
    weights: PackedView<'_>,
    tokens: &mut [Activations],
) -> Result<Vec<Vec<i32>>, String> {
    tokens.iter_mut().for_each(|token| token.prepare(kernel.activation()));
    let m = weights.shape().m;
    let middle = m.min(Tile::ROW_QUANTUM);
    let all: Vec<&Activations> = tokens.iter().cycle().take(3 * TOKENS).collect();
    let mut left = &all[..];
    let mut calls: Vec<&[&Activations]> =
        (1..=TOKENS).map(|count| left.split_off(..count).unwrap_or_default()).collect();
    calls.push(&all);
    let mut got = Vec::new();
    for tokens in calls {
        let mut sums = vec![Vec::with_capacity(m); tokens.len()];
        for (rows, prefetch) in [(0..middle, 0), (middle..m, 4096)] {
            let tile = Tile { rows_per_task: 0, prefetch };
            let mut out = vec![i32::MIN; rows.len() * tokens.len()];
            let done = kernel.run(weights, tokens.iter().copied(), rows.clone(), tile, &mut out);
            done.map_err(|error| error.to_string())?;
            for (t, sums) in sums.iter_mut().enumerate() {
                sums.extend(&out[t * rows.len()..][..rows.len()]);
            }
        }
        got.extend(sums);
    }
    Ok(got)
}

/// The sums of each token of a prompt that repeats the given ones: two panels, and two tiles of which the
/// second is not full.
fn gemm(
    kernel: &GemmRunnable,
    weights: PackedView<'_>,
    tokens: &[Activations],
) -> Result<Vec<Vec<i32>>, String> {
    let (m, width) = (weights.shape().m, kernel.tokens());
    let prompt: Vec<&Activations> = tokens.iter().cycle().take(width + TOKENS.min(width)).collect();
    let mut got = vec![Vec::with_capacity(m); prompt.len()];
    let (mut panel, mut tile) = (Panel::new(), TokenTile::new());
    let mut scratch = GemmScratch::default();
    let middle = m.min(Panel::ROW_QUANTUM);
    for rows in [0..middle, middle..m].into_iter().filter(|rows| !rows.is_empty()) {
        kernel.fill(&mut panel, &[Segment { weights, rows }]);
        for (tokens, got) in prompt.chunks(width).zip(got.chunks_mut(width)) {
            kernel.arrange(&mut tile, tokens.iter().copied());
            let sums = kernel.run(&panel, &tile, &mut scratch);
            let sums = sums.map_err(|error| error.to_string())?;
            for (token, got) in got.iter_mut().enumerate() {
                got.extend(sums.iter().skip(token).step_by(width));
            }
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use trilut_presets::Format;

    #[test]
    fn every_kernel_of_this_cpu_passes() {
        let cpu = Cpu::detect();
        for shape in [Shape { m: 70, k: 384 }, Shape { m: 33, k: 200 }, Shape { m: 1, k: 1 }] {
            for &format in Format::ALL {
                let stored = cpu.default_kernel(format, shape).layout();
                let mut gate = Gate::new(shape, stored);
                for kernel in cpu.candidates(format, shape) {
                    assert_eq!(gate.check(&AnyKernel::Gemv(kernel)), Ok(()));
                }
                for kernel in cpu.batch_candidates(format) {
                    assert_eq!(gate.check(&AnyKernel::Batch(kernel)), Ok(()));
                }
                for kernel in cpu.gemm_candidates() {
                    assert_eq!(gate.check(&AnyKernel::Gemm(kernel)), Ok(()));
                }
            }
        }
    }

    #[test]
    fn random_inputs_cover_their_range() {
        let mut random = Random::new(7);
        let ternary = random.ternary(3000);
        for t in -1..=1 {
            let count = ternary.iter().filter(|v| **v == t).count();
            assert!((800..1200).contains(&count), "{t}: {count}");
        }
        let q = random.activations(5000);
        assert!(q.contains(&-128) && q.contains(&127));
    }
}
