//! Sets of kernels: the one that is compiled into this crate, and those that other crates generate for
//! themselves.
//!
//! A [`Registry`] of another crate joins the built-in one by [`Cpu::with`], after its kernels have shown
//! that they are what their names say and exact on this CPU.

use crate::exactness::{Gate, Inexact};
use crate::{AnyKernel, BatchKernel, Cpu, GemmKernel, Kernel, Layout, Runnable, lattice};
use std::collections::BTreeMap;
use trilut_presets::{Format, Isa, Op, Shape};

/// A set of kernels with a name for people, such as the path of the module that it is in.
#[derive(Debug)]
pub struct Registry {
    name: &'static str,
    kernels: &'static [Kernel],
    gemm_kernels: &'static [GemmKernel],
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
        Self { name, kernels, gemm_kernels }
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

    /// The gemv kernel with a name.
    pub fn find(&self, name: &str) -> Option<&'static Kernel> {
        self.kernels.iter().find(|kernel| kernel.text == name)
    }

    /// The gemm kernel with a name.
    pub fn find_gemm(&self, name: &str) -> Option<&'static GemmKernel> {
        self.gemm_kernels.iter().find(|kernel| kernel.text == name)
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
            let name = kernel.name;
            if name.op != Op::Gemv || kernel.text.parse() != Ok(name) {
                return refuse(kernel.text, "its name in parts is another");
            }
            if kernel.layout.format() != name.format {
                return refuse(kernel.text, "its layout is of another format");
            }
            if !kernel.layout.activations().contains(&kernel.activation) {
                return refuse(kernel.text, "its activations do not go with its layout");
            }
            names.push(kernel.text);
        }
        for kernel in self.gemm_kernels {
            if kernel.text.parse() != Ok(kernel.name) {
                return refuse(kernel.text, "its name in parts is another");
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

/// Every kernel that is compiled into this crate.
pub(crate) static BUILT_IN: Registry =
    Registry::new("trilut-kernels", &lattice::KERNELS, &lattice::GEMM_KERNELS);

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
    &lattice::BATCH_KERNELS
}

/// The small-batch kernel with a name.
pub fn find_batch(name: &str) -> Option<&'static BatchKernel> {
    batch_registry().iter().find(|kernel| kernel.text == name)
}
