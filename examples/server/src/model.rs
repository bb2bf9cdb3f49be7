//! What `moec build` wrote, opened: a model from tokens to logits.

use std::{error::Error, fs, path::Path, sync::Arc};

use moec_program::{
    manifest::{Manifest, VERSION},
    native::{self, NativeError, Session, Turn},
};

/// Positions of a session where the build does not say how many the model was made for.
const USUAL_CONTEXT: usize = 4096;

/// How a model is opened; 0 is the library's own choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub threads: i32,
    /// For the caches of all sessions together.
    pub cache_mib: i32,
}

pub struct Model {
    pub about: Manifest,
    /// Floats in a row of logits.
    pub vocabulary: usize,
    library: Arc<native::Model>,
}

impl Model {
    pub fn open(folder: &Path, options: Options) -> Result<Model, Box<dyn Error>> {
        let path = folder.join("build.json");
        let about =
            fs::read(&path).map_err(|error| format!("{}: {error}: did `moec build` write it?", path.display()))?;
        let about: Manifest = serde_json::from_slice(&about).map_err(|error| format!("{}: {error}", path.display()))?;
        if about.version != VERSION {
            return Err(format!("{} has version {}, and this reads {VERSION}", path.display(), about.version).into());
        }
        let Some(vocabulary) = about.vocabulary.filter(|_| about.start_token.is_none()) else {
            return Err(format!("{} does not go from tokens to logits", about.model).into());
        };
        let (library, weights) = (about.library(folder), about.weights(folder));
        let options =
            native::Options { threads: options.threads, cache_mib: options.cache_mib, ..native::Options::default() };
        let library = native::Model::open(&library, &about.model, &weights, options)?;
        Ok(Model { about, vocabulary, library })
    }

    /// The most positions of a session.
    pub fn context(&self) -> usize {
        self.about.context.unwrap_or(USUAL_CONTEXT)
    }

    pub fn session(&self) -> Result<Session, NativeError> {
        self.library.session(self.context())
    }

    /// Steps all sessions at once: either all turns are done, or none.
    pub fn step(&self, turns: &mut [Turn]) -> Result<(), NativeError> {
        self.library.step_together(turns, self.vocabulary)
    }

    /// Bytes of all sessions' caches.
    pub fn cache_bytes(&self) -> usize {
        self.library.cache_bytes()
    }
}
