//! Metadata values. They stay in the file's bytes and are decoded when asked for.

use super::GgufError;
use super::cursor::Cursor;
use std::ops::Range;

/// The type of a value or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Str,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// The type with this number; 9 stands for arrays and is treated by the caller.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Str,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// The number of the type in a file.
    fn id(self) -> u32 {
        match self {
            Self::U8 => 0,
            Self::I8 => 1,
            Self::U16 => 2,
            Self::I16 => 3,
            Self::U32 => 4,
            Self::I32 => 5,
            Self::F32 => 6,
            Self::Bool => 7,
            Self::Str => 8,
            Self::U64 => 10,
            Self::I64 => 11,
            Self::F64 => 12,
        }
    }

    /// Bytes of one value; of a text, those of its length alone.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::Str | Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// The number of a type that marks an array.
pub(super) const ARRAY: u32 = 9;

/// A metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// An integer of any width.
    Int(i128),
    /// A float of either width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(&'a str),
    /// An array of values of one type.
    Array(Array<'a>),
}

impl Value<'_> {
    /// What kind of value it is, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Int(_) => "an integer".to_owned(),
            Self::Float(_) => "a float".to_owned(),
            Self::Bool(_) => "a truth value".to_owned(),
            Self::Str(_) => "a text".to_owned(),
            Self::Array(array) => format!("an array of {}", array.type_name()),
        }
    }
}

/// An array value, decoded element by element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element type's name, such as `i32` or `string`.
    pub fn type_name(&self) -> &'static str {
        self.kind.name()
    }

    /// The elements in order; never an `Array`.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let Self { kind, len, mut bytes } = *self;
        (0..len).map_while(move |_| decode(kind, &mut bytes))
    }

    /// The texts of an array of texts.
    pub(super) fn texts(&self) -> Option<Strings<'a>> {
        let Self { kind, len, bytes } = *self;
        (kind == ValueType::Str).then_some(Strings { bytes, left: len })
    }
}

/// The texts of a string array, read one by one from the file's bytes.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        match decode(ValueType::Str, &mut self.bytes) {
            Some(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// Decodes and steps over one value. Everything was checked when the file was opened, so `None` and
/// the empty text below stand only for a file that was changed while it is mapped.
fn decode<'a>(kind: ValueType, bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    /// Splits off N bytes.
    fn fixed<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (first, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*first)
    }
    Some(match kind {
        ValueType::U8 => Value::Int(u8::from_le_bytes(fixed(bytes)?).into()),
        ValueType::I8 => Value::Int(i8::from_le_bytes(fixed(bytes)?).into()),
        ValueType::U16 => Value::Int(u16::from_le_bytes(fixed(bytes)?).into()),
        ValueType::I16 => Value::Int(i16::from_le_bytes(fixed(bytes)?).into()),
        ValueType::U32 => Value::Int(u32::from_le_bytes(fixed(bytes)?).into()),
        ValueType::I32 => Value::Int(i32::from_le_bytes(fixed(bytes)?).into()),
        ValueType::U64 => Value::Int(u64::from_le_bytes(fixed(bytes)?).into()),
        ValueType::I64 => Value::Int(i64::from_le_bytes(fixed(bytes)?).into()),
        ValueType::F32 => Value::Float(f32::from_le_bytes(fixed(bytes)?).into()),
        ValueType::F64 => Value::Float(f64::from_le_bytes(fixed(bytes)?)),
        ValueType::Bool => Value::Bool(fixed::<1>(bytes)? != [0]),
        ValueType::Str => {
            let length = usize::try_from(u64::from_le_bytes(fixed(bytes)?)).ok()?;
            let (text, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Value::Str(std::str::from_utf8(text).unwrap_or_default())
        }
    })
}

/// Where a checked value lies in the file.
#[derive(Debug, Clone)]
pub(super) struct ValuePlace {
    kind: ValueType,
    /// The number of elements of an array, `None` for a single value.
    len: Option<usize>,
    range: Range<usize>,
}

impl ValuePlace {
    /// Checks the value at the cursor and steps over it.
    pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, GgufError> {
        let what = || format!("the key `{key}`");
        let known = |id| {
            ValueType::from_id(id).ok_or_else(|| GgufError::ValueType { key: key.to_owned(), id })
        };
        let id = cursor.u32(what)?;
        let (kind, len) = if id == ARRAY {
            let id = cursor.u32(what)?;
            if id == ARRAY {
                return Err(GgufError::NestedArray(key.to_owned()));
            }
            let kind = known(id)?;
            let each = kind.bytes() as u64;
            (kind, Some(cursor.count(each, || format!("elements of `{key}`"))?))
        } else {
            (known(id)?, None)
        };
        let start = cursor.at();
        let count = len.unwrap_or(1);
        match kind {
            ValueType::Str => {
                for index in 0..count {
                    cursor.text(|| match len {
                        None => what(),
                        Some(_) => format!("text {index} of the key `{key}`"),
                    })?;
                }
            }
            _ => {
                let bytes = cursor.take(kind.bytes() as u64 * count as u64, what)?;
                let bad = bytes.iter().find(|&&b| kind == ValueType::Bool && b > 1);
                if let Some(&value) = bad {
                    return Err(GgufError::Bool { key: key.to_owned(), value });
                }
            }
        }
        Ok(Self { kind, len, range: start..cursor.at() })
    }

    /// Where its bytes lie in the file.
    pub(super) fn bytes(&self) -> Range<usize> {
        self.range.clone()
    }

    /// What stands between a key and these bytes: the type's number, of an array also that of its
    /// elements and how many they are.
    pub(super) fn prefix(&self) -> Vec<u8> {
        match self.len {
            None => self.kind.id().to_le_bytes().to_vec(),
            Some(len) => {
                let mut prefix = ARRAY.to_le_bytes().to_vec();
                prefix.extend(self.kind.id().to_le_bytes());
                prefix.extend((len as u64).to_le_bytes());
                prefix
            }
        }
    }

    /// The value, read from the bytes of the file.
    pub(super) fn value<'a>(&self, file: &'a [u8]) -> Option<Value<'a>> {
        let mut bytes = file.get(self.range.clone())?;
        match self.len {
            Some(len) => Some(Value::Array(Array { kind: self.kind, len, bytes })),
            None => decode(self.kind, &mut bytes),
        }
    }
}
