//! NumPy's `.npy` files, as numpy.lib.format describes them: one array each.

use std::{fs, io, path::Path};

use moec_types::DType;

use crate::native::NamedTensor;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads an array as a tensor of `dtype`: 64-bit numbers, which NumPy makes by itself, are taken for 32-bit ones.
pub fn read(path: &Path, name: &str, dtype: DType) -> Result<NamedTensor, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is not a file".into());
    }
    parse(&fs::read(path).map_err(|error| error.to_string())?, name, dtype)
}

fn parse(bytes: &[u8], name: &str, dtype: DType) -> Result<NamedTensor, String> {
    let no_npy = || "it is no .npy file: numpy.save writes one".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(no_npy)?;
    let (header, data) = match rest {
        [1, _, low, high, rest @ ..] => rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high]))),
        [2 | 3, _, a, b, c, d, rest @ ..] => rest.split_at_checked(u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => None,
    }
    .ok_or_else(no_npy)?;
    let header = std::str::from_utf8(header).map_err(|_| no_npy())?;
    let kind = quoted(value_of(header, "descr").ok_or_else(no_npy)?).ok_or_else(no_npy)?;
    let shape = sizes(value_of(header, "shape").ok_or_else(no_npy)?).ok_or_else(no_npy)?;
    if value_of(header, "fortran_order").is_some_and(|order| order.starts_with("True")) && shape.len() > 1 {
        return Err("it is in Fortran order: save numpy.ascontiguousarray of it".into());
    }
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size)).ok_or_else(no_npy)?;
    let wanted = kind.trim_start_matches(['<', '|', '=']);
    let width: usize = wanted.get(1..).and_then(|width| width.parse().ok()).ok_or_else(no_npy)?;
    if count.checked_mul(width) != Some(data.len()) {
        return Err(format!("it has {} bytes of data, and its shape {shape:?} of {kind} says otherwise", data.len()));
    }
    let bytes = match (wanted, dtype) {
        ("f4", DType::F32) | ("i4", DType::I32) | ("f2", DType::F16) | ("u2", DType::Bf16) | ("b1", DType::Bool) => {
            data.to_vec()
        }
        ("f8", DType::F32) => {
            data.as_chunks().0.iter().flat_map(|v| (f64::from_le_bytes(*v) as f32).to_le_bytes()).collect()
        }
        ("i8", DType::I32) => {
            let narrow = |value: &[u8; 8]| i32::try_from(i64::from_le_bytes(*value)).map(i32::to_le_bytes);
            let narrow: Result<Vec<[u8; 4]>, _> = data.as_chunks().0.iter().map(narrow).collect();
            narrow.map_err(|_| "it has a number beyond 32 bits".to_owned())?.concat()
        }
        _ => return Err(format!("it has elements of type `{kind}`, and `{name}` takes {}", numpy_name(dtype))),
    };
    Ok(NamedTensor { name: name.into(), dtype, shape, bytes })
}

pub fn write(path: &Path, tensor: &NamedTensor) -> io::Result<()> {
    let sizes: String = tensor.shape.iter().map(|size| format!("{size},")).collect();
    let kind = match tensor.dtype {
        DType::F32 => "<f4",
        DType::Bf16 => "<u2",
        DType::F16 => "<f2",
        DType::I32 => "<i4",
        DType::Bool => "|b1",
    };
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The data begins at a multiple of 64.
    let before = MAGIC.len() + 4;
    while !(before + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(|_| io::Error::other("too many axes"))?;
    let bytes = [MAGIC, &[1, 0], &length.to_le_bytes(), header.as_bytes(), &tensor.bytes].concat();
    fs::write(path, bytes)
}

fn numpy_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float32",
        DType::Bf16 => "uint16 (the bits of a bf16)",
        DType::F16 => "float16",
        DType::I32 => "int32",
        DType::Bool => "bool",
    }
}

/// What stands after `'key':` in the header.
fn value_of<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    let (_, after) = header.split_once(&format!("'{key}'"))?;
    Some(after.trim_start().strip_prefix(':')?.trim_start())
}

fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('\'')?.split('\'').next()
}

fn sizes(value: &str) -> Option<Vec<usize>> {
    let inside = value.strip_prefix('(')?.split(')').next()?;
    inside.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect()
}
