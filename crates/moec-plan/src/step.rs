//! The steps.

use moec_diag::Span;
use moec_types::Expr;

use crate::{BufferId, Extent, ParamId, RowProgram, Rows, View};

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Step(Step),
    Layers(Layers),
}

/// The stack of layers. The n-th execution of a kind has *rank* n: it selects the instance of per-layer parameters and of
/// caches within that kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    pub kinds: Vec<Vec<Node>>,
    /// The kind of each layer.
    pub order: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub kind: StepKind,
    /// All threads must have finished what stands before. (A step whose inputs are older needs none.) The first step of a
    /// layer kind always has it.
    pub barrier: bool,
    /// The `.moe` text behind it, and a word for reports (`layers[l].attn.q`).
    pub at: Span,
    pub label: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// A program run for each row, or, with a group, for the slots of some experts.
    Rows {
        rows: Rows,
        program: RowProgram,
        group: Option<RowGroup>,
    },
    Gemm(Gemm),
    Bin(Bin),
    Attention(Box<Attention>),
    Scan(Scan),
    Assign(Assign),
}

/// A program run for the tokens of the pass one after the other, with states that go from each to the next and from pass to
/// pass. It comes in `parts` that have nothing to do with each other, each of which goes through all tokens: they are what
/// threads share out.
///
/// In both programs `Source::Row` is the row of the token, and `View::row` counts elements from part to part. Scratch is of one
/// token of one part.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    pub parts: u64,
    /// Run once for each part before the first position of a sequence (`past` is 0): gives the states their first values.
    pub start: RowProgram,
    pub program: RowProgram,
}

/// The slots of experts `first .. first + count` of a routing; parameters with an instance for each expert are read as the
/// instance of the slot's expert (instance 0 belongs to `first`). The rows of the step are `Slots`, or their fixed number.
#[derive(Clone, Debug, PartialEq)]
pub struct RowGroup {
    /// `i32[experts + 1]`: expert e has the slots `offsets[e] .. offsets[e + 1]`.
    pub offsets: BufferId,
    pub first: u32,
    pub count: u32,
}

/// `out[r, n] = epilogue(sum over k of a[r, k] * w_b[n, k] for each branch b, extras[r, n])`, in f32.
///
/// Expression: `Arg(0 .. branches)` are the sums, the rest the extras. Extras have one stride, along n; their row is `r`, so
/// that with more than one matrix row in a row they read no `Source::Row`. `out` may be one of the extras (in place).
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    pub rows: Rows,
    /// Rows of the matrices in each row of the step, one after the other: `a` has `batch * k` elements a row, `out`
    /// `batch * n`, and the number of a matrix row is `row * batch + part`.
    pub batch: u64,
    /// f32.
    pub a: BufferId,
    /// `Panels`.
    pub weights: ParamId,
    pub epilogue: Expr,
    pub extras: Vec<View>,
    /// f32; may be a cache.
    pub out: BufferId,
    /// Each row with the weights of its expert.
    pub group: Option<Group>,
}

/// A ragged GEMM over the slots of a routing: `rows` is `Slots`, or the fixed number of them. Rows of experts outside `first .. first + weights.experts`
/// are left alone. Extras may be `Param` with an instance for each expert, or `Literal`.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `i32[experts + 1]`: expert e has the slots `offsets[e] .. offsets[e + 1]`.
    pub offsets: BufferId,
    /// `i32[slots]`: the (position * choices + choice) of a slot.
    pub order: BufferId,
    pub choices: u64,
    /// The expert that instance 0 of the weights belongs to.
    pub first: u32,
    /// Row `s` of `a` is row `order[s] / choices` of the buffer.
    pub gather: bool,
    pub store: Store,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    /// Row s of `out`.
    Slots,
    /// Row `order[s]` of `out` seen as `choices` rows for each token (`n` elements each), times `weights[order[s]]` (f32).
    /// The rows of choices without an expert become zero.
    Choices { weights: BufferId },
}

