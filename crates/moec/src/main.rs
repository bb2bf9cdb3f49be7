//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A reader that goes away (`moec explain … | head -1`) ends this program quietly, as it does others.
    // SAFETY: no thread runs yet, and the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    moec::run(std::env::args_os())
}
