//! The gate: only kernels that reproduce the reference bit for bit are ever timed.
//!
//! Each kernel runs on a few rows with the layer's real number of inputs, where its loops, tails and
//! int16 bounds are the real ones, on random inputs and on the extremes at which sums could wrap.

use trilut_kernels::{Activations, Packed, Runnable, Shape, Tile, reference};

/// Rows that are checked: more than one group of 32, and an odd tail.
const ROWS: usize = 61;

/// A kernel that does not reproduce the reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inexact {
    /// A sum differs.
    #[error("{kernel} on {shape}, {input}: row {row} is {got}, must be {wanted}")]
    Sum {
        /// The kernel's name.
        kernel: String,
        /// The size that was run.
        shape: Shape,
        /// What the inputs were.
        input: &'static str,
        /// The first row that differs.
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
    /// A few rows with the layer's real number of inputs.
    few: Option<Vec<Case>>,
    /// All rows, for kernels that are made for one number of rows.
    all: Option<Vec<Case>>,
}

#[derive(Debug)]
struct Case {
    input: &'static str,
    ternary: Vec<i8>,
    activations: Activations,
    wanted: Vec<i32>,
    packed: Vec<Packed>,
}

impl Gate {
    /// The gate for a layer; nothing is made before the first check.
    pub fn new(layer: Shape) -> Self {
        Self { layer, few: None, all: None }
    }

    /// Checks a kernel against the reference.
    ///
    /// # Errors
    /// With the first difference.
    pub fn check(&mut self, kernel: &Runnable) -> Result<(), Inexact> {
        let fixed = kernel.kernel().name.fixed.m.is_some();
        let m = if fixed { self.layer.m } else { self.layer.m.min(ROWS) };
        let shape = Shape { m, k: self.layer.k };
        let cases = if fixed { &mut self.all } else { &mut self.few };
        let cases = cases.get_or_insert_with(|| cases_of(shape));
        cases.iter_mut().try_for_each(|case| case.check(kernel, shape))
    }
}

fn cases_of(shape: Shape) -> Vec<Case> {
    let mut random = Random::new(shape.k as u64);
    let (count, k) = (shape.weights(), shape.k);
    let signs: Vec<i8> =
        random.activations(k).iter().map(|q| if *q < 0 { -1 } else { 1 }).collect();
    // Every product is positive, so nothing averages out and every table entry can be the largest.
    let aligned: Vec<i8> = signs.iter().copied().cycle().take(count).collect();
    let loud: Vec<i8> = signs.iter().map(|s| if *s < 0 { -128 } else { 127 }).collect();
    let inputs: [(&str, Vec<i8>, Vec<i8>); 7] = [
        ("random weights, random activations", random.ternary(count), random.activations(k)),
        ("random weights, all activations -128", random.ternary(count), vec![-128; k]),
        ("weights 1, activations 127", vec![1; count], vec![127; k]),
        ("weights -1, activations 127", vec![-1; count], vec![127; k]),
        ("weights 1, activations -128", vec![1; count], vec![-128; k]),
        ("weights -1, activations -128", vec![-1; count], vec![-128; k]),
        ("weights = sign of activations, activations 127 and -128", aligned, loud),
    ];
    let case = |(input, ternary, q): (_, Vec<i8>, Vec<i8>)| {
        let wanted = reference::gemv(shape, &ternary, &q);
        let mut activations = Activations::new();
        activations.set(&q);
        Case { input, ternary, activations, wanted, packed: Vec::new() }
    };
    inputs.into_iter().map(case).collect()
}

impl Case {
    fn check(&mut self, kernel: &Runnable, shape: Shape) -> Result<(), Inexact> {
        let name = kernel.kernel().text;
        let call = |why: String| Inexact::Call { kernel: name.to_owned(), shape, why };
        self.activations.prepare(kernel.activation());
        let layout = kernel.layout();
        if !self.packed.iter().any(|p| p.layout() == layout) {
            let packed = Packed::pack(layout, shape, &self.ternary);
            self.packed.push(packed.map_err(|error| call(error.to_string()))?);
        }
        let mut got = vec![i32::MIN; shape.m];
        // Two calls, as two threads would make them, so that a start inside the matrix is checked too.
        let middle = shape.m.min(Tile::ROW_QUANTUM);
        let (first, second) = got.split_at_mut(middle);
        for weights in self.packed.iter().filter(|p| p.layout() == layout) {
            for (rows, out, prefetch) in
                [(0..middle, &mut *first, 0), (middle..shape.m, &mut *second, 4096)]
            {
                let tile = Tile { rows_per_task: 0, prefetch };
                if !rows.is_empty() {
                    kernel
                        .gemv(weights.view(), &self.activations, rows, tile, out)
                        .map_err(|error| call(error.to_string()))?;
                }
            }
        }
        match got.iter().zip(&self.wanted).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(row) => Err(Inexact::Sum {
                kernel: name.to_owned(),
                shape,
                input: self.input,
                row,
                got: got[row],
                wanted: self.wanted[row],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake;
    use trilut_kernels::{Cpu, Format};

    #[test]
    fn every_kernel_of_this_cpu_passes() {
        let cpu = Cpu::detect();
        for shape in [Shape { m: 70, k: 384 }, Shape { m: 33, k: 200 }, Shape { m: 1, k: 1 }] {
            let mut gate = Gate::new(shape);
            for &format in Format::ALL {
                for kernel in cpu.candidates(format, shape) {
                    assert_eq!(gate.check(&kernel), Ok(()));
                }
            }
        }
    }

    fn check(kernel: &Runnable, shape: Shape) -> Result<(), Inexact> {
        Gate::new(shape).check(kernel)
    }

    #[test]
    fn a_wrong_kernel_is_named_with_its_first_difference() {
        let shape = Shape { m: 64, k: 128 };
        let error = check(&fake::wrong("r8u8"), shape).unwrap_err();
        assert!(matches!(error, Inexact::Sum { shape: Shape { m: 61, k: 128 }, .. }), "{error}");
        assert!(error.to_string().contains("must be"), "{error}");
        assert_eq!(check(&fake::exact("r1u1"), shape), Ok(()));
    }

    #[test]
    fn a_kernel_that_wraps_only_at_the_extremes_is_caught() {
        let error = check(&fake::wrapping("r4u4"), Shape { m: 40, k: 1024 }).unwrap_err();
        assert!(error.to_string().contains("activations 127"), "{error}");
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
