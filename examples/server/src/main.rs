//! `moec-server BUILD`: see docs/guides/serve.md.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use moec_server::{Limits, Options, Server};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// Serves a compiled model to OpenAI clients.
#[derive(Parser)]
struct Arguments {
    /// The folder that `moec build` wrote, with weights and tokenizer.
    build: PathBuf,
    /// Where to listen; port 0 takes any that is free, and says which.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Threads of a step; 0 for as many as there are CPUs.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=1024))]
    threads: i32,
    /// MiB for the caches of all requests together; 0 for no limit.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(i32).range(0..))]
    cache_mib: i32,
    /// Requests that step together.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Requests that wait; more are refused.
    #[arg(long, default_value_t = 256)]
    queue: usize,
}

fn main() -> ExitCode {
    match serve(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moec-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let options = Options { threads: arguments.threads, cache_mib: arguments.cache_mib };
    let limits = Limits { batch: arguments.batch, queue: arguments.queue };
    let server = Server::open(&arguments.build, options, limits)?;
    // Steps have threads of their own; what is left is little.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&arguments.listen).await?;
        println!("serving {} on http://{}/v1", server.model(), listener.local_addr()?);
        let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = end.recv() => (),
                _ = interrupt.recv() => (),
            }
        };
        Ok(server.serve(listener, stop).await?)
    })
}
