//! Text to tokens and back, with the checkpoint's own tokenizer.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use thiserror::Error;
use tokenizers::Tokenizer;

const TOKENIZER_BYTES: u64 = 256 << 20;

#[derive(Debug, Error, Diagnostic)]
pub enum TextError {
    #[error("there is no tokenizer.json beside {}", beside.display())]
    #[diagnostic(
        code(moec::text::no_tokenizer),
        help("build with `--weights DIR`, where DIR has the checkpoint's tokenizer.json")
    )]
    NoTokenizer { beside: PathBuf },

    #[error("{} cannot be used: {message}", path.display())]
    #[diagnostic(code(moec::text::bad_tokenizer))]
    BadTokenizer { path: PathBuf, message: String },

    #[error("the prompt has no tokens")]
    #[diagnostic(code(moec::text::empty_prompt), help("give some text: `--prompt \"Once upon a time\"`"))]
    EmptyPrompt,
}

#[derive(Debug)]
pub struct Text {
    tokenizer: Tokenizer,
    path: PathBuf,
}

impl Text {
    /// The tokenizer of a build's folder.
    pub fn open(folder: &Path) -> Result<Text, TextError> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Err(TextError::NoTokenizer { beside: folder.into() });
        }
        let fail = |message: String| TextError::BadTokenizer { path: path.clone(), message };
        let about = fs::metadata(&path).map_err(|error| fail(error.to_string()))?;
        // Never to wait for a writer, should this be a pipe.
        if !about.is_file() {
            return Err(fail(io::Error::other("not a regular file").to_string()));
        }
        if about.len() > TOKENIZER_BYTES {
            return Err(fail(format!("it has more than {TOKENIZER_BYTES} bytes")));
        }
        let bytes = fs::read(&path).map_err(|error| fail(error.to_string()))?;
        Text::from_bytes(&bytes, &path)
    }

    /// `path` is what errors call it.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Text, TextError> {
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|error| TextError::BadTokenizer { path: path.into(), message: error.to_string() })?;
        Ok(Text { tokenizer, path: path.into() })
    }

    /// The tokens of a prompt: at least one.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>, TextError> {
        let encoding = self.tokenizer.encode(text, true).map_err(|error| self.bad(error))?;
        let ids: Vec<i32> = encoding.get_ids().iter().filter_map(|id| i32::try_from(*id).ok()).collect();
        if ids.is_empty() { Err(TextError::EmptyPrompt) } else { Ok(ids) }
    }

    /// The text of each token by itself. Where a character takes several tokens, theirs is not its whole.
    pub fn pieces(&self, ids: &[i32]) -> Result<Vec<String>, TextError> {
        ids.iter().map(|id| self.tokenizer.decode(&[*id as u32], false).map_err(|error| self.bad(error))).collect()
    }

    /// Decodes token by token: calls `show` with each piece of text as soon as it is whole (a character may take several
    /// tokens), until `tokens` ends. A character that is not whole by then is left out.
    pub fn stream<E: From<TextError>>(
        &self,
        tokens: impl Iterator<Item = Result<i32, E>>,
        mut show: impl FnMut(&str),
    ) -> Result<usize, E> {
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

    fn bad(&self, error: tokenizers::Error) -> TextError {
        TextError::BadTokenizer { path: self.path.clone(), message: error.to_string() }
    }
}
