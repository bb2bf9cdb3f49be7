//! Maps, reductions and top-k over views of all sorts.

use moec_plan::{Extent, Indirect, Layout, Local, LocalId, ReduceOp, RowOp, RowProgram, Rows, Source, StepKind};
use moec_types::{BinaryOp, DType, Expr, UnaryOp};

use crate::{
    PassInput,
    build::{Building, add, arg, fixed, mul, row, rows, view},
    check,
};

fn map(extents: &[u64], expr: Expr, args: Vec<moec_plan::View>, into: moec_plan::View) -> RowOp {
    RowOp::Map { extents: fixed(extents), expr, args, into }
}

#[test]
fn maps_of_odd_sizes_and_broadcasts() {
    for (outer, inner) in [(1, 1), (3, 5), (4, 23), (2, 64), (1, 100)] {
        let mut b = Building::new(outer * 100 + inner);
        let x = b.input(DType::F32, Rows::Tokens, outer * inner);
        let once = b.input(DType::F32, Rows::ONE, inner);
        let scale = b.param(Layout::Plain { elements: outer }, DType::Bf16, 1, 1);
        let out = b.output(DType::F32, Rows::Tokens, outer * inner);
        let transposed = b.output(DType::F32, Rows::Tokens, outer * inner);
        // x * scale[outer] + once[inner] + place
        let expr = add(add(mul(arg(0), arg(1)), arg(2)), Expr::cast(DType::F32, arg(3)));
        let args = vec![
            row(x, &[inner, 1]),
            view(Source::Param(scale), 0, &[1, 0]),
            row(once, &[0, 1]),
            view(Source::Place, 7, &[0, 3]),
        ];
        b.step(rows(
            Rows::Tokens,
            vec![
                map(&[outer, inner], expr, args, row(out, &[inner, 1])),
                map(&[outer, inner], arg(0), vec![row(out, &[inner, 1])], row(transposed, &[1, outer])),
            ],
        ));
        let pass = PassInput { tokens: 5, first_output: 0, inputs: vec![b.values(5 * outer * inner), b.values(inner)] };
        check(&b, &[pass], 1e-6);
    }
}

#[test]
fn tables_are_looked_up() {
    for (storage, width) in [(DType::F32, 37), (DType::Bf16, 32), (DType::F16, 20)] {
        let mut b = Building::new(3);
        let ids = b.input(DType::I32, Rows::Tokens, 1);
        let table = b.param(Layout::Plain { elements: 11 * width }, storage, 1, 1);
        let out = b.output(DType::F32, Rows::Tokens, width);
        let mut entry = view(Source::Param(table), 0, &[1]);
        entry.index = Some(Box::new(Indirect { view: row(ids, &[0]), stride: width }));
        b.step(rows(Rows::Tokens, vec![map(&[width], arg(0), vec![entry], row(out, &[1]))]));
        let pass = PassInput { tokens: 7, first_output: 0, inputs: vec![b.indices(7, 11)] };
        check(&b, &[pass], 0.0);
    }
}

#[test]
fn gathers_along_lanes_and_positions() {
    let mut b = Building::new(4);
    let at = b.input(DType::I32, Rows::Tokens, 24);
    let x = b.input(DType::F32, Rows::Tokens, 50);
    let out = b.output(DType::F32, Rows::Outputs, 24);
    let positions = b.output(DType::I32, Rows::Outputs, 40);
    let mut gathered = row(x, &[0]);
    gathered.index = Some(Box::new(Indirect { view: row(at, &[1]), stride: 1 }));
    b.step(rows(
        Rows::Outputs,
        vec![
            map(&[24], arg(0), vec![gathered], row(out, &[1])),
            map(
                &[40],
                arg(0),
                vec![moec_plan::View { row: 1, ..view(Source::Position, 0, &[0]) }],
                row(positions, &[1]),
            ),
        ],
    ));
    let pass = |b: &mut Building, tokens: u64, first_output: u64| PassInput {
        tokens,
        first_output,
        inputs: vec![b.indices(tokens * 24, 50), b.values(tokens * 50)],
    };
    let passes = [pass(&mut b, 6, 4), pass(&mut b, 1, 0)];
    check(&b, &passes, 0.0);
}

