//! Items of a step that another thread may take over.
//!
//! Every thread has its share of the items, one behind the other, and takes them in turn from a counter. Who has no more takes
//! from the counters of the next threads: so all finish within an item of each other, however fast each may be, and nobody is
//! sent to sleep at the barrier. Which thread computes an item changes nothing in it.
//!
//! Counters stand before the scratch of their thread. There are two, for steps in turn: while one is used, its owner sets the
//! other to zero, for no thread uses that before the next barrier.

use crate::{
    builder::{Builder, Cmp, I64, Val},
    frame::Frame,
};

/// What stands before the scratch of each thread: two counters and which is next, in lines of their own.
pub const BYTES: i64 = 3 * LINE;

const LINE: i64 = 64;
const NEXT: i64 = 2 * LINE;

/// So many shares, its own among them, a thread takes items of: to go through them without finding one costs time as well.
const SHARES: i64 = 4;

/// Before the first step of a pass: `place` is before the thread's scratch.
pub fn begin_pass(b: &Builder, place: Val) {
    for at in [0, LINE, NEXT] {
        b.store(b.i64(0), b.offset_by(place, at));
    }
}

/// For each share of `0 .. count` that the thread takes items of: from, up to, and the counter of its items.
///
/// Others take part only where a barrier stands before the step.
pub fn shares(b: &Builder, frame: &Frame, has_barrier: bool, count: Val, body: impl FnOnce(&Builder, (Val, Val), Val)) {
    if !has_barrier {
        let counter = b.stack(8);
        b.store(b.i64(0), counter);
        return body(b, frame.share(b, count), counter);
    }
    let own = frame.before_scratch(b, frame.thread);
    let turn = b.load(I64, b.offset_by(own, NEXT));
    let next = b.xor(turn, b.i64(1));
    b.store(next, b.offset_by(own, NEXT));
    b.store(b.i64(0), b.offset(own, b.mul(next, b.i64(LINE))));
    b.repeat(b.min(frame.threads, b.i64(SHARES)), |b, at| {
        let thread = b.add(frame.thread, at);
        let beyond = b.cmp(Cmp::Ge, thread, frame.threads);
        let thread = b.select(beyond, b.sub(thread, frame.threads), thread);
        let counter = b.offset(frame.before_scratch(b, thread), b.mul(turn, b.i64(LINE)));
        body(b, frame.share_of(b, thread, count), counter);
    });
}

/// Takes the next item: its number within the share, counted on where there are no more.
pub fn take(b: &Builder, counter: Val) -> Val {
    b.fetch_add(counter, b.i64(1))
}
