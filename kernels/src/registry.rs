//! Sets of kernels: the one that is compiled into this crate, and those that other crates generate for
//! themselves.
//!
//! A [`Registry`] of another crate joins the built-in one by [`Cpu::with`], after its kernels have shown
//! that they are what their names say and exact on this CPU.

use crate::exactness::{Gate, Inexact};
use crate::{
    Activations, AnyKernel, BatchKernel, Cpu, GemmKernel, GemvError, Kernel, KernelInfo, Layout,
    PackedView, Runnable, lattice,
};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::OnceLock;
use trilut_presets::{Format, Isa, Shape, Tile};

/// A set of kernels with a name for people, such as the path of the module that it is in.
#[derive(Debug)]
pub struct Registry {
    name: &'static str,
    kernels: &'static [Kernel],
    gemm_kernels: &'static [GemmKernel],
    batch_kernels: &'static [BatchKernel],
}

/// A registry that may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A kernel's description contradicts its name.
    #[error("kernel `{kernel}` of `{registry}` is not what its name says: {rule}")]
    Description {
        /// The registry.
        registry: &'static str,
        /// The kernel.
        kernel: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// Two kernels have one name.
    #[error("`{registry}` has two kernels named `{kernel}`")]
    Twice {
        /// The registry.
        registry: &'static str,
        /// The name.
        kernel: &'static str,
    },
    /// A kernel does not reproduce the reference on this CPU.
    #[error("kernel `{kernel}` of `{registry}` is not exact on this CPU")]
    Inexact {
        /// The registry.
        registry: &'static str,
        /// The kernel.
        kernel: &'static str,
        /// What differed.
        source: Inexact,
    },
}

/// Numbers of inputs on which kernels that accept any are checked: less than a vector, tails of every
/// block, and enough that every int16 bank is widened more than once.
const ANY_K: [usize; 4] = [1, 130, 389, 4165];

/// Rows on which kernels are checked that accept any number.
const ANY_M: usize = 61;

impl Registry {
    /// A set of gemv and gemm kernels.
    pub const fn new(
        name: &'static str,
        kernels: &'static [Kernel],
        gemm_kernels: &'static [GemmKernel],
    ) -> Self {
        Self { name, kernels, gemm_kernels, batch_kernels: &[] }
    }

    /// The same with small-batch kernels.
    #[must_use]
    pub const fn with_batches(self, batch_kernels: &'static [BatchKernel]) -> Self {
        Self { batch_kernels, ..self }
    }

    /// Its name for people.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The gemv kernels of this architecture: of those for one ISA, format and shape the first is the
    /// one to use where nothing was tuned.
    pub const fn kernels(&self) -> &'static [Kernel] {
        self.kernels
    }

    /// The gemm kernels of this architecture, in the same sense.
    pub const fn gemm_kernels(&self) -> &'static [GemmKernel] {
        self.gemm_kernels
    }

    /// The small-batch kernels of this architecture, likewise.
    pub const fn batch_kernels(&self) -> &'static [BatchKernel] {
        self.batch_kernels
    }

    /// The gemv kernel with a name.
    pub fn find(&self, name: &str) -> Option<&'static Kernel> {
        self.kernels.iter().find(|kernel| kernel.text == name)
    }

    /// The gemm kernel with a name.
    pub fn find_gemm(&self, name: &str) -> Option<&'static GemmKernel> {
        self.gemm_kernels.iter().find(|kernel| kernel.text == name)
    }

    /// The small-batch kernel with a name.
    pub fn find_batch(&self, name: &str) -> Option<&'static BatchKernel> {
        self.batch_kernels.iter().find(|kernel| kernel.text == name)
    }

    /// Whether a small-batch kernel is a member: this very one, not another of the same name.
    pub fn has_batch(&self, kernel: &BatchKernel) -> bool {
        self.batch_kernels.as_ptr_range().contains(&std::ptr::from_ref(kernel))
    }

    /// Whether a gemv kernel is a member: this very one, not another of the same name.
    pub fn has(&self, kernel: &Kernel) -> bool {
        self.kernels.as_ptr_range().contains(&std::ptr::from_ref(kernel))
    }

    /// Whether a gemm kernel is a member, likewise.
    pub fn has_gemm(&self, kernel: &GemmKernel) -> bool {
        self.gemm_kernels.as_ptr_range().contains(&std::ptr::from_ref(kernel))
    }

    /// The kernel for a format and shape on the most capable ISA of a CPU, the first of several.
    pub fn most_capable(&self, cpu: &Cpu, format: Format, shape: Shape) -> Option<Runnable> {
        let accepts = |k: &&Kernel| k.name.format == format && k.name.fixed.accepts(shape);
        let usable = self.kernels.iter().filter(accepts).filter_map(|k| cpu.runnable(k));
        let usable = usable.filter(|k| k.kernel().name.isa != Isa::Emulated);
        usable.rev().max_by_key(|kernel| kernel.kernel().name.isa)
    }

    /// Checks that each kernel is what its name says and, for those that may run on a CPU, that it
    /// reproduces the reference bit for bit: on its own sizes where it is made for one, on several where
    /// it accepts any. Returns the names of those that ran.
    ///
    /// # Errors
    /// With the first kernel that fails.
    pub fn check(&self, cpu: &Cpu) -> Result<Vec<&'static str>, RegistryError> {
        self.check_descriptions()?;
        let mut by_shape: BTreeMap<Shape, Vec<AnyKernel>> = BTreeMap::new();
        let mut ran = Vec::new();
        for kernel in self.kernels.iter().filter_map(|k| cpu.runnable(k)) {
            let fixed = kernel.kernel().name.fixed;
            let ks = fixed.k.map_or(ANY_K.to_vec(), |k| vec![k]);
            for k in ks {
                let shape = Shape { m: fixed.m.unwrap_or(ANY_M), k };
                by_shape.entry(shape).or_default().push(AnyKernel::Gemv(kernel));
            }
            ran.push(kernel.kernel().text);
        }
        for kernel in self.gemm_kernels.iter().filter_map(|k| cpu.gemm_runnable(k)) {
            for k in ANY_K {
                by_shape.entry(Shape { m: ANY_M, k }).or_default().push(AnyKernel::Gemm(kernel));
            }
            ran.push(kernel.kernel().text);
        }
        for kernel in self.batch_kernels.iter().filter_map(|k| cpu.batch_runnable(k)) {
            for k in ANY_K {
                by_shape.entry(Shape { m: ANY_M, k }).or_default().push(AnyKernel::Batch(kernel));
            }
            ran.push(kernel.kernel().text);
        }
        for (shape, kernels) in by_shape {
            let mut gate = Gate::new(shape, Layout::I2s);
            for kernel in kernels {
                gate.check(&kernel).map_err(|source| RegistryError::Inexact {
                    registry: self.name,
                    kernel: kernel.name(),
                    source,
                })?;
            }
        }
        Ok(ran)
    }

    /// Names and descriptions, of kernels of every ISA.
    fn check_descriptions(&self) -> Result<(), RegistryError> {
        let refuse =
            |kernel, rule| Err(RegistryError::Description { registry: self.name, kernel, rule });
        let mut names: Vec<&'static str> = Vec::new();
        for kernel in self.kernels {
            if let Some(rule) = contradiction(kernel, kernel.name.format) {
                return refuse(kernel.text, rule);
            }
            names.push(kernel.text);
        }
        for kernel in self.batch_kernels {
            if let Some(rule) = contradiction(kernel, kernel.name.format) {
                return refuse(kernel.text, rule);
            }
            names.push(kernel.text);
        }
        for kernel in self.gemm_kernels {
            if kernel.text.parse() != Ok(kernel.name) {
                return refuse(kernel.text, OTHER_NAME);
            }
            names.push(kernel.text);
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(RegistryError::Twice { registry: self.name, kernel: pair[0] }),
            None => Ok(()),
        }
    }
}

