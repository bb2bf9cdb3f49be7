//! The program that `moec build --emit exe` puts models into. It has nothing of the compiler.

use std::process::ExitCode;

fn main() -> ExitCode {
    moec_program::program::main()
}
