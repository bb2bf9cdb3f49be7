//! What clients ask for, and whether it can be served: the bodies of `/v1/completions` and `/v1/chat/completions`. Fields of the
//! protocol that are not named here are ignored, where leaving them out changes nothing; where it would, they are refused.

use std::sync::atomic::Ordering::Relaxed;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use moec_program::sampling::Sampling;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    answer::Kind,
    api::{Service, now},
    engine::{Event, Request},
};

/// New tokens of a completion where a request does not say, as in OpenAI's own.
const USUAL_TOKENS: usize = 16;

/// Why a request is not served, as OpenAI's clients read it.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }

    pub fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        let body = json!({ "error": { "message": self.message, "type": kind, "param": null, "code": null } });
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// The body of `/v1/completions`.
#[derive(Deserialize)]
pub struct Completion {
    prompt: Prompt,
    max_tokens: Option<usize>,
    #[serde(default)]
    echo: bool,
    best_of: Option<u64>,
    suffix: Option<String>,
    #[serde(flatten)]
    common: Common,
}

/// The body of `/v1/chat/completions`.
#[derive(Deserialize)]
pub struct Chat {
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    tools: Option<Vec<Value>>,
    response_format: Option<Value>,
    #[serde(flatten)]
    common: Common,
}

/// What both have.
#[derive(Deserialize)]
struct Common {
    model: Option<String>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    n: Option<u64>,
    /// A number, or yes or no.
    logprobs: Option<Value>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Tokens(Vec<i32>),
    /// Several are more than one request.
    One([String; 1]),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Some(Vec<String>),
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
}

impl Content {
    fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => parts.iter().map(|Part::Text { text }| text.as_str()).collect(),
        }
    }
}

/// A request that can be served.
pub struct Accepted {
    pub request: Request,
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    pub how: How,
}

/// How the answer is to be given.
pub struct How {
    pub kind: Kind,
    pub stream: bool,
    /// What comes before the answer.
    pub echo: Option<String>,
    /// Whether a stream tells at its end how many tokens it had.
    pub with_usage: bool,
}

/// A prompt that is known to have tokens.
struct Tokens {
    ids: Vec<i32>,
    text: String,
}

impl Service {
    pub fn accept_completion(&self, asked: Completion) -> Result<Accepted, Refusal> {
        let Completion { prompt, max_tokens, echo, best_of, suffix, common } = asked;
        if best_of.is_some_and(|best| best != 1) || suffix.is_some() {
            return Err(Refusal::bad("`best_of` and `suffix` are not supported"));
        }
        self.check(&common)?;
        let prompt = self.tokens_of(prompt)?;
        let most = max_tokens.unwrap_or_else(|| USUAL_TOKENS.min(self.room(&prompt)));
        let echo = echo.then(|| prompt.text.clone());
        self.accept(Kind::Completion, prompt, most, common, echo)
    }

    pub fn accept_chat(&self, asked: Chat) -> Result<Accepted, Refusal> {
        let Chat { messages, max_tokens, max_completion_tokens, tools, response_format, common } = asked;
        if tools.is_some_and(|tools| !tools.is_empty()) {
            return Err(Refusal::bad("`tools` are not supported"));
        }
        if response_format.is_some_and(|format| format["type"] != "text") {
            return Err(Refusal::bad("`response_format` is not supported: an answer is text"));
        }
        self.check(&common)?;
        if messages.is_empty() {
            return Err(Refusal::bad("`messages` are empty"));
        }
        let message = |message: &Message| json!({ "role": message.role, "content": message.content.text() });
        let messages: Vec<Value> = messages.iter().map(message).collect();
        let text = self.chat.prompt(&messages);
        let text = text.map_err(|error| Refusal::bad(format!("the model's chat template refuses this: {error}")))?;
        let prompt = self.encoded(text, !self.chat.writes_special_tokens)?;
        let most = max_completion_tokens.or(max_tokens).unwrap_or_else(|| self.room(&prompt));
        let mut accepted = self.accept(Kind::Chat, prompt, most, common, None)?;
        accepted.stop.extend(self.chat.stop.clone());
        Ok(accepted)
    }