/// What is wrong with a kernel whose name was made for another one.
const OTHER_NAME: &str = "its name in parts is another";

/// The rule that the description of a kernel of the stored copy breaks.
fn contradiction<Name>(info: &KernelInfo<Name>, format: Format) -> Option<&'static str>
where
    Name: FromStr + PartialEq,
{
    if info.text.parse::<Name>().ok().as_ref() != Some(&info.name) {
        return Some(OTHER_NAME);
    }
    if info.layout.format() != format {
        return Some("its layout is of another format");
    }
    let fits = info.layout.activations().contains(&info.activation);
    (!fits).then_some("its activations do not go with its layout")
}

/// The kernel of a registry for one format and shape, found on first use.
#[derive(Debug)]
pub struct RegistryPick {
    registry: &'static Registry,
    format: Format,
    shape: Shape,
    kernel: OnceLock<Option<Runnable>>,
}

impl RegistryPick {
    /// A pick that is still to be made.
    pub const fn new(registry: &'static Registry, format: Format, shape: Shape) -> Self {
        Self { registry, format, shape, kernel: OnceLock::new() }
    }

    /// The kernel, by [`Registry::most_capable`] under the cap of `TRILUT_ISA`.
    ///
    /// # Errors
    /// When the registry has none that runs on this CPU.
    pub fn kernel(&self) -> Result<Runnable, GemvError> {
        let Self { registry, format, shape, kernel } = self;
        let pick = || registry.most_capable(&Cpu::detect(), *format, *shape);
        let none = GemvError::NoKernel { registry: registry.name, format: *format, shape: *shape };
        (*kernel.get_or_init(pick)).ok_or(none)
    }

    /// `out = T q` for the whole matrix; prepares the activations for the kernel.
    ///
    /// # Errors
    /// When weights, activations or output have other sizes or another format, or there is no kernel;
    /// nothing is written then.
    pub fn gemv(
        &self,
        weights: PackedView<'_>,
        x: &mut Activations,
        out: &mut [i32],
    ) -> Result<(), GemvError> {
        if weights.shape() != self.shape {
            return Err(GemvError::Weights { wants: self.shape, given: weights.shape() });
        }
        let kernel = self.kernel()?;
        if x.q().len() == self.shape.k {
            x.prepare(kernel.activation());
        }
        kernel.gemv(weights, x, 0..self.shape.m, Tile::default(), out)
    }
}

/// Every kernel that is compiled into this crate.
pub(crate) static BUILT_IN: Registry =
    Registry::new("trilut-kernels", &lattice::KERNELS, &lattice::GEMM_KERNELS)
        .with_batches(&lattice::BATCH_KERNELS);

/// Every kernel of this architecture, generic ones first within each ISA.
pub fn registry() -> &'static [Kernel] {
    BUILT_IN.kernels()
}

/// The kernel with a name.
pub fn find(name: &str) -> Option<&'static Kernel> {
    BUILT_IN.find(name)
}

/// Every gemm kernel of this architecture.
pub fn gemm_registry() -> &'static [GemmKernel] {
    BUILT_IN.gemm_kernels()
}

/// The gemm kernel with a name.
pub fn find_gemm(name: &str) -> Option<&'static GemmKernel> {
    BUILT_IN.find_gemm(name)
}

/// Every small-batch kernel of this architecture.
pub fn batch_registry() -> &'static [BatchKernel] {
    BUILT_IN.batch_kernels()
}

/// The small-batch kernel with a name.
pub fn find_batch(name: &str) -> Option<&'static BatchKernel> {
    BUILT_IN.find_batch(name)
}
