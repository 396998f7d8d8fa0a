//! What a model file does not say about its ternary weights, and the user may.

use super::failure::Failure;
use std::path::PathBuf;
use trilut_runtime::gguf::TernaryLayouts;
use trilut_runtime::ternary::{I2sLayout, Tiles};

/// How the file arranges its ternary weights.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Layouts {
    /// Arrangement of I2_S weights, which depends on the build of bitnet.cpp that wrote them.
    #[arg(long, value_enum, default_value = "x86")]
    i2s_layout: I2s,
    /// kernel_config.ini of the build of bitnet.cpp that wrote TL1 or TL2 weights.
    #[arg(long, value_name = "FILE")]
    tl_config: Option<PathBuf>,
    /// Tile of TL1 or TL2 weights of one size, such as 2560x6912:128,96,32 (BM, BK, bm). Repeatable.
    #[arg(long, value_name = "MxK:BM,BK,bm")]
    tl_tile: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum I2s {
    /// Blocks of 128 weights: builds for x86, and the published files.
    #[default]
    X86,
    /// Blocks of 64 weights: builds for ARM.
    Arm,
    /// Four rows to a byte: builds without activation parallelism.
    Rows,
}

impl Layouts {
    /// Reads the tiles.
    pub(crate) fn read(&self) -> Result<TernaryLayouts, Failure> {
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
        for text in &self.tl_tile {
            tiles.add(text).map_err(|error| Failure::of(&error).into_usage())?;
        }
        let i2s = match self.i2s_layout {
            I2s::X86 => I2sLayout::X86,
            I2s::Arm => I2sLayout::Arm,
            I2s::Rows => I2sLayout::Rows,
        };
        Ok(TernaryLayouts { i2s, tiles })
    }
}
