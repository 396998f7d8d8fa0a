//! Which ISAs this CPU may run, and which kernel is the default.

use crate::{
    BatchKernel, BatchRunnable, GemmKernel, GemmRunnable, Kernel, Runnable, batch_registry,
    gemm_registry, registry,
};
use trilut_presets::{
    Format, Isa, Op, Shape, default_batch_point, default_gemm_point, default_point,
};

/// The proof that this CPU supports an ISA. Only detection makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supported(Isa);

impl Supported {
    /// Asks the CPU and the operating system (register state) whether `isa` may run.
    pub fn detect(isa: Isa) -> Option<Self> {
        let found = match isa {
            Isa::Scalar | Isa::Emulated => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => {
                Self::detect(Isa::Avx2).is_some() && is_x86_feature_detected!("avxvnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Self::detect(Isa::Avx2).is_some()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vbmi => {
                Self::detect(Isa::Avx512).is_some() && is_x86_feature_detected!("avx512vbmi")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod => {
                Self::detect(Isa::Neon).is_some()
                    && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm => {
                Self::detect(Isa::Dotprod).is_some()
                    && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            _ => false,
        };
        found.then_some(Self(isa))
    }

    /// The ISA that was proven.
    pub fn isa(self) -> Isa {
        self.0
    }
}

/// The ISAs that kernels may use on this CPU, under an optional cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    supported: Vec<Supported>,
}

impl Cpu {
    /// Everything that detection finds, capped by the environment variable `TRILUT_ISA` if it names an
    /// ISA. (An unreadable value is reported by the command line; here it means no cap.)
    pub fn detect() -> Self {
        let cap = std::env::var("TRILUT_ISA").ok().and_then(|text| text.parse().ok());
        Self::capped(cap)
    }

    /// Everything that detection finds within `cap`.
    pub fn capped(cap: Option<Isa>) -> Self {
        let allowed = |isa: &&Isa| cap.is_none_or(|cap| isa.within(cap));
        let supported =
            Isa::ALL.iter().filter(allowed).filter_map(|&isa| Supported::detect(isa)).collect();
        Self { supported }
    }

    /// The ISAs that may be used, in the order of [`Isa::ALL`].
    pub fn isas(&self) -> impl Iterator<Item = Isa> + '_ {
        self.supported.iter().map(|s| s.isa())
    }

    /// The proof for an ISA, if it may be used.
    pub fn supports(&self, isa: Isa) -> Option<Supported> {
        self.supported.iter().copied().find(|s| s.isa() == isa)
    }

    /// The most capable ISA that may be used and that kernels are compiled in for, the one for tests
    /// alone left out.
    pub fn best(&self) -> Supported {
        let has_kernels = |s: &&Supported| {
            s.isa() != Isa::Emulated && registry().iter().any(|k| k.name.isa == s.isa())
        };
        *self.supported.iter().rfind(has_kernels).expect("scalar is always supported")
    }

    /// Pairs a kernel with the proof that it may run here.
    pub fn runnable(&self, kernel: &'static Kernel) -> Option<Runnable> {
        Runnable::new(kernel, self.supports(kernel.name.isa)?)
    }

    /// Of some kernels, the one on the most capable ISA of this CPU that accepts `k` inputs.
    pub fn most_capable(&self, kernels: &'static [Kernel], k: usize) -> Option<Runnable> {
        kernels
            .iter()
            .filter(|kernel| kernel.name.fixed.k.is_none_or(|fixed| fixed == k))
            .filter_map(|kernel| self.runnable(kernel))
            .max_by_key(|kernel| kernel.kernel().name.isa)
    }

    /// Every gemv kernel that may run `shape` in `format` here, test-only ISAs left out.
    pub fn candidates(&self, format: Format, shape: Shape) -> impl Iterator<Item = Runnable> + '_ {
        registry()
            .iter()
            .filter(move |k| {
                k.name.format == format
                    && k.name.op == Op::Gemv
                    && k.name.isa != Isa::Emulated
                    && k.name.fixed.accepts(shape)
            })
            .filter_map(|k| self.runnable(k))
    }

    /// The kernel used where nothing was tuned: the most capable ISA's generic kernel with the micro
    /// tile of [`default_point`], or any other where the ISA lacks that.
    pub fn default_kernel(&self, format: Format, shape: Shape) -> Runnable {
        let rank = |r: &Runnable| {
            let name = r.kernel().name;
            let point = (name.algorithm, name.micro.rows, name.micro.unroll);
            (name.fixed.k.is_none(), name.isa, point == default_point(name.format, name.isa))
        };
        self.candidates(format, shape)
            .max_by_key(rank)
            .expect("the lattice has a generic scalar kernel for every format")
    }

    /// Pairs a gemm kernel with the proof that it may run here.
    pub fn gemm_runnable(&self, kernel: &'static GemmKernel) -> Option<GemmRunnable> {
        GemmRunnable::new(kernel, self.supports(kernel.name.isa)?)
    }

    /// Every gemm kernel that may run here, test-only ISAs left out.
    pub fn gemm_candidates(&self) -> impl Iterator<Item = GemmRunnable> + '_ {
        gemm_registry()
            .iter()
            .filter(|k| k.name.isa != Isa::Emulated)
            .filter_map(|k| self.gemm_runnable(k))
    }

    /// The gemm kernel used where nothing was tuned: the most capable ISA's kernel by
    /// [`default_gemm_point`], or any other where the ISA lacks that.
    pub fn default_gemm(&self) -> GemmRunnable {
        let rank = |r: &GemmRunnable| {
            let name = r.kernel().name;
            (name.isa, name.algorithm == default_gemm_point(name.isa))
        };
        self.gemm_candidates().max_by_key(rank).expect("the lattice has a scalar gemm kernel")
    }

    /// Pairs a small-batch kernel with the proof that it may run here.
    pub fn batch_runnable(&self, kernel: &'static BatchKernel) -> Option<BatchRunnable> {
        BatchRunnable::new(kernel, self.supports(kernel.name.isa)?)
    }

    /// Every small-batch kernel that may run a format here, test-only ISAs left out; none for formats
    /// that have no such kernels.
    pub fn batch_candidates(&self, format: Format) -> impl Iterator<Item = BatchRunnable> + '_ {
        batch_registry()
            .iter()
            .filter(move |k| k.name.format == format && k.name.isa != Isa::Emulated)
            .filter_map(|k| self.batch_runnable(k))
    }

    /// The small-batch kernel used where nothing was tuned: the most capable ISA's kernel by
    /// [`default_batch_point`], or any other where the ISA lacks that; `None` where a format has none.
    pub fn default_batch(&self, format: Format) -> Option<BatchRunnable> {
        let rank = |r: &BatchRunnable| {
            let name = r.kernel().name;
            let point = Some((name.algorithm, name.rows, name.tokens));
            (name.isa, point == default_batch_point(name.format, name.isa))
        };
        self.batch_candidates(format).max_by_key(rank)
    }
}
