//! Tensors as they lie in a file.

use std::fmt;

use crate::small;

/// Element types of the format. Types that moec cannot compute with are kept by name: a tensor that nobody needs may have any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    Bf16,
    F32,
    F64,
    F8E4M3,
    F8E8M0,
    Other(String),
}

impl StoredType {
    pub fn from_name(name: &str) -> Self {
        match name {
            "BOOL" => StoredType::Bool,
            "U8" => StoredType::U8,
            "I8" => StoredType::I8,
            "U16" => StoredType::U16,
            "I16" => StoredType::I16,
            "U32" => StoredType::U32,
            "I32" => StoredType::I32,
            "U64" => StoredType::U64,
            "I64" => StoredType::I64,
            "F16" => StoredType::F16,
            "BF16" => StoredType::Bf16,
            "F32" => StoredType::F32,
            "F64" => StoredType::F64,
            "F8_E4M3" => StoredType::F8E4M3,
            "F8_E8M0" => StoredType::F8E8M0,
            other => StoredType::Other(other.to_string()),
        }
    }

    /// Bytes of one element; `None` where it is not known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            StoredType::Bool | StoredType::U8 | StoredType::I8 | StoredType::F8E4M3 | StoredType::F8E8M0 => Some(1),
            StoredType::U16 | StoredType::I16 | StoredType::F16 | StoredType::Bf16 => Some(2),
            StoredType::U32 | StoredType::I32 | StoredType::F32 => Some(4),
            StoredType::U64 | StoredType::I64 | StoredType::F64 => Some(8),
            StoredType::Other(_) => None,
        }
    }
}

/// As the format spells it.
impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoredType::Bool => "BOOL",
            StoredType::U8 => "U8",
            StoredType::I8 => "I8",
            StoredType::U16 => "U16",
            StoredType::I16 => "I16",
            StoredType::U32 => "U32",
            StoredType::I32 => "I32",
            StoredType::U64 => "U64",
            StoredType::I64 => "I64",
            StoredType::F16 => "F16",
            StoredType::Bf16 => "BF16",
            StoredType::F32 => "F32",
            StoredType::F64 => "F64",
            StoredType::F8E4M3 => "F8_E4M3",
            StoredType::F8E8M0 => "F8_E8M0",
            StoredType::Other(name) => name,
        })
    }
}

/// A tensor of a file: the bytes are little-endian, in no particular alignment, as many as the shape says.
#[derive(Clone, Debug)]
pub struct StoredTensor<'a> {
    pub dtype: &'a StoredType,
    /// Slowest axis first.
    pub shape: &'a [u64],
    pub bytes: &'a [u8],
}

impl StoredTensor<'_> {
    /// Floats as f32 (f64 is rounded); `None` for other types.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        match self.dtype {
            StoredType::F32 => Some(each(self.bytes, f32::from_le_bytes)),
            StoredType::Bf16 => Some(each(self.bytes, |bytes| half::bf16::from_le_bytes(bytes).to_f32())),
            StoredType::F16 => Some(each(self.bytes, |bytes| half::f16::from_le_bytes(bytes).to_f32())),
            StoredType::F64 => Some(each(self.bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
            StoredType::F8E4M3 => Some(each(self.bytes, |[byte]| small::f8e4m3(byte))),
            StoredType::F8E8M0 => Some(each(self.bytes, |[byte]| small::e8m0(byte))),
            StoredType::Bool
            | StoredType::U8
            | StoredType::I8
            | StoredType::U16
            | StoredType::I16
            | StoredType::U32
            | StoredType::I32
            | StoredType::U64
            | StoredType::I64
            | StoredType::Other(_) => None,
        }
    }

    /// Integers as i32; `None` for other types, and where a value does not fit.
    pub fn to_i32(&self) -> Option<Vec<i32>> {
        match self.dtype {
            StoredType::I8 => Some(each(self.bytes, |bytes| i32::from(i8::from_le_bytes(bytes)))),
            StoredType::U8 => Some(each(self.bytes, |bytes| i32::from(u8::from_le_bytes(bytes)))),
            StoredType::I16 => Some(each(self.bytes, |bytes| i32::from(i16::from_le_bytes(bytes)))),
            StoredType::U16 => Some(each(self.bytes, |bytes| i32::from(u16::from_le_bytes(bytes)))),
            StoredType::I32 => Some(each(self.bytes, i32::from_le_bytes)),
            StoredType::U32 => narrowed(each(self.bytes, u32::from_le_bytes)),
            StoredType::I64 => narrowed(each(self.bytes, i64::from_le_bytes)),
            StoredType::U64 => narrowed(each(self.bytes, u64::from_le_bytes)),
            StoredType::Bool
            | StoredType::F16
            | StoredType::Bf16
            | StoredType::F32
            | StoredType::F64
            | StoredType::F8E4M3
            | StoredType::F8E8M0
            | StoredType::Other(_) => None,
        }
    }

    /// Truth values; `None` for other types.
    pub fn to_bool(&self) -> Option<Vec<bool>> {
        (*self.dtype == StoredType::Bool).then(|| self.bytes.iter().map(|byte| *byte != 0).collect())
    }
}

fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

fn narrowed<T: TryInto<i32>>(values: Vec<T>) -> Option<Vec<i32>> {
    values.into_iter().map(|value| value.try_into().ok()).collect()
}
