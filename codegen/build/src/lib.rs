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
//!         .tile_of(4096, 14336, "r4u2")
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

mod lattice;

pub use lattice::Lattice;
use std::path::{Path, PathBuf};
use std::process::exit;
pub use trilut_codegen::Kind;
use trilut_codegen::{Library, Set, SetModule};
use trilut_presets::models::{self, ModelError, ModelSpec};
use trilut_presets::preset::PresetError;
pub use trilut_presets::{Format, Isa};
use trilut_presets::{MicroTile, ParseError, Preset, Shape, nearest};

/// A kernel set that is being described.
#[derive(Debug, Clone, Default)]
pub struct Kernels {
    shapes: Vec<(usize, usize)>,
    models: Vec<String>,
    formats: Vec<Format>,
    isas: Vec<Isa>,
    tile: Option<String>,
    tiles: Vec<((usize, usize), String)>,
    presets: Vec<PathBuf>,
    kernels: Vec<String>,
    library: Option<String>,
}

/// Why a kernel set could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shape is empty or too large, or a tile cannot be read.
    #[error("cannot generate kernels")]
    Word(#[from] ParseError),
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

    /// Rows per pass and unroll of kernels for shapes and models, such as `"r4u2"`, in place of what does well
    /// untuned.
    #[must_use]
    pub fn tile(mut self, tile: impl Into<String>) -> Self {
        self.tile = Some(tile.into());
        self
    }

    /// The same for one of the layers. Kernels are made for a number of inputs: layers with as many share
    /// them.
    #[must_use]
    pub fn tile_of(mut self, m: usize, k: usize, tile: impl Into<String>) -> Self {
        self.tiles.push(((m, k), tile.into()));
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

    /// Generates everything into `OUT_DIR/kernels.rs`, for `include_kernels!`. A mistake is reported and
    /// ends the build script.
    pub fn compile(&self) {
        self.compile_to("kernels.rs");
    }

    /// The same into another file of `OUT_DIR`.
    pub fn compile_to(&self, file: &str) {
        report(self.try_compile(file));
    }

    /// The same, for build scripts that report mistakes themselves.
    ///
    /// # Errors
    /// When a kernel is illegal, a file cannot be used, the environment is not a build script's, or the
    /// module cannot be written.
    pub fn try_compile(&self, file: &str) -> Result<(), Error> {
        let arch = variable("CARGO_CFG_TARGET_ARCH")?;
        let path = PathBuf::from(variable("OUT_DIR")?).join(file);
        let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
        // The generator itself is a build dependency, so cargo rebuilds the script when it changes.
        println!("cargo::rerun-if-changed=build.rs");
        for read in self.files() {
            println!("cargo::rerun-if-changed={}", root.join(read).display());
        }
        let library: Library = match &self.library {
            Some(path) => path.parse()?,
            None => Library::default(),
        };
        let module = SetModule::new(&self.set(&root)?, Some(&arch))?;
        if module.members().is_empty() {
            println!(
                "cargo::warning=no kernel of this set is for {arch}: its functions fail there; add isa `scalar`"
            );
        }
        let text = module.text(&library);
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
        if let Some(tile) = &self.tile {
            set.tile(tile.parse()?);
        }
        for ((m, k), tile) in &self.tiles {
            let (shape, tile) = (Shape::new(*m, *k)?, tile.parse::<MicroTile>()?);
            set.tile_of(shape, tile)?;
        }
        self.kernels.iter().try_for_each(|name| set.kernel(name))?;
        for file in &self.presets {
            set.preset(Preset::load(&root.join(file))?);
        }
        Ok(set)
    }
}

/// A variable of a build script's environment.
fn variable(name: &'static str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| Error::Environment(name))
}

/// Ends the build script, with what is wrong as cargo's error, if something is.
fn report(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        println!("cargo::error={}", in_words(&error));
        exit(1);
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
            (kernels().shape(8, 128).tile("4x2"), "such as r4u2"),
            (kernels().shape(8, 128).tile("r3u2"), "nearest: 2"),
            (kernels().shape(8, 128).tile_of(9, 128, "r4u2"), "layer 9x128 is not of this set"),
            (
                kernels()
                    .shape(8, 128)
                    .shape(9, 128)
                    .tile_of(8, 128, "r4u2")
                    .tile_of(9, 128, "r4u1"),
                "cannot have the tiles r4u2 and r4u1",
            ),
        ] {
            let mistake = mistake(&kernels);
            assert!(mistake.contains(words), "{words}: {mistake}");
            assert!(!mistake.contains('\n'), "{mistake}");
        }
    }

    #[test]
    fn tiles_are_those_of_the_set() {
        let set = kernels().shape(8, 128).shape(8, 256).formats([Format::I2S]).isas([Isa::Avx2]);
        let set = set.tile("r4u4").tile_of(8, 256, "r2u1").set(Path::new(HERE)).unwrap();
        let names: Vec<String> =
            set.members(None).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["gemv_i2s_maddx4_r4u4_avx2_k128", "gemv_i2s_maddx4_r2u1_avx2_k256"]);
    }

    #[test]
    fn other_architectures_are_left_out() {
        let set = kernels().model("demo").formats([Format::I2S]).set(Path::new(HERE)).unwrap();
        let text = |arch| SetModule::new(&set, Some(arch)).unwrap().text(&Library::default());
        assert!(text("x86_64").contains("_avx2_k") && !text("aarch64").contains("_avx2_k"));
        assert!(!text("x86_64").contains("target_arch"));
    }
}
