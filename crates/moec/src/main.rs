//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    moec::run(std::env::args_os())
}
