//! `moec check`: every problem of every file, and nothing else.

use crate::{cli::Check, failure::Failure, spec};

pub fn run(arguments: &Check) -> Result<(), Failure> {
    let mut failed = false;
    for file in &arguments.files {
        match spec::sound(file, &arguments.settings) {
            Ok(_) if arguments.json => {}
            Ok(_) => eprintln!("{}: fine", file.display()),
            Err(failure) => {
                failed = true;
                if arguments.json { print!("{}", failure.json_lines()) } else { failure.print() }
            }
        }
    }
    if failed { Err(Failure::verdict()) } else { Ok(()) }
}
