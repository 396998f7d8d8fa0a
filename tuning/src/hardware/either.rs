//! A batch that is small or a prompt: where the kernels of the one hand over to those of the other.

use super::Work;
use super::few::Few;
use super::prompt::Prompt;
use crate::{AnyKernel, Candidate};
use trilut_kernels::pool::Worker;
use trilut_kernels::{Layout, PackedView};

/// The same tokens for kernels of both kinds.
pub(super) struct Either {
    few: Few,
    prompt: Prompt,
}

impl Either {
    pub(super) fn new(few: Few, prompt: Prompt) -> Self {
        Self { few, prompt }
    }

    fn of(&self, candidate: &Candidate) -> &dyn Work {
        match candidate.kernel {
            AnyKernel::Gemm(_) => &self.prompt,
            AnyKernel::Gemv(_) | AnyKernel::Batch(_) => &self.few,
        }
    }
}

impl Work for Either {
    fn ready(&mut self, candidate: &Candidate) -> Result<Option<Layout>, String> {
        match candidate.kernel {
            AnyKernel::Gemm(_) => self.prompt.ready(candidate),
            AnyKernel::Gemv(_) | AnyKernel::Batch(_) => self.few.ready(candidate),
        }
    }

    fn product(
        &self,
        worker: &Worker<'_>,
        candidate: &Candidate,
        weights: PackedView<'_>,
    ) -> Result<(), String> {
        self.of(candidate).product(worker, candidate, weights)
    }

    fn beyond(&self, candidate: &Candidate) -> f64 {
        self.of(candidate).beyond(candidate)
    }

    fn set_tokens(&mut self, tokens: usize) {
        self.few.set_tokens(tokens);
        self.prompt.set_tokens(tokens);
    }
}
