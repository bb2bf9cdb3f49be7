//! One file for each command.

mod check;
mod import;
mod new;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

pub fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    }
}
