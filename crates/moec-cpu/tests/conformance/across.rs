//! Row programs that work along the tokens of a pass, and along shares of them.

use moec_plan::{
    Assign, Extent, Indirect, Local, LocalId, ReduceOp, RowOp, RowProgram, Rows, Share, Source, StepKind, View, Work,
};
use moec_types::{BinaryOp, DType, Expr};

use crate::{
    PassInput,
    build::{Building, arg, fixed, mul, row, rows, view},
    check,
};

const TOKENS: Extent = Extent::Tokens;

fn whole(id: moec_plan::BufferId, strides: &[u64], row: u64) -> View {
    View { row, ..view(Source::Whole(id), 0, strides) }
}

/// No token, one, and odd numbers of them, each in a session of its own.
fn passes(b: &mut Building, inputs: impl Fn(&mut Building, u64) -> Vec<Vec<f64>>) -> Vec<PassInput> {
    let pass = |tokens: u64| PassInput { tokens, first_output: 0, inputs: inputs(b, tokens) };
    [0, 1, 7, 34].map(pass).into_iter().collect()
}

#[test]
fn reductions_over_tokens_keep_lanes_of_what_stays() {
    for width in [1, 5, 16, 70] {
        let mut b = Building::new(width);
        let x = b.input(DType::F32, Rows::Tokens, width);
        let n = b.input(DType::I32, Rows::Tokens, width);
        for op in [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min] {
            let out = b.output(DType::F32, Rows::ONE, width);
            let args = vec![whole(x, &[1, width], 0)];
            let into = row(out, &[1]);
            let (extents, over) = (fixed(&[width]), vec![TOKENS]);
            b.step(rows(Rows::ONE, vec![RowOp::Reduce { op, extents, over, expr: arg(0), args, into }]));
        }
        // Each row its column, then the whole, divided by how many there were.
        let counts = b.output(DType::I32, Rows::ONE, width);
        let (args, into) = (vec![whole(n, &[width], 1)], whole(counts, &[], 1));
        let op = ReduceOp::Sum;
        b.step(rows(
            Rows::Fixed(width),
            vec![RowOp::Reduce { op, extents: vec![], over: vec![TOKENS], expr: arg(0), args, into }],
        ));
        let mean = b.output(DType::I32, Rows::ONE, width);
        let half = Extent::Share(Share { times: 1, per: 2, up: true });
        let args = vec![whole(counts, &[], 1), view(Source::Count(TOKENS), 0, &[]), view(Source::Count(half), 0, &[])];
        let divided = Expr::binary(BinaryOp::Div, arg(0), arg(1));
        let expr = Expr::binary(BinaryOp::Add, divided, arg(2));
        b.step(rows(Rows::Fixed(width), vec![RowOp::Map { extents: vec![], expr, args, into: whole(mean, &[], 1) }]));
        let passes = passes(&mut b, |b, tokens| vec![b.values(tokens * width), b.indices(tokens * width, 9)]);
        check(&b, &passes, 1e-5);
    }
}

#[test]
fn running_sums_along_tokens_and_along_a_row() {
    let width = 21;
    let mut b = Building::new(2);
    let x = b.input(DType::F32, Rows::Tokens, width);
    let n = b.input(DType::I32, Rows::Tokens, width);
    for (from, dtype) in [(x, DType::F32), (n, DType::I32)] {
        let across = b.output(dtype, Rows::Tokens, width);
        let within = b.output(dtype, Rows::Tokens, width);
        let (args, into) = (vec![whole(from, &[1, width], 0)], whole(across, &[1, width], 0));
        b.step(rows(
            Rows::ONE,
            vec![RowOp::Cumsum { extents: fixed(&[width]), along: TOKENS, expr: arg(0), args, into }],
        ));
        let (args, into) = (vec![row(from, &[1])], row(within, &[1]));
        let along = Extent::Fixed(width);
        b.step(rows(Rows::Tokens, vec![RowOp::Cumsum { extents: vec![], along, expr: arg(0), args, into }]));
    }
    let passes = passes(&mut b, |b, tokens| vec![b.values(tokens * width), b.indices(tokens * width, 9)]);
    check(&b, &passes, 1e-5);
}

#[test]
fn sums_scattered_to_tokens() {
    let width = 19;
    for shared in [true, false] {
        let mut b = Building::new(6);
        let x = b.input(DType::F32, Rows::Tokens, 3 * width);
        let at = b.input(DType::I32, Rows::Tokens, 3 * width);
        let out = b.output(DType::F32, Rows::Tokens, width);
        // Three rows of each token go to tokens that an index names, some of which there are not.
        let index = whole(at, &[u64::from(!shared), width, 3 * width], 0);
        b.step(rows(
            Rows::ONE,
            vec![RowOp::ScatterAdd {
                extents: fixed(&[width]),
                over: vec![Extent::Fixed(3), TOKENS],
                count: TOKENS,
                index,
                expr: mul(arg(0), arg(0)),
                args: vec![whole(x, &[1, width, 3 * width], 0)],
                into: whole(out, &[1, width], 0),
            }],
        ));
        let passes = passes(&mut b, |b, tokens| {
            let places = b.indices(tokens * 3 * width, 9).into_iter().map(|place| place - 1.0).collect();
            vec![b.values(tokens * 3 * width), places]
        });
        check(&b, &passes, 1e-5);
    }
}