#[test]
fn reductions_along_either_loop() {
    let ops = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min];
    for (kept, over) in [(1, 100), (9, 70), (64, 3), (7, 3), (5, 16), (1, 1)] {
        let mut b = Building::new(kept * 1000 + over);
        let x = b.input(DType::F32, Rows::Tokens, kept * over);
        let y = b.input(DType::F32, Rows::ONE, over);
        let flags = b.input(DType::Bool, Rows::Tokens, kept * over);
        for op in ops {
            for strides in [[over, 1], [1, kept]] {
                let out = b.output(DType::F32, Rows::Tokens, kept);
                let expr = if op == ReduceOp::Prod { add(arg(0), Expr::F32(1.0)) } else { mul(arg(0), arg(1)) };
                let args = vec![row(x, &strides), row(y, &[0, 1])];
                let (extents, over) = (fixed(&[kept]), fixed(&[over]));
                b.step(rows(Rows::Tokens, vec![RowOp::Reduce { op, extents, over, expr, args, into: row(out, &[1]) }]));
            }
        }
        for op in [ReduceOp::Any, ReduceOp::All] {
            let out = b.output(DType::Bool, Rows::Tokens, kept);
            let args = vec![row(flags, &[over, 1])];
            let into = row(out, &[1]);
            let (extents, over) = (fixed(&[kept]), fixed(&[over]));
            b.step(rows(Rows::Tokens, vec![RowOp::Reduce { op, extents, over, expr: arg(0), args, into }]));
        }
        let count = 3 * kept * over;
        let pass = PassInput {
            tokens: 3,
            first_output: 0,
            inputs: vec![b.values(count), b.values(over), b.indices(count, 2)],
        };
        check(&b, &[pass], 2e-5);
    }
}

#[test]
fn reductions_over_two_loops_with_a_gap() {
    // Sum over a and c of x[a, b, c], and of integers.
    let (a, kept, c) = (3, 4, 21);
    let mut b = Building::new(8);
    let x = b.input(DType::F32, Rows::Tokens, a * kept * c);
    let n = b.input(DType::I32, Rows::Tokens, a * kept * c);
    let out = b.output(DType::F32, Rows::Tokens, kept);
    let counts = b.output(DType::I32, Rows::Tokens, kept);
    for (from, into) in [(x, out), (n, counts)] {
        let args = vec![row(from, &[c, kept * c, 1])];
        let (extents, over) = (fixed(&[kept]), fixed(&[a, c]));
        let op = ReduceOp::Sum;
        b.step(rows(
            Rows::Tokens,
            vec![RowOp::Reduce { op, extents, over, expr: arg(0), args, into: row(into, &[1]) }],
        ));
    }
    let count = 2 * a * kept * c;
    let pass = PassInput { tokens: 2, first_output: 0, inputs: vec![b.values(count), b.indices(count, 100)] };
    check(&b, &[pass], 1e-5);
}

#[test]
fn a_nan_is_the_maximum_and_the_minimum() {
    let mut b = Building::new(9);
    let x = b.input(DType::F32, Rows::Tokens, 40);
    for op in [ReduceOp::Max, ReduceOp::Min] {
        let out = b.output(DType::F32, Rows::Tokens, 1);
        let args = vec![row(x, &[1])];
        let into = row(out, &[]);
        b.step(rows(
            Rows::Tokens,
            vec![RowOp::Reduce { op, extents: vec![], over: fixed(&[40]), expr: arg(0), args, into }],
        ));
    }
    let mut values = b.values(120);
    values[5] = f64::NAN;
    values[40 + 39] = f64::NAN;
    check(&b, &[PassInput { tokens: 3, first_output: 0, inputs: vec![values] }], 0.0);
}

#[test]
fn top_k_with_ties_and_nan() {
    for (groups, len, k) in
        [(1, 1, 1), (1, 8, 2), (3, 5, 5), (2, 64, 8), (1, 130, 6), (4, 16, 3), (3, 512, 8), (1, 1300, 9)]
    {
        let mut b = Building::new(len);
        let x = b.input(DType::F32, Rows::Tokens, groups * len);
        for strides in [[len, 1], [1, groups]] {
            let values = b.output(DType::F32, Rows::Tokens, groups * k);
            let indices = b.output(DType::I32, Rows::Tokens, groups * k);
            b.step(rows(
                Rows::Tokens,
                vec![RowOp::TopK {
                    extents: fixed(&[groups]),
                    len: Extent::Fixed(len),
                    k: Extent::Fixed(k),
                    work: None,
                    arg: row(x, &strides),
                    values: row(values, &[k, 1]),
                    indices: row(indices, &[k, 1]),
                }],
            ));
        }
        let tokens = 6;
        let mut values = b.values(tokens * groups * len);
        let size = (groups * len) as usize;
        // The second token ties everywhere, the third has few numbers, the fourth mixes zeros.
        values[size..2 * size].fill(0.25);
        values[2 * size..3 * size].fill(f64::NAN);
        values[3 * size - 1] = f64::NEG_INFINITY;
        values[3 * size..4 * size].iter_mut().enumerate().for_each(|(at, value)| *value = [0.0, -0.0][at % 2]);
        values[4 * size..5 * size].iter_mut().for_each(|value| *value = (*value * 3.0).round());
        check(&b, &[PassInput { tokens, first_output: 0, inputs: vec![values] }], 0.0);
    }
}

