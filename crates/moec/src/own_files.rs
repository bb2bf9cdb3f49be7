//! Files of one's own that a spec uses, on disk.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::{
    files::{self, ReadProblem},
    spec::SPEC_BYTES,
};

/// Opens files by their path, as they are named on the command line and in each other.
#[derive(Default)]
pub struct OnDisk {
    read: ReadFiles,
}

/// Which files were opened so far.
#[derive(Clone, Default)]
pub struct ReadFiles(Arc<Mutex<Vec<PathBuf>>>);

impl ReadFiles {
    /// In the order in which they were opened first.
    pub fn list(&self) -> Vec<PathBuf> {
        self.0.lock().map(|read| read.clone()).unwrap_or_default()
    }

    fn note(&self, name: &str) {
        if let Ok(mut read) = self.0.lock()
            && !read.iter().any(|path| path == Path::new(name))
        {
            read.push(name.into());
        }
    }
}

impl OnDisk {
    pub fn noting(read: &ReadFiles) -> OnDisk {
        OnDisk { read: read.clone() }
    }
}

impl moec_sema::Open for OnDisk {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        self.read.note(name);
        files::read(Path::new(name), SPEC_BYTES).map_err(|problem| match problem {
            ReadProblem::CannotRead(problem) => problem.cause.to_string(),
            ReadProblem::TooLarge(problem) => format!("it has more than {} bytes", problem.limit),
        })
    }

    fn near(&self, name: &str) -> Vec<String> {
        let folder = name.rfind('/').map_or("", |at| &name[..=at]);
        let listed = std::fs::read_dir(if folder.is_empty() { "." } else { folder });
        let entries = listed.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut near: Vec<String> =
            entries.filter(|name| name.ends_with(".moe")).map(|name| [folder, &name].concat()).collect();
        near.sort();
        near
    }
}
