//! examples/server over a compiled bard, asked by the OpenAI client from PyPI.

use std::{fs, process::Command};

use moec_server::{Limits, Options, Server};
use tokio::{net::TcpListener, sync::oneshot};

use crate::command::{bard, built_bard, copy_of, folder, moec_in, repository, run};

/// A Python that has the client: the one that $OPENAI_PYTHON names, or the one on the path.
fn python_with_client() -> Option<String> {
    let named = std::env::var("OPENAI_PYTHON").ok();
    let has_client = |python: &String| {
        Command::new(python).args(["-c", "import openai"]).output().is_ok_and(|output| output.status.success())
    };
    named.into_iter().chain(["python3".to_owned()]).find(has_client)
}

#[test]
fn the_openai_client_is_served() {
    let Some(python) = python_with_client() else {
        eprintln!("not run: no Python with the OpenAI client (pip install openai; $OPENAI_PYTHON may name the Python)");
        return;
    };
    let folder = built_bard();
    let said = moec_in(folder.path(), "run build --prompt JULIET. --max-new 24").fine().stdout;
    let said = said.trim_end_matches('\n').strip_prefix("JULIET.").expect("the prompt first").to_owned();
    let limits = Limits { batch: 8, queue: 32 };
    let options = Options { threads: 2, cache_mib: 64 };
    let server = Server::open(&folder.path().join("build"), options, limits).expect("it opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.serve(listener, async { stopped.await.unwrap_or(()) });
        let client = tokio::task::spawn_blocking(move || {
            let script = repository().join("examples/server/tests/openai_client.py");
            run(Command::new(python).arg(script).args([url, said]).env("PYTHONDONTWRITEBYTECODE", "1"))
        });
        let asking = async {
            let ended = client.await.expect("it ran");
            // The server is waiting for this.
            let _ = stop.send(());
            ended.fine();
        };
        let (served, ()) = tokio::join!(serving, asking);
        served.expect("it served");
    });
}

#[test]
fn what_a_checkpoint_says_about_text_goes_along() {
    let checkpoint = copy_of(&bard());
    fs::write(checkpoint.path().join("chat_template.jinja"), "{{ messages[0].content }}").expect("written");
    let folder = folder();
    let place = checkpoint.path().display();
    moec_in(folder.path(), &format!("import {place} -o bard.moe")).fine();
    moec_in(folder.path(), &format!("build bard.moe --weights {place} --cpu scalar -o build")).fine();
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let taken = fs::read(folder.path().join("build").join(name)).expect("it is there");
        assert_eq!(taken, fs::read(checkpoint.path().join(name)).expect("there"), "{name}");
    }
}
