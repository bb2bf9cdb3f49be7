//! `moec explain-error`: what a problem's code means, why it matters, and how the mended text looks.

use miette::Diagnostic;
use moec_diag::{
    pages::{Page, Piece, Side, page, pages},
    spelling::closest,
};
use thiserror::Error;

use crate::{cli::ExplainError, failure::Failure};

pub fn run(arguments: &ExplainError) -> Result<(), Failure> {
    let Some(code) = &arguments.code else {
        let width = pages().iter().map(|page| page.code.len()).max().unwrap_or_default();
        for page in pages() {
            println!("{:width$}  {}", page.code, page.title());
        }
        return Ok(());
    };
    match page(code.trim()) {
        Some(page) => print!("{}", shown(page)),
        None => return Err(UnknownCode { code: code.clone(), help: nearest(code) }.into()),
    }
    Ok(())
}

/// A page for a terminal: examples are set in, and say which they are.
fn shown(page: &Page) -> String {
    let mut text = format!("{}: {}\n", page.code, page.title());
    for piece in page.pieces() {
        match piece {
            Piece::Prose(prose) => text.push_str(&format!("\n{prose}\n")),
            Piece::Example(example) => {
                text.push_str(match (example.language, example.side) {
                    ("json", Side::Broken) => "\nwith this config.json:\n\n",
                    ("json", Side::Mended) => "\nand this config.json:\n\n",
                    (_, Side::Broken) => "\nBroken:\n\n",
                    (_, Side::Mended) => "\nMended:\n\n",
                });
                for line in example.text.lines() {
                    text.push_str(format!("    {line}").trim_end());
                    text.push('\n');
                }
            }
        }
    }
    text
}

/// The code that was probably meant: by its last word, as that is the one that is remembered.
fn nearest(code: &str) -> String {
    let last = |code: &str| code.rsplit("::").next().unwrap_or_default().to_owned();
    let (wanted, known) = (last(code), pages().iter().map(|page| (last(page.code), page.code)).collect::<Vec<_>>());
    let same = known.iter().find(|(word, _)| *word == wanted);
    let meant =
        same.map(|(word, _)| word.as_str()).or_else(|| closest(&wanted, known.iter().map(|(word, _)| word.as_str())));
    match meant.and_then(|meant| known.iter().find(|(word, _)| word == meant)) {
        Some((_, code)) => format!("did you mean `{code}`?"),
        None => "`moec explain-error --list` has them all".to_owned(),
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("no problem has the code `{code}`")]
#[diagnostic(code(moec::explain_error::unknown_code), help("{help}"))]
struct UnknownCode {
    code: String,
    help: String,
}
