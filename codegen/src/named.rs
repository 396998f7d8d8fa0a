//! A kernel by its whole name, whatever it computes.

use crate::{BatchPlan, Error, GemmPlan, Plan, Spec, emit, emit_gemm};
use proc_macro2::TokenStream;
use trilut_presets::{BatchName, GemmName, Isa};

/// A legal kernel of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Multiplies one token.
    Gemv(Plan),
    /// Multiplies panels of rows with tiles of tokens.
    Gemm(GemmPlan),
    /// Multiplies a few tokens.
    Batch(BatchPlan),
}

/// Which registry a kernel belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Kernels of one token.
    Gemv,
    /// Kernels of prompts.
    Gemm,
    /// Kernels of small batches.
    Batch,
}

/// A kernel's text and what registers it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Which registry it belongs to.
    pub kind: Kind,
    /// The instruction set it is spelled for.
    pub isa: Isa,
    /// The function as formatted text.
    pub text: String,
    /// Its record, as an expression.
    pub entry: TokenStream,
}

impl Named {
    /// The instruction set it is spelled for.
    pub fn isa(&self) -> Isa {
        match self {
            Self::Gemv(plan) => plan.spec.name.isa,
            Self::Gemm(plan) => plan.name.isa,
            Self::Batch(plan) => plan.name.isa,
        }
    }

    /// The plan in words, one fact per line.
    pub fn report(&self) -> String {
        match self {
            Self::Gemv(plan) => plan.report(),
            Self::Gemm(plan) => plan.report(),
            Self::Batch(plan) => plan.report(),
        }
    }

    /// Spells, documents and formats it.
    pub fn emit(&self) -> Member {
        let (name, isa) = (self.to_string(), self.isa());
        match self {
            Self::Gemv(plan) => {
                let emit::Generated { text, entry, .. } = emit::emit(plan);
                Member { name, kind: Kind::Gemv, isa, text, entry }
            }
            Self::Gemm(plan) => {
                let crate::GeneratedGemm { text, entry, .. } = emit_gemm(plan);
                Member { name, kind: Kind::Gemm, isa, text, entry }
            }
            Self::Batch(plan) => {
                let crate::GeneratedBatch { text, entry, .. } = crate::emit_batch(plan);
                Member { name, kind: Kind::Batch, isa, text, entry }
            }
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gemv(plan) => plan.spec.name.fmt(f),
            Self::Gemm(plan) => plan.name.fmt(f),
            Self::Batch(plan) => plan.name.fmt(f),
        }
    }
}

impl TryFrom<Spec> for Named {
    type Error = Error;

    fn try_from(spec: Spec) -> Result<Self, Error> {
        Plan::new(&spec).map(Self::Gemv)
    }
}

impl TryFrom<GemmName> for Named {
    type Error = Error;

    fn try_from(name: GemmName) -> Result<Self, Error> {
        GemmPlan::new(&name).map(Self::Gemm)
    }
}

impl TryFrom<BatchName> for Named {
    type Error = Error;

    fn try_from(name: BatchName) -> Result<Self, Error> {
        BatchPlan::new(&name).map(Self::Batch)
    }
}

impl std::str::FromStr for Named {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.split('_').next() {
            Some("batch") => Self::try_from(name.parse::<BatchName>()?),
            Some("gemm") => Self::try_from(name.parse::<GemmName>()?),
            _ => Self::try_from(name.parse::<Spec>()?),
        }
    }
}
