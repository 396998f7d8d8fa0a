//! Writes GGUF version 3 front to back: header first, then each tensor's data as it is made.

use super::value::ARRAY;
use super::{AtomicFile, Gguf, TensorKind};
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

/// The alignment of tensor data, the default of the format.
const ALIGNMENT: u64 = 32;

/// A GGUF file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output fails.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A key or tensor is declared twice.
    #[error("`{0}` is declared twice")]
    Duplicate(String),
    /// A tensor has a type whose size is not known, a dimension of 0, or too many elements.
    #[error("the tensor `{0}` has no size that can be written")]
    Size(String),
    /// Data of a tensor other than the next one that was declared.
    #[error("the data of `{given}` is written where that of `{wants}` belongs")]
    Order {
        /// The tensor whose turn it is, or `the end of the file`.
        wants: String,
        /// The tensor that was given.
        given: String,
    },
    /// Less or more data than a tensor has.
    #[error("the tensor `{tensor}` takes {wants} bytes, got {given}")]
    Length {
        /// The tensor.
        tensor: String,
        /// Its number of bytes.
        wants: u64,
        /// The number that was given, or would have been.
        given: u64,
    },
}

/// A tensor whose data is still to come.
struct Declared {
    name: String,
    dims: Vec<u64>,
    kind: TensorKind,
    bytes: u64,
}

/// A file's metadata and tensor list, in the order they are declared.
#[derive(Default)]
pub struct GgufWriter {
    /// Encoded entries.
    metadata: Vec<u8>,
    keys: Vec<String>,
    tensors: Vec<Declared>,
}

/// Makes the setters of plain numbers and of arrays of them; the literal is the type's number.
macro_rules! setters {
    ($($id:literal $ty:ty: $(#[$one_doc:meta])* $one:ident, $(#[$many_doc:meta])* $many:ident;)*) => {
        $(
            $(#[$one_doc])*
            pub fn $one(&mut self, key: &str, value: $ty) -> &mut Self {
                self.entry(key, $id);
                self.metadata.extend(value.to_le_bytes());
                self
            }

            $(#[$many_doc])*
            pub fn $many(&mut self, key: &str, values: &[$ty]) -> &mut Self {
                self.entry(key, ARRAY);
                self.metadata.extend(u32::to_le_bytes($id));
                self.metadata.extend((values.len() as u64).to_le_bytes());
                self.metadata.extend(values.iter().flat_map(|v| v.to_le_bytes()));
                self
            }
        )*
    };
}

impl GgufWriter {
    /// A file without keys and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        4 u32: /** Sets an unsigned number. */ u32, /** Sets an array of unsigned numbers. */ u32s;
        5 i32: /** Sets a signed number. */ i32, /** Sets an array of signed numbers. */ i32s;
        6 f32: /** Sets a float. */ f32, /** Sets an array of floats. */ f32s;
    }

    /// Sets a truth value.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.entry(key, 7);
        self.metadata.push(value.into());
        self
    }

    /// Sets an array of truth values.
    pub fn bools(&mut self, key: &str, values: &[bool]) -> &mut Self {
        self.entry(key, 9);
        self.metadata.extend(7u32.to_le_bytes());
        self.metadata.extend((values.len() as u64).to_le_bytes());
        self.metadata.extend(values.iter().map(|value| u8::from(*value)));
        self
    }

    /// Sets a text.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        self.entry(key, 8);
        text(&mut self.metadata, value);
        self
    }

    /// Sets an array of texts.
    pub fn strings<S: AsRef<str>>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = S>,
    ) -> &mut Self {
        self.entry(key, ARRAY);
        self.metadata.extend(8u32.to_le_bytes());
        let count_at = self.metadata.len();
        self.metadata.extend([0; 8]);
        let mut count = 0u64;
        for value in values {
            text(&mut self.metadata, value.as_ref());
            count += 1;
        }
        self.metadata[count_at..][..8].copy_from_slice(&count.to_le_bytes());
        self
    }

    /// Sets a key to the value that another file has for it, whatever its type. Does nothing when that
    /// file lacks the key.
    pub fn copy(&mut self, from: &Gguf, key: &str) -> &mut Self {
        if let Some((entry, bytes)) = from.encoded(key) {
            self.keys.push(key.to_owned());
            text(&mut self.metadata, key);
            self.metadata.extend(entry.value.prefix());
            self.metadata.extend(bytes);
        }
        self
    }

    fn entry(&mut self, key: &str, id: u32) {
        self.keys.push(key.to_owned());
        text(&mut self.metadata, key);
        self.metadata.extend(id.to_le_bytes());
    }

    /// Declares the next tensor; `dims` has the innermost (inputs, K) first.
    pub fn tensor(&mut self, name: &str, dims: &[u64], kind: TensorKind) -> &mut Self {
        // A size that does not exist is refused with the rest by `begin`.
        let bytes = if dims.contains(&0) { None } else { kind.bytes(dims) }.unwrap_or(0);
        self.sized_tensor(name, dims, kind, bytes)
    }

    /// [`tensor`](Self::tensor) of a type whose size the caller knows.
    pub fn sized_tensor(
        &mut self,
        name: &str,
        dims: &[u64],
        kind: TensorKind,
        bytes: u64,
    ) -> &mut Self {
        self.tensors.push(Declared { name: name.to_owned(), dims: dims.to_vec(), kind, bytes });
        self
    }

    /// Bytes of all tensor data with the padding between, which is what is left to write after the
    /// header.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes.next_multiple_of(ALIGNMENT)).sum()
    }

    /// Writes the header to `out` and goes on to the data.
    ///
    /// # Errors
    /// When a key or tensor was declared twice, a tensor has no size, or the output fails.
    pub fn begin<W: Write>(&self, mut out: W) -> Result<TensorWriter<W>, WriteError> {
        let (mut keys, mut names) = (HashSet::new(), HashSet::new());
        let names = self.tensors.iter().map(|t| &t.name).filter(|&name| !names.insert(name));
        if let Some(twice) = self.keys.iter().filter(|&key| !keys.insert(key)).chain(names).next() {
            return Err(WriteError::Duplicate(twice.clone()));
        }
        if let Some(empty) = self.tensors.iter().find(|t| t.bytes == 0) {
            return Err(WriteError::Size(empty.name.clone()));
        }
        let mut header = b"GGUF".to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.keys.len() as u64).to_le_bytes());
        header.extend(&self.metadata);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            text(&mut header, &tensor.name);
            header.extend((tensor.dims.len() as u32).to_le_bytes());
            header.extend(tensor.dims.iter().flat_map(|d| d.to_le_bytes()));
            header.extend(tensor.kind.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += tensor.bytes.next_multiple_of(ALIGNMENT);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        out.write_all(&header)?;
        let sizes = self.tensors.iter().map(|t| (t.name.clone(), t.bytes)).collect();
        Ok(TensorWriter { out, sizes, current: 0, written: 0 })
    }

    /// Writes the header to the file that is to become `path`; it gets its name by
    /// [`TensorWriter::commit`].
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and when the file cannot be created.
    pub fn create(&self, path: &Path) -> Result<TensorWriter<AtomicFile>, WriteError> {
        self.begin(AtomicFile::create(path)?)
    }
}

