//! Top-k: as many passes over sortable keys as there are elements to choose.

use moec_plan::{Extent, View};

use super::{along_lanes, loops, nest};
use crate::{
    builder::{Builder, Cmp, Elem, Ty, Val},
    view::{Lanes, Motion, Row},
};

/// Passes over keys: i32 that sort as the floats do, NaN below all numbers and what was taken below that.
pub fn top_k(
    b: &Builder,
    row: &Row,
    extents: &[Extent],
    [len, k]: [u64; 2],
    [arg, values, indices]: [&View; 3],
    keys: Val,
) {
    const TAKEN: i64 = i32::MIN as i64;
    let width = row.frame.level.lanes();
    let ty = Ty::vector(Elem::I32, width);
    let padded_len = len.next_multiple_of(u64::from(width));
    let along = extents.len();
    let contiguous = row.motion(arg, along) == Motion::Contiguous && len >= u64::from(width);
    let mut ivs = vec![b.i64(0); along + 1];
    let one = |b: &Builder, ivs: &mut Vec<Val>| {
        let fill = |b: &Builder, ivs: &[Val], lanes: Lanes| {
            let key = sort_key(b, row.load(b, arg, ivs, lanes));
            b.store(key, b.offset(keys, b.shl(ivs[along], 2)));
        };
        if padded_len > len {
            b.store(b.int(ty, TAKEN), b.offset_by(keys, 4 * (padded_len - u64::from(width)) as i64));
        }
        if contiguous {
            along_lanes(b, Extent::Fixed(len), (along, width), ivs, &mut |b, ivs, lanes| fill(b, ivs, lanes));
        } else {
            b.repeat(b.i64(len as i64), |b, iv| {
                ivs[along] = iv;
                fill(b, ivs, None);
            });
        }
        b.repeat(b.i64(k as i64), |b, turn| {
            let best = [b.int(ty, TAKEN), b.int(ty, 0)];
            let range = [0, padded_len as i64, i64::from(width)].map(|at| b.i64(at));
            let best = b.for_loop(range, &best, |b, iv, best| {
                let key = b.load(ty, b.offset(keys, b.shl(iv, 2)));
                let at = b.add(b.iota(width), b.splat(b.narrow(iv, Elem::I32), width));
                let better = b.cmp(Cmp::Gt, key, best[0]);
                vec![b.select(better, key, best[0]), b.select(better, at, best[1])]
            });
            let at = b.widen_signed(first_of_largest(b, best[0], best[1]), Elem::I64);
            b.store(b.int(Ty::scalar(Elem::I32), TAKEN), b.offset(keys, b.shl(at, 2)));
            ivs[along] = at;
            let value = row.load(b, arg, ivs, None);
            ivs[along] = turn;
            row.store(b, values, ivs, None, value);
            row.store(b, indices, ivs, None, b.narrow(at, Elem::I32));
        });
    };
    let outer = loops(extents, 0..along, None);
    nest(b, row.frame, &outer, &mut ivs, &mut |b, ivs| one(b, ivs));
}

/// The index of the largest key; of equal ones, the least index.
fn first_of_largest(b: &Builder, mut keys: Val, mut at: Val) -> Val {
    while keys.ty.lanes > 1 {
        let half = keys.ty.lanes / 2;
        let [key, other] = [0, half].map(|first| b.part(keys, first, half));
        let [index, other_index] = [0, half].map(|first| b.part(at, first, half));
        let larger = b.cmp(Cmp::Gt, other, key);
        let earlier = b.and(b.cmp(Cmp::Eq, other, key), b.cmp(Cmp::Lt, other_index, index));
        let better = b.or(larger, earlier);
        keys = b.select(better, other, key);
        at = b.select(better, other_index, index);
    }
    b.lane(at, 0)
}

/// An i32 that compares as the float does: -0 equals 0, and NaN is one above the least.
pub fn sort_key(b: &Builder, x: Val) -> Val {
    let positive_zero = b.add(x, b.float(x.ty, 0.0));
    let bits = b.bits(positive_zero, Elem::I32);
    let flip = b.and(b.shr(bits, 31), b.int(bits.ty, 0x7fff_ffff));
    let is_nan = b.cmp(Cmp::Ne, x, x);
    b.select(is_nan, b.int(bits.ty, i64::from(i32::MIN) + 1), b.xor(bits, flip))
}
