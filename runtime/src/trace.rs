//! An observer of the forward pass, for comparison with the reference implementation.
//!
//! A [`Trace`] collects what the linear layers were given (int8 and scale), what the cache stores and
//! the logits, token by token, and writes `trace.json` (names, types, shapes, offsets) and `trace.bin`
//! (the arrays, little-endian) for `tools/reference`. A forward pass without one does nothing for it.

use half::f16;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Arrays by name, each growing by one row per token.
#[derive(Debug, Default)]
pub struct Trace {
    tokens: Vec<u32>,
    arrays: BTreeMap<String, Array>,
}

#[derive(Debug)]
struct Array {
    dtype: &'static str,
    /// Elements of one row.
    width: usize,
    /// Rows so far.
    rows: usize,
    bytes: Vec<u8>,
}

#[derive(serde::Serialize)]
struct Index<'a> {
    tokens: &'a [u32],
    entries: Vec<Entry<'a>>,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    name: &'a str,
    dtype: &'static str,
    /// Tokens, then (unless it is one number per token) elements per token.
    shape: Vec<usize>,
    offset: usize,
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens of all passes so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The names of the arrays so far, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    /// The f32 rows of an array, one after another.
    pub fn get_f32s(&self, name: &str) -> Option<Vec<f32>> {
        let array = self.arrays.get(name).filter(|array| array.dtype == "f32")?;
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("chunks of 4"));
        Some(array.bytes.chunks_exact(4).map(value).collect())
    }

    pub(crate) fn token(&mut self, token: u32) {
        self.tokens.push(token);
    }

    pub(crate) fn i8s(&mut self, name: &str, row: &[i8]) {
        self.row(name, "i8", row.len(), bytemuck::cast_slice(row));
    }

    pub(crate) fn f16s(&mut self, name: &str, row: &[f16]) {
        let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.row(name, "f16", row.len(), &bytes);
    }

    pub(crate) fn f32s(&mut self, name: &str, row: &[f32]) {
        let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.row(name, "f32", row.len(), &bytes);
    }

    fn row(&mut self, name: &str, dtype: &'static str, width: usize, bytes: &[u8]) {
        if !self.arrays.contains_key(name) {
            let array = Array { dtype, width, rows: 0, bytes: Vec::new() };
            self.arrays.insert(name.to_owned(), array);
        }
        let array = self.arrays.get_mut(name).expect("it was just inserted");
        debug_assert_eq!((array.dtype, array.width), (dtype, width), "{name}");
        array.rows += 1;
        array.bytes.extend_from_slice(bytes);
    }

    /// Writes `trace.json` and `trace.bin` into a directory, which is created.
    ///
    /// # Errors
    /// When the directory or a file cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let (mut entries, mut bytes) = (Vec::new(), Vec::new());
        for (name, array) in &self.arrays {
            // Floats begin at addresses that can be mapped as floats.
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let mut shape = vec![array.rows, array.width];
            shape.truncate(if name.ends_with(".amax") { 1 } else { 2 });
            entries.push(Entry { name, dtype: array.dtype, shape, offset: bytes.len() });
            bytes.extend_from_slice(&array.bytes);
        }
        let index = serde_json::to_vec(&Index { tokens: &self.tokens, entries })?;
        std::fs::write(directory.join("trace.json"), index)?;
        std::fs::write(directory.join("trace.bin"), bytes)
    }
}
