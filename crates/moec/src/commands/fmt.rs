//! `moec fmt`: files in canonical form. A file with problems is left as it is.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use moec_diag::SourceMap;

use crate::{cli::Fmt, failure::Failure, files};

pub fn run(arguments: &Fmt) -> Result<(), Failure> {
    let mut failed = false;
    for file in &arguments.files {
        match format(file, arguments.check) {
            Ok(State::Canonical) => {}
            Ok(State::Changed) => {
                if arguments.check {
                    failed = true;
                    eprintln!("{}: not in canonical form: `moec fmt {0}` changes it", file.display());
                }
            }
            Err(failure) => {
                failed = true;
                failure.print();
            }
        }
    }
    if failed { Err(Failure::verdict()) } else { Ok(()) }
}

enum State {
    Canonical,
    Changed,
}

fn format(file: &Path, check: bool) -> Result<State, Failure> {
    let standard = file == Path::new("-");
    let bytes = if standard { standard_input()? } else { files::read(file, SPEC_BYTES)? };
    let mut sources = SourceMap::default();
    let name = if standard { "standard input".to_owned() } else { file.display().to_string() };
    let text =
        moec_format::format(&mut sources, &name, &bytes).map_err(|problems| Failure::problems(problems, &sources))?;
    let state = if text.as_bytes() == bytes { State::Canonical } else { State::Changed };
    match (&state, check, standard) {
        (_, true, _) | (State::Canonical, false, false) => {}
        (_, false, true) => io::stdout().write_all(text.as_bytes()).map_err(|cause| cannot_write(file, cause))?,
        (State::Changed, false, false) => replace(file, &text)?,
    }
    Ok(state)
}

/// What is read at most; the parser's own limit is smaller and explains itself.
const SPEC_BYTES: u64 = 64 << 20;

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(SPEC_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|cause| files::CannotRead { path: "-".into(), cause })?;
    Ok(bytes)
}

/// The file's new text; links are followed, permissions stay.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let fail = |cause| cannot_write(file, cause);
    let target = fs::canonicalize(file).map_err(fail)?;
    let permissions = fs::metadata(&target).map_err(fail)?.permissions();
    files::write(&target, text.as_bytes())?;
    fs::set_permissions(&target, permissions).map_err(fail)?;
    Ok(())
}

fn cannot_write(file: &Path, cause: io::Error) -> files::CannotWrite {
    files::CannotWrite { path: file.into(), cause }
}
