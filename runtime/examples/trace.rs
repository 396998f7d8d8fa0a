//! Records what the forward pass computes, for `tools/reference`.
//!
//! ```sh
//! cargo run --release -p trilut-runtime --example trace -- MODEL --tokens 1,2,3 --cache q16 -o DIR
//! ```
//!
//! Writes `DIR/trace.json` and `DIR/trace.bin`: of every linear layer the int8 input and its scale, the
//! keys and values as they are cached, and the logits of every token.

use std::error::Error;
use std::path::PathBuf;
use trilut_runtime::{CacheType, Engine, Trace};

const USAGE: &str = "usage: trace MODEL --tokens 1,2,3 [--cache f16|q16] -o DIR";

fn main() -> Result<(), Box<dyn Error>> {
    let (mut model, mut tokens, mut directory) = (None, None, None);
    // What the reference rounds keys and values to, unless it is told otherwise.
    let mut cache = CacheType::F16;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--tokens" => tokens = arguments.next(),
            "--cache" => {
                cache = match arguments.next().as_deref() {
                    Some("f16") => CacheType::F16,
                    Some("q16") => CacheType::Q16,
                    _ => return Err(USAGE.into()),
                }
            }
            "-o" => directory = arguments.next().map(PathBuf::from),
            _ => model = Some(argument),
        }
    }
    let (Some(model), Some(tokens), Some(directory)) = (model, tokens, directory) else {
        return Err(USAGE.into());
    };
    let tokens = tokens.split(',').map(|id| id.trim().parse()).collect::<Result<Vec<u32>, _>>()?;

    let model = Engine::builder().cache_type(cache).open(model)?;
    let mut session = model.session()?;
    let mut trace = Trace::new();
    session.append_traced(&tokens, Some(&mut trace))?;
    trace.write(&directory)?;
    println!(
        "{} tokens, {} arrays in {}",
        tokens.len(),
        trace.names().count(),
        directory.display()
    );
    Ok(())
}
