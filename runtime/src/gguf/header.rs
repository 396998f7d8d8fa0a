//! The part of a file before its tensor data, read and checked once.

use super::cursor::Cursor;
use super::tensor_kind::TypeFacts;
use super::value::{Value, ValuePlace};
use super::{GgufError, TensorInfo, TensorKind};
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

/// A key and where its value lies.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: ValuePlace,
}

/// Everything about a file but its tensor data.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Vec<Entry>,
    /// Positions in `metadata` by key.
    pub(super) keys: HashMap<String, usize>,
    pub(super) tensors: Vec<TensorInfo>,
    /// Positions in `tensors` by name.
    pub(super) names: HashMap<String, usize>,
}

/// The fewest bytes of a metadata entry (empty key, one-byte value) and of a tensor entry.
const MIN_ENTRY: u64 = 8 + 4 + 1;
const MIN_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;
/// The most dimensions a tensor has in ggml.
const MAX_DIMS: u32 = 4;
/// The most entries that room is made for ahead of reading them.
const MAX_AHEAD: usize = 1 << 12;

impl Header {
    pub(super) fn read(file: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(file);
        if !file.starts_with(b"GGUF") {
            if file.starts_with(b"FUGG") {
                return Err(GgufError::BigEndian);
            }
            return Err(GgufError::Magic { begins: file.iter().copied().take(4).collect() });
        }
        cursor.take(4, || "the magic number".to_owned())?;
        let version = cursor.u32(|| "the version".to_owned())?;
        match version {
            2 | 3 => {}
            // A small number whose bytes are swapped.
            v if v.swap_bytes() < 0x1_0000 && v != 0 => return Err(GgufError::BigEndian),
            v => return Err(GgufError::Version(v)),
        }
        let tensor_count = cursor.u64(|| "the number of tensors".to_owned())?;
        let key_count = cursor.count(MIN_ENTRY, || "metadata keys".to_owned())?;
        let (metadata, keys) = read_metadata(&mut cursor, key_count)?;
        let tensor_count = cursor.check_count(tensor_count, MIN_TENSOR, || "tensors".to_owned())?;

        let find = |key: &str| keys.get(key).and_then(|&i: &usize| metadata[i].value.value(file));
        let integer = |key| match find(key) {
            Some(Value::Int(value)) => u64::try_from(value).ok(),
            _ => None,
        };
        let alignment = match find("general.alignment") {
            None => 32,
            Some(_) => integer("general.alignment").unwrap_or(0),
        };
        if !alignment.is_power_of_two() {
            return Err(GgufError::Alignment(alignment));
        }
        let architecture = find("general.architecture");
        let bitnet = matches!(architecture, Some(Value::Str(name)) if name.starts_with("bitnet"))
            || integer("general.file_type") == Some(39);

        let mut tensors = Vec::with_capacity(tensor_count.min(MAX_AHEAD));
        let mut names = HashMap::with_capacity(tensor_count.min(MAX_AHEAD));
        for index in 0..tensor_count {
            let raw = RawTensor::read(&mut cursor, index)?;
            match names.entry(raw.name.clone()) {
                Slot::Occupied(_) => return Err(GgufError::DuplicateTensor(raw.name)),
                Slot::Vacant(slot) => slot.insert(index),
            };
            tensors.push(raw);
        }
        let data = (cursor.at() as u64).next_multiple_of(alignment);
        let mut offsets: Vec<u64> = tensors.iter().map(|raw| raw.offset).collect();
        offsets.sort_unstable();
        let place = Place { data, alignment, end: file.len() as u64, bitnet, offsets };
        let tensors =
            tensors.into_iter().map(|raw| raw.locate(&place)).collect::<Result<_, _>>()?;
        Ok(Self { version, metadata, keys, tensors, names })
    }
}

