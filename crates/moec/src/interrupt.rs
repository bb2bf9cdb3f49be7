//! Ctrl-C while something long goes on that can stop in good order.

use std::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// While it lives, the first request to end is noted; the second ends the process as it always does.
pub struct Watch {
    before: [(libc::c_int, libc::sigaction); SIGNALS.len()],
}

impl Watch {
    pub fn begin() -> Watch {
        ASKED.store(false, Ordering::Relaxed);
        Watch { before: SIGNALS.map(|signal| (signal, watch(signal))) }
    }

    /// Whether somebody asked for an end.
    pub fn asked(&self) -> bool {
        ASKED.load(Ordering::Relaxed)
    }
}

/// Returns what was done about the signal before.
fn watch(signal: libc::c_int) -> libc::sigaction {
    // SAFETY: all zeros is an action; the handler does nothing but set a flag, which any thread may do at any time.
    unsafe {
        let mut before: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut before);
        // Who started this in the background may have it ignore the terminal; it goes on doing so.
        if before.sa_sigaction != libc::SIG_IGN {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
        before
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: this is what the system itself gave out.
            unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
        }
    }
}

/// A file that may not grow further is an error of the write, which is explained, and not the end of the process.
pub fn explain_file_limits() {
    // SAFETY: ignoring a signal needs no code of ours to run.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