/// Appends a text behind its length.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A file whose header is written; takes the data of the tensors in the order of declaration.
pub struct TensorWriter<W> {
    out: W,
    sizes: Vec<(String, u64)>,
    /// The tensor that is being written.
    current: usize,
    /// Its bytes so far.
    written: u64,
}

impl<W: Write> TensorWriter<W> {
    /// Writes the next part of a tensor's data; the parts of one tensor follow each other.
    ///
    /// # Errors
    /// When it is not the turn of `tensor`, it gets too many bytes, or the output fails.
    pub fn write(&mut self, tensor: &str, part: &[u8]) -> Result<(), WriteError> {
        let Some((name, bytes)) = self.sizes.get(self.current).filter(|(n, _)| n == tensor) else {
            let end = || "the end of the file".to_owned();
            let wants = self.sizes.get(self.current).map_or_else(end, |(name, _)| name.clone());
            return Err(WriteError::Order { wants, given: tensor.to_owned() });
        };
        let given = self.written + part.len() as u64;
        if given > *bytes {
            return Err(WriteError::Length { tensor: name.clone(), wants: *bytes, given });
        }
        self.out.write_all(part)?;
        self.written = given;
        if given == *bytes {
            let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
            self.out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
            (self.current, self.written) = (self.current + 1, 0);
        }
        Ok(())
    }

    /// Ends the file and gives the output back.
    ///
    /// # Errors
    /// When data is missing or the output fails.
    pub fn finish(mut self) -> Result<W, WriteError> {
        if let Some((name, bytes)) = self.sizes.get(self.current) {
            let (wants, given) = (*bytes, self.written);
            return Err(WriteError::Length { tensor: name.clone(), wants, given });
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl TensorWriter<AtomicFile> {
    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// When data is missing or the output fails.
    pub fn commit(self) -> Result<(), WriteError> {
        Ok(self.finish()?.commit()?)
    }
}
