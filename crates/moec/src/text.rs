//! Text to tokens and back, with the checkpoint's own tokenizer.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;
use tokenizers::Tokenizer;

use crate::{failure::Failure, files};

const TOKENIZER_BYTES: u64 = 256 << 20;

#[derive(Debug, Error, Diagnostic)]
#[error("there is no tokenizer.json beside {}", beside.display())]
#[diagnostic(
    code(moec::text::no_tokenizer),
    help("build with `--weights DIR`, where DIR has the checkpoint's tokenizer.json")
)]
struct NoTokenizer {
    beside: PathBuf,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} cannot be used: {message}", path.display())]
#[diagnostic(code(moec::text::bad_tokenizer))]
struct BadTokenizer {
    path: PathBuf,
    message: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the prompt has no tokens")]
#[diagnostic(code(moec::text::empty_prompt), help("give some text: `--prompt \"Once upon a time\"`"))]
struct EmptyPrompt;

#[derive(Debug)]
pub struct Text {
    tokenizer: Tokenizer,
    path: PathBuf,
}

impl Text {
    /// The tokenizer of a build's folder.
    pub fn open(folder: &Path) -> Result<Text, Failure> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Err(NoTokenizer { beside: folder.into() }.into());
        }
        let bytes = files::read(&path, TOKENIZER_BYTES)?;
        let tokenizer = Tokenizer::from_bytes(&bytes)
            .map_err(|error| BadTokenizer { path: path.clone(), message: error.to_string() })?;
        Ok(Text { tokenizer, path })
    }

    /// The tokens of a prompt: at least one.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>, Failure> {
        let encoding = self.tokenizer.encode(text, true).map_err(|error| self.bad(error))?;
        let ids: Vec<i32> = encoding.get_ids().iter().filter_map(|id| i32::try_from(*id).ok()).collect();
        if ids.is_empty() { Err(EmptyPrompt.into()) } else { Ok(ids) }
    }

    /// Decodes token by token: calls `show` with each piece of text as soon as it is whole (a character may take several
    /// tokens), until `tokens` ends. A character that is not whole by then is left out.
    pub fn stream(
        &self,
        tokens: impl Iterator<Item = Result<i32, Failure>>,
        mut show: impl FnMut(&str),
    ) -> Result<usize, Failure> {
        let mut decoder = self.tokenizer.decode_stream(true);
        let mut count = 0;
        for token in tokens {
            let token = token?;
            count += 1;
            if let Some(piece) = decoder.step(token as u32).map_err(|error| self.bad(error))? {
                show(&piece);
            }
        }
        Ok(count)
    }

    fn bad(&self, error: tokenizers::Error) -> Failure {
        BadTokenizer { path: self.path.clone(), message: error.to_string() }.into()
    }
}
