//! Top-k by sorting everything: for many elements, or many of them chosen. A radix sort, byte by byte, of (key, index).

use moec_plan::{Extent, View, Work};

use super::{loops, nest, top_k::sort_key};
use crate::{
    builder::{Builder, Elem, F32, I32, I64, Val},
    view::Row,
};

/// Counters of one byte's values.
const BUCKETS: i64 = 256;

/// The largest `k` of `len` elements, largest first, equal ones by index.
pub fn sort(
    b: &Builder,
    row: &Row,
    extents: &[Extent],
    [len, k]: [Extent; 2],
    [arg, values, indices]: [&View; 3],
    work: Work,
) {
    let frame = row.frame;
    let along = extents.len();
    let (len, k) = (frame.extent(b, len), frame.extent(b, k));
    let counts = b.stack(BUCKETS * 8);
    let area_bytes = b.mul(len, b.i64(4 * Work::ELEMENTS as i64));
    let turns = |b: &Builder| extents.iter().fold(b.i64(1), |turns, extent| b.mul(turns, frame.extent(b, *extent)));
    let area = |b: &Builder, ivs: &[Val]| match work {
        Work::Local(id) => b.offset_by(frame.scratch, row.locals[id.0 as usize] as i64),
        Work::Buffer(id) => {
            let start = b.mul(row.row, turns(b));
            let flat = extents
                .iter()
                .zip(ivs)
                .fold(b.i64(0), |flat, (extent, iv)| b.add(b.mul(flat, frame.extent(b, *extent)), *iv));
            b.offset(frame.buffer(b, id).base, b.mul(b.add(start, flat), area_bytes))
        }
    };
    let mut ivs = vec![b.i64(0); along + 1];
    nest(b, frame, &loops(extents, 0..along, None), &mut ivs, &mut |b, ivs| {
        let first = area(b, ivs);
        let second = b.offset(first, b.shl(len, 3));
        b.repeat(len, |b, at| {
            ivs[along] = at;
            let key = sort_key(b, row.load(b, arg, ivs, None));
            // Unsigned, and the largest key first.
            let rank = b.widen(b.xor(key, b.int(I32, 0x7fff_ffff)), Elem::I64);
            b.store(b.add(b.shl(rank, 32), at), entry(b, first, at));
        });
        for (byte, [from, to]) in (4..8).zip([[first, second], [second, first]].into_iter().cycle()) {
            by_byte(b, 8 * byte, len, counts, from, to);
        }
        let found = b.min(k, len);
        b.repeat(found, |b, turn| {
            let at = b.and(b.load(I64, entry(b, first, turn)), b.i64(0xffff_ffff));
            ivs[along] = at;
            let value = row.load(b, arg, ivs, None);
            ivs[along] = turn;
            row.store(b, values, ivs, None, value);
            row.store(b, indices, ivs, None, b.narrow(at, Elem::I32));
        });
        b.range(found, k, b.i64(1), |b, turn| {
            ivs[along] = turn;
            row.store(b, values, ivs, None, b.float(F32, f32::NAN));
            row.store(b, indices, ivs, None, b.int(I32, 0));
        });
    });
}

fn entry(b: &Builder, array: Val, at: Val) -> Val {
    b.offset(array, b.shl(at, 3))
}

/// Brings `from` to `to` in the order of the byte at `bit`, stably.
fn by_byte(b: &Builder, bit: i64, len: Val, counts: Val, from: Val, to: Val) {
    let bucket = |b: &Builder, item: Val| entry(b, counts, b.and(b.shr_unsigned(item, bit), b.i64(BUCKETS - 1)));
    b.repeat(b.i64(BUCKETS), |b, at| b.store(b.i64(0), entry(b, counts, at)));
    b.repeat(len, |b, at| {
        let place = bucket(b, b.load(I64, entry(b, from, at)));
        b.store(b.add(b.load(I64, place), b.i64(1)), place);
    });
    b.for_loop([b.i64(0), b.i64(BUCKETS), b.i64(1)], &[b.i64(0)], |b, at, before| {
        let place = entry(b, counts, at);
        let here = b.load(I64, place);
        b.store(before[0], place);
        vec![b.add(before[0], here)]
    });
    b.repeat(len, |b, at| {
        let item = b.load(I64, entry(b, from, at));
        let place = bucket(b, item);
        let next = b.load(I64, place);
        b.store(item, entry(b, to, next));
        b.store(b.add(next, b.i64(1)), place);
    });
}
