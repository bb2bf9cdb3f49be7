//! Text to tree: the grammar (`grammar/moe.pest`), a parser that recovers, and the tree it makes.
//!
//! A file is cut into items and statements by words and brackets (`scan`, `outline`), each item is read by the grammar
//! (`grammar`), and where it stops, what is broken is reported (`expected`) and left out (`recover`), so that one run
//! finds the problems of all statements. `build` makes the tree.

#[cfg(test)]
mod agreement;
pub mod axes;
mod build;
pub mod concrete;
mod expected;
mod findings;
mod grammar;
mod outline;
mod recover;
mod scan;
pub mod tree;

use miette::Diagnostic;
use moec_diag::{Problems, SourceMap};
use thiserror::Error;

use expected::{Place, Reader};
use findings::Findings;
use grammar::Rule;

/// A file longer than this is refused.
pub const LARGEST_FILE_BYTES: usize = 4 << 20;

/// A file with a longer line is refused: no report could show it.
const LONGEST_LINE_BYTES: usize = 10_000;

/// Reads a file and adds it to the sources; spans in the tree are theirs.
///
/// The tree holds what could be read even where there are problems; it is all of the file only where there are none.
/// `None` where the text is no `.moe` file at all: binary, over [`LARGEST_FILE_BYTES`], or with an endless line.
pub fn parse(sources: &mut SourceMap, name: &str, text: &str) -> (Option<tree::File>, Problems) {
    let (base, problems) = add(sources, name, text);
    if !problems.is_empty() {
        return (None, problems);
    }
    let mut findings = Findings::new(base, text);
    let file = read_file(text, &mut findings);
    (Some(file), findings.into_problems())
}

/// As [`parse`], for bytes that may not be text at all.
pub fn parse_bytes(sources: &mut SourceMap, name: &str, bytes: &[u8]) -> (Option<tree::File>, Problems) {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(sources, name, text),
        Err(error) => {
            let mut problems = Problems::default();
            match file_refused(name, bytes) {
                Some(Refused::TooLarge(problem)) => problems.report(problem),
                Some(Refused::Binary(problem)) => problems.report(problem),
                Some(Refused::LongLine(problem)) => problems.report(problem),
                None => problems.report(NotUtf8 { name: name.to_owned(), offset: error.valid_up_to() }),
            }
            (None, problems)
        }
    }
}

/// Reads one expression by itself, such as the value of `--set NAME=VALUE`; `name` says in reports where it came from.
pub fn parse_expr(sources: &mut SourceMap, name: &str, text: &str) -> (Option<tree::Expr>, Problems) {
    let (base, problems) = add(sources, name, text);
    if !problems.is_empty() {
        return (None, problems);
    }
    let mut findings = Findings::new(base, text);
    let scan = scan::scan(text);
    if outline::expression_is_sound(text, &scan, &mut findings) {
        match grammar::read(Rule::lone_expression, text) {
            Ok(pair) => {
                let expr = build::expression(pair, &scan, &mut findings);
                return (expr, findings.into_problems());
            }
            Err(stop) => {
                Reader { text, scan: &scan }.report(stop, 0..text.len() as u32, Place::Expression, &mut findings)
            }
        }
    }
    (None, findings.into_problems())
}

/// Adds a text to the sources, unless it is refused.
fn add(sources: &mut SourceMap, name: &str, text: &str) -> (u32, Problems) {
    let mut problems = Problems::default();
    match file_refused(name, text.as_bytes()) {
        Some(Refused::TooLarge(problem)) => problems.report(problem),
        Some(Refused::Binary(problem)) => problems.report(problem),
        Some(Refused::LongLine(problem)) => problems.report(problem),
        None => return (sources.add(name, text), problems),
    }
    (0, problems)
}

fn read_file(text: &str, findings: &mut Findings) -> tree::File {
    // A byte order mark at the start means nothing.
    let blanked = text.strip_prefix('\u{feff}').map(|rest| format!("   {rest}"));
    let text = blanked.as_deref().unwrap_or(text);
    let scan = scan::scan(text);
    let mut file = tree::File { at: findings.span(0, text.trim_end().len() as u32), ..tree::File::default() };
    // A `;` between items stands for nothing.
    let says_something = |token: &&scan::Token| &text[token.start as usize..token.end as usize] != ";";
    let first_token = scan.tokens.iter().find(says_something).map_or(u32::MAX, |token| token.start);
    let head = scan.docs.iter().take_while(|doc| doc.start < first_token).filter(|doc| doc.head);
    file.doc = head.map(|doc| doc.text.clone()).collect();
    for region in outline::outline(text, &scan, findings) {
        recover::read_region(text, &scan, &region, &mut file, findings);
    }
    file
}

enum Refused {
    TooLarge(FileTooLarge),
    Binary(BinaryFile),
    LongLine(LineTooLong),
}

fn file_refused(name: &str, bytes: &[u8]) -> Option<Refused> {
    let name = name.to_owned();
    if bytes.len() > LARGEST_FILE_BYTES {
        return Some(Refused::TooLarge(FileTooLarge { name, bytes: bytes.len() }));
    }
    if let Some(offset) = bytes.iter().position(|&byte| byte == 0) {
        return Some(Refused::Binary(BinaryFile { name, offset }));
    }
    let mut lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let (line, long) = lines.find(|(_, line)| line.len() > LONGEST_LINE_BYTES)?;
    Some(Refused::LongLine(LineTooLong { name, line: line + 1, bytes: long.len() }))
}

#[derive(Debug, Error, Diagnostic)]
#[error("{name} has {bytes} bytes")]
#[diagnostic(code(moec::syntax::file_too_large), help("a `.moe` file has at most {LARGEST_FILE_BYTES} bytes"))]
struct FileTooLarge {
    name: String,
    bytes: usize,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{name} is not text: byte {offset} is zero")]
#[diagnostic(code(moec::syntax::binary_file), help("give the path of a `.moe` file"))]
struct BinaryFile {
    name: String,
    offset: usize,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{name} is not UTF-8: it goes wrong at byte {offset}")]
#[diagnostic(code(moec::syntax::not_utf8), help("save it as UTF-8"))]
struct NotUtf8 {
    name: String,
    offset: usize,
}

#[derive(Debug, Error, Diagnostic)]
#[error("line {line} of {name} has {bytes} bytes")]
#[diagnostic(code(moec::syntax::line_too_long), help("a line has at most {LONGEST_LINE_BYTES} bytes: break it"))]
struct LineTooLong {
    name: String,
    line: usize,
    bytes: usize,
}
