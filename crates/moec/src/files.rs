//! Reading and writing files, with problems that name the file; nothing half-written is ever left behind.

use std::{
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use thiserror::Error;

#[derive(Debug, Error, Diagnostic)]
#[error("cannot read {}: {cause}", path.display())]
#[diagnostic(code(moec::files::cannot_read), help("{}", help_for(cause)))]
pub struct CannotRead {
    pub path: PathBuf,
    pub cause: io::Error,
}

#[derive(Debug, Error, Diagnostic)]
#[error("cannot write {}: {cause}", path.display())]
#[diagnostic(code(moec::files::cannot_write), help("{}", help_for(cause)))]
pub struct CannotWrite {
    pub path: PathBuf,
    pub cause: io::Error,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} is there already", path.display())]
#[diagnostic(code(moec::files::exists), help("give another name, or `--force` to overwrite it"))]
pub struct Exists {
    pub path: PathBuf,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} is larger than {limit} bytes", path.display())]
#[diagnostic(code(moec::files::too_large), help("is this the file you meant?"))]
pub struct TooLarge {
    pub path: PathBuf,
    pub limit: u64,
}

fn help_for(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "no such file or folder: check the path",
        io::ErrorKind::PermissionDenied => "this user may not: check the permissions",
        io::ErrorKind::IsADirectory => "this is a folder: name a file",
        io::ErrorKind::NotADirectory => "a part of the path is a file, not a folder",
        io::ErrorKind::StorageFull => "the disk is full",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only: write elsewhere",
        _ => "the operating system says no more than this",
    }
}

/// What a read that is bounded in size may run into.
#[derive(Debug, Error, Diagnostic)]
pub enum ReadProblem {
    #[error(transparent)]
    #[diagnostic(transparent)]
    CannotRead(#[from] CannotRead),
    #[error(transparent)]
    #[diagnostic(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The whole file, if it has at most `limit` bytes. Never blocks on something that is no regular file.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadProblem> {
    let fail = |cause| CannotRead { path: path.into(), cause };
    let meta = fs::metadata(path).map_err(fail)?;
    if meta.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()).into());
    }
    if !meta.is_file() {
        return Err(fail(io::Error::other("not a regular file")).into());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(TooLarge { path: path.into(), limit }.into());
    }
    Ok(bytes)
}

/// Writes beside the target, then renames: whoever looks sees the old file or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), CannotWrite> {
    let fail = |cause| CannotWrite { path: path.into(), cause };
    let mut file = tempfile::Builder::new().prefix(".moec-").tempfile_in(parent(path)).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    readable_by_all(file.path()).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// The folder that a file stands in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Temporary files are private; what a build leaves behind follows the usual permissions.
pub fn readable_by_all(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o644))
}

/// Makes a folder and all above it.
pub fn make_folder(path: &Path) -> Result<(), CannotWrite> {
    fs::create_dir_all(path).map_err(|cause| CannotWrite { path: path.into(), cause })
}
