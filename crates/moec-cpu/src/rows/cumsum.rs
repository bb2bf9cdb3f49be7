//! Running sums: lanes and loops along what is kept, one turn after the other along the sum.

use moec_plan::{Extent, View};
use moec_types::{DType, Expr};

use super::{along_lanes, lanes_along, loops, nest};
use crate::{
    builder::{Builder, Elem, Ty, Val},
    expr,
    view::{Lanes, Row, is_indirect},
};

pub fn cumsum(b: &Builder, row: &Row, extents: &[Extent], along: Extent, expr: &Expr, args: &[View], into: &View) {
    if extents.contains(&Extent::Fixed(0)) {
        return;
    }
    let kept = extents.len();
    let dtype = row.dtype(into.source);
    let one = |b: &Builder, ivs: &[Val], lanes: Lanes| {
        let count = lanes.map_or(0, |(_, count)| count);
        let zero = match dtype {
            DType::I32 | DType::Bool => b.int(Ty { elem: Elem::I32, lanes: count }, 0),
            DType::F32 | DType::Bf16 | DType::F16 => b.float(Ty { elem: Elem::F32, lanes: count }, 0.0),
        };
        let range = [b.i64(0), row.frame.extent(b, along), b.i64(1)];
        b.for_loop(range, &[zero], |b, iv, sum| {
            let mut ivs = ivs.to_vec();
            ivs[kept] = iv;
            let args: Vec<Val> = args.iter().map(|view| row.load(b, view, &ivs, lanes)).collect();
            let sum = b.add(sum[0], expr::evaluate(b, row.frame.level, expr, &args, count));
            row.store(b, into, &ivs, lanes, sum);
            vec![sum]
        });
    };
    let views: Vec<View> = std::iter::once(into).chain(args).cloned().collect();
    let all: Vec<Extent> = extents.iter().copied().chain([along]).collect();
    let lanes = if is_indirect(into) { None } else { lanes_along(row, &all, 0..kept, &views) };
    let outer = loops(&all, 0..kept, lanes.map(|(along, _)| along));
    let mut ivs = vec![b.i64(0); kept + 1];
    nest(b, row.frame, &outer, &mut ivs, &mut |b, ivs| match lanes {
        None => one(b, ivs, None),
        Some(lanes) => along_lanes(b, all[lanes.0], lanes, ivs, &mut |b, ivs, lanes| one(b, ivs, lanes)),
    });
}
