//! GGUF, the file format of models: a reader that decodes in place and a streaming writer.
//!
//! A file is metadata (typed values by key), a list of tensors, and their data. [`Gguf`] maps it,
//! checks every length once, and from then on hands out slices of the mapped bytes; nothing is copied,
//! so processes share one copy of the weights. [`GgufWriter`] writes the same format.
//!
//! Versions 2 and 3, little-endian. Tensors of every type can be listed; [`Gguf::tensor`] refuses the
//! types that this runtime does not compute with.

mod cursor;
mod error;
mod header;
mod tensor;
mod tensor_kind;
mod value;
mod writer;

pub use error::GgufError;
pub use tensor::{Tensor, TensorInfo, Ternary, TernaryLayouts};
pub use tensor_kind::TensorKind;
pub use trilut_presets::atomic_file::AtomicFile;
pub use value::{Array, Strings, Value};
pub use writer::{GgufWriter, TensorWriter, WriteError};

use crate::mapped_file::MappedFile;
use header::Header;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The bytes of a file, shared by everything that reads them in place.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An open GGUF file.
pub struct Gguf {
    bytes: SharedBytes,
    /// The mapping behind `bytes`, when there is one.
    map: Option<Arc<MappedFile>>,
    header: Header,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (keys, tensors) = (self.header.metadata.len(), self.header.tensors.len());
        write!(f, "Gguf({} bytes, {keys} keys, {tensors} tensors)", self.file().len())
    }
}

impl Gguf {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// When it cannot be opened, is not a GGUF file of version 2 or 3, or is broken or cut short.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let path = path.as_ref();
        let failed = |source| GgufError::Open { path: path.to_owned(), source };
        let map = Arc::new(MappedFile::open(path).map_err(failed)?);
        let mut gguf = Self::from_bytes(map.clone())?;
        gguf.map = Some(map);
        Ok(gguf)
    }

    /// A file that is part of the program.
    ///
    /// # Errors
    /// When the bytes are not a whole GGUF file of version 2 or 3.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, GgufError> {
        Self::from_bytes(Arc::new(bytes))
    }

    /// A file that is already in memory.
    ///
    /// # Errors
    /// When the bytes are not a whole GGUF file of version 2 or 3.
    pub fn from_bytes(bytes: SharedBytes) -> Result<Self, GgufError> {
        let header = Header::read((*bytes).as_ref())?;
        Ok(Self { bytes, map: None, header })
    }

    fn file(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The whole file, for executing tensors in place by their byte range.
    pub fn shared(&self) -> SharedBytes {
        self.bytes.clone()
    }

    /// Tells the system that a range of the file will not be read again soon, so that its pages can be
    /// dropped. Only advice: reading the range later works. Does nothing for files in memory.
    pub fn release(&self, range: Range<usize>) {
        if let Some(map) = &self.map {
            map.release(range);
        }
    }

    /// [`release`](Self::release) for what lies before the tensors' data: the vocabulary, above all.
    pub fn release_metadata(&self) {
        self.release(0..self.data_start());
    }

    /// What lies before the tensors' data: keys, values, and the tensors' names and sizes.
    pub fn head(&self) -> &[u8] {
        &self.file()[..self.data_start()]
    }

    fn data_start(&self) -> usize {
        // Ranges were checked when the file was opened.
        self.header.tensors.iter().map(|tensor| tensor.range.start).min().unwrap_or(0)
    }

    /// The format version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The number of bytes of the file.
    pub fn file_len(&self) -> usize {
        self.file().len()
    }

    /// Every key and value, in file order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let value = |place: &header::Entry| place.value.value(self.file());
        self.header.metadata.iter().filter_map(move |e| Some((e.key.as_str(), value(e)?)))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        let &index = self.header.keys.get(key)?;
        self.header.metadata[index].value.value(self.file())
    }

    /// A value as the file has it: the numbers of its type and length, and its bytes.
    fn encoded(&self, key: &str) -> Option<(&header::Entry, &[u8])> {
        let entry = &self.header.metadata[*self.header.keys.get(key)?];
        Some((entry, self.file().get(entry.value.bytes())?))
    }

    /// Every tensor, of whatever type, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// The bytes of a listed tensor, of whatever type, as far as its type tells their number.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        // The range was checked when the file was opened.
        self.file().get(tensor.range.clone()).unwrap_or_default()
    }

    /// The value of `general.architecture`, such as `bitnet-b1.58`.
    ///
    /// # Errors
    /// When it is missing or not a text.
    pub fn architecture(&self) -> Result<&str, GgufError> {
        self.str("general.architecture")
    }

    /// The full key of an architecture's own value: `block_count` gives `bitnet-b1.58.block_count`.
    ///
    /// # Errors
    /// When the file does not say its architecture.
    pub fn arch_key(&self, key: &str) -> Result<String, GgufError> {
        Ok(format!("{}.{key}", self.architecture()?))
    }

    /// A text that may be absent.
    ///
    /// # Errors
    /// When the value is not a text.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a text", |value| match value {
            Value::Str(text) => Some(text),
            _ => None,
        })
    }

    /// A truth value that may be absent.
    ///
    /// # Errors
    /// When the value is not a truth value.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a truth value", |value| match value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A float of either width that may be absent.
    ///
    /// # Errors
    /// When the value is not a float.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a float", |value| match value {
            Value::Float(value) => Some(value as f32),
            _ => None,
        })
    }

    /// An integer of any width that may be absent.
    ///
    /// # Errors
    /// When the value is not an integer or does not fit.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let value = self.typed(key, "an integer", as_integer)?;
        value.map(|value| fit(key, value, "a 32-bit unsigned number")).transpose()
    }

    /// An array of texts that may be absent. They are read from the file one by one.
    ///
    /// # Errors
    /// When the value is not an array of texts.
    pub fn opt_strings(&self, key: &str) -> Result<Option<Strings<'_>>, GgufError> {
        self.typed(key, "an array of texts", |value| match value {
            Value::Array(array) => array.texts(),
            _ => None,
        })
    }

    /// An array of integers of any width that may be absent.
    ///
    /// # Errors
    /// When the value is not an array of integers, or one does not fit.
    pub fn opt_u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        self.integers(key, "a 32-bit unsigned number")
    }

    /// As [`opt_u32s`](Self::opt_u32s), signed.
    ///
    /// # Errors
    /// When the value is not an array of integers, or one does not fit.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.integers(key, "a 32-bit signed number")
    }

    /// An integer of an architecture, by its key without the architecture, that may be absent.
    ///
    /// # Errors
    /// When the file does not say its architecture, or the value is not an integer or does not fit.
    pub fn opt_arch_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.opt_u32(&self.arch_key(key)?)
    }

    /// A float of an architecture, by its key without the architecture, that may be absent.
    ///
    /// # Errors
    /// When the file does not say its architecture, or the value is not a float.
    pub fn opt_arch_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.opt_f32(&self.arch_key(key)?)
    }

    /// The value of `key` as `wants`, `None` when the key is absent.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        wants: &'static str,
        get: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let found = || value.describe();
        let wrong = || GgufError::WrongType { key: key.to_owned(), wants, found: found() };
        get(value).map(Some).ok_or_else(wrong)
    }

    fn integers<T: TryFrom<i128>>(
        &self,
        key: &str,
        wants: &'static str,
    ) -> Result<Option<Vec<T>>, GgufError> {
        let array = self.typed(key, "an array of integers", |value| match value {
            Value::Array(array) if array.is_empty() => Some(array),
            Value::Array(array) if array.iter().next().and_then(as_integer).is_some() => {
                Some(array)
            }
            _ => None,
        })?;
        let Some(array) = array else { return Ok(None) };
        let values = array.iter().filter_map(as_integer);
        values.map(|value| fit(key, value, wants)).collect::<Result<_, _>>().map(Some)
    }
}

