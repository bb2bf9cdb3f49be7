//! A server for one compiled model, as an example of what its library can do: sessions that step together, caches within a
//! budget, prompts that share what they have in common. docs/guides/serve.md says how to run it, and what it does when it is
//! asked for too much.

mod answer;
mod api;
mod chat;
mod engine;
mod model;
mod request;
mod text;

use std::{path::Path, sync::Arc, time::Duration};

use tokenizers::Tokenizer;
use tokio::net::TcpListener;

pub use engine::Limits;
pub use model::Options;

/// How long clients that read slowly hold up the end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What a server needs besides a place to listen.
pub struct Server {
    engine: engine::Engine,
    tokenizer: Arc<Tokenizer>,
    chat: chat::Chat,
}

impl Server {
    /// Opens what `moec build` wrote into a folder, the tokenizer included.
    pub fn open(folder: &Path, options: Options, limits: Limits) -> Result<Server, Box<dyn std::error::Error>> {
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let chat = chat::Chat::open(folder)?;
        let engine = engine::Engine::start(Arc::new(model::Model::open(folder, options)?), limits);
        Ok(Server { engine, tokenizer: Arc::new(tokenizer), chat })
    }

    pub fn model(&self) -> &str {
        &self.engine.model.about.model
    }

    /// Serves until `stop` is done; then lets nobody in, and ends what was begun.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let service = Arc::new(api::Service {
            model: self.engine.model.clone(),
            tokenizer: self.tokenizer,
            chat: self.chat,
            entrance: self.engine.entrance(),
            metrics: self.engine.metrics.clone(),
            numbers: Default::default(),
        });
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let stop = async {
            stop.await;
            // The other end waits for it, or has ended already.
            let _ = stopping.send(());
        };
        let serving = axum::serve(listener, api::router(service)).with_graceful_shutdown(stop);
        let too_late = async {
            // Where nobody ever stops it, there is no end either.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            ended = async { serving.await } => {
                ended?;
                // All connections are closed: nothing is under way.
                tokio::task::spawn_blocking(|| self.engine.finish()).await.map_err(std::io::Error::other)
            }
            () = too_late => Ok(()),
        }
    }
}
