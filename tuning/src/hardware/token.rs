//! Decode: one token times the rows of a layer, by gemv kernels.

use super::{Work, lock};
use crate::exactness::Random;
use crate::{AnyKernel, Candidate};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;
use trilut_kernels::pool::Worker;
use trilut_kernels::{Activation, Activations, Layout, PackedView, Shape, Tile};

/// One token in every form that the layouts need.
pub(super) struct Token {
    shape: Shape,
    activations: Activations,
    /// What each form costs beyond the plain one, in nanoseconds.
    preparing: HashMap<Activation, f64>,
    /// One output per worker: what it writes is not read by others during a product.
    scratch: Vec<Mutex<Vec<i32>>>,
}

impl Token {
    pub(super) fn new(
        shape: Shape,
        layouts: &[Layout],
        threads: usize,
        random: &mut Random,
    ) -> Self {
        let mut activations = Activations::new();
        let q = random.activations(shape.k);
        let preparing = prepare_times(&mut activations, &q, layouts);
        let scratch = (0..threads).map(|_| Mutex::new(vec![0; shape.m])).collect();
        Self { shape, activations, preparing, scratch }
    }
}

/// Prepares all forms that the layouts need; returns the nanoseconds that each form costs beyond the
/// plain one. Decoding pays this once per input, so it belongs to the price of lookup kernels.
pub(super) fn prepare_times(
    activations: &mut Activations,
    q: &[i8],
    layouts: &[Layout],
) -> HashMap<Activation, f64> {
    let forms = layouts.iter().flat_map(|layout| layout.activations()).copied();
    let forms: Vec<Activation> = forms.filter(|form| *form != Activation::Plain).collect();
    let mut times = HashMap::new();
    for &form in &forms {
        let time = |_| {
            activations.set(q);
            let begin = Instant::now();
            activations.prepare(form);
            begin.elapsed()
        };
        let best = (0..5).map(time).min().unwrap_or_default();
        times.insert(form, best.as_nanos() as f64);
    }
    // New values forget the forms made of the old ones.
    activations.set(q);
    forms.iter().for_each(|&form| activations.prepare(form));
    times
}

impl Work for Token {
    fn ready(&mut self, candidate: &Candidate) -> Result<Option<Layout>, String> {
        match candidate.kernel {
            AnyKernel::Gemv(kernel) => Ok(Some(kernel.layout())),
            _ => Err(format!("{candidate} cannot run one token")),
        }
    }

    fn product(
        &self,
        worker: &Worker<'_>,
        candidate: &Candidate,
        weights: PackedView<'_>,
    ) -> Result<(), String> {
        let AnyKernel::Gemv(kernel) = candidate.kernel else { return Ok(()) };
        let tile = candidate.tile;
        let mut out = lock(&self.scratch[worker.index]);
        for rows in worker.tasks(self.shape.m, tile.rows_per_task, Tile::ROW_QUANTUM) {
            let out = &mut out[rows.clone()];
            let done = kernel.gemv(weights, &self.activations, rows, tile, out);
            done.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Decoding prepares activations once per input, so it belongs to the price of lookup kernels.
    fn beyond(&self, candidate: &Candidate) -> f64 {
        let form = candidate.kernel.activation();
        form.and_then(|form| self.preparing.get(&form).copied()).unwrap_or(0.0)
    }
}
