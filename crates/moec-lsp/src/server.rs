//! The conversation with an editor.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use lsp_server::{Connection, ErrorCode, Message, Notification, Request, RequestId, Response};
use lsp_types::{
    CompletionOptions, CompletionParams, CompletionResponse, DidChangeTextDocumentParams, DidCloseTextDocumentParams,
    DidOpenTextDocumentParams, DocumentFormattingParams, DocumentHighlight, DocumentHighlightParams,
    DocumentSymbolParams, DocumentSymbolResponse, GotoDefinitionParams, GotoDefinitionResponse, HoverParams,
    HoverProviderCapability, InitializeParams, Location, OneOf, PrepareRenameResponse, PublishDiagnosticsParams,
    ReferenceParams, RenameOptions, RenameParams, SemanticTokens, SemanticTokensFullOptions, SemanticTokensLegend,
    SemanticTokensOptions, SemanticTokensParams, ServerCapabilities, TextDocumentPositionParams,
    TextDocumentSyncCapability, TextDocumentSyncKind, TextEdit, Uri, WorkDoneProgressOptions, WorkspaceEdit,
    notification::{
        DidChangeTextDocument, DidCloseTextDocument, DidOpenTextDocument, Notification as _, PublishDiagnostics,
    },
    request::{
        Completion, DocumentHighlightRequest, DocumentSymbolRequest, Formatting, GotoDefinition, HoverRequest,
        PrepareRenameRequest, References, Rename, Request as _, SemanticTokensFullRequest,
    },
};
use moec_diag::SourceMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    analysis::Analysis, completion, diagnostics, hover, library, own_files::Beside, rename, semantic_tokens, symbols,
};

/// Asks for the text of a library file: `{ "uri": "moec-std:/norm.moe" }`.
const LIBRARY_TEXT: &str = "moec/libraryText";

/// The conversation broke off.
#[derive(Debug)]
pub struct ServerStopped(String);

impl fmt::Display for ServerStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the language server stopped: {}", self.0)
    }
}

impl std::error::Error for ServerStopped {}

fn stopped(cause: impl fmt::Display) -> ServerStopped {
    ServerStopped(cause.to_string())
}

/// Serves the editor at the other end of the standard streams until it says goodbye.
pub fn serve_standard_streams() -> Result<(), ServerStopped> {
    let (connection, threads) = Connection::stdio();
    serve(&connection)?;
    drop(connection);
    threads.join().map_err(stopped)
}

/// Serves one editor until it says goodbye.
pub fn serve(connection: &Connection) -> Result<(), ServerStopped> {
    let capabilities = serde_json::to_value(capabilities()).map_err(stopped)?;
    let hello = connection.initialize(capabilities).map_err(stopped)?;
    let hello: InitializeParams = serde_json::from_value(hello).map_err(stopped)?;
    let options: Options =
        hello.initialization_options.and_then(|it| serde_json::from_value(it).ok()).unwrap_or_default();
    let mut server = Server { connection, options, texts: BTreeMap::new(), known: BTreeMap::new() };
    while let Ok(message) = connection.receiver.recv() {
        match message {
            Message::Request(request) => {
                if connection.handle_shutdown(&request).map_err(stopped)? {
                    return Ok(());
                }
                let id = request.id.clone();
                // One request that goes wrong must not take the editor's other documents with it.
                let answer = catch_unwind(AssertUnwindSafe(|| server.answer(request)));
                let answer = answer.unwrap_or_else(|_| {
                    Response::new_err(id, ErrorCode::InternalError as i32, "this is a bug in moec".to_owned())
                });
                server.send(Message::Response(answer))?;
            }
            Message::Notification(notification) => server.notice(notification),
            Message::Response(_) => {}
        }
        // Who types quickly is told once.
        if connection.receiver.is_empty() {
            server.publish()?;
        }
    }
    Ok(())
}

/// What a client may say of itself when it starts.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    /// It opens `moec-std:` addresses, asking for their text.
    library_uri: bool,
}

fn capabilities() -> ServerCapabilities {
    let legend = SemanticTokensLegend {
        token_types: semantic_tokens::LEGEND.to_vec(),
        token_modifiers: semantic_tokens::MODIFIERS.to_vec(),
    };
    let tokens = SemanticTokensOptions {
        legend,
        full: Some(SemanticTokensFullOptions::Bool(true)),
        ..SemanticTokensOptions::default()
    };
    let rename =
        RenameOptions { prepare_provider: Some(true), work_done_progress_options: WorkDoneProgressOptions::default() };
    ServerCapabilities {
        text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::FULL)),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        definition_provider: Some(OneOf::Left(true)),
        references_provider: Some(OneOf::Left(true)),
        document_highlight_provider: Some(OneOf::Left(true)),
        document_symbol_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        rename_provider: Some(OneOf::Right(rename)),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some(vec![":".to_owned(), ".".to_owned()]),
            ..CompletionOptions::default()
        }),
        semantic_tokens_provider: Some(tokens.into()),
        ..ServerCapabilities::default()
    }
}

