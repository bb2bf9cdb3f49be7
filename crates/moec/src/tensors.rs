//! Named tensors in safetensors files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use moec_types::DType;
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use thiserror::Error;

use crate::{failure::Failure, files, native::NamedTensor};

/// Larger inputs are not for the command line.
const FILE_BYTES: u64 = 64 << 30;

#[derive(Debug, Error, Diagnostic)]
#[error("{} is not a sound safetensors file: {cause}", path.display())]
#[diagnostic(code(moec::tensors::unsound))]
struct Unsound {
    path: PathBuf,
    cause: SafeTensorError,
}

#[derive(Debug, Error, Diagnostic)]
#[error("tensor `{name}` of {} is {found:?}", path.display())]
#[diagnostic(code(moec::tensors::unsupported_type), help("f32, bf16, f16, i32, i64 and bool can be read"))]
struct UnsupportedType {
    path: PathBuf,
    name: String,
    found: Dtype,
}

#[derive(Debug, Error, Diagnostic)]
#[error("tensor `{name}` of {} holds {value}, which does not fit i32", path.display())]
#[diagnostic(code(moec::tensors::too_large_value))]
struct TooLargeValue {
    path: PathBuf,
    name: String,
    value: i64,
}

/// All tensors of a file by name. i64 is narrowed to i32, as indices are in moec.
pub fn read(path: &Path) -> Result<BTreeMap<String, NamedTensor>, Failure> {
    let bytes = files::read(path, FILE_BYTES)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|cause| Unsound { path: path.into(), cause })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        tensors.insert(name.to_owned(), convert(path, name, &view)?);
    }
    Ok(tensors)
}

fn convert(path: &Path, name: &str, view: &TensorView) -> Result<NamedTensor, Failure> {
    let same = |dtype| (dtype, view.data().to_vec());
    let (dtype, bytes) = match view.dtype() {
        Dtype::F32 => same(DType::F32),
        Dtype::BF16 => same(DType::Bf16),
        Dtype::F16 => same(DType::F16),
        Dtype::I32 => same(DType::I32),
        Dtype::BOOL => (DType::Bool, view.data().iter().map(|byte| u8::from(*byte != 0)).collect()),
        Dtype::I64 => (DType::I32, narrow(path, name, view.data())?),
        found => return Err(UnsupportedType { path: path.into(), name: name.into(), found }.into()),
    };
    Ok(NamedTensor { name: name.into(), dtype, shape: view.shape().to_vec(), bytes })
}

fn narrow(path: &Path, name: &str, data: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::with_capacity(data.len() / 2);
    for eight in data.chunks_exact(8) {
        let value = i64::from_le_bytes(eight.try_into().expect("chunks of eight"));
        let narrow = i32::try_from(value).map_err(|_| TooLargeValue { path: path.into(), name: name.into(), value })?;
        bytes.extend(narrow.to_le_bytes());
    }
    Ok(bytes)
}

/// Writes tensors, sorted by name.
pub fn write(path: &Path, tensors: &[NamedTensor]) -> Result<(), Failure> {
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .map(|tensor| {
            Ok((tensor.name.as_str(), TensorView::new(stored(tensor.dtype), tensor.shape.clone(), &tensor.bytes)?))
        })
        .collect();
    let bytes = views.and_then(|views| safetensors::serialize(views, None));
    let bytes = bytes.map_err(|cause| Unsound { path: path.into(), cause })?;
    Ok(files::write(path, &bytes)?)
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::I32 => Dtype::I32,
        DType::Bool => Dtype::BOOL,
    }
}

/// The elements as f32, where they are floats.
pub fn floats(tensor: &NamedTensor) -> Option<Vec<f32>> {
    let bytes = &tensor.bytes;
    let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match tensor.dtype {
        DType::F32 => {
            Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect())
        }
        DType::Bf16 => Some(pairs().map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect()),
        DType::F16 => Some(pairs().map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect()),
        DType::I32 | DType::Bool => None,
    }
}