fn read_metadata(
    cursor: &mut Cursor<'_>,
    count: usize,
) -> Result<(Vec<Entry>, HashMap<String, usize>), GgufError> {
    let mut metadata = Vec::with_capacity(count.min(MAX_AHEAD));
    let mut keys = HashMap::with_capacity(count.min(MAX_AHEAD));
    for index in 0..count {
        let (key, _) = cursor.text(|| format!("the name of key {index}"))?;
        match keys.entry(key.to_owned()) {
            Slot::Occupied(_) => return Err(GgufError::DuplicateKey(key.to_owned())),
            Slot::Vacant(slot) => slot.insert(index),
        };
        let value = ValuePlace::read(cursor, key)?;
        metadata.push(Entry { key: key.to_owned(), value });
    }
    Ok((metadata, keys))
}

/// Where the tensors of a file lie.
struct Place {
    /// Where all data begins.
    data: u64,
    alignment: u64,
    /// Where the file ends.
    end: u64,
    /// Whether the file is of bitnet.cpp, whose TL2 shares its numbers with other types.
    bitnet: bool,
    /// The tensors' offsets in `data`, ascending.
    offsets: Vec<u64>,
}

/// A tensor's entry as the file has it, before the start of the data is known.
struct RawTensor {
    name: String,
    dims: Vec<u64>,
    id: u32,
    offset: u64,
}

impl RawTensor {
    fn read(cursor: &mut Cursor<'_>, index: usize) -> Result<Self, GgufError> {
        let (name, _) = cursor.text(|| format!("the name of tensor {index}"))?;
        let what = || format!("the entry of tensor `{name}`");
        let bad = |reason| GgufError::Dims { tensor: name.to_owned(), reason };
        let count = cursor.u32(what)?;
        if !(1..=MAX_DIMS).contains(&count) {
            return Err(bad(format!("{count} dimensions; 1 to {MAX_DIMS} are legal")));
        }
        let dims: Vec<u64> = (0..count).map(|_| cursor.u64(what)).collect::<Result<_, _>>()?;
        if dims.contains(&0) {
            return Err(bad(format!("a dimension of 0: {dims:?}")));
        }
        if dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).is_none() {
            return Err(bad(format!("more elements than can be counted: {dims:?}")));
        }
        Ok(Self { name: name.to_owned(), dims, id: cursor.u32(what)?, offset: cursor.u64(what)? })
    }

    /// Finds the tensor's bytes.
    fn locate(self, place: &Place) -> Result<TensorInfo, GgufError> {
        let Self { name, dims, id, offset } = self;
        let Place { data, alignment, end, bitnet, ref offsets } = *place;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { tensor: name, offset, alignment });
        }
        let mut facts = TypeFacts::of(id, bitnet);
        let too_big = || GgufError::Dims {
            tensor: name.clone(),
            reason: format!("more bytes than can be counted: {dims:?} of type {id}"),
        };
        // Where the size is not known, the data must at least begin inside the file.
        let bytes = facts.bytes(dims[0], dims.iter().product());
        if bytes.is_none() && facts.is_sized() {
            return Err(too_big());
        }
        let start = data.checked_add(offset).ok_or_else(too_big)?;
        let mut stop = start.checked_add(bytes.unwrap_or(0)).ok_or_else(too_big)?;
        if stop > end {
            return Err(GgufError::PastEnd { tensor: name, missing: stop - end });
        }
        if bytes.is_none() {
            // All that it can have: what follows belongs to the next tensor.
            let next = offsets.get(offsets.partition_point(|other| *other <= offset));
            stop = next.map_or(end, |next| data.saturating_add(*next).min(end));
        }
        // Q2_0 in a BitNet file: its least size, with 34 bytes for 128 weights, is more than TL2 ever has.
        let elements: u64 = dims.iter().product();
        let is_q2_0 = id == 42 && stop - start >= elements.div_ceil(128).saturating_mul(34);
        let bitnet = bitnet && !is_q2_0;
        if is_q2_0 {
            facts = TypeFacts::of(id, bitnet);
        }
        // Both fit a usize: they lie within a slice.
        let range = start as usize..stop as usize;
        let kind = TensorKind::from_id(id, bitnet);
        Ok(TensorInfo { name, dims, kind, facts, bytes, range })
    }
}
