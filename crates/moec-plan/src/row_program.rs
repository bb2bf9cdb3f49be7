//! Row programs: what happens to one row, as loops over affine views.
//!
//! Broadcasts, slices, transpositions, splits and merges of axes are strides of a view, not steps.

use moec_types::{DType, Expr};

use crate::{BufferId, Extent, LiteralId, ParamId};

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
    Map { extents: Vec<Extent>, expr: Expr, args: Vec<View>, into: View },
    /// `into[i] = op over j of expr(args[i, j])`; the views of `args` have strides for `extents` then `over`, `into` for
    /// `extents`.
    Reduce { op: ReduceOp, extents: Vec<Extent>, over: Vec<Extent>, expr: Expr, args: Vec<View>, into: View },
    /// `into[i, j] = sum over j' <= j of expr(args[i, j'])`, from the first on; f32 or i32. All views have strides for
    /// `extents` then `along`.
    Cumsum { extents: Vec<Extent>, along: Extent, expr: Expr, args: Vec<View>, into: View },
    /// `into[i, n] = sum over j, where index[i, j] is n, of expr(args[i, j])`, in order of j; for every n below `count`. An
    /// index outside of `0 .. count` adds nothing. `index` (i32) and `args` have strides for `extents` then `over`, `into`
    /// for `extents` then n.
    ScatterAdd {
        extents: Vec<Extent>,
        over: Vec<Extent>,
        count: Extent,
        index: View,
        expr: Expr,
        args: Vec<View>,
        into: View,
    },
    /// The `k` largest of `len` f32, largest first, ties to the lower index, NaN last (below -inf). `arg` has strides for
    /// `extents` then the `len` elements; `values` (f32) and `indices` (i32) for `extents` then the `k` chosen. A pass has
    /// at least k, see [`crate::Plan::least_tokens`].
    TopK { extents: Vec<Extent>, len: Extent, k: Extent, arg: View, values: View, indices: View, work: Option<Work> },
}

impl RowProgram {
    /// The fewest tokens of which as many can be chosen as are wanted.
    pub fn least_tokens(&self) -> u64 {
        let least = |op: &RowOp| match op {
            RowOp::TopK { len, k, .. } => match (len, k) {
                (Extent::Tokens, Extent::Fixed(k)) => *k,
                // A share of them grows by one at least every `per` tokens.
                (Extent::Share(share), Extent::Fixed(k)) if share.times > 0 => {
                    let most = (k * share.per).div_ceil(share.times);
                    let fewer = share.per.min(most);
                    (most - fewer..=most).find(|tokens| share.of(*tokens) >= *k).unwrap_or(most)
                }
                (Extent::Fixed(_) | Extent::Tokens | Extent::Share(_), _) => 1,
            },
            RowOp::Map { .. } | RowOp::Reduce { .. } | RowOp::Cumsum { .. } | RowOp::ScatterAdd { .. } => 1,
        };
        self.ops.iter().map(least).max().unwrap_or(1)
    }
}

/// Room in which a top-k sorts all its elements: [`Work::ELEMENTS`] i32 for each of them. Without it, it looks for the
/// largest `k` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// For the elements of one top-k at a time.
    Local(LocalId),
    /// For those of all rows and all `extents`.
    Buffer(BufferId),
}

impl Work {
    /// i32 for each element that is sorted.
    pub const ELEMENTS: u64 = 4;
}

impl RowOp {
    /// Everything that it reads, but for what it is writing.
    pub fn reads(&self) -> Vec<&View> {
        match self {
            RowOp::Map { args, .. } | RowOp::Reduce { args, .. } | RowOp::Cumsum { args, .. } => args.iter().collect(),
            RowOp::ScatterAdd { index, args, .. } => args.iter().chain([index]).collect(),
            RowOp::TopK { arg, .. } => vec![arg],
        }
    }

    pub fn writes(&self) -> Vec<&View> {
        match self {
            RowOp::Map { into, .. }
            | RowOp::Reduce { into, .. }
            | RowOp::Cumsum { into, .. }
            | RowOp::ScatterAdd { into, .. } => vec![into],
            RowOp::TopK { values, indices, .. } => vec![values, indices],
        }
    }

    pub fn views_mut(&mut self) -> Vec<&mut View> {
        match self {
            RowOp::Map { args, into, .. } | RowOp::Reduce { args, into, .. } | RowOp::Cumsum { args, into, .. } => {
                args.iter_mut().chain([into]).collect()
            }
            RowOp::ScatterAdd { index, args, into, .. } => args.iter_mut().chain([index, into]).collect(),
            RowOp::TopK { arg, values, indices, .. } => vec![arg, values, indices],
        }
    }
}

/// Elements at `offset + row * (number of the step's row) + sum of strides[i] * index[i]`, plus, when `index` is there,
/// `stride * (that i32 element)`.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub source: Source,
    pub offset: u64,
    pub strides: Vec<u64>,
    /// Elements from what one row of the step sees to what the next does, where the source does not move with the row.
    pub row: u64,
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
    /// This row of a buffer: element 0 is the row's first. (With one row, the only row.)
    Row(BufferId),
    /// The whole buffer: element 0 is row 0's first (of a cache, the first position's of the sequence: no backend need do it).
    Whole(BufferId),
    /// The instance of a `Plain` parameter that belongs to this layer; those of later experts follow, each
    /// `instance_stride` elements after the one before.
    Param(ParamId),
    Literal(LiteralId),
    /// The computed place itself, as an i32.
    Place,
    /// The position in its sequence of the new token that the computed place counts, as an i32.
    Position,
    /// How many there are of this extent, as an i32.
    Count(Extent),
}
