//! Row programs: what happens to one row, as loops over affine views.
//!
//! Broadcasts, slices, transpositions, splits and merges of axes are strides of a view, not steps.

use moec_types::{DType, Expr};

use crate::{BufferId, LiteralId, ParamId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalId(pub u32);

/// Scratch of one row, private to whoever computes the row.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// `F32`, `I32` or `Bool` (one byte).
    pub dtype: DType,
    pub elements: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RowProgram {
    pub locals: Vec<Local>,
    /// In order: each op sees what the earlier ones wrote.
    pub ops: Vec<RowOp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    Sum,
    Prod,
    /// NaN if any is NaN.
    Max,
    Min,
    Any,
    All,
}

/// Loops run over `extents` (then `over`), the last fastest; a view has one stride for each loop.
#[derive(Clone, Debug, PartialEq)]
pub enum RowOp {
    /// `into[i] = expr(args[i])`.
    Map { extents: Vec<u64>, expr: Expr, args: Vec<View>, into: View },
    /// `into[i] = op over j of expr(args[i, j])`; the views of `args` have strides for `extents` then `over`, `into` for
    /// `extents`.
    Reduce { op: ReduceOp, extents: Vec<u64>, over: Vec<u64>, expr: Expr, args: Vec<View>, into: View },
    /// The `k` largest of `len` f32, largest first, ties to the lower index, NaN last (below -inf). `arg` has strides for
    /// `extents` then the `len` elements; `values` (f32) and `indices` (i32) for `extents` then the `k` chosen.
    TopK { extents: Vec<u64>, len: u64, k: u64, arg: View, values: View, indices: View },
}

/// Elements at `offset + sum of strides[i] * index[i]`, plus, when `index` is there, `stride * (that i32 element)`.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub source: Source,
    pub offset: u64,
    pub strides: Vec<u64>,
    pub index: Option<Box<Indirect>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Indirect {
    /// Where the i32 index stands, over the same loops.
    pub view: View,
    /// Elements to move for each unit of the index.
    pub stride: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Local(LocalId),
    /// This row of a buffer: element 0 is the row's first. (With `Rows::One`, the only row.)
    Row(BufferId),
    /// The whole buffer: element 0 is row 0's first (of a cache, the first position's of the sequence).
    Whole(BufferId),
    /// The instance of a `Plain` parameter that belongs to this layer.
    Param(ParamId),
    Literal(LiteralId),
    /// The computed place itself, as an i32.
    Place,
    /// The row's position in the sequence plus the computed place, as an i32. (`Tokens` and `Outputs` rows only.)
    Position,
}
