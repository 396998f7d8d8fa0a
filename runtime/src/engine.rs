//! How models are run on this machine: which kernels there are, which of them are picked, and by how many
//! threads.
//!
//! ```
//! use trilut_kernels::Isa;
//! use trilut_runtime::Engine;
//!
//! let engine = Engine::builder().threads(1).isa(Isa::Scalar).build()?;
//! let model = engine.embedded()?;
//! assert_eq!(model.threads(), 1);
//! assert!(model.kernels().all(|(_, choice)| choice.kernel.kernel().name.isa == Isa::Scalar));
//! # Ok::<(), trilut_runtime::Error>(())
//! ```
//!
//! Kernels that a crate generates for itself join the built-in ones by [`EngineBuilder::kernels`], once
//! they have reproduced the reference on this CPU. They are found by the names in presets and plans like
//! any other, raced by the tuner (which takes [`Engine::cpu`]), and used untuned before the built-in ones of
//! the same instruction set.

use crate::gguf::Gguf;
use crate::{CacheType, Error, Load, Model, ModelOptions, embedded};
use std::path::{Path, PathBuf};
use trilut_kernels::pool::default_threads;
use trilut_kernels::{Cpu, Format, Isa, Registry};
use trilut_presets::ladder::Sources;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::Dropped;
use trilut_presets::{MOST_THREADS, Machine, Plan, Preset};

/// A way to run models, which any number of them can share.
#[derive(Debug, Clone)]
pub struct Engine {
    cpu: Cpu,
    plan: Plan,
    dropped: Vec<Dropped>,
    /// Everything else; plan and CPU are put in when a model is opened.
    options: ModelOptions<'static>,
}

/// An [`Engine`] that is being described. Nothing has to be set.
#[derive(Debug, Clone, Default)]
pub struct EngineBuilder {
    cpu: Option<Cpu>,
    isa: Option<Isa>,
    registries: Vec<&'static Registry>,
    preset: Option<PathBuf>,
    sources: Option<Sources<'static>>,
    plan: Plan,
    tuned: Vec<Preset>,
    options: ModelOptions<'static>,
}

impl EngineBuilder {
    /// Adds the kernels of another crate: the `REGISTRY` of `kernels!` or of a build script.
    #[must_use]
    pub fn kernels(mut self, registry: &'static Registry) -> Self {
        self.registries.push(registry);
        self
    }

    /// Caps the instruction set, in place of `TRILUT_ISA`.
    #[must_use]
    pub fn isa(mut self, cap: Isa) -> Self {
        self.isa = Some(cap);
        self
    }

    /// What may run here, in place of what detection finds.
    #[must_use]
    pub fn cpu(mut self, cpu: Cpu) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Worker threads; every core without it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// The stored codec to run in; the picks' choice without it, or I2_S.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.options.format = Some(format);
        self
    }

    /// Positions of a session; what the model was made for without it.
    #[must_use]
    pub fn context(mut self, positions: usize) -> Self {
        self.options.context = Some(positions);
        self
    }

    /// What keys and values are cached as; [`CacheType::Q16`] without it.
    #[must_use]
    pub fn cache_type(mut self, of: CacheType) -> Self {
        self.options.cache = of;
        self
    }

    /// Where weights are kept; in the mapped file without it.
    #[must_use]
    pub fn load(mut self, load: Load) -> Self {
        self.options.load = load;
        self
    }

    /// A preset file to pick kernels by, before those of [`EngineBuilder::presets`]; that it cannot be
    /// used is an error.
    #[must_use]
    pub fn preset(mut self, file: impl Into<PathBuf>) -> Self {
        self.preset = Some(file.into());
        self
    }

    /// The places to look for presets in, weaker ones for the layers that stronger ones do not know.
    /// Without it no place is looked at.
    #[must_use]
    pub fn presets(mut self, sources: Sources<'static>) -> Self {
        self.sources = Some(sources);
        self
    }

    /// Records that were made on this machine, before all preset files; the last ones given first.
    #[must_use]
    pub fn tuned(mut self, preset: Preset) -> Self {
        self.tuned.push(preset);
        self
    }

    /// Picks to go by before all presets.
    #[must_use]
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// Checks the kernels that were added and reads the presets.
    ///
    /// # Errors
    /// When an added kernel is not exact on this CPU or not what its name says, the preset file cannot be
    /// used, or the number of threads is out of range.
    pub fn build(self) -> Result<Engine, Error> {
        let Self { cpu, isa, registries, preset, sources, plan, tuned, mut options } = self;
        let threads = options.threads.unwrap_or_else(default_threads);
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(Error::Threads { threads, most: MOST_THREADS });
        }
        options.threads = Some(threads);
        let cpu = cpu.unwrap_or_else(|| isa.map_or_else(Cpu::detect, |isa| Cpu::capped(Some(isa))));
        let cpu = registries.into_iter().try_fold(cpu, Cpu::with)?;
        let resolve = |name: &str| cpu.resolve(name);
        let mut dropped = Vec::new();
        // Weakest first; what follows takes the place of what is there.
        let mut picks = Plan::default();
        if preset.is_some() || sources.is_some() {
            let mut sources = sources.unwrap_or_default();
            sources.explicit = preset.or(sources.explicit);
            let found = sources.find(&Machine::detect(), cpu.best().isa())?;
            let found = found.picks(resolve);
            dropped.extend(found.dropped);
            picks = found.plan;
        }
        for preset in tuned {
            let found = preset.to_plan(Likeness::SameCpu, resolve);
            dropped.extend(found.dropped);
            picks.prefer(found.plan);
        }
        picks.prefer(plan);
        Ok(Engine { cpu, plan: picks, dropped, options })
    }

    /// Builds the engine and opens a model file with it.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`] and [`Engine::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Model, Error> {
        self.build()?.open(path)
    }

    /// Builds the engine and loads the demo model with it.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`] and [`Engine::embedded`].
    pub fn embedded(self) -> Result<Model, Error> {
        self.build()?.embedded()
    }
}

impl Engine {
    /// Begins a description.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// What may run here, the added kernels included: what the tuner takes.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.options.threads.unwrap_or_else(default_threads)
    }

    /// The picks, for whatever shapes they are known.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Records of presets that are not used, with reasons.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// Opens a model file.
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Model, Error> {
        self.model(&Gguf::open(path)?)
    }

    /// The demo model inside the program.
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn embedded(&self) -> Result<Model, Error> {
        self.model(&Gguf::from_static(embedded::model())?)
    }

    /// Loads a model from an open file.
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn model(&self, gguf: &Gguf) -> Result<Model, Error> {
        let plan = (!self.plan.picks.is_empty()).then_some(&self.plan);
        let cpu = Some(self.cpu.clone());
        Model::open_with(gguf, &ModelOptions { plan, cpu, ..self.options.clone() })
    }
}
