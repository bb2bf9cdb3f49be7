//! The OpenAI completions protocol over the engine: `/v1/completions`, `/v1/models`, and pages for who operates it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request as HttpRequest, State},
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{self, Sse},
    },
    routing::{get, post},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use tokio::sync::mpsc;

use crate::{
    engine::{Entrance, Metrics, Request},
    model::Model,
    sampling::Sampling,
    text::{Finish, Piece, pieces},
};

/// A request's body: more than any context has tokens.
const MOST_BYTES: usize = 4 << 20;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(20);
/// New tokens where a request does not say, as in OpenAI's own.
const USUAL_TOKENS: usize = 16;

/// What all handlers share.
pub struct Service {
    pub model: Arc<Model>,
    pub tokenizer: Arc<Tokenizer>,
    pub entrance: Entrance,
    pub metrics: Arc<Metrics>,
    pub numbers: AtomicU64,
}

pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/completions", post(complete))
        .route("/v1/chat/completions", post(no_chat))
        .route("/v1/models", get(models))
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "there is no such page") })
        .with_state(service)
}

/// Why a request is not served, as OpenAI's clients read it.
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Refusal {
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

/// What is asked for. Other fields of the protocol are ignored where leaving them out changes nothing.
#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    prompt: Prompt,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    echo: bool,
    stop: Option<Stop>,
    n: Option<u64>,
    best_of: Option<u64>,
    logprobs: Option<Value>,
    suffix: Option<String>,
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

/// A request that can be served.
struct Accepted {
    request: Request,
    events: mpsc::UnboundedReceiver<crate::engine::Event>,
    stop: Vec<String>,
    echo: Option<String>,
    stream: bool,
}

async fn body_of(request: HttpRequest<Body>) -> Result<Asked, Refusal> {
    let bytes = tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), MOST_BYTES)).await;
    let bytes =
        bytes.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time"))?;
    let bytes = bytes.map_err(|error| {
        let reason = format!("the body cannot be read, or has more than {MOST_BYTES} bytes: {error}");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Refusal::bad(format!("the body is no completion request: {error}")))
}

impl Service {
    fn accept(&self, asked: Asked) -> Result<Accepted, Refusal> {
        let Asked { model, prompt, max_tokens, temperature, top_p, seed, stream, echo, stop, .. } = asked;
        let known = &self.model.about.model;
        if let Some(other) = model.filter(|model| model != known) {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("there is no model `{other}` here, but `{known}`"),
            ));
        }
        if asked.n.is_some_and(|n| n != 1) || asked.best_of.is_some_and(|best| best != 1) {
            return Err(Refusal::bad("one completion is made of a request: ask again for another"));
        }
        if asked.logprobs.is_some_and(|value| !value.is_null()) || asked.suffix.is_some() {
            return Err(Refusal::bad("`logprobs` and `suffix` are not supported"));
        }
        let temperature = temperature.unwrap_or(1.0);
        let top_p = top_p.unwrap_or(1.0);
        if !(0.0..=2.0).contains(&temperature) || !(0.0..=1.0).contains(&top_p) {
            return Err(Refusal::bad("`temperature` must be in 0 .. 2, and `top_p` in 0 .. 1"));
        }
        let stop = match stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Some(texts)) => texts,
        };
        if stop.len() > 4 || stop.iter().any(|text| text.is_empty() || text.len() > 1024) {
            return Err(Refusal::bad("`stop` has at most 4 texts, none empty or longer than 1024 bytes"));
        }
        let (prompt, text) = self.tokens_of(prompt)?;
        let context = self.model.context();
        if prompt.len() >= context {
            let reason =
                format!("the prompt has {} tokens: the model takes {} and what it adds", prompt.len(), context - 1);
            return Err(Refusal::bad(reason));
        }
        let room = context - prompt.len();
        let most = max_tokens.unwrap_or(USUAL_TOKENS.min(room));
        if most == 0 || most > room {
            let reason =
                format!("`max_tokens` is {most}: behind {} tokens there is room for 1 to {room}", prompt.len());
            return Err(Refusal::bad(reason));
        }
        let (tokens, events) = mpsc::unbounded_channel();
        let seed = seed.map_or_else(|| self.numbers.load(Relaxed) ^ now(), |seed| seed as u64);
        let request = Request { prompt, most, sampling: Sampling { temperature, top_p }, seed, tokens };
        Ok(Accepted { request, events, stop, echo: echo.then_some(text), stream })
    }

    /// The tokens of a prompt, and its text.
    fn tokens_of(&self, prompt: Prompt) -> Result<(Vec<i32>, String), Refusal> {
        let bad = |error: tokenizers::Error| Refusal::bad(format!("the prompt has no tokens: {error}"));
        let (tokens, text) = match prompt {
            Prompt::Text(text) | Prompt::One([text]) => {
                let encoded = self.tokenizer.encode(text.as_str(), true).map_err(bad)?;
                (encoded.get_ids().iter().map(|id| *id as i32).collect(), text)
            }
            Prompt::Tokens(tokens) => {
                let limit = self.model.vocabulary;
                if tokens.iter().any(|token| usize::try_from(*token).map_or(true, |token| token >= limit)) {
                    return Err(Refusal::bad(format!("tokens of a prompt must be in 0 .. {limit}")));
                }
                let ids: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
                let text = self.tokenizer.decode(&ids, true).map_err(bad)?;
                (tokens, text)
            }
        };
        let tokens: Vec<i32> = tokens;
        if tokens.is_empty() {
            return Err(Refusal::bad("the prompt has no tokens"));
        }
        Ok((tokens, text))
    }

    /// A completion object of the protocol.
    fn chunk(&self, id: &str, created: u64, text: &str, finish: Option<Finish>) -> Value {
        let finish = finish.map(|finish| match finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        });
        json!({
            "id": id,
            "object": "text_completion",
            "created": created,
            "model": self.model.about.model,
            "choices": [{ "text": text, "index": 0, "logprobs": null, "finish_reason": finish }],
        })
    }
}

