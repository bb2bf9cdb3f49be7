//! One file for each command.

mod bench;
mod build;
mod check;
mod doctor;
mod explain;
mod explain_error;
mod fmt;
mod import;
mod lsp;
mod new;
mod run;
mod shell;
mod trace;
mod verify;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

pub fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Fmt(arguments) => fmt::run(&arguments),
        Command::Lsp(_) => lsp::run(),
        Command::Import(arguments) => import::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man(arguments) => shell::man(&arguments),
        Command::ExplainError(arguments) => explain_error::run(&arguments),
    }
}

/// As the library takes it: 0 lets it choose.
fn threads(asked: Option<usize>) -> i32 {
    asked.map_or(0, |threads| i32::try_from(threads).unwrap_or(i32::MAX))
}
