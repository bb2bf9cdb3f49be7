//! Values of the oracle: dense arrays with named axes.

use std::borrow::Cow;
use std::fmt;

use moec_types::{Axis, DType};

use crate::strided::{self, Step};

/// Elements, the last axis running fastest. Storage types (bf16, f16) are held as the f32 of the same value.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I32(Vec<i32>),
    Bool(Vec<bool>),
}

/// Evaluates `$body` for whichever vector `$data` holds and wraps the vector it yields again.
macro_rules! map_data {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::F32($values) => $crate::tensor::Data::F32($body),
            $crate::tensor::Data::I32($values) => $crate::tensor::Data::I32($body),
            $crate::tensor::Data::Bool($values) => $crate::tensor::Data::Bool($body),
        }
    };
}
pub(crate) use map_data;

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::I32(values) => values.len(),
            Data::Bool(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type in which the elements are computed with.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::Bool(_) => DType::Bool,
        }
    }
}

impl From<Vec<f32>> for Data {
    fn from(values: Vec<f32>) -> Self {
        Data::F32(values)
    }
}

impl From<Vec<i32>> for Data {
    fn from(values: Vec<i32>) -> Self {
        Data::I32(values)
    }
}

impl From<Vec<bool>> for Data {
    fn from(values: Vec<bool>) -> Self {
        Data::Bool(values)
    }
}

/// A dense array with named axes of known sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    axes: Vec<(Axis, usize)>,
    data: Data,
}

impl Tensor {
    /// # Panics
    /// When the sizes do not multiply to the number of elements, or two axes share a name: the caller's contract.
    pub fn new(axes: Vec<(Axis, usize)>, data: impl Into<Data>) -> Self {
        let data = data.into();
        let elements = axes.iter().try_fold(1usize, |product, (_, size)| product.checked_mul(*size));
        assert_eq!(elements, Some(data.len()), "elements of a tensor with axes {axes:?}");
        for (at, (axis, _)) in axes.iter().enumerate() {
            assert!(axes[..at].iter().all(|(other, _)| other != axis), "axis `{axis}` stands twice");
        }
        Tensor { axes, data }
    }

    /// The same with axes by name: `Tensor::named(&[("S", 2), ("D", 3)], vec![…])`.
    ///
    /// # Panics
    /// As [`Tensor::new`].
    pub fn named(axes: &[(&str, usize)], data: impl Into<Data>) -> Self {
        Tensor::new(axes.iter().map(|(name, size)| (Axis::new(name), *size)).collect(), data)
    }

    pub fn axes(&self) -> &[(Axis, usize)] {
        &self.axes
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    pub fn into_data(self) -> Data {
        self.data
    }

    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    pub fn sizes(&self) -> Vec<usize> {
        self.axes.iter().map(|(_, size)| *size).collect()
    }

    pub fn size(&self, axis: &Axis) -> Option<usize> {
        self.axes.iter().find(|(other, _)| other == axis).map(|(_, size)| *size)
    }

    /// # Panics
    /// When the elements are not f32.
    pub fn f32(&self) -> &[f32] {
        let Data::F32(values) = &self.data else { panic!("f32 elements wanted, found {}", self.dtype()) };
        values
    }

    /// # Panics
    /// When the elements are not i32.
    pub fn i32(&self) -> &[i32] {
        let Data::I32(values) = &self.data else { panic!("i32 elements wanted, found {}", self.dtype()) };
        values
    }

    /// # Panics
    /// When the elements are not bool.
    pub fn bool(&self) -> &[bool] {
        let Data::Bool(values) = &self.data else { panic!("bool elements wanted, found {}", self.dtype()) };
        values
    }

    /// The same elements under other axes.
    pub(crate) fn reshaped(self, axes: Vec<(Axis, usize)>) -> Tensor {
        Tensor::new(axes, self.data)
    }

    /// How to walk this tensor along the given axes; it stands still along those it lacks.
    pub(crate) fn walk(&self, axes: &[(Axis, usize)]) -> Vec<Step> {
        let strides = strided::strides(&self.sizes());
        let stride = |axis: &Axis| self.axes.iter().position(|(own, _)| own == axis).map_or(0, |at| strides[at]);
        axes.iter().map(|(axis, count)| Step { count: *count, stride: stride(axis) }).collect()
    }

    /// Repeated along axes that it lacks, and in the order given. Every axis of its own must be among them.
    pub(crate) fn broadcast(&self, axes: &[(Axis, usize)]) -> Cow<'_, Tensor> {
        for (axis, size) in &self.axes {
            assert!(axes.contains(&(axis.clone(), *size)), "axis `{axis}` of size {size} is not among {axes:?}");
        }
        if self.axes == axes {
            return Cow::Borrowed(self);
        }
        let walk = self.walk(axes);
        let data = map_data!(&self.data, values => strided::read(values, 0, &walk));
        Cow::Owned(Tensor::new(axes.to_vec(), data))
    }

    /// The same tensor with its axes in another order.
    ///
    /// # Panics
    /// When the order does not name each axis once.
    pub fn arranged<'a>(&self, order: impl IntoIterator<Item = &'a Axis>) -> Cow<'_, Tensor> {
        let axes: Vec<_> = order.into_iter().map(|axis| (axis.clone(), self.expect_size(axis))).collect();
        assert_eq!(axes.len(), self.axes.len(), "an arrangement names every axis");
        self.broadcast(&axes)
    }

    /// # Panics
    /// When the axis is not there: the verifier has ruled that out where this is called.
    pub(crate) fn expect_size(&self, axis: &Axis) -> usize {
        self.size(axis).unwrap_or_else(|| panic!("no axis `{axis}` in {self}"))
    }
}

/// `f32[S=2, D=3]`.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype())?;
        for (at, (axis, size)) in self.axes.iter().enumerate() {
            write!(f, "{}{axis}={size}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// The product of sizes.
pub(crate) fn elements(axes: &[(Axis, usize)]) -> usize {
    axes.iter().map(|(_, size)| size).product()
}
