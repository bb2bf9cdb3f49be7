//! What a step costs our own code, in units that are the same in every model: so what one unit takes can be measured on one
//! plan, and hold for another.

use moec_plan::{BufferId, Extent, RowOp, Source, View};
use moec_types::{BinaryOp, Expr, UnaryOp};

/// Work that is not a product with weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effort {
    /// Rows, which threads share out; of each, operations on an element in a vector, and bytes of activations that come and go.
    Rows { rows: f64, operations: f64, moved: f64 },
    /// Blocks of queries, which threads share out; elements of keys and values that each block reads, and all that are
    /// multiplied.
    Attention { items: f64, read: f64, multiplied: f64 },
    /// Choices sorted by expert, by one thread.
    Choices(f64),
}

impl Default for Effort {
    fn default() -> Self {
        Effort::Rows { rows: 0.0, operations: 0.0, moved: 0.0 }
    }
}

/// Elements of a vector, about: what goes one by one costs so much more.
pub const LANES: f64 = 16.0;

/// The softmax of attention, for each score: an exponential, maxima, sums.
pub const SOFTMAX: f64 = 12.0;

/// Rows of a block of queries of one group of heads.
const QUERIES: f64 = 16.0;

/// What is left to do for each sum or each choice when the vectors are through.
const AFTER_VECTORS: f64 = 30.0 * LANES;

/// A vector at one place: two of them are read while one addition is done, and a store takes longer.
const PLACE: f64 = 0.5;
const STORE: f64 = 1.0;

pub fn attention_items(queries: f64) -> f64 {
    (queries / QUERIES).ceil()
}

/// Operations of one row, on elements in vectors.
pub fn of_op(op: &RowOp, tokens: u64) -> f64 {
    let product = |extents: &[Extent]| extents.iter().map(|extent| extent.of(tokens) as f64).product::<f64>();
    match op {
        RowOp::Map { extents, expr, args, into } => {
            let views: Vec<&View> = args.iter().chain([into]).collect();
            product(extents) * (of_expression(expr) + Lanes::of(&views, extents).places + STORE)
        }
        RowOp::Reduce { extents, over, expr, args, .. } => {
            let lanes = Lanes::of(&args.iter().collect::<Vec<_>>(), &[&extents[..], over].concat());
            let after = if lanes.along.is_some_and(|along| along < extents.len()) { 0.0 } else { AFTER_VECTORS };
            // A product is added in one.
            product(extents) * (product(over) * (of_expression(expr).max(1.0) + lanes.places) + after)
        }
        RowOp::Cumsum { extents, along, expr, .. } => {
            product(extents) * along.of(tokens) as f64 * (of_expression(expr) + 2.0) * LANES
        }
        RowOp::ScatterAdd { extents, over, count, expr, .. } => {
            let added = product(over) * (of_expression(expr) + 3.0) * LANES;
            product(extents) * (added + count.of(tokens) as f64)
        }
        RowOp::TopK { extents, len, k, work, .. } => {
            let (len, k) = (len.of(tokens) as f64, k.of(tokens) as f64);
            let all = match work {
                Some(_) => len * len.max(2.0).log2() * 3.0 * LANES,
                None => 4.0 * len + k * (3.0 * len + AFTER_VECTORS),
            };
            product(extents) * all
        }
    }
}

/// Bytes of activations that one row of an op reads or writes, where `bytes` are those of an element.
pub fn moved(op: &RowOp, tokens: u64, bytes: impl Fn(BufferId) -> u64) -> f64 {
    let loops: Vec<u64> = loops(op).iter().map(|extent| extent.of(tokens)).collect();
    let of_view = |view: &View| match view.source {
        Source::Row(buffer) | Source::Whole(buffer) => {
            // What a loop does not move along is the same element again.
            let moves = |at: usize, view: &View| view.strides.get(at).is_some_and(|stride| *stride != 0);
            let index = |at: usize| view.index.as_ref().is_some_and(|index| moves(at, &index.view));
            let turns = |(at, turns): (usize, &u64)| if moves(at, view) || index(at) { *turns as f64 } else { 1.0 };
            loops.iter().enumerate().map(turns).product::<f64>() * bytes(buffer) as f64
        }
        Source::Local(_)
        | Source::Param(_)
        | Source::Literal(_)
        | Source::Place
        | Source::Position
        | Source::Count(_) => 0.0,
    };
    op.reads().into_iter().chain(op.writes()).map(of_view).sum()
}

fn loops(op: &RowOp) -> Vec<Extent> {
    let (extents, inner) = match op {
        RowOp::Map { extents, .. } => (extents, &[][..]),
        RowOp::Reduce { extents, over, .. } | RowOp::ScatterAdd { extents, over, .. } => (extents, &over[..]),
        RowOp::Cumsum { extents, along, .. } => (extents, std::slice::from_ref(along)),
        RowOp::TopK { extents, len, .. } => (extents, std::slice::from_ref(len)),
    };
    [&extents[..], inner].concat()
}

/// Which loop lanes run along, and what reaching all places of an element costs then: little where lanes are neighbours, as much
/// as there are lanes elsewhere.
struct Lanes {
    along: Option<usize>,
    places: f64,
}

impl Lanes {
    fn of(views: &[&View], loops: &[Extent]) -> Lanes {
        const FEWEST_TURNS: u64 = 4;
        let jumps = |view: &View, along: usize| {
            let stride = |view: &View| view.strides.get(along).copied().unwrap_or(0);
            stride(view) > 1 || view.index.as_ref().is_some_and(|index| stride(&index.view) > 0)
        };
        let takes_lanes = |along: &usize| loops[*along].fixed().is_some_and(|turns| turns >= FEWEST_TURNS);
        let jumping = |along: usize| views.iter().filter(|view| jumps(view, along)).count();
        let along = (0..loops.len()).rev().filter(takes_lanes).min_by_key(|along| jumping(*along));
        let jumping = along.map_or(views.len(), jumping) as f64;
        Lanes { along, places: PLACE * (views.len() as f64 + jumping * (LANES - 1.0)) }
    }
}

/// Additions and the like count 1; what is a polynomial or a division, more.
pub fn of_expression(expr: &Expr) -> f64 {
    let mut sum = 0.0;
    expr.visit(&mut |expr| sum += of_operation(expr));
    sum
}

fn of_operation(expr: &Expr) -> f64 {
    const DIVISION: f64 = 5.0;
    const POLYNOMIAL: f64 = 15.0;
    const POLYNOMIALS: [UnaryOp; 6] =
        [UnaryOp::Exp, UnaryOp::Log, UnaryOp::Tanh, UnaryOp::Erf, UnaryOp::Sin, UnaryOp::Cos];
    match expr {
        Expr::Arg(_) | Expr::F32(_) | Expr::I32(_) | Expr::Bool(_) => 0.0,
        Expr::Select(..) | Expr::Cast(..) => 1.0,
        Expr::Unary(UnaryOp::Sqrt, _) | Expr::Binary(BinaryOp::Div | BinaryOp::Mod, ..) => DIVISION,
        Expr::Unary(op, _) if POLYNOMIALS.contains(op) => POLYNOMIAL,
        Expr::Binary(BinaryOp::Pow, ..) => 2.0 * POLYNOMIAL,
        Expr::Unary(..) | Expr::Binary(..) => 1.0,
    }
}
