//! `trilut inspect`: what is in a model file.

use super::failure::Failure;
use super::model::Source;
use super::output::{out, outln};
use super::table::Table;
use std::path::PathBuf;
use trilut_runtime::Load;
use trilut_runtime::gguf::{Gguf, Value};

/// Show a model file's metadata and tensors.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    model: Option<PathBuf>,
    /// Every tensor, not only a summary by type.
    #[arg(long)]
    tensors: bool,
}

pub(crate) fn inspect(args: &Args) -> Result<(), Failure> {
    let source = Source::new(args.model.clone());
    let gguf = source.open()?;
    outln!(
        "{source}: GGUF version {}, {:.1} MiB, {} tensors",
        gguf.version(),
        gguf.file_len() as f64 / f64::from(1 << 20),
        gguf.tensors().len()
    );
    let mut metadata = Table::new(&["key", "value"], 2);
    for (key, value) in gguf.metadata() {
        metadata.row([key.to_owned(), show(value)]);
    }
    outln!("\n{}", metadata.plain());
    outln!(
        "load: {} unless --load says otherwise: weights are executed in the file's pages where the \
         kernels read its layout, else repacked\n",
        Load::default()
    );
    let table = if args.tensors { tensors(&gguf) } else { types(&gguf) };
    out!("{}", table.plain());
    Ok(())
}

/// A value on one line; long texts and arrays are cut.
fn show(value: Value<'_>) -> String {
    match value {
        Value::Int(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Str(text) => {
            let cut: String = text.chars().take(60).collect();
            let more = if cut.len() < text.len() { "..." } else { "" };
            format!("{cut:?}{more}")
        }
        Value::Array(array) => {
            let first: Vec<String> = array.iter().take(4).map(show).collect();
            let more = if array.len() > 4 { ", ..." } else { "" };
            format!("{} {}: [{}{more}]", array.len(), array.type_name(), first.join(", "))
        }
    }
}

fn tensors(gguf: &Gguf) -> Table {
    let mut table = Table::new(&["tensor", "type", "size (inputs first)", "bytes"], 2);
    for tensor in gguf.tensors() {
        let dims: Vec<String> = tensor.dims().iter().map(u64::to_string).collect();
        let bytes = tensor.bytes().map_or("unknown".to_owned(), |bytes| bytes.to_string());
        let kind = tensor.type_name().to_owned();
        table.row([tensor.name().to_owned(), kind, dims.join(" x "), bytes]);
    }
    table
}

/// Tensors summed up by type, in order of first appearance.
fn types(gguf: &Gguf) -> Table {
    let mut sums: Vec<(&str, usize, u64)> = Vec::new();
    for tensor in gguf.tensors() {
        let name = tensor.type_name();
        match sums.iter_mut().find(|(kind, ..)| *kind == name) {
            Some((_, count, elements)) => {
                *count += 1;
                *elements += tensor.elements();
            }
            None => sums.push((name, 1, tensor.elements())),
        }
    }
    let mut table = Table::new(&["type", "tensors", "elements"], 1);
    for (kind, count, elements) in sums {
        table.row([kind.to_owned(), count.to_string(), elements.to_string()]);
    }
    table
}
