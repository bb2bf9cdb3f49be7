//! Balanced assignments: a function of the run time, called by one thread.

use moec_plan::Assign;

use crate::{
    builder::{Builder, Cmp, I64, ModuleBuilder, PTR},
    frame::Frame,
};

const FUNCTION: &str = "moec_assign";

/// Lets the module call the run time's function.
pub fn declare(module: &ModuleBuilder) {
    module.external(FUNCTION, &[PTR, PTR, I64, I64, I64, PTR], &[]);
}

/// What of it each thread does: thread 0 all, the others nothing.
pub fn emit(b: &Builder, frame: &Frame, assign: &Assign) {
    b.when(b.cmp(Cmp::Eq, frame.thread, b.i64(0)), |b| {
        let [score, out, room] = [assign.score, assign.out, assign.room].map(|id| frame.buffer(b, id).base);
        let (tokens, most) = (frame.rows(b, assign.tokens).1, frame.extent(b, assign.most));
        b.call(FUNCTION, &[score, out, tokens, b.i64(assign.experts as i64), most, room], &[]);
    });
}