    fn check(&self, common: &Common) -> Result<(), Refusal> {
        let known = &self.model.about.model;
        if let Some(other) = common.model.as_ref().filter(|model| *model != known) {
            let reason = format!("there is no model `{other}` here, but `{known}`");
            return Err(Refusal::new(StatusCode::NOT_FOUND, reason));
        }
        if common.n.is_some_and(|n| n != 1) {
            return Err(Refusal::bad("one completion is made of a request: ask again for another"));
        }
        if common.logprobs.as_ref().is_some_and(|wanted| !wanted.is_null() && *wanted != false) {
            return Err(Refusal::bad("`logprobs` are not supported"));
        }
        let within = |value: Option<f32>, most: f32| value.is_none_or(|value| (0.0..=most).contains(&value));
        if !within(common.temperature, 2.0) || !within(common.top_p, 1.0) {
            return Err(Refusal::bad("`temperature` must be in 0 .. 2, and `top_p` in 0 .. 1"));
        }
        Ok(())
    }

    /// New tokens that fit behind a prompt; 0 where it leaves no room.
    fn room(&self, prompt: &Tokens) -> usize {
        self.model.context().saturating_sub(prompt.ids.len())
    }

    fn accept(
        &self,
        kind: Kind,
        prompt: Tokens,
        most: usize,
        common: Common,
        echo: Option<String>,
    ) -> Result<Accepted, Refusal> {
        let (length, room) = (prompt.ids.len(), self.room(&prompt));
        if room == 0 {
            let takes = self.model.context() - 1;
            return Err(Refusal::bad(format!(
                "the prompt has {length} tokens: the model takes {takes} and what it adds"
            )));
        }
        if most == 0 || most > room {
            let reason = format!("`max_tokens` is {most}: behind {length} tokens there is room for 1 to {room}");
            return Err(Refusal::bad(reason));
        }
        let stop = match common.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Some(texts)) => texts,
        };
        if stop.len() > 4 || stop.iter().any(|text| text.is_empty() || text.len() > 1024) {
            return Err(Refusal::bad("`stop` has at most 4 texts, none empty or longer than 1024 bytes"));
        }
        let temperature = common.temperature.unwrap_or(1.0);
        let sampling = if temperature > 0.0 {
            Sampling::Random { temperature, top_k: None, nucleus: common.top_p }
        } else {
            Sampling::Greedy
        };
        let seed = common.seed.map_or_else(|| self.numbers.load(Relaxed) ^ now(), |seed| seed as u64);
        let (tokens, events) = mpsc::unbounded_channel();
        let request = Request { prompt: prompt.ids, most, sampling, seed, tokens };
        let with_usage = common.stream_options.is_some_and(|options| options.include_usage);
        Ok(Accepted { request, events, stop, how: How { kind, stream: common.stream, echo, with_usage } })
    }

    fn tokens_of(&self, prompt: Prompt) -> Result<Tokens, Refusal> {
        match prompt {
            Prompt::Text(text) | Prompt::One([text]) => self.encoded(text, true),
            Prompt::Tokens(ids) => {
                let limit = self.model.vocabulary;
                if ids.is_empty() || ids.iter().any(|id| usize::try_from(*id).map_or(true, |id| id >= limit)) {
                    return Err(Refusal::bad(format!("a prompt of tokens has at least one, each in 0 .. {limit}")));
                }
                let words: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
                let text = self.tokenizer.decode(&words, true);
                let text = text.map_err(|error| Refusal::bad(format!("the prompt has no text: {error}")))?;
                Ok(Tokens { ids, text })
            }
        }
    }

    fn encoded(&self, text: String, add_special_tokens: bool) -> Result<Tokens, Refusal> {
        let encoding = self.tokenizer.encode(text.as_str(), add_special_tokens);
        let encoding = encoding.map_err(|error| Refusal::bad(format!("the prompt has no tokens: {error}")))?;
        let ids: Vec<i32> = encoding.get_ids().iter().map(|id| *id as i32).collect();
        if ids.is_empty() {
            return Err(Refusal::bad("the prompt has no tokens"));
        }
        Ok(Tokens { ids, text })
    }
}