#[test]
fn the_largest_of_all_tokens() {
    let experts = 5;
    let half = Share { times: 1, per: 2, up: false };
    let mut b = Building::new(4);
    let x = b.input(DType::F32, Rows::Tokens, experts);
    let values = b.workspace(DType::F32, Rows::Share(half), experts);
    let indices = b.workspace(DType::I32, Rows::Share(half), experts);
    let sorted = b.workspace(DType::I32, Rows::Tokens, experts * Work::ELEMENTS);
    let [sum, first] = [DType::F32, DType::F32].map(|dtype| b.output(dtype, Rows::ONE, experts));
    // Each expert its half of the tokens; what they are worth, and how much of another number they have.
    let half = Extent::Share(half);
    b.step(rows(
        Rows::Fixed(experts),
        vec![RowOp::TopK {
            extents: vec![],
            len: TOKENS,
            k: half,
            work: Some(Work::Buffer(sorted)),
            arg: whole(x, &[experts], 1),
            values: whole(values, &[experts], 1),
            indices: whole(indices, &[experts], 1),
        }],
    ));
    let mut found = whole(x, &[0], 0);
    found.index = Some(Box::new(Indirect { view: whole(indices, &[experts], 1), stride: experts }));
    for (from, into) in [(whole(values, &[experts], 1), sum), (found, first)] {
        let into = whole(into, &[], 1);
        let op = ReduceOp::Sum;
        b.step(rows(
            Rows::Fixed(experts),
            vec![RowOp::Reduce { op, extents: vec![], over: vec![half], expr: arg(0), args: vec![from], into }],
        ));
    }
    let passes = passes(&mut b, |b, tokens| {
        let mut values = b.values(tokens * experts);
        values.iter_mut().for_each(|value| *value = (*value * 4.0).round() / 4.0);
        values.iter_mut().skip(3).step_by(11).for_each(|value| *value = -0.0);
        vec![values]
    });
    check(&b, &passes, 1e-5);
}

#[test]
fn tokens_assigned_to_experts() {
    let experts = 5;
    // Room for all, room for some, room for none.
    for most in [Extent::Share(Share { times: 1, per: 5, up: true }), Extent::Fixed(2), Extent::Fixed(0)] {
        let mut b = Building::new(8);
        let score = b.input(DType::F32, Rows::Tokens, experts);
        let out = b.output(DType::I32, Rows::Tokens, 1);
        let room = b.workspace(DType::I32, Rows::ONE, Assign::room_elements(experts));
        b.step(StepKind::Assign(Assign { tokens: Rows::Tokens, score, experts, most, out, room }));
        let passes = passes(&mut b, |b, tokens| {
            let mut values = b.values(tokens * experts);
            // Many that are equally good, and some that are no numbers or beyond all bounds.
            values.iter_mut().for_each(|value| *value = (*value * 2.0).round() / 2.0);
            values.iter_mut().skip(3).step_by(17).for_each(|value| *value = f64::NAN);
            values.iter_mut().skip(5).step_by(19).for_each(|value| *value = f64::INFINITY);
            values.iter_mut().skip(6).step_by(23).for_each(|value| *value = -3e38);
            vec![values]
        });
        check(&b, &passes, 0.0);
    }
}

#[test]
fn many_of_many_are_sorted_in_scratch() {
    let (len, k) = (300, 290);
    let mut b = Building::new(5);
    let x = b.input(DType::F32, Rows::Tokens, len);
    let values = b.output(DType::F32, Rows::Tokens, k);
    let indices = b.output(DType::I32, Rows::Tokens, k);
    let program = RowProgram {
        locals: vec![Local { dtype: DType::I32, elements: len * Work::ELEMENTS }],
        ops: vec![RowOp::TopK {
            extents: vec![],
            len: Extent::Fixed(len),
            k: Extent::Fixed(k),
            work: Some(Work::Local(LocalId(0))),
            arg: row(x, &[1]),
            values: row(values, &[1]),
            indices: row(indices, &[1]),
        }],
    };
    b.step(StepKind::Rows { rows: Rows::Tokens, program, group: None });
    let passes = passes(&mut b, |b, tokens| {
        let mut values = b.values(tokens * len);
        values.iter_mut().step_by(7).for_each(|value| *value = f64::NAN);
        values.iter_mut().skip(1).step_by(5).for_each(|value| *value = 0.5);
        values.iter_mut().skip(2).step_by(9).for_each(|value| *value = -0.0);
        values.iter_mut().skip(3).step_by(9).for_each(|value| *value = 0.0);
        vec![values]
    });
    check(&b, &passes, 0.0);
}