async fn complete(State(service): State<Arc<Service>>, request: HttpRequest<Body>) -> Response {
    let accepted = match body_of(request).await.and_then(|asked| service.accept(asked)) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal.into_response(),
    };
    let Accepted { request, events, stop, echo, stream } = accepted;
    let prompt_tokens = request.prompt.len();
    if !service.entrance.let_in(request) {
        let reason = "as many requests are waiting as there is room for: try again soon";
        return Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).into_response();
    }
    let id = format!("cmpl-{}", service.numbers.fetch_add(1, Relaxed));
    let pieces = pieces(service.tokenizer.clone(), events, stop);
    if stream {
        return streamed(service, id, pieces, echo);
    }
    whole(&service, &id, pieces, echo, prompt_tokens).await.unwrap_or_else(Refusal::into_response)
}

/// Each piece of text as it comes.
fn streamed(service: Arc<Service>, id: String, pieces: mpsc::Receiver<Piece>, echo: Option<String>) -> Response {
    enum Next {
        Text,
        Done,
        Over,
    }
    let created = now();
    let first = echo.filter(|text| !text.is_empty());
    let events = stream::unfold((pieces, Next::Text, first), move |(mut pieces, next, first)| {
        let (service, id) = (service.clone(), id.clone());
        async move {
            let data = |value: Value| sse::Event::default().data(value.to_string());
            let (event, next) = match (next, first) {
                (Next::Over, _) => return None,
                (Next::Done, _) => (sse::Event::default().data("[DONE]"), Next::Over),
                (Next::Text, Some(text)) => (data(service.chunk(&id, created, &text, None)), Next::Text),
                (Next::Text, None) => match pieces.recv().await {
                    Some(Piece::Text(text)) => (data(service.chunk(&id, created, &text, None)), Next::Text),
                    Some(Piece::End { finish, .. }) => {
                        (data(service.chunk(&id, created, "", Some(finish))), Next::Done)
                    }
                    Some(Piece::Failed(message)) => {
                        (data(json!({ "error": { "message": message, "type": "server_error" } })), Next::Over)
                    }
                    None => (data(json!({ "error": { "message": "stopped", "type": "server_error" } })), Next::Over),
                },
            };
            Some((Ok::<_, Infallible>(event), (pieces, next, None)))
        }
    });
    Sse::new(events).into_response()
}

/// All of it at once.
async fn whole(
    service: &Service,
    id: &str,
    mut pieces: mpsc::Receiver<Piece>,
    echo: Option<String>,
    prompt_tokens: usize,
) -> Result<Response, Refusal> {
    let mut text = echo.unwrap_or_default();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Text(more) => text += &more,
            Piece::Failed(message) => return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)),
            Piece::End { finish, tokens } => {
                let mut answer = service.chunk(id, now(), &text, Some(finish));
                let total = prompt_tokens + tokens;
                answer["usage"] = json!({
                    "prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": total
                });
                return Ok(axum::Json(answer).into_response());
            }
        }
    }
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"))
}

async fn no_chat() -> Refusal {
    Refusal::bad("this server has no chat template: write the turns into a prompt, and ask /v1/completions")
}

async fn models(State(service): State<Arc<Service>>) -> Response {
    let model = json!({ "id": service.model.about.model, "object": "model", "created": 0, "owned_by": "moec" });
    axum::Json(json!({ "object": "list", "data": [model] })).into_response()
}

/// In the text format of Prometheus.
async fn metrics(State(service): State<Arc<Service>>) -> String {
    let metrics = &service.metrics;
    let counted = [
        ("requests", "that were let in", &metrics.requests),
        ("refused", "because the queue was full", &metrics.refused),
        ("finished", "to their end", &metrics.finished),
        ("given_up", "whose client went away", &metrics.given_up),
        ("failed", "that could not be done", &metrics.failed),
        ("steps", "of all active requests together", &metrics.steps),
        ("prompt_tokens", "that were computed", &metrics.prompt_tokens),
        ("shared_tokens", "of prompts that earlier ones had in common", &metrics.shared_tokens),
        ("new_tokens", "that were drawn", &metrics.new_tokens),
        ("set_back", "to free pages of the caches", &metrics.set_back),
    ];
    let counted = counted.map(|(name, help, value)| {
        let name = format!("moec_{name}_total");
        format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {}\n", value.load(Relaxed))
    });
    let gauges = [
        ("active", "requests that step together", metrics.active.load(Relaxed)),
        ("waiting", "requests", metrics.waiting.load(Relaxed)),
        ("cache_bytes", "of all sessions", service.model.cache_bytes() as u64),
    ];
    let gauges = gauges.map(|(name, help, value)| {
        format!("# HELP moec_{name} {help}\n# TYPE moec_{name} gauge\nmoec_{name} {value}\n")
    });
    counted.concat() + &gauges.concat()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
