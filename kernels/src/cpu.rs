//! Which ISAs this CPU may run, which kernels there are for them, and which is the default.

use crate::registry::BUILT_IN;
use crate::{
    BatchKernel, BatchRunnable, GemmKernel, GemmRunnable, Kernel, Registry, RegistryError,
    Runnable, batch_registry, find_batch, registry,
};
use std::cmp::Reverse;
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

/// What may run on this CPU: its ISAs, under an optional cap, and the kernels for them: the built-in ones
/// and those of added registries.
#[derive(Debug, Clone)]
pub struct Cpu {
    supported: Vec<Supported>,
    /// The newest last.
    added: Vec<&'static Registry>,
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
        Self { supported, added: Vec::new() }
    }

    /// The same with the kernels of a registry, once they have passed [`Registry::check`]. Where nothing
    /// was tuned they are used before the built-in ones of the same ISA; of several registries, those of
    /// the last one first.
    ///
    /// # Errors
    /// With the first kernel that fails; none of them is added then.
    pub fn with(mut self, registry: &'static Registry) -> Result<Self, RegistryError> {
        registry.check(&self)?;
        self.added.push(registry);
        Ok(self)
    }

    /// The registries that kernels are looked for in, the built-in one last.
    pub fn registries(&self) -> impl Iterator<Item = &'static Registry> + '_ {
        self.added.iter().rev().copied().chain(std::iter::once(&BUILT_IN))
    }

    /// The added registry that a gemv kernel is from; `None` for a built-in one.
    pub fn origin(&self, kernel: &Kernel) -> Option<&'static Registry> {
        self.added.iter().copied().find(|registry| registry.has(kernel))
    }

    /// The added registry that a gemm kernel is from, likewise.
    pub fn gemm_origin(&self, kernel: &GemmKernel) -> Option<&'static Registry> {
        self.added.iter().copied().find(|registry| registry.has_gemm(kernel))
    }

    /// The gemv kernel with a name, whether or not it may run here.
    pub fn find(&self, name: &str) -> Option<&'static Kernel> {
        self.registries().find_map(|registry| registry.find(name))
    }

    /// The gemm kernel with a name, likewise.
    pub fn find_gemm(&self, name: &str) -> Option<&'static GemmKernel> {
        self.registries().find_map(|registry| registry.find_gemm(name))
    }

    /// The hash of the kernel with a name, of any kind, if it exists and may run here: what records of
    /// presets are compared with.
    pub fn resolve(&self, name: &str) -> Option<u64> {
        if let Some(kernel) = self.find(name) {
            return self.runnable(kernel).map(|_| kernel.hash);
        }
        if let Some(kernel) = find_batch(name) {
            return self.batch_runnable(kernel).map(|_| kernel.hash);
        }
        let kernel = self.find_gemm(name)?;
        self.gemm_runnable(kernel).map(|_| kernel.hash)
    }

    /// The ISAs that may be used, in the order of [`Isa::ALL`].
    pub fn isas(&self) -> impl Iterator<Item = Isa> + '_ {
        self.supported.iter().map(|s| s.isa())
    }

    /// The proof for an ISA, if it may be used.
    pub fn supports(&self, isa: Isa) -> Option<Supported> {
        self.supported.iter().copied().find(|s| s.isa() == isa)
    }

    /// The most capable ISA that may be used and that built-in kernels are there for, the one for tests
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

    /// Every gemv kernel that may run `shape` in `format` here, test-only ISAs left out, added kernels
    /// before built-in ones.
    pub fn candidates(&self, format: Format, shape: Shape) -> impl Iterator<Item = Runnable> + '_ {
        self.registries()
            .flat_map(Registry::kernels)
            .filter(move |k| {
                k.name.format == format
                    && k.name.op == Op::Gemv
                    && k.name.isa != Isa::Emulated
                    && k.name.fixed.accepts(shape)
            })
            .filter_map(|k| self.runnable(k))
    }

    /// The kernel used where nothing was tuned: on the most capable ISA an added kernel, the first of
    /// several, or the generic built-in one with the micro tile of [`default_point`], or any other where
    /// the ISA lacks that.
    pub fn default_kernel(&self, format: Format, shape: Shape) -> Runnable {
        let rank = |(index, r): &(usize, Runnable)| {
            let name = r.kernel().name;
            let point = (name.algorithm, name.micro.rows, name.micro.unroll);
            let added = self.origin(r.kernel()).map(|_| Reverse(*index));
            let is_default = point == default_point(name.format, name.isa);
            (name.isa, added, name.fixed.k.is_none(), is_default)
        };
        let best = self.candidates(format, shape).enumerate().max_by_key(rank);
        best.expect("the lattice has a generic scalar kernel for every format").1
    }

    /// The added kernel used where nothing was tuned and no format was asked for: that for I2_S if there
    /// is one, else on the most capable ISA the first.
    pub fn added_kernel(&self, shape: Shape) -> Option<Runnable> {
        let of =
            |format| self.added.iter().rev().find_map(move |r| r.most_capable(self, format, shape));
        let others = Format::ALL.iter().filter_map(|&format| of(format));
        of(Format::I2S).or_else(|| others.rev().max_by_key(|k| k.kernel().name.isa))
    }

    /// Pairs a gemm kernel with the proof that it may run here.
    pub fn gemm_runnable(&self, kernel: &'static GemmKernel) -> Option<GemmRunnable> {
        GemmRunnable::new(kernel, self.supports(kernel.name.isa)?)
    }

    /// Every gemm kernel that may run here, test-only ISAs left out, added kernels before built-in ones.
    pub fn gemm_candidates(&self) -> impl Iterator<Item = GemmRunnable> + '_ {
        self.registries()
            .flat_map(Registry::gemm_kernels)
            .filter(|k| k.name.isa != Isa::Emulated)
            .filter_map(|k| self.gemm_runnable(k))
    }

    /// The gemm kernel used where nothing was tuned: on the most capable ISA an added kernel, the first
    /// of several, or that by [`default_gemm_point`], or any other where the ISA lacks that.
    pub fn default_gemm(&self) -> GemmRunnable {
        let rank = |(index, r): &(usize, GemmRunnable)| {
            let name = r.kernel().name;
            let added = self.gemm_origin(r.kernel()).map(|_| Reverse(*index));
            (name.isa, added, name.algorithm == default_gemm_point(name.isa))
        };
        let best = self.gemm_candidates().enumerate().max_by_key(rank);
        best.expect("the lattice has a scalar gemm kernel").1
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
    /// [`default_batch_point`], or any other where the ISA lacks that. `None` where a format has none, or
    /// portable ones alone on a CPU that can do more: there its kernels for one token do better.
    pub fn default_batch(&self, format: Format) -> Option<BatchRunnable> {
        let does_more = self.best().isa() != Isa::Scalar;
        let rank = |r: &BatchRunnable| {
            let name = r.kernel().name;
            let point = Some((name.algorithm, name.rows, name.tokens));
            (name.isa, point == default_batch_point(name.format, name.isa))
        };
        let best = self.batch_candidates(format).max_by_key(rank);
        best.filter(|kernel| !(does_more && kernel.kernel().name.isa == Isa::Scalar))
    }
}
