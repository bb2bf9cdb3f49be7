//! The driver: it alone opens files, runs tools and prints.
//!
//! Exit codes: 0 fine, 1 the user's problem (explained), 2 wrong usage, 3 not supported by the target, 101 a bug in moec, 130 interrupted.

mod artefact;
mod checkpoint;
mod cli;
mod commands;
mod compile;
mod cost;
mod count;
mod cuda;
mod emit;
mod failure;
mod families;
mod files;
mod interrupt;
mod manifest;
mod own_files;
mod page;
mod placement;
mod quant;
mod roof;
mod routes;
mod spec;
mod tensors;
mod weights;

use std::{ffi::OsString, panic, process::ExitCode};

use clap::Parser;
use moec_program::{generate, native};

pub use failure::Failure;

/// Exit code of a panic: a bug in moec.
const BUG: u8 = 101;

/// Runs one command line, its first word being the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    panic::set_hook(Box::new(|panic| {
        eprintln!("moec: this is a bug in moec, not in your input: {panic}");
        eprintln!("Please report it with the command line and the files that lead here.");
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
    }));
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    interrupt::explain_file_limits();
    // Deep but bounded recursion (parsing, elaboration) must not depend on the main thread's stack.
    let worker = std::thread::Builder::new().name("moec".into()).stack_size(256 << 20);
    let handle = worker.spawn(move || match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    });
    match handle.map(|handle| handle.join()) {
        Ok(Ok(code)) => code,
        Ok(Err(_)) => ExitCode::from(BUG),
        Err(error) => {
            eprintln!("moec: cannot start a thread: {error}");
            ExitCode::from(1)
        }
    }
}
