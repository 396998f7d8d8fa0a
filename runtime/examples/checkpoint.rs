//! Writes a checkpoint with random weights in the shape of a known model, to measure `trilut convert`.
//!
//! ```sh
//! cargo run --release -p trilut-runtime --example checkpoint -- bitnet-2b-4t DIR [packed|masters]
//! time trilut convert DIR OUT.gguf --verify
//! ```

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_presets::models;
use trilut_runtime::convert::{CheckpointOptions, CheckpointWeights, write_checkpoint};

const USAGE: &str = "usage: checkpoint MODEL DIR [packed|masters]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, directory, weights) = match &arguments[..] {
        [name, directory] => (name, directory, CheckpointWeights::Packed),
        [name, directory, kind] if kind == "packed" => (name, directory, CheckpointWeights::Packed),
        [name, directory, kind] if kind == "masters" => {
            (name, directory, CheckpointWeights::Masters)
        }
        _ => return Err(USAGE.into()),
    };
    let spec = models::find(name).ok_or_else(|| format!("no model is called {name}"))?;
    let options = CheckpointOptions { weights, ..CheckpointOptions::default() };
    write_checkpoint(spec, options, Path::new(directory), &mut |_, _| ControlFlow::Continue(()))?;
    println!("{} in {directory}", spec.title);
    Ok(())
}
