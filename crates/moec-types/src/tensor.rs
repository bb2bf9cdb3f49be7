//! Named axes, their sizes, and the tensor types made of them.

use std::{fmt, sync::Arc};

use crate::DType;

/// The name of an axis. Two axes of one tensor never share a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axis(Arc<str>);

impl Axis {
    pub fn new(name: &str) -> Self {
        Axis(name.into())
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long an axis is. All but `Fixed` are known only when the model runs. Renaming an axis keeps its size, so the
/// axis within a symbolic size is the one that the model's input introduced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Size {
    Fixed(u64),
    /// The positions of this pass along a symbolic axis of the model's inputs (`S` of `ids: i32[S]`).
    Input(Axis),
    /// Every position of the sequence up to now, this pass included (`past(x, S as T)`).
    Past(Axis),
    /// One row for each (position, choice) of a token-choice route over so many tokens. An expert sees only its own.
    Slots {
        tokens: Box<Size>,
        choices: u64,
    },
    /// A share of the positions of this pass along a symbolic axis: `of * times / per`, rounded down, or `up`.
    Share {
        of: Axis,
        times: u64,
        per: u64,
        up: bool,
    },
}

impl Size {
    pub fn fixed(&self) -> Option<u64> {
        match self {
            Size::Fixed(size) => Some(*size),
            Size::Input(_) | Size::Past(_) | Size::Slots { .. } | Size::Share { .. } => None,
        }
    }

    /// The axis of the inputs whose positions of this pass it counts, or a share of them.
    pub fn of_pass(&self) -> Option<&Axis> {
        match self {
            Size::Input(axis) | Size::Share { of: axis, .. } => Some(axis),
            Size::Fixed(_) | Size::Past(_) | Size::Slots { .. } => None,
        }
    }
}

/// `64`, `S`, `past(S)`, `slots(S, 2)`, `floor(S * 2 / 8)`, `ceil(S * 2 / 8)`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Fixed(size) => write!(f, "{size}"),
            Size::Input(axis) => write!(f, "{axis}"),
            Size::Past(axis) => write!(f, "past({axis})"),
            Size::Slots { tokens, choices } => write!(f, "slots({tokens}, {choices})"),
            Size::Share { of, times, per, up } => {
                write!(f, "{}({of} * {times} / {per})", if *up { "ceil" } else { "floor" })
            }
        }
    }
}

/// One axis of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    pub axis: Axis,
    pub size: Size,
}

impl Dim {
    pub fn new(axis: Axis, size: Size) -> Self {
        Dim { axis, size }
    }

    pub fn fixed(name: &str, size: u64) -> Self {
        Dim { axis: Axis::new(name), size: Size::Fixed(size) }
    }
}

/// `Axis=size`; a symbolic axis that still has its own name prints as the name alone.
impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.size {
            Size::Input(axis) if *axis == self.axis => write!(f, "{axis}"),
            size => write!(f, "{}={size}", self.axis),
        }
    }
}

/// Element type and axes. The order of the axes is the order in memory wherever a tensor is stored, and carries no
/// meaning otherwise: operations speak of axes by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: DType,
    pub dims: Vec<Dim>,
}

impl TensorType {
    pub fn new(dtype: DType, dims: Vec<Dim>) -> Self {
        TensorType { dtype, dims }
    }

    pub fn scalar(dtype: DType) -> Self {
        TensorType { dtype, dims: Vec::new() }
    }

    pub fn dim(&self, axis: &Axis) -> Option<&Dim> {
        self.dims.iter().find(|dim| dim.axis == *axis)
    }

    pub fn position(&self, axis: &Axis) -> Option<usize> {
        self.dims.iter().position(|dim| dim.axis == *axis)
    }

    pub fn has(&self, axis: &Axis) -> bool {
        self.dim(axis).is_some()
    }

    pub fn axes(&self) -> impl Iterator<Item = &Axis> {
        self.dims.iter().map(|dim| &dim.axis)
    }

    /// The product of all sizes; `None` where one is symbolic or the product does not fit.
    pub fn elements(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |product, dim| product.checked_mul(dim.size.fixed()?))
    }
}

/// `f32[S, D=128]`; a scalar is `f32[]`.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (at, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}