fn as_integer(value: Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(value),
        _ => None,
    }
}

fn fit<T: TryFrom<i128>>(key: &str, value: i128, wants: &'static str) -> Result<T, GgufError> {
    T::try_from(value).map_err(|_| GgufError::OutOfRange { key: key.to_owned(), value, wants })
}

/// Makes the getters that insist on a value out of those that do not.
macro_rules! required {
    ($($(#[$doc:meta])* $name:ident = $optional:ident -> $ty:ty;)*) => {
        impl Gguf {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// When the key is absent or its value is of another type or does not fit.
                pub fn $name(&self, key: &str) -> Result<$ty, GgufError> {
                    self.$optional(key)?.ok_or_else(|| GgufError::MissingKey(key.to_owned()))
                }
            )*
        }
    };
}

required! {
    /// A text.
    str = opt_str -> &str;
    /// A truth value.
    bool = opt_bool -> bool;
    /// A float of either width.
    f32 = opt_f32 -> f32;
    /// An integer of any width.
    u32 = opt_u32 -> u32;
    /// An array of texts, read from the file one by one.
    strings = opt_strings -> Strings<'_>;
    /// An array of integers of any width.
    u32s = opt_u32s -> Vec<u32>;
    /// An array of integers of any width, signed.
    i32s = opt_i32s -> Vec<i32>;
}

impl Gguf {
    /// An integer of an architecture: `arch_u32("block_count")` reads `bitnet-b1.58.block_count`.
    ///
    /// # Errors
    /// When the key is absent or its value is not an integer or does not fit.
    pub fn arch_u32(&self, key: &str) -> Result<u32, GgufError> {
        self.u32(&self.arch_key(key)?)
    }

    /// A float of an architecture, by its key without the architecture.
    ///
    /// # Errors
    /// When the key is absent or its value is not a float.
    pub fn arch_f32(&self, key: &str) -> Result<f32, GgufError> {
        self.f32(&self.arch_key(key)?)
    }
}
