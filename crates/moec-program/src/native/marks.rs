//! How long each step of a pass takes, by a library that was built to mark them: its observer is told of steps by negative
//! numbers of routes.

use std::{ffi::c_void, ptr, time::Instant};

use super::Session;

/// From one mark to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The one that it begins with.
    pub mark: i32,
    pub seconds: f64,
}

/// What began when.
#[derive(Default)]
struct Begun(Vec<(i32, Instant)>);

impl Session {
    /// Does `work` and reports what was marked meanwhile, in order.
    pub fn timed<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> (T, Vec<Interval>) {
        let mut begun = Begun::default();
        let user = (&raw mut begun).cast::<c_void>();
        // SAFETY: `note` casts `user` back to the type it is; the trace ends before `begun` does.
        unsafe { (self.model.functions.session_trace)(self.handle, Some(note), user) };
        let result = work(self);
        unsafe { (self.model.functions.session_trace)(self.handle, None, ptr::null_mut()) };
        let interval = |pair: &[(i32, Instant)]| Interval {
            mark: pair[0].0,
            seconds: pair[1].1.duration_since(pair[0].1).as_secs_f64(),
        };
        (result, begun.0.windows(2).map(interval).collect())
    }
}

/// Keeps marks, and lets routes be.
extern "C" fn note(user: *mut c_void, route: i32, _: i32, _: *const i32, _: *const f32, _: i64, _: i64) {
    if route < 0 {
        // SAFETY: `user` is what `timed` gave.
        unsafe { &mut *user.cast::<Begun>() }.0.push((route, Instant::now()));
    }
}
