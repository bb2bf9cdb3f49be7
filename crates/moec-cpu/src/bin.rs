//! Sorting choices by expert: a counting sort by one thread, in place of the offsets.

use moec_plan::Bin;

use crate::{
    builder::{Builder, Cmp, Elem, I32, Val},
    frame::Frame,
};

/// What of it each thread does: thread 0 all, the others nothing.
pub fn emit(b: &Builder, frame: &Frame, bin: &Bin) {
    b.when(b.cmp(Cmp::Eq, frame.thread, b.i64(0)), |b| sort(b, frame, bin));
}

fn sort(b: &Builder, frame: &Frame, bin: &Bin) {
    let [indices, offsets, order] = [bin.indices, bin.offsets, bin.order].map(|id| frame.buffer(b, id).base);
    let slot_of = bin.slot_of.map(|id| frame.buffer(b, id).base);
    let tokens = frame.rows(b, bin.tokens).1;
    let count = b.mul(tokens, b.i64(bin.choices as i64));
    let experts = b.i64(bin.experts as i64);
    let [zero, one] = [b.i64(0), b.i64(1)];
    let at = |b: &Builder, array: Val, at: Val| b.offset(array, b.shl(at, 2));
    let read = |b: &Builder, array: Val, index: Val| b.widen_signed(b.load(I32, at(b, array, index)), Elem::I64);
    let write =
        |b: &Builder, array: Val, index: Val, value: Val| b.store(b.narrow(value, Elem::I32), at(b, array, index));
    // The bucket of a choice; those without an expert share one at the end, whose count is not kept.
    let bucket = |b: &Builder, choice: Val| {
        let expert = read(b, indices, choice);
        b.select(b.cmp(Cmp::Below, expert, experts), expert, experts)
    };

    // offsets[e] = how many choose e.
    b.repeat(b.add(experts, one), |b, expert| write(b, offsets, expert, zero));
    b.repeat(count, |b, choice| {
        let bucket = bucket(b, choice);
        write(b, offsets, bucket, b.add(read(b, offsets, bucket), one));
    });
    // offsets[e] = the first slot of e.
    b.for_loop([zero, b.add(experts, one), one], &[zero], |b, expert, before| {
        let here = read(b, offsets, expert);
        write(b, offsets, expert, before[0]);
        vec![b.add(before[0], here)]
    });
    // Placing moves offsets[e] to the end of e, which is where e + 1 began.
    b.repeat(count, |b, choice| {
        let bucket = bucket(b, choice);
        let slot = read(b, offsets, bucket);
        write(b, order, slot, choice);
        if let Some(slot_of) = slot_of {
            let known = b.cmp(Cmp::Lt, bucket, experts);
            write(b, slot_of, choice, b.select(known, slot, b.i64(-1)));
        }
        write(b, offsets, bucket, b.add(slot, one));
    });
    b.for_loop([zero, b.add(experts, one), one], &[zero], |b, expert, before| {
        let end = read(b, offsets, expert);
        write(b, offsets, expert, before[0]);
        vec![end]
    });

    let weights = frame.buffer(b, bin.weights).base;
    frame.trace(b, bin.route, indices, weights, [tokens, b.i64(bin.choices as i64)]);
}
