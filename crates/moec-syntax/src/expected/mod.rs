//! Where the text leaves the grammar: what was found, what could have stood there, and what to type.

mod help;
mod phrase;

use std::ops::Range;

use miette::Diagnostic;
use moec_diag::Span;
use thiserror::Error;

use crate::findings::Findings;
use crate::grammar::{Rule, Stop};
use crate::scan::{Scan, TokenKind};
use phrase::{Phrase, expectation, phrase};

/// What is being read, as far as it makes a difference to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Item,
    Statement,
    Setting,
    Rule,
    Expression,
}

/// The whole file, to see what stands around a place.
pub struct Reader<'a> {
    pub text: &'a str,
    pub scan: &'a Scan,
}

const RESERVED: [&str; 24] = [
    "param", "buffer", "part", "state", "let", "route", "out", "aux", "trace", "layers", "iterate", "if", "else",
    "moe", "bank", "scan", "true", "false", "or", "and", "not", "in", "over", "as",
];

impl<'a> Reader<'a> {
    /// `stop.at` is within the file, as is the `range` of the thing being read.
    pub fn report(&self, stop: Stop, range: Range<u32>, place: Place, findings: &mut Findings) {
        // White space is skipped before a token, so that the stop may be at the end of the one before.
        let at = self.scan.index_at(stop.at.min(self.text.len() as u32));
        let first = self.scan.index_at(range.start);
        let Some(token) = self.scan.tokens.get(at).filter(|token| token.start < range.end) else {
            return self.report_end(at, first, &stop.expected, place, findings);
        };
        let span = findings.span(token.start, token.end);
        let found = self.word(at);
        let wants_name = stop.expected.iter().any(|&rule| wants_name(rule));
        let wants_value = stop.expected.iter().any(|&rule| phrase(rule, place) == Phrase::Firm("an expression"));
        let named = wants_name && !wants_value || self.word(at + 1) == "=";
        if RESERVED.contains(&found) && named {
            findings.report(span, ReservedWord { word: found.to_owned(), at: span });
            return;
        }
        let expected = expectation(&stop.expected, place);
        let help = self
            .help(at, first, &stop.expected, wants_value, place)
            .unwrap_or_else(|| format!("write {expected} here"));
        findings.report(span, Unexpected { found: self.describe(at), expected, help, at: span });
    }

    /// The thing being read ends before the token `at`, and the grammar wants more of it.
    fn report_end(&self, at: usize, first: usize, expected: &[Rule], place: Place, findings: &mut Findings) {
        let end = at.checked_sub(1).map_or(0, |before| self.scan.tokens[before].end);
        let at = findings.span(end, end);
        let what = match place {
            Place::Item => "item",
            Place::Statement => "statement",
            Place::Setting => "entry",
            Place::Rule => "rule",
            Place::Expression => "expression",
        };
        let expected = expectation(expected, place);
        let help = self.help_at_end(first, place).unwrap_or_else(|| format!("write {expected} here"));
        findings.report(at, EndsEarly { what, expected, help, at });
    }

    fn word(&self, at: usize) -> &'a str {
        self.scan.tokens.get(at).map_or("", |token| &self.text[token.start as usize..token.end as usize])
    }

    fn before(&self, at: usize, back: usize) -> &'a str {
        at.checked_sub(back).map_or("", |at| self.word(at))
    }

    fn describe(&self, at: usize) -> String {
        let Some(token) = self.scan.tokens.get(at) else { return "end".into() };
        let spelling = self.word(at);
        let short = |spelling: &str| {
            let cut = spelling.char_indices().nth(40).map(|(cut, _)| cut);
            cut.map_or(spelling.to_owned(), |cut| format!("{}…", &spelling[..cut]))
        };
        match token.kind {
            TokenKind::Text { .. } => format!("string {}", short(spelling)),
            TokenKind::Number => format!("number {}", short(spelling)),
            TokenKind::Word | TokenKind::Open | TokenKind::Close | TokenKind::Mark | TokenKind::Unknown => {
                format!("`{}`", short(spelling))
            }
        }
    }
}

fn wants_name(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::name
            | Rule::pattern
            | Rule::place
            | Rule::formal
            | Rule::input
            | Rule::axis
            | Rule::regroup_to
            | Rule::lane
    )
}

#[derive(Debug, Error, Diagnostic)]
#[error("unexpected {found}")]
#[diagnostic(code(moec::syntax::unexpected), help("{help}"))]
struct Unexpected {
    found: String,
    expected: String,
    help: String,
    #[label("expected {expected}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the {what} ends too early")]
#[diagnostic(code(moec::syntax::ends_early), help("{help}"))]
struct EndsEarly {
    what: &'static str,
    expected: String,
    help: String,
    #[label("expected {expected}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{word}` is a word of the language and cannot be a name")]
#[diagnostic(code(moec::syntax::reserved_word), help("choose another name, such as `{word}_`"))]
struct ReservedWord {
    word: String,
    #[label("a name is expected here")]
    at: Span,
}
