//! Text that a model continues, as it is drawn.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    manifest::Manifest,
    native::{Model, NativeError, Routed, Session},
    sampling::{Sampler, Sampling},
    text::{Text, TextError},
};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub prompt: &'a str,
    /// The most tokens to add.
    pub max_new: usize,
    pub sampling: Sampling,
    pub seed: u64,
    /// Whether to note what every route chooses.
    pub traced: bool,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    /// Of the prompt's pass.
    pub prefill: Duration,
    /// Of the passes after it, and how many there were.
    pub decode: Duration,
    pub steps: usize,
    /// The tokens that the model has seen, where the request is traced: those of the text, behind an encoder or not.
    pub seen: Vec<i32>,
    /// What every route chose for them.
    pub routed: Vec<Routed>,
}

#[derive(Debug, Error, Diagnostic)]
pub enum GenerateError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Text(#[from] TextError),

    #[error(transparent)]
    #[diagnostic(transparent)]
    Native(#[from] NativeError),

    #[error("the temperature is {temperature}")]
    #[diagnostic(
        code(moec::run::temperature),
        help("a temperature is a number above 0; use `--greedy` for the likeliest token")
    )]
    Temperature { temperature: f32 },

    #[error("the prompt's {prompt} tokens and {new} new ones do not fit the model's context of {context}")]
    #[diagnostic(code(moec::run::context), help("shorten the prompt, or lower `--max-new`"))]
    Context { prompt: usize, new: usize, context: usize },

    #[error("the prompt has token {token}, the model's vocabulary ends at {}", vocabulary - 1)]
    #[diagnostic(code(moec::run::foreign_tokenizer), help("is tokenizer.json of another model?"))]
    ForeignTokenizer { token: i32, vocabulary: usize },
}

/// How to draw, from what a command line says: nothing is the likeliest token.
pub fn sampling(temperature: Option<f32>, top_k: Option<usize>, seed: Option<u64>) -> Result<Sampling, GenerateError> {
    if temperature.is_none() && top_k.is_none() && seed.is_none() {
        return Ok(Sampling::Greedy);
    }
    let temperature = temperature.unwrap_or(1.0);
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(GenerateError::Temperature { temperature });
    }
    Ok(Sampling::Random { temperature, top_k, nucleus: None })
}

/// A request as tokens, known to fit the model.
#[derive(Debug)]
pub struct Prompt {
    ids: Vec<i32>,
    /// Positions that a session needs for it.
    positions: usize,
}

impl Prompt {
    pub fn new(manifest: &Manifest, text: &Text, request: &Request) -> Result<Prompt, GenerateError> {
        let vocabulary = manifest.vocabulary.ok_or(NativeError::NoTokens)?;
        let ids = text.encode(request.prompt)?;
        if let Some(token) = ids.iter().copied().find(|token| *token as usize >= vocabulary) {
            return Err(GenerateError::ForeignTokenizer { token, vocabulary });
        }
        // Where there is an encoder, it reads the prompt, and the text begins after it.
        let before = if manifest.start_token.is_some() { 1 } else { ids.len() };
        let positions = before.saturating_add(request.max_new).max(ids.len());
        if let Some(context) = manifest.context.filter(|context| positions > *context) {
            return Err(GenerateError::Context { prompt: ids.len(), new: request.max_new, context });
        }
        Ok(Prompt { ids, positions })
    }
}

/// Calls `show` with the prompt, where the text continues it, and with each piece of what is drawn.
pub fn generate(
    model: &Arc<Model>,
    manifest: &Manifest,
    text: &Text,
    prompt: Prompt,
    request: &Request,
    mut show: impl FnMut(&str),
) -> Result<Told, GenerateError> {
    let vocabulary = manifest.vocabulary.ok_or(NativeError::NoTokens)?;
    let mut session = model.session(prompt.positions)?;
    let mut work = |session: &mut Session| -> Result<Told, GenerateError> {
        let next = match manifest.start_token {
            Some(start) => {
                session.encode(&prompt.ids)?;
                vec![start]
            }
            None => {
                show(request.prompt);
                prompt.ids.clone()
            }
        };
        let mut tokens = Tokens {
            session,
            sampler: Sampler::new(request.sampling, request.seed),
            logits: vec![0.0; vocabulary],
            next,
            left: request.max_new,
            ends: &manifest.end_tokens,
            told: Told { prompt_tokens: prompt.ids.len(), ..Told::default() },
        };
        let new_tokens = text.stream::<GenerateError>(&mut tokens, &mut show)?;
        Ok(Told { new_tokens, ..tokens.told })
    };
    if !request.traced {
        return work(&mut session);
    }
    let (told, routed) = session.traced(work);
    Ok(Told { routed, ..told? })
}

/// Tokens as they are drawn.
struct Tokens<'a> {
    session: &'a mut Session,
    sampler: Sampler,
    logits: Vec<f32>,
    /// What the model has not seen yet.
    next: Vec<i32>,
    left: usize,
    ends: &'a [i32],
    told: Told,
}

impl Iterator for Tokens<'_> {
    type Item = Result<i32, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let started = Instant::now();
        if let Err(error) = self.session.step(&self.next, &mut self.logits) {
            self.left = 0;
            return Some(Err(error.into()));
        }
        self.told.seen.extend(&self.next);
        if self.told.prefill.is_zero() {
            self.told.prefill = started.elapsed();
        } else {
            self.told.decode += started.elapsed();
            self.told.steps += 1;
        }
        let token = self.sampler.next(&self.logits)? as i32;
        if self.ends.contains(&token) {
            return None;
        }
        self.next = vec![token];
        Some(Ok(token))
    }
}
