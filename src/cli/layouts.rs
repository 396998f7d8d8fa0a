//! What a model file does not say about its ternary weights, and the user may.

use super::failure::Failure;
use std::path::PathBuf;
use trilut_presets::Shape;
use trilut_runtime::gguf::{Gguf, TensorInfo, TensorKind, TernaryLayouts};
use trilut_runtime::ternary::{I2sLayout, Tiles};

/// How the file arranges its ternary weights.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Layouts {
    /// Arrangement of I2_S weights, which depends on the build of bitnet.cpp that wrote them; x86 without it.
    #[arg(long, value_enum)]
    i2s_layout: Option<I2s>,
    /// kernel_config.ini of the build of bitnet.cpp that wrote TL1 or TL2 weights.
    #[arg(long, value_name = "FILE")]
    tl_config: Option<PathBuf>,
    /// Tile of TL1 or TL2 weights of one size, such as 2560x6912:128,96,32 (BM, BK, bm). Repeatable.
    #[arg(long, value_name = "MxK:BM,BK,bm")]
    tl_tile: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum I2s {
    /// Blocks of 128 weights: builds for x86, and the published files.
    X86,
    /// Blocks of 64 weights: builds for ARM.
    Arm,
    /// Four rows to a byte: builds without activation parallelism.
    Rows,
}

impl Layouts {
    /// Reads the tiles for the weights of a file. What would change nothing about how it is read is refused.
    pub(crate) fn read(&self, gguf: &Gguf) -> Result<TernaryLayouts, Failure> {
        let mut tiles = Tiles::default();
        if let Some(path) = &self.tl_config {
            let wrong = |error: &dyn std::error::Error| {
                let what = format!("cannot read the tiles in {}", path.display());
                Failure::of(error).context(what)
            };
            let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
            let hint = "give the include/kernel_config.ini of the build that wrote the model";
            tiles = Tiles::from_ini(&text).map_err(|error| wrong(&error).hint(hint))?;
        }
        let shapes: Vec<Shape> = (self.tl_tile.iter().map(|text| tiles.add(text)))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::of(&error).into_usage())?;
        let kinds = |wanted: &[TensorKind]| -> Vec<&TensorInfo> {
            gguf.tensors().iter().filter(|tensor| wanted.contains(&tensor.kind())).collect()
        };
        if self.i2s_layout.is_some() && kinds(&[TensorKind::I2S]).is_empty() {
            return Err(idle("--i2s-layout", "the model has no I2_S weights"));
        }
        let tiled = kinds(&[TensorKind::Tl1, TensorKind::Tl2]);
        if let Some(option) = self.tiles_option().filter(|_| tiled.is_empty()) {
            return Err(idle(option, "the model has no TL1 or TL2 weights"));
        }
        let is_there = |shape: &Shape| {
            tiled.iter().any(|tensor| tensor.dims() == [shape.k as u64, shape.m as u64])
        };
        if let Some(shape) = shapes.iter().find(|shape| !is_there(shape)) {
            let why = format!("the model has no TL1 or TL2 weights of {shape}");
            return Err(idle("--tl-tile", &why));
        }
        let i2s = match self.i2s_layout {
            None | Some(I2s::X86) => I2sLayout::X86,
            Some(I2s::Arm) => I2sLayout::Arm,
            Some(I2s::Rows) => I2sLayout::Rows,
        };
        Ok(TernaryLayouts { i2s, tiles })
    }

    /// Refuses all of them, for a source that is no GGUF file.
    pub(crate) fn refuse(&self, why: &str) -> Result<(), Failure> {
        match self.i2s_layout.map(|_| "--i2s-layout").or(self.tiles_option()) {
            Some(option) => Err(idle(option, why)),
            None => Ok(()),
        }
    }

    /// The first option given that is about TL1 and TL2 weights.
    fn tiles_option(&self) -> Option<&'static str> {
        match (&self.tl_config, self.tl_tile.is_empty()) {
            (Some(_), _) => Some("--tl-config"),
            (None, false) => Some("--tl-tile"),
            (None, true) => None,
        }
    }
}

/// An option that is refused because it changes nothing: whoever gave it expects something else.
fn idle(option: &str, why: &str) -> Failure {
    let hint = format!("leave out {option}; trilut inspect shows the types of the weights");
    Failure::usage(format!("{option} changes nothing here")).because(why).hint(hint)
}
