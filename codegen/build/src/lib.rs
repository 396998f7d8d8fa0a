//! The build-script API: generate kernels into `OUT_DIR` and include them.
//!
//! ```no_run
//! // build.rs
//! use trilut_build::{Format, Isa};
//!
//! fn main() {
//!     trilut_build::kernels()
//!         .model("model.toml")
//!         .shape(4096, 14336)
//!         .formats([Format::I2S, Format::Tl2])
//!         .isas([Isa::Scalar, Isa::Avx2, Isa::Avx512])
//!         .presets(["preset.toml"])
//!         .compile();
//! }
//! ```
//!
//! ```text
//! // src/lib.rs; the crate depends on trilut-kernels
//! mod kernels {
//!     trilut_kernels::include_kernels!();
//! }
//! ```
//!
//! The module has what `kernels!` of `trilut-macros` leaves in one: a safe function `gemv_<format>_<M>x<K>` for
//! each layer and format, `REGISTRY` for the engine and the tuner, and `check_all`. ISAs that the target
//! architecture (`CARGO_CFG_TARGET_ARCH`) cannot have are left out. The script runs again when the build
//! script or a file that it named has changed.

use std::path::{Path, PathBuf};
use std::process::exit;
use trilut_codegen::{
    BatchPlan, GemmPlan, Generated, GeneratedBatch, GeneratedGemm, LIBRARY, Plan, Set, SetModule,
    emit_batch, emit_gemm, lattice,
};
use trilut_presets::models::{self, ModelError, ModelSpec};
use trilut_presets::preset::PresetError;
use trilut_presets::{BatchName, GemmName, ParseError, Preset, Shape, nearest};
pub use trilut_presets::{Format, Isa};

/// A kernel set that is being described.
#[derive(Debug, Clone, Default)]
pub struct Kernels {
    shapes: Vec<(usize, usize)>,
    models: Vec<String>,
    formats: Vec<Format>,
    isas: Vec<Isa>,
    presets: Vec<PathBuf>,
    kernels: Vec<String>,
    library: Option<String>,
    lattice: bool,
    raised: Option<usize>,
    raised_gemms: bool,
    raised_batches: bool,
    twins: bool,
}