/// Sorts the choices of all tokens by expert, stably: a histogram, its prefix sum, and the places.
#[derive(Clone, Debug, PartialEq)]
pub struct Bin {
    /// The tokens: those of the pass, or a fixed number.
    pub tokens: Rows,
    /// `i32[tokens, choices]`; an index outside `0 .. experts` is no choice: its slot comes after those of all experts.
    pub indices: BufferId,
    /// `f32[tokens, choices]`, for the trace.
    pub weights: BufferId,
    pub experts: u64,
    pub choices: u64,
    /// `i32[experts + 1]`, one row.
    pub offsets: BufferId,
    /// `i32`, one a slot: a permutation of all (position * choices + choice), by expert, then in ascending order; choices
    /// without an expert stand from `offsets[experts]` on.
    pub order: BufferId,
    /// Also, where asked for, the inverse: `i32[tokens, choices]`, the slot of each choice, or -1 without an expert.
    pub slot_of: Option<BufferId>,
    /// The route's number in the model, for the trace.
    pub route: u32,
}

/// Every token to one expert, no expert more than `most` tokens, so that the scores add up to as much as can be; -1 for a token
/// that finds no place.
///
/// Scores are taken in whole units of 2^-30, from -1e9 (NaN as well) to 1e9, and the fewest tokens go without. One token after
/// the other enters by the cheapest chain of moves (successive shortest paths): chains are looked for from the lowest expert
/// on, in rounds, and only a cheaper one replaces one found before; of the tokens that could move for the same, the first does.
#[derive(Clone, Debug, PartialEq)]
pub struct Assign {
    /// Those of the pass, or a fixed number.
    pub tokens: Rows,
    /// `f32[tokens, experts]`.
    pub score: BufferId,
    pub experts: u64,
    pub most: Extent,
    /// `i32[tokens]`.
    pub out: BufferId,
    /// [`Assign::room_elements`] i32 that are used up, one row.
    pub room: BufferId,
}

impl Assign {
    /// What it takes to remember, for each pair of experts, the cheapest move from one to the other.
    pub fn room_elements(experts: u64) -> u64 {
        let places = experts + 1;
        6 * places * places + 8 * places
    }
}

/// `out[t, g, r, :] = sum over keys of softmax(score(q[t, g, r] · k[key, g])) * v[key, g, :]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub rows: Rows,
    /// f32 rows `[groups, queries, width]`.
    pub q: BufferId,
    /// A cache in panels, rows `[groups, width]`.
    pub k: BufferId,
    /// A cache in rows `[groups, values]`.
    pub v: BufferId,
    /// f32 rows `[groups, queries, values]`.
    pub out: BufferId,
    pub groups: u64,
    pub queries: u64,
    pub width: u64,
    pub values: u64,
    /// `Arg(0)` the dot product (f32), `Arg(1)` the query's position (i32), `Arg(2)` the key's position (i32); from 3 on the
    /// extras.
    pub score: Expr,
    /// Per head: strides for (groups, queries). `Param` or `Literal`.
    pub extras: Vec<View>,
    /// One more score in the softmax, without a value: of the extras alone.
    pub sink: Option<Expr>,
    /// Behind the extras: read from tables.
    pub lookups: Vec<Lookup>,
    /// Another sequence, whose positions the keys are: all that it has. `None`: the same one.
    pub keys_of: Option<u32>,
    /// `score` is -inf wherever key > query: such keys may be skipped.
    pub causal: bool,
    /// `score` is -inf wherever query - key >= window: such keys may be skipped.
    pub window: Option<u64>,
}

/// What a score reads at a place that depends on the positions of query and key.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// Strides for (groups, queries). `Param` or `Literal`, f32.
    pub view: View,
    /// Elements from place to place, and places.
    pub stride: u64,
    pub places: u64,
    /// i32, of `Arg(1)` and `Arg(2)`: within `0 .. places`.
    pub index: Expr,
}