struct Server<'c> {
    connection: &'c Connection,
    options: Options,
    /// Open documents by address.
    texts: BTreeMap<String, Open>,
    /// What was found of them; missing where the text has changed since.
    known: BTreeMap<String, Rc<Analysis>>,
}

struct Open {
    uri: Uri,
    version: Option<i32>,
    text: String,
    /// Its problems have not been sent since it changed.
    unsent: bool,
}

impl Server<'_> {
    fn send(&self, message: Message) -> Result<(), ServerStopped> {
        self.connection.sender.send(message).map_err(stopped)
    }

    fn notice(&mut self, notification: Notification) {
        // What cannot be understood cannot be answered either: notifications have no replies.
        match notification.method.as_str() {
            DidOpenTextDocument::METHOD => {
                let Ok(params) = serde_json::from_value::<DidOpenTextDocumentParams>(notification.params) else {
                    return;
                };
                let document = params.text_document;
                self.change(document.uri, Some(document.version), document.text);
            }
            DidChangeTextDocument::METHOD => {
                let Ok(params) = serde_json::from_value::<DidChangeTextDocumentParams>(notification.params) else {
                    return;
                };
                if let Some(change) = params.content_changes.into_iter().next_back() {
                    self.change(params.text_document.uri, Some(params.text_document.version), change.text);
                }
            }
            DidCloseTextDocument::METHOD => {
                let Ok(params) = serde_json::from_value::<DidCloseTextDocumentParams>(notification.params) else {
                    return;
                };
                self.texts.remove(params.text_document.uri.as_str());
                self.known.remove(params.text_document.uri.as_str());
                let nothing =
                    PublishDiagnosticsParams { uri: params.text_document.uri, diagnostics: Vec::new(), version: None };
                // A client that is gone is noticed by the next answer.
                let _ = self.send(Notification::new(PublishDiagnostics::METHOD.to_owned(), nothing).into());
            }
            _ => {}
        }
    }

    fn change(&mut self, uri: Uri, version: Option<i32>, text: String) {
        let address = uri.as_str().to_owned();
        self.known.remove(&address);
        // Others may use this one.
        let stale: Vec<String> =
            self.known.iter().filter(|(_, known)| known.uses_files()).map(|(address, _)| address.clone()).collect();
        for other in stale {
            self.known.remove(&other);
            self.texts.get_mut(&other).into_iter().for_each(|open| open.unsent = true);
        }
        // Nobody writes to the library.
        let unsent = !address.starts_with(library::SCHEME);
        self.texts.insert(address, Open { uri, version, text, unsent });
    }

    /// Sends the problems of documents that have changed.
    fn publish(&mut self) -> Result<(), ServerStopped> {
        let changed: Vec<String> =
            self.texts.iter().filter(|(_, open)| open.unsent).map(|(address, _)| address.clone()).collect();
        for address in changed {
            let analysis = catch_unwind(AssertUnwindSafe(|| self.analysis(&address))).ok().flatten();
            let Some(open) = self.texts.get_mut(&address) else { continue };
            open.unsent = false;
            let Some(analysis) = analysis else { continue };
            let diagnostics = diagnostics::diagnostics(&analysis, &open.uri);
            let params = PublishDiagnosticsParams { uri: open.uri.clone(), diagnostics, version: open.version };
            self.send(Notification::new(PublishDiagnostics::METHOD.to_owned(), params).into())?;
        }
        Ok(())
    }

    fn analysis(&mut self, address: &str) -> Option<Rc<Analysis>> {
        if let Some(known) = self.known.get(address) {
            return Some(known.clone());
        }
        let open = self.texts.get(address)?;
        let name = address.rsplit('/').next().unwrap_or(address);
        let texts = self.texts.iter().map(|(address, open)| (address.as_str(), open.text.as_str()));
        let files = moec_sema::Files::new(Beside::new(address, texts));
        let analysis = Rc::new(Analysis::of(name, open.text.clone(), files));
        self.known.insert(address.to_owned(), analysis.clone());
        Some(analysis)
    }

    fn answer(&mut self, request: Request) -> Response {
        let Request { id, method, params } = request;
        let answer = match method.as_str() {
            HoverRequest::METHOD => self.about(params, |analysis, _, params: HoverParams| {
                hover::hover(analysis, params.text_document_position_params.position)
            }),
            GotoDefinition::METHOD => {
                let library = self.options.library_uri;
                self.about(params, |analysis, uri, params: GotoDefinitionParams| {
                    let position = params.text_document_position_params.position;
                    rename::definition(analysis, uri, position, library).map(GotoDefinitionResponse::Scalar)
                })
            }
            References::METHOD => self.about(params, |analysis, uri, params: ReferenceParams| {
                let found = rename::uses(analysis, params.text_document_position.position);
                found.into_iter().map(|range| Location { uri: uri.clone(), range }).collect::<Vec<_>>()
            }),
            DocumentHighlightRequest::METHOD => self.about(params, |analysis, _, params: DocumentHighlightParams| {
                let found = rename::uses(analysis, params.text_document_position_params.position);
                found.into_iter().map(|range| DocumentHighlight { range, kind: None }).collect::<Vec<_>>()
            }),
            Completion::METHOD => self.about(params, |analysis, _, params: CompletionParams| {
                let position = params.text_document_position.position;
                CompletionResponse::Array(completion::completions(analysis, position))
            }),
            DocumentSymbolRequest::METHOD => self.about(params, |analysis, _, _: DocumentSymbolParams| {
                DocumentSymbolResponse::Nested(symbols::symbols(analysis))
            }),
            SemanticTokensFullRequest::METHOD => self.about(params, |analysis, _, _: SemanticTokensParams| {
                SemanticTokens { result_id: None, data: semantic_tokens::tokens(analysis) }
            }),
            Formatting::METHOD => self.about(params, |analysis, _, _: DocumentFormattingParams| format(analysis)),
            PrepareRenameRequest::METHOD => self.about(params, |analysis, _, params: TextDocumentPositionParams| {
                rename::renamable(analysis, params.position).map(PrepareRenameResponse::Range)
            }),
            Rename::METHOD => self.try_about(params, |analysis, uri, params: RenameParams| {
                let edits = rename::rename(analysis, params.text_document_position.position, &params.new_name)?;
                Ok(workspace_edit(uri, edits))
            }),
            LIBRARY_TEXT => library_text(params),
            _ => Err((ErrorCode::MethodNotFound, format!("`{method}` is not known"))),
        };
        match answer {
            Ok(result) => Response::new_ok(id, result),
            Err((code, message)) => refusal(id, code, message),
        }
    }

    /// The answer to a question about a document; `null` where it is not open.
    fn about<P: DeserializeOwned, R: Serialize>(
        &mut self,
        params: Value,
        answer: impl FnOnce(&Analysis, &Uri, P) -> R,
    ) -> Answer {
        self.try_about(params, |analysis, uri, params| Ok(answer(analysis, uri, params)))
    }

    fn try_about<P: DeserializeOwned, R: Serialize>(
        &mut self,
        params: Value,
        answer: impl FnOnce(&Analysis, &Uri, P) -> Result<R, String>,
    ) -> Answer {
        let address = params.pointer("/textDocument/uri").and_then(Value::as_str).unwrap_or_default().to_owned();
        let invalid = |error: serde_json::Error| (ErrorCode::InvalidParams, error.to_string());
        let params: P = serde_json::from_value(params).map_err(invalid)?;
        let Some(analysis) = self.analysis(&address) else { return Ok(Value::Null) };
        let Some(open) = self.texts.get(&address) else { return Ok(Value::Null) };
        let result = answer(&analysis, &open.uri, params).map_err(|why| (ErrorCode::RequestFailed, why))?;
        serde_json::to_value(result).map_err(|error| (ErrorCode::InternalError, error.to_string()))
    }
}

type Answer = Result<Value, (ErrorCode, String)>;

fn refusal(id: RequestId, code: ErrorCode, message: String) -> Response {
    Response::new_err(id, code as i32, message)
}

fn library_text(params: Value) -> Answer {
    let address = params.get("uri").and_then(Value::as_str).unwrap_or_default();
    match library::text(address) {
        Some(text) => Ok(Value::String(text.to_owned())),
        None => Err((ErrorCode::InvalidParams, format!("the library has no `{address}`"))),
    }
}

/// The whole document in canonical form; nothing where it has problems or is so already.
fn format(analysis: &Analysis) -> Vec<TextEdit> {
    let text = &analysis.document.text;
    match moec_format::format(&mut SourceMap::default(), "document", text.as_bytes()) {
        Ok(formatted) if formatted != *text => {
            vec![TextEdit { range: analysis.document.whole(), new_text: formatted }]
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn workspace_edit(uri: &Uri, edits: Vec<TextEdit>) -> WorkspaceEdit {
    WorkspaceEdit { changes: Some([(uri.clone(), edits)].into()), ..WorkspaceEdit::default() }
}