/// Why a kernel set could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shape is empty or too large.
    #[error("cannot generate kernels")]
    Shape(#[from] ParseError),
    /// A kernel is illegal.
    #[error("cannot generate kernels")]
    Kernel(#[from] trilut_codegen::Error),
    /// A model is neither known nor a file.
    #[error("no model is named `{name}`; legal: a .toml file, {legal}; nearest: {nearest}")]
    Model {
        /// What was asked for.
        name: String,
        /// The names that there are.
        legal: String,
        /// The one that was probably meant.
        nearest: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A model file is no model.
    #[error("{} is not usable", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ModelError,
    },
    /// A preset is not usable.
    #[error("cannot generate kernels")]
    Preset(#[from] PresetError),
    /// Cargo's environment is missing: not called from a build script.
    #[error("{0} is not set; call this from a build script")]
    Environment(&'static str),
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Begins a kernel set.
pub fn kernels() -> Kernels {
    Kernels::default()
}

impl Kernels {
    /// Adds kernels specialised for a shape of `m` outputs and `k` inputs.
    #[must_use]
    pub fn shape(mut self, m: usize, k: usize) -> Self {
        self.shapes.push((m, k));
        self
    }

    /// Adds kernels for every layer of a model: its known name, or its file, from the directory of
    /// `Cargo.toml`.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.models.push(name.into());
        self
    }

    /// Limits the formats; all by default.
    #[must_use]
    pub fn formats(mut self, formats: impl IntoIterator<Item = Format>) -> Self {
        self.formats.extend(formats);
        self
    }

    /// Limits the ISAs; all that the target can have by default.
    #[must_use]
    pub fn isas(mut self, isas: impl IntoIterator<Item = Isa>) -> Self {
        self.isas.extend(isas);
        self
    }

    /// Adds the kernels that won in preset files, from the directory of `Cargo.toml`, for layers with as
    /// many inputs as those of this set.
    #[must_use]
    pub fn presets(mut self, files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.presets.extend(files.into_iter().map(Into::into));
        self
    }

    /// Adds a kernel by its whole name.
    #[must_use]
    pub fn kernel(mut self, name: impl Into<String>) -> Self {
        self.kernels.push(name.into());
        self
    }

    /// The path of the kernels crate in the crate that is built; `::trilut_kernels` by default. A crate that
    /// depends on `trilut` alone says `::trilut::kernels`.
    #[must_use]
    pub fn library(mut self, path: impl Into<String>) -> Self {
        self.library = Some(path.into());
        self
    }

    /// Adds the whole lattice that trilut itself compiles in.
    #[must_use]
    pub fn lattice(mut self) -> Self {
        self.lattice = true;
        self
    }

    /// Adds every generic kernel that has an int16 bank of this index, with that bank widened one step
    /// too late: wrong on purpose, for tests.
    #[must_use]
    pub fn raised(mut self, bank: usize) -> Self {
        self.raised = Some(bank);
        self
    }

    /// The same for every gemm kernel that has an int16 bank.
    #[must_use]
    pub fn raised_gemms(mut self) -> Self {
        self.raised_gemms = true;
        self
    }

    /// The same for every small-batch kernel that has an int16 bank.
    #[must_use]
    pub fn raised_batches(mut self) -> Self {
        self.raised_batches = true;
        self
    }

    /// Adds the twins of all kernels that have one, see [`lattice::twin`]: for tests.
    #[must_use]
    pub fn twins(mut self) -> Self {
        self.twins = true;
        self
    }

    /// Generates everything into `OUT_DIR/kernels.rs`, for `include_kernels!`. A mistake is reported and
    /// ends the build script.
    pub fn compile(&self) {
        self.compile_to("kernels.rs");
    }

    /// The same into another file of `OUT_DIR`.
    pub fn compile_to(&self, file: &str) {
        if let Err(error) = self.try_compile(file) {
            println!("cargo::error={}", in_words(&error));
            exit(1);
        }
    }

    /// The same, for build scripts that report mistakes themselves.
    ///
    /// # Errors
    /// When a kernel is illegal, a file cannot be used, the environment is not a build script's, or the
    /// module cannot be written.
    pub fn try_compile(&self, file: &str) -> Result<(), Error> {
        let variable = |name| std::env::var(name).map_err(|_| Error::Environment(name));
        let arch = variable("CARGO_CFG_TARGET_ARCH")?;
        let path = PathBuf::from(variable("OUT_DIR")?).join(file);
        let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
        // The generator itself is a build dependency, so cargo rebuilds the script when it changes.
        println!("cargo::rerun-if-changed=build.rs");
        for read in self.files() {
            println!("cargo::rerun-if-changed={}", root.join(read).display());
        }
        let text = if self.lattice
            || self.raised.is_some()
            || self.raised_gemms
            || self.raised_batches
            || self.twins
        {
            trilut_codegen::module(
                &self.generate(&arch)?,
                &self.generate_gemms(&arch)?,
                &self.generate_batches(&arch)?,
            )
        } else {
            let library = self.library.as_deref().unwrap_or(LIBRARY);
            let module = SetModule::new(&self.set(&root)?, Some(&arch))?;
            if module.members().is_empty() {
                println!(
                    "cargo::warning=no kernel of this set is for {arch}: its functions fail there; add isa `scalar`"
                );
            }
            module.text(library)
        };
        std::fs::write(&path, text).map_err(|source| Error::Write { path, source })
    }

    /// The files that are read.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let models = self.models.iter().filter(|name| models::find(name).is_none());
        models.map(Path::new).chain(self.presets.iter().map(PathBuf::as_path))
    }

    /// What was asked for, with the files of a directory.
    ///
    /// # Errors
    /// When a shape, model, kernel or preset is illegal.
    pub fn set(&self, root: &Path) -> Result<Set, Error> {
        let mut set = Set::default();
        for &(m, k) in &self.shapes {
            set.shape(Shape::new(m, k)?)?;
        }
        for name in &self.models {
            match models::find(name) {
                Some(model) => set.model(model),
                None => set.model(&model_file(root, name)?),
            }
        }
        self.formats.iter().try_for_each(|&format| set.format(format))?;
        self.isas.iter().try_for_each(|&isa| set.isa(isa))?;
        self.kernels.iter().try_for_each(|name| set.kernel(name))?;
        for file in &self.presets {
            set.preset(Preset::load(&root.join(file))?);
        }
        Ok(set)
    }

    /// The gemm kernels of the lattice for a target architecture, or the raised ones.
    fn generate_gemms(&self, arch: &str) -> Result<Vec<GeneratedGemm>, Error> {
        let mut kernels = Vec::new();
        for name in lattice::isas(arch).into_iter().flat_map(lattice::gemms) {
            let plan = GemmPlan::new(&name)?;
            if self.raised_gemms {
                kernels.extend(plan.raised().map(|plan| emit_gemm(&plan)));
            } else if self.lattice {
                kernels.push(emit_gemm(&plan));
            }
            if let Some((isa, width)) = lattice::twin(name.isa).filter(|_| self.twins) {
                let twin = GemmName { isa, width: Some(width), ..name };
                kernels.push(emit_gemm(&GemmPlan::new(&twin)?));
            }
        }
        Ok(kernels)
    }

    /// The small-batch kernels, likewise.
    fn generate_batches(&self, arch: &str) -> Result<Vec<GeneratedBatch>, Error> {
        let mut kernels = Vec::new();
        for name in lattice::isas(arch).into_iter().flat_map(lattice::batches) {
            let plan = BatchPlan::new(&name)?;
            if self.raised_batches {
                kernels.extend(plan.raised().map(|plan| emit_batch(&plan)));
            } else if self.lattice {
                kernels.push(emit_batch(&plan));
            }
            if let Some((isa, width)) = lattice::twin(name.isa).filter(|_| self.twins) {
                let twin = BatchName { isa, width: Some(width), ..name };
                kernels.push(emit_batch(&BatchPlan::new(&twin)?));
            }
        }
        Ok(kernels)
    }

    /// The gemv kernels, likewise.
    fn generate(&self, arch: &str) -> Result<Vec<Generated>, Error> {
        let mut kernels = Vec::new();
        for isa in lattice::isas(arch) {
            if let Some((twin, width)) = lattice::twin(isa).filter(|_| self.twins) {
                for mut spec in lattice::specs(isa, &[]) {
                    (spec.name.isa, spec.name.micro.width) = (twin, Some(width));
                    kernels.push(trilut_codegen::generate(&spec)?);
                }
            }
            if let Some(bank) = self.raised {
                for spec in lattice::specs(isa, &[]) {
                    let plan = Plan::new(&spec)?;
                    if plan.banks.get(bank).is_some_and(|bank| bank.tight) {
                        kernels.push(trilut_codegen::emit::emit(&plan.raised(bank)));
                    }
                }
            }
            if self.lattice {
                for spec in lattice::specs(isa, models::all()) {
                    kernels.push(trilut_codegen::generate(&spec)?);
                }
            }
        }
        Ok(kernels)
    }
}

/// A model file of the crate that is built.
fn model_file(root: &Path, name: &str) -> Result<ModelSpec, Error> {
    if Path::new(name).extension().is_none_or(|end| end != "toml") {
        let names = || models::all().iter().map(|model| model.name.as_str());
        return Err(Error::Model {
            name: name.to_owned(),
            legal: names().collect::<Vec<_>>().join(", "),
            nearest: nearest(name, names()).unwrap_or("bitnet-2b-4t"),
        });
    }
    let path = root.join(name);
    match std::fs::read_to_string(&path) {
        Err(source) => Err(Error::Read { path, source }),
        Ok(text) => ModelSpec::from_toml(&text).map_err(|source| Error::ModelFile { path, source }),
    }
}

/// An error with everything that caused it, in one line, as cargo wants it.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    fn mistake(kernels: &Kernels) -> String {
        let made = kernels.set(Path::new(HERE)).and_then(|set| Ok(SetModule::new(&set, None)?));
        in_words(&made.unwrap_err())
    }

    #[test]
    fn mistakes_name_the_rule_and_the_nearest_value() {
        for (kernels, words) in [
            (kernels(), "name a shape, a model or a kernel"),
            (kernels().shape(0, 128), "nearest: 1x128"),
            (kernels().shape(8, 128).shape(8, 128), "8x128` is listed twice"),
            (kernels().model("bitnet-2b-4"), "nearest: bitnet-2b-4t"),
            (kernels().model("none.toml"), "none.toml: No such file"),
            (kernels().model("Cargo.toml"), "unknown field"),
            (kernels().shape(8, 128).presets(["Cargo.toml"]), "Cargo.toml"),
            (kernels().kernel("gemv_i2s_madd_r5u1_avx2"), "nearest: 4"),
            (kernels().shape(8, 128).formats([Format::I2S]).isas([Isa::Avx512Vbmi]), "avx2"),
        ] {
            let mistake = mistake(&kernels);
            assert!(mistake.contains(words), "{words}: {mistake}");
            assert!(!mistake.contains('\n'), "{mistake}");
        }
    }

    #[test]
    fn other_architectures_are_left_out() {
        let set = kernels().model("demo").formats([Format::I2S]).set(Path::new(HERE)).unwrap();
        let text = |arch| SetModule::new(&set, Some(arch)).unwrap().text(LIBRARY);
        assert!(text("x86_64").contains("_avx2_k") && !text("aarch64").contains("_avx2_k"));
        assert!(!text("x86_64").contains("target_arch"));
    }
}
