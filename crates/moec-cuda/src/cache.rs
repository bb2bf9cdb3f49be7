//! Compiled kernels that are kept: NVRTC takes a good part of a minute for a model, and most builds change nothing about its
//! kernels.
//!
//! An entry is one file, named by the checksum of what was compiled and how. It holds all of that, too, so that two never fall
//! together, and a checksum of itself: what does not fit is compiled again. Entries are written beside and renamed. Any of them
//! may be removed at any time.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use moec_codegen::Checksum;

use crate::nvrtc::{Compiled, Compiler, NvrtcError};

const MAGIC: &[u8; 8] = b"MOECKRN1";

/// Where compiled kernels are kept.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// `moec/kernels` in the user's folder for caches; none where there is no such folder.
    pub fn of_user() -> Cache {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        Cache { folder: caches.map(|caches| caches.join("moec/kernels")) }
    }

    pub fn in_folder(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_owned()) }
    }

    /// What `compiler` makes of the text, and whether it was kept from before. A cache that cannot be written is none.
    pub fn compile(&self, compiler: &Compiler, text: &str, architecture: &str) -> Result<(Compiled, bool), NvrtcError> {
        let key = [&compiler.version(), "\n", &compiler.options(architecture).join(" "), "\n", text].concat();
        let path = self.folder.as_ref().map(|folder| folder.join(format!("{:016x}", Checksum::of(key.as_bytes()))));
        if let Some(kept) = path.as_ref().and_then(|path| read(path, &key)) {
            return Ok((kept, true));
        }
        let compiled = compiler.compile(text, architecture)?;
        if let Some(path) = path {
            // Nothing is lost without it but time.
            let _ = write(&path, &key, &compiled);
        }
        Ok((compiled, false))
    }
}

/// The parts of an entry, each after its length.
fn entry(parts: [&[u8]; 3]) -> Vec<u8> {
    parts.iter().flat_map(|part| (part.len() as u64).to_le_bytes().into_iter().chain(part.iter().copied())).collect()
}

fn read(path: &Path, key: &str) -> Option<Compiled> {
    let bytes = fs::read(path).ok()?;
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (checksum, mut rest) = rest.split_first_chunk::<8>()?;
    if magic != MAGIC || u64::from_le_bytes(*checksum) != Checksum::of(rest) {
        return None;
    }
    let mut part = || {
        let (length, more) = rest.split_first_chunk::<8>()?;
        let (part, more) = more.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        rest = more;
        Some(part.to_vec())
    };
    let (its_key, code, log) = (part()?, part()?, part()?);
    (its_key == key.as_bytes()).then(|| Compiled { code, log: String::from_utf8_lossy(&log).into_owned() })
}

fn write(path: &Path, key: &str, compiled: &Compiled) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let rest = entry([key.as_bytes(), &compiled.code, compiled.log.as_bytes()]);
    let bytes = [&MAGIC[..], &Checksum::of(&rest).to_le_bytes(), &rest].concat();
    let beside = path.with_extension(format!("{}.{:?}", std::process::id(), std::thread::current().id()));
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
