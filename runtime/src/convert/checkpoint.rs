//! A Hugging Face checkpoint: the safetensors files of a directory, mapped, and its JSON files.

use super::ConvertError;
use crate::mapped_file::MappedFile;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The most bytes of a JSON file; the largest tokenizers have some 35 MB.
const MOST_JSON: u64 = 1 << 28;

/// The file that says which tensor is in which weight file.
const INDEX: &str = "model.safetensors.index.json";

/// The directory of a checkpoint.
pub(super) struct Checkpoint {
    dir: PathBuf,
    shards: Vec<MappedFile>,
    tensors: BTreeMap<String, Entry>,
    /// Weight files of the directory that are not read.
    left_out: Vec<String>,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A tensor of a checkpoint, rows of the last dimension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

impl Checkpoint {
    /// Maps the weight files of a directory and checks their headers.
    pub(super) fn open(dir: &Path) -> Result<Self, ConvertError> {
        let mut this = Self {
            dir: dir.to_owned(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            left_out: Vec::new(),
        };
        let index = this.json(INDEX)?;
        let files = match &index {
            Some(index) => indexed(index)?,
            None => found(dir)?,
        };
        this.left_out = weight_files(dir)?;
        this.left_out.retain(|file| !files.contains(file));
        if files.is_empty() {
            let what = "safetensors file (model.safetensors)".to_owned();
            return Err(ConvertError::Missing { dir: dir.to_owned(), what });
        }
        let is_missing = |file: &&String| !dir.join(file).exists();
        let missing: Vec<String> = files.iter().filter(is_missing).cloned().collect();
        if !missing.is_empty() {
            return Err(ConvertError::Shards { missing });
        }
        for file in &files {
            this.add(&dir.join(file))?;
        }
        let map = index.as_ref().and_then(|index| index["weight_map"].as_object());
        for (tensor, file) in map.into_iter().flatten() {
            if !this.tensors.contains_key(tensor) {
                let file = file.as_str().unwrap_or_default();
                let rule = format!("is not in {file}, where {INDEX} has it");
                return Err(ConvertError::tensor(tensor, rule));
            }
        }
        Ok(this)
    }

    fn add(&mut self, path: &Path) -> Result<(), ConvertError> {
        let file = MappedFile::open(path).map_err(ConvertError::read(path))?;
        let failed = |source| ConvertError::Safetensors { path: path.to_owned(), source };
        // Checks that the tensors' places follow from their sizes and fill the file.
        let (header, metadata) = SafeTensors::read_metadata(file.as_ref()).map_err(failed)?;
        let data = 8 + header;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: data + start..data + end,
            };
            if entry.shape.contains(&0) {
                let rule = format!("has the size {:?}: a dimension is 0", entry.shape);
                return Err(ConvertError::tensor(&name, rule));
            }
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(ConvertError::tensor(&name, "is in two weight files"));
            }
        }
        self.shards.push(file);
        Ok(())
    }

    /// Where the checkpoint is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What a person should know about the weight files: which of the directory are not read.
    pub(super) fn notes(&self) -> Option<String> {
        let file = self.left_out.first()?;
        let more = match self.left_out.len() {
            1 => String::new(),
            n => format!(" and {} more weight files", n - 1),
        };
        let why = match self.dir.join(INDEX).exists() {
            true => format!("{INDEX} names others"),
            false => "other weight files make up the model".to_owned(),
        };
        Some(format!("{file}{more} of the directory was not read: {why}"))
    }

    /// A JSON file of the directory, `None` when there is none.
    pub(super) fn json(&self, name: &str) -> Result<Option<Value>, ConvertError> {
        read_json(&self.dir.join(name))
    }

    /// The names of all tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, `None` when there is none of this name.
    pub(super) fn get(&self, name: &str) -> Option<Stored<'_>> {
        let (name, entry) = self.tensors.get_key_value(name)?;
        let bytes = self.shards[entry.shard].as_ref().get(entry.range.clone())?;
        Some(Stored { name, dtype: entry.dtype, shape: &entry.shape, bytes })
    }

    /// Lets the pages of bytes go that were handed out.
    pub(super) fn release(&self, bytes: &[u8]) {
        for shard in &self.shards {
            if let Some(range) = place(shard.as_ref(), bytes) {
                shard.release(range);
            }
        }
    }
}

/// Where `part` lies in `whole`, if it does.
pub(super) fn place(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

/// A JSON file, `None` when there is none.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>, ConvertError> {
    let Some(text) = read_small(path)? else { return Ok(None) };
    let failed = |source| ConvertError::Json { path: path.to_owned(), source };
    serde_json::from_slice(&text).map(Some).map_err(failed)
}

/// The first file of a directory that a checkpoint is read from.
pub(super) fn first_file(dir: &Path) -> Result<Option<String>, ConvertError> {
    let names = [
        "config.json",
        INDEX,
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "modules.json",
    ];
    match names.into_iter().find(|name| dir.join(name).exists()) {
        Some(name) => Ok(Some(name.to_owned())),
        None => Ok(weight_files(dir)?.into_iter().next()),
    }
}

/// The bytes of a small file, `None` when there is none.
pub(super) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, ConvertError> {
    let failed = |source| ConvertError::Read { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(facts) if !facts.is_file() => {
            return Err(failed(std::io::Error::other("it is no regular file")));
        }
        Ok(facts) if facts.len() > MOST_JSON => {
            return Err(failed(std::io::Error::other("it is too large to be what its name says")));
        }
        Ok(_) => {}
    }
    std::fs::read(path).map(Some).map_err(failed)
}

/// The weight files that an index names, each once.
fn indexed(index: &Value) -> Result<Vec<String>, ConvertError> {
    let bad = |value: &Value, rule: &str| ConvertError::config("weight_map", value, rule);
    let Some(map) = index["weight_map"].as_object() else {
        return Err(bad(&index["weight_map"], "must name the weight file of each tensor"));
    };
    let mut files = Vec::new();
    for value in map.values() {
        let file = value.as_str().ok_or_else(|| bad(value, "must name files"))?;
        if Path::new(file).file_name().is_none_or(|name| name != file) {
            return Err(bad(value, "must name files of the same directory"));
        }
        files.push(file.to_owned());
    }
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// All weight files of a directory, in order.
fn weight_files(dir: &Path) -> Result<Vec<String>, ConvertError> {
    let failed = |source| ConvertError::Read { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string()
            && name.ends_with(".safetensors")
        {
            files.push(name);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The weight files of a model in a directory without an index. Of numbered ones all must be there.
fn found(dir: &Path) -> Result<Vec<String>, ConvertError> {
    let files = weight_files(dir)?;
    // `model-00001-of-00003.safetensors`
    let count = files.first().and_then(|file| {
        let (before, after) = file.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (stem, _) = before.rsplit_once('-')?;
        Some((stem.to_owned(), after.to_owned(), after.parse::<usize>().ok()?))
    });
    match count {
        Some((stem, total, count)) if count <= 10_000 => {
            let width = total.len();
            let name = |i| format!("{stem}-{i:0width$}-of-{total}.safetensors");
            Ok((1..=count).map(name).collect())
        }
        _ if files.iter().any(|file| file == "model.safetensors") => {
            Ok(vec!["model.safetensors".to_owned()])
        }
        _ => Ok(files),
    }
}
