//! What CPU this is: the identity that presets are recorded under and looked up by.
//!
//! A [`Machine`] only describes. Which instructions may run is decided by the kernels crate from
//! feature detection that also asks the operating system; a wrong description here costs speed, never
//! correctness.

pub mod control_groups;
pub mod cores;
#[cfg(target_arch = "x86_64")]
mod cpuid;
mod microarchitecture;
mod proc;
mod topology;

pub use control_groups::free_memory;
pub use cores::Cores;
pub use proc::meminfo;

use serde::{Deserialize, Serialize};
use std::path::Path;

/// A CPU and the machine around it, as far as they matter for the choice of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The value of `target_arch`: `x86_64`, `aarch64`, ...
    pub arch: String,
    /// The maker in one short word: `amd`, `intel`, `arm`, or what the CPU calls itself.
    pub vendor: String,
    /// The marketing name, as the CPU spells it.
    pub brand: String,
    /// x86: the display family. AArch64: the implementer code.
    pub family: u32,
    /// x86: the display model. AArch64: the part number.
    pub model: u32,
    /// x86: the stepping. AArch64: variant times 16 plus revision.
    pub stepping: u32,
    /// `zen5`, `sapphirerapids`, ..., or `<vendor>-<family>-<model>` where the table has no name.
    pub microarchitecture: String,
    /// Instruction set extensions that kernels care about, in the compiler's spelling, sorted.
    pub features: Vec<String>,
    /// Data and unified caches of the first CPU, nearest first.
    pub caches: Vec<Cache>,
    /// Logical CPUs that are online.
    pub logical_cpus: usize,
    /// Physical cores that are online.
    pub physical_cores: usize,
    /// The hypervisor's name, if this is a virtual machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// The microcode revision, if the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
    /// Total memory in bytes; 0 if unknown.
    pub memory_bytes: u64,
}

/// One cache as one CPU sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// 1, 2, 3, ...
    pub level: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many logical CPUs share it.
    pub shared_by: usize,
}

/// How closely the machine of a preset resembles this one; weaker ones come first in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Likeness {
    /// Another architecture or instruction set.
    Foreign,
    /// Another CPU for which the same ISA is the best.
    SameIsa,
    /// The same microarchitecture and best ISA.
    SameMicroarchitecture,
    /// The same CPU (see [`Machine::key`]) and best ISA.
    SameCpu,
}

impl std::fmt::Display for Likeness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Foreign => "a foreign CPU",
            Self::SameIsa => "another CPU with the same instruction set",
            Self::SameMicroarchitecture => "the same microarchitecture",
            Self::SameCpu => "this CPU",
        })
    }
}

impl Machine {
    /// Describes the machine that this program runs on.
    ///
    /// Never fails: what cannot be found out stays empty, 0 or 1.
    pub fn detect() -> Self {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "only CPUID refines"))]
        let mut machine = Self::detect_at(Path::new("/"));
        #[cfg(target_arch = "x86_64")]
        {
            cpuid::refine(&mut machine);
            machine.name_microarchitecture();
        }
        machine
    }

    /// Describes the machine whose `/sys` and `/proc` lie under `root`; the architecture is that of
    /// this program.
    pub fn detect_at(root: &Path) -> Self {
        let info = proc::CpuInfo::read(&root.join("proc/cpuinfo"));
        let topology = topology::Topology::read(&root.join("sys/devices/system/cpu"));
        let logical = topology.logical_cpus.or(info.processors).unwrap_or(1);
        let mut machine = Self {
            arch: std::env::consts::ARCH.to_owned(),
            vendor: info.vendor,
            brand: info.brand,
            family: info.family,
            model: info.model,
            stepping: info.stepping,
            microarchitecture: String::new(),
            features: info.features,
            caches: topology.caches,
            logical_cpus: logical,
            physical_cores: topology.physical_cores.unwrap_or(logical),
            hypervisor: info.hypervisor,
            microcode: info.microcode,
            memory_bytes: proc::memory_bytes(&root.join("proc/meminfo")),
        };
        machine.name_microarchitecture();
        machine
    }

    fn name_microarchitecture(&mut self) {
        self.microarchitecture =
            microarchitecture::name(&self.vendor, self.family, self.model, self.stepping)
                .map_or_else(
                    || format!("{}-{:x}-{:x}", self.vendor, self.family, self.model),
                    str::to_owned,
                );
    }

    /// The exact identity of the CPU, as a word that is also a safe file name. Two machines with the
    /// same key run the same kernel equally well; the number of CPUs is not part of it, because
    /// records carry their own thread count.
    pub fn key(&self) -> String {
        let Self { arch, vendor, family, model, stepping, .. } = self;
        let mut key = format!("{arch}-{vendor}-{family:x}-{model:x}-{stepping:x}");
        if !self.brand.is_empty() {
            key.push('-');
            key.push_str(&self.brand);
        }
        let mut word = String::with_capacity(key.len());
        for c in key.chars() {
            if c.is_ascii_alphanumeric() || c == '_' {
                word.push(c.to_ascii_lowercase());
            } else if !word.ends_with('-') {
                word.push('-');
            }
            // Far below every file system's limit, far above every brand string (48 bytes).
            if word.len() == 100 {
                break;
            }
        }
        word.trim_end_matches('-').to_owned()
    }

    /// How closely `other`, for which `other_isa` is the best, resembles this machine with `isa`.
    pub fn likeness(&self, isa: crate::Isa, other: &Self, other_isa: crate::Isa) -> Likeness {
        if self.arch != other.arch || isa != other_isa {
            Likeness::Foreign
        } else if self.key() == other.key() {
            Likeness::SameCpu
        } else if self.microarchitecture == other.microarchitecture {
            Likeness::SameMicroarchitecture
        } else {
            Likeness::SameIsa
        }
    }

    /// The cache farthest from the core, if any is known.
    pub fn last_level(&self) -> Option<Cache> {
        self.caches.iter().copied().max_by_key(|c| c.level)
    }

    /// Bytes of all last-level caches of the machine together; 0 if unknown.
    pub fn last_level_bytes(&self) -> u64 {
        self.last_level().map_or(0, |cache| {
            cache.bytes * self.logical_cpus.div_ceil(cache.shared_by.max(1)) as u64
        })
    }
}

/// One line for a person: `AMD EPYC (zen5, 2 cores, 32 MiB L3, KVM)`.
impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.brand.is_empty() { &self.arch } else { &self.brand };
        write!(f, "{name} ({}, ", self.microarchitecture)?;
        match (self.physical_cores, self.logical_cpus) {
            (1, 1) => write!(f, "1 core")?,
            (cores, cpus) if cores == cpus => write!(f, "{cores} cores")?,
            (cores, cpus) => write!(f, "{cores} cores, {cpus} threads")?,
        }
        if let Some(cache) = self.last_level() {
            write!(f, ", {} L{}", mebibytes(cache.bytes), cache.level)?;
        }
        if let Some(hypervisor) = &self.hypervisor {
            write!(f, ", {hypervisor}")?;
        }
        f.write_str(")")
    }
}

fn mebibytes(bytes: u64) -> String {
    match bytes {
        b if b < 1 << 20 => format!("{} KiB", b >> 10),
        b => format!("{} MiB", b >> 20),
    }
}

#[cfg(test)]
mod tests;
