//! Answers in the protocol's objects: of a completion or of a conversation, whole or piece by piece.

use std::{convert::Infallible, sync::Arc};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{self, Sse},
    },
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    api::Service,
    request::{How, Refusal},
    text::{Finish, Piece},
};

/// Which of the two pages was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Completion,
    Chat,
}

/// What all objects of one answer say.
struct Head {
    service: Arc<Service>,
    id: String,
    created: u64,
    kind: Kind,
    prompt_tokens: usize,
}

/// A part of an answer.
enum Told<'a> {
    /// Of a conversation's stream, who speaks.
    Role,
    Text(&'a str),
    End(Finish),
}

/// Answers with what comes of a request.
pub async fn answer(
    service: Arc<Service>,
    number: u64,
    how: How,
    prompt_tokens: usize,
    pieces: mpsc::Receiver<Piece>,
) -> Response {
    let id = match how.kind {
        Kind::Completion => format!("cmpl-{number}"),
        Kind::Chat => format!("chatcmpl-{number}"),
    };
    let head = Head { service, id, created: crate::api::now(), kind: how.kind, prompt_tokens };
    if how.stream {
        return streamed(head, how, pieces);
    }
    whole(head, how, pieces).await.unwrap_or_else(Refusal::into_response)
}

impl Finish {
    fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

impl Head {
    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.service.model.about.model,
            "choices": choices,
        })
    }

    fn usage(&self, tokens: usize) -> Value {
        let (prompt, total) = (self.prompt_tokens, self.prompt_tokens + tokens);
        json!({ "prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": total })
    }

    fn chunk_name(&self) -> &'static str {
        match self.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion.chunk",
        }
    }

    /// A piece of a stream.
    fn chunk(&self, told: Told) -> Value {
        let (finish, text, delta) = match told {
            Told::Role => (None, "", json!({ "role": "assistant", "content": "" })),
            Told::Text(text) => (None, text, json!({ "content": text })),
            Told::End(finish) => (Some(finish.name()), "", json!({})),
        };
        let choice = match self.kind {
            Kind::Completion => json!({ "text": text, "index": 0, "logprobs": null, "finish_reason": finish }),
            Kind::Chat => json!({ "delta": delta, "index": 0, "logprobs": null, "finish_reason": finish }),
        };
        self.object(self.chunk_name(), json!([choice]))
    }

    /// All of it.
    fn whole(&self, text: &str, finish: Finish, tokens: usize) -> Value {
        let finish = finish.name();
        let mut answer = match self.kind {
            Kind::Completion => {
                let choice = json!({ "text": text, "index": 0, "logprobs": null, "finish_reason": finish });
                self.object("text_completion", json!([choice]))
            }
            Kind::Chat => {
                let message = json!({ "role": "assistant", "content": text, "refusal": null });
                let choice = json!({ "message": message, "index": 0, "logprobs": null, "finish_reason": finish });
                self.object("chat.completion", json!([choice]))
            }
        };
        answer["usage"] = self.usage(tokens);
        answer
    }
}

/// Each piece of text as it comes.
fn streamed(head: Head, how: How, pieces: mpsc::Receiver<Piece>) -> Response {
    let first = match how.kind {
        Kind::Completion => how.echo.filter(|text| !text.is_empty()).map(|text| head.chunk(Told::Text(&text))),
        Kind::Chat => Some(head.chunk(Told::Role)),
    };
    let stream = Stream { head, pieces, with_usage: how.with_usage, next: first.map_or(Next::Piece, Next::First) };
    Sse::new(stream::unfold(stream, |mut stream| async move {
        let data = stream.next().await?;
        Some((Ok::<_, Infallible>(sse::Event::default().data(data)), stream))
    }))
    .into_response()
}

struct Stream {
    head: Head,
    pieces: mpsc::Receiver<Piece>,
    with_usage: bool,
    next: Next,
}

/// What a stream says next.
enum Next {
    First(Value),
    Piece,
    Usage { tokens: usize },
    Done,
    Over,
}

impl Stream {
    async fn next(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.next, Next::Piece) {
            Next::First(value) => Some(value.to_string()),
            Next::Piece => Some(self.piece().await.to_string()),
            Next::Usage { tokens } => {
                self.next = Next::Done;
                let mut last = self.head.object(self.head.chunk_name(), json!([]));
                last["usage"] = self.head.usage(tokens);
                Some(last.to_string())
            }
            Next::Done => {
                self.next = Next::Over;
                Some("[DONE]".to_owned())
            }
            Next::Over => None,
        }
    }

    async fn piece(&mut self) -> Value {
        let failed = match self.pieces.recv().await {
            Some(Piece::Text(text)) => return self.head.chunk(Told::Text(&text)),
            Some(Piece::End { finish, tokens }) => {
                self.next = if self.with_usage { Next::Usage { tokens } } else { Next::Done };
                return self.head.chunk(Told::End(finish));
            }
            Some(Piece::Failed(message)) => message,
            None => "the server is stopping".to_owned(),
        };
        self.next = Next::Over;
        json!({ "error": { "message": failed, "type": "server_error" } })
    }
}

/// All of it at once.
async fn whole(head: Head, how: How, mut pieces: mpsc::Receiver<Piece>) -> Result<Response, Refusal> {
    let mut text = how.echo.unwrap_or_default();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Text(more) => text += &more,
            Piece::Failed(message) => return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)),
            Piece::End { finish, tokens } => {
                return Ok(axum::Json(head.whole(&text, finish, tokens)).into_response());
            }
        }
    }
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"))
}
