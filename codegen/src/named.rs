//! A kernel by its whole name, whatever it computes.

use crate::emit::Member;
use crate::emit_batch::emit_batch;
use crate::emit_gemm::emit_gemm;
use crate::emit_gemv::emit_gemv;
use crate::{BatchPlan, Error, GemmPlan, Kind, Plan, Spec, lattice};
use trilut_presets::{BatchName, Format, GemmName, Isa, ParseError};

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

    /// Which registry it belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Gemv(_) => Kind::Gemv,
            Self::Gemm(_) => Kind::Gemm,
            Self::Batch(_) => Kind::Batch,
        }
    }

    /// The stored codec that it reads; `None` for gemm kernels, whose panels are filled from any.
    pub fn format(&self) -> Option<Format> {
        match self {
            Self::Gemv(plan) => Some(plan.spec.name.format),
            Self::Gemm(_) => None,
            Self::Batch(plan) => Some(plan.name.format),
        }
    }

    /// Spells, documents and formats it.
    pub fn emit(&self) -> Member {
        match self {
            Self::Gemv(plan) => emit_gemv(plan),
            Self::Gemm(plan) => emit_gemm(plan),
            Self::Batch(plan) => emit_batch(plan),
        }
    }

    /// The same with an int16 bank widened one step too late. It is wrong on purpose: tests show that each
    /// bound is needed. `None` without a bank of this index that int16 bounds.
    pub fn raised(self, bank: usize) -> Option<Self> {
        match self {
            Self::Gemv(plan) => {
                let is_tight = plan.banks.get(bank).is_some_and(|bank| bank.tight);
                is_tight.then(|| Self::Gemv(plan.raised(bank)))
            }
            Self::Gemm(plan) if bank == 0 => plan.raised().map(Self::Gemm),
            Self::Batch(plan) if bank == 0 => plan.raised().map(Self::Batch),
            Self::Gemm(_) | Self::Batch(_) => None,
        }
    }

    /// The kernel that is spelled alike for another ISA, see [`lattice::twin`]; `None` for most.
    ///
    /// # Errors
    /// When there is no such kernel.
    pub fn twin(&self) -> Result<Option<Self>, Error> {
        let Some((isa, width)) = lattice::twin(self.isa()) else {
            return Ok(None);
        };
        let width = Some(width);
        let twin = match self {
            Self::Gemv(plan) => {
                let mut spec = plan.spec;
                (spec.name.isa, spec.name.micro.width) = (isa, width);
                Self::try_from(spec)
            }
            Self::Gemm(plan) => Self::try_from(GemmName { isa, width, ..plan.name }),
            Self::Batch(plan) => Self::try_from(BatchName { isa, width, ..plan.name }),
        };
        twin.map(Some)
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
            Some("gemv") => Self::try_from(name.parse::<Spec>()?),
            _ => {
                let rule = "gemv_format_algorithm_micro_isa[_fixed], batch_format_algorithm_micro_isa \
                            or gemm_algorithm_micro_isa";
                Err(ParseError::new("kernel name", name, rule).into())
            }
        }
    }
}