/// More values than a warp takes at once, more targets than threads; some values go nowhere.
#[test]
fn values_to_many_targets() {
    let (kept, over, count) = (2, 150, 300);
    let mut b = Building::new(14);
    let x = b.input(DType::F32, Rows::Tokens, kept * over);
    let places = b.input(DType::I32, Rows::Tokens, kept * over);
    for dtype in [DType::F32, DType::I32] {
        let out = b.output(dtype, Rows::Tokens, kept * count);
        b.step(rows(
            Rows::Tokens,
            vec![RowOp::ScatterAdd {
                extents: fixed(&[kept]),
                over: fixed(&[over]),
                count: Extent::Fixed(count),
                index: row(places, &[over, 1]),
                expr: arg(0),
                args: vec![row(if dtype == DType::F32 { x } else { places }, &[over, 1])],
                into: row(out, &[count, 1]),
            }],
        ));
    }
    let tokens = 4;
    // Of the first token, few targets get all; elsewhere, they are anywhere, and outside.
    let place = |(at, place): (usize, f64)| if at < 300 { place % 3.0 } else { place - 9.0 };
    let places = b.indices(tokens * kept * over, count + 20).into_iter().enumerate().map(place).collect();
    let inputs = vec![b.values(tokens * kept * over), places];
    check(&b, &[PassInput { tokens, first_output: 0, inputs }], 1e-5);
}

#[test]
fn a_router_in_one_program() {
    let (width, experts, k) = (48, 10, 3);
    let mut b = Building::new(12);
    let x = b.input(DType::F32, Rows::Tokens, width);
    let w = b.param(Layout::Plain { elements: experts * width }, DType::Bf16, 1, 1);
    let mask = b.literal(DType::Bool, (0..experts).map(|e| f64::from(e % 4 != 1)).collect());
    let weights = b.output(DType::F32, Rows::Tokens, k);
    let indices = b.output(DType::I32, Rows::Tokens, k);
    let [scores, chosen, most, total] = [0, 1, 2, 3].map(|at| Source::Local(LocalId(at)));
    let local = |elements| Local { dtype: DType::F32, elements };
    let shifted = Expr::unary(UnaryOp::Exp, Expr::binary(BinaryOp::Sub, arg(0), arg(1)));
    let program = RowProgram {
        locals: vec![local(experts), local(k), local(1), local(1)],
        ops: vec![
            RowOp::Reduce {
                op: ReduceOp::Sum,
                extents: fixed(&[experts]),
                over: fixed(&[width]),
                expr: mul(arg(0), arg(1)),
                args: vec![row(x, &[0, 1]), view(Source::Param(w), 0, &[width, 1])],
                into: view(scores, 0, &[1]),
            },
            map(
                &[experts],
                Expr::select(arg(1), arg(0), Expr::F32(f32::NEG_INFINITY)),
                vec![view(scores, 0, &[1]), view(Source::Literal(mask), 0, &[1])],
                view(scores, 0, &[1]),
            ),
            RowOp::TopK {
                extents: vec![],
                len: Extent::Fixed(experts),
                k: Extent::Fixed(k),
                work: None,
                arg: view(scores, 0, &[1]),
                values: view(chosen, 0, &[1]),
                indices: row(indices, &[1]),
            },
            RowOp::Reduce {
                op: ReduceOp::Max,
                extents: vec![],
                over: fixed(&[k]),
                expr: arg(0),
                args: vec![view(chosen, 0, &[1])],
                into: view(most, 0, &[]),
            },
            map(&[k], shifted, vec![view(chosen, 0, &[1]), view(most, 0, &[0])], view(chosen, 0, &[1])),
            RowOp::Reduce {
                op: ReduceOp::Sum,
                extents: vec![],
                over: fixed(&[k]),
                expr: arg(0),
                args: vec![view(chosen, 0, &[1])],
                into: view(total, 0, &[]),
            },
            map(
                &[k],
                Expr::binary(BinaryOp::Div, arg(0), arg(1)),
                vec![view(chosen, 0, &[1]), view(total, 0, &[0])],
                row(weights, &[1]),
            ),
        ],
    };
    b.step(StepKind::Rows { rows: Rows::Tokens, program, group: None });
    let pass = PassInput { tokens: 9, first_output: 0, inputs: vec![b.values(9 * width)] };
    check(&b, &[pass], 1e-6);
}
