//! The pages of the server: OpenAI's `/v1/completions`, `/v1/chat/completions` and `/v1/models`, and those for who operates it.

use std::{
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
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokenizers::Tokenizer;

use crate::{
    answer::answer,
    chat::Chat,
    engine::{Entrance, Metrics},
    model::Model,
    request::{Accepted, Refusal},
    text::pieces,
};

/// A request's body: more than any context has tokens.
const MOST_BYTES: usize = 4 << 20;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all handlers share.
pub struct Service {
    pub model: Arc<Model>,
    pub tokenizer: Arc<Tokenizer>,
    pub chat: Chat,
    pub entrance: Entrance,
    pub metrics: Arc<Metrics>,
    pub numbers: AtomicU64,
}

pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/completions", post(complete))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "there is no such page") })
        .with_state(service)
}

async fn complete(State(service): State<Arc<Service>>, request: HttpRequest<Body>) -> Response {
    let accepted = body_of(request).await.and_then(|asked| service.accept_completion(asked));
    serve(service, accepted).await
}

async fn chat(State(service): State<Arc<Service>>, request: HttpRequest<Body>) -> Response {
    let accepted = body_of(request).await.and_then(|asked| service.accept_chat(asked));
    serve(service, accepted).await
}

async fn body_of<T: DeserializeOwned>(request: HttpRequest<Body>) -> Result<T, Refusal> {
    let bytes = tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), MOST_BYTES)).await;
    let bytes =
        bytes.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time"))?;
    let bytes = bytes.map_err(|error| {
        let reason = format!("the body cannot be read, or has more than {MOST_BYTES} bytes: {error}");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Refusal::bad(format!("the body is no such request: {error}")))
}

async fn serve(service: Arc<Service>, accepted: Result<Accepted, Refusal>) -> Response {
    let Accepted { request, events, stop, how } = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal.into_response(),
    };
    let prompt_tokens = request.prompt.len();
    if !service.entrance.let_in(request) {
        let reason = "as many requests are waiting as there is room for: try again soon";
        return Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).into_response();
    }
    let number = service.numbers.fetch_add(1, Relaxed);
    let pieces = pieces(service.tokenizer.clone(), events, stop);
    answer(service, number, how, prompt_tokens, pieces).await
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
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
