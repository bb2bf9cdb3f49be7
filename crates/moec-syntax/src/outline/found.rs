//! What the outline finds: brackets that do not match, and pieces of text that are nothing in the language.

use miette::Diagnostic;
use moec_diag::Span;
use thiserror::Error;

use super::MOST_NESTED;
use crate::findings::Findings;
use crate::scan::Token;

/// A problem at a token. Reported only once the outline is final.
#[derive(Clone, Copy)]
pub struct Found {
    pub kind: Kind,
    pub token: Token,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not closed before the token given, where the text does not just end.
    Unclosed(Option<Token>),
    Stray,
    /// Closes the opener given.
    Mismatched(Token),
    TooDeep,
    MalformedNumber,
    UnclosedText,
    UnknownEscape(char),
    UnknownCharacter,
}

impl Found {
    pub fn report(&self, text: &str, findings: &mut Findings) {
        let spelling = |token: Token| text[token.start as usize..token.end as usize].to_owned();
        let at = findings.span(self.token.start, self.token.end);
        let found = spelling(self.token);
        match self.kind {
            Kind::Unclosed(before) => {
                let closer = closer_of(&found);
                let before_at = before.map(|token| findings.span(token.start, token.end));
                findings.report(at, Unclosed { opener: found, closer, at, before_at });
            }
            Kind::Stray => findings.report(at, Stray { closer: found, at }),
            Kind::Mismatched(opener) => {
                let opener_at = findings.span(opener.start, opener.end);
                let opener = spelling(opener);
                let closer = closer_of(&opener);
                findings.report(at, Mismatched { opener, closer, found, at, opener_at });
            }
            Kind::TooDeep => findings.report(at, TooDeep { at }),
            Kind::MalformedNumber => {
                let help = number_help(&found);
                findings.report(at, MalformedNumber { found: abbreviated(&found), help, at });
            }
            Kind::UnclosedText => findings.report(at, UnclosedText { at }),
            Kind::UnknownEscape(escape) => {
                findings.report(at, UnknownEscape { escape: escape.escape_debug().to_string(), at })
            }
            Kind::UnknownCharacter => {
                let help = character_help(&found);
                findings.report(at, UnknownCharacter { found: visible(&found), help, at });
            }
        }
    }
}

/// Where in a string the first escape stands that the language does not have, and which it is.
pub fn unknown_escape(spelling: &str) -> Option<(usize, char)> {
    let mut characters = spelling.char_indices();
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            let (_, escape) = characters.next()?;
            if !matches!(escape, '"' | '\\' | 'n' | 't') {
                return Some((at, escape));
            }
        }
    }
    None
}

pub(super) fn closer_of(opener: &str) -> &'static str {
    match opener {
        "(" => ")",
        "[" => "]",
        _ => "}",
    }
}

/// A spelling short enough to stand in a message.
fn abbreviated(spelling: &str) -> String {
    if spelling.chars().count() <= 32 {
        return spelling.to_owned();
    }
    spelling.chars().take(31).chain(['…']).collect()
}

fn visible(character: &str) -> String {
    match character.chars().next() {
        Some(c) if c.is_ascii_graphic() => format!("`{}`", abbreviated(character)),
        Some(c) if !c.is_control() && !c.is_whitespace() && !is_invisible(c) => format!("`{c}` (U+{:04X})", c as u32),
        Some(c) => format!("U+{:04X}", c as u32),
        None => String::new(),
    }
}

/// Takes no room, or turns the direction of what follows.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn character_help(character: &str) -> String {
    match character.chars().next() {
        Some('#') => "a comment starts with `//`".into(),
        Some('\'' | '`' | '“' | '”' | '‘' | '’' | '„') => "a string stands between `\"` and `\"`".into(),
        Some('&') => "write `and`".into(),
        Some('!') => "write `not`, or `!=` for unequal".into(),
        Some('~') => "write `not`".into(),
        Some('⋅' | '∙' | '•') => "a contraction is `·` (U+00B7), or `@`".into(),
        Some('✕' | '⨯' | '✖') => "a bank's count is `×` (U+00D7), or the word `times`".into(),
        Some('−' | '–' | '—') => "write the minus sign as `-`".into(),
        Some('≤') => "write `<=`".into(),
        Some('≥') => "write `>=`".into(),
        Some('≠') => "write `!=`".into(),
        Some('∈') => "write `in`".into(),
        Some('∞') => "write `inf`".into(),
        Some('?') => "a choice is written `if condition { a } else { b }`".into(),
        Some('…') => "a range is written `from..to`, with two dots".into(),
        Some('\u{a0}' | '\u{2000}'..='\u{200b}' | '\u{3000}' | '\u{feff}') => "replace this with a plain space".into(),
        Some(c) if c.is_alphanumeric() => "names are of `A`–`Z`, `a`–`z`, `0`–`9` and `_`".into(),
        Some(_) | None => "remove it".into(),
    }
}

fn number_help(spelling: &str) -> String {
    let digits = spelling.find(|c: char| !c.is_ascii_digit()).unwrap_or(spelling.len());
    let (whole, rest) = spelling.split_at(digits);
    if spelling.starts_with("0x") || spelling.starts_with("0b") {
        "numbers are decimal".into()
    } else if rest.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.starts_with(['e', 'E']) {
        format!(
            "a name does not start with a digit; to multiply, write `{} * {}`",
            abbreviated(whole),
            abbreviated(rest)
        )
    } else {
        "write a number like `42`, `1_000`, `0.5` or `1e-6`".into()
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{opener}` is never closed")]
#[diagnostic(code(moec::syntax::unclosed), help("add the `{closer}` that belongs to it"))]
struct Unclosed {
    opener: String,
    closer: &'static str,
    #[label("opened here")]
    at: Span,
    #[label("still open here")]
    before_at: Option<Span>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{closer}` closes nothing")]
#[diagnostic(code(moec::syntax::stray_closer), help("remove it, or add what it should close"))]
struct Stray {
    closer: String,
    #[label("nothing is open here that it could close")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{opener}` is closed by `{found}`")]
#[diagnostic(code(moec::syntax::mismatched), help("write `{closer}` instead"))]
struct Mismatched {
    opener: String,
    closer: &'static str,
    found: String,
    #[label("expected `{closer}`")]
    at: Span,
    #[label("opened here")]
    opener_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("brackets nest more than {MOST_NESTED} deep")]
#[diagnostic(code(moec::syntax::nested_too_deep), help("name inner parts with `let`"))]
struct TooDeep {
    #[label("one bracket or `if` too many")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{found}` is not a number")]
#[diagnostic(code(moec::syntax::malformed_number), help("{help}"))]
struct MalformedNumber {
    found: String,
    help: String,
    #[label("starts like a number")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("this string does not end on its line")]
#[diagnostic(code(moec::syntax::unclosed_string), help("close it with `\"`"))]
struct UnclosedText {
    #[label("starts here")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a string cannot have `\\{escape}`")]
#[diagnostic(code(moec::syntax::unknown_escape), help("the escapes are `\\\"`, `\\\\`, `\\n` and `\\t`"))]
struct UnknownEscape {
    escape: String,
    #[label("no escape of the language")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{found} is not a character of the language")]
#[diagnostic(code(moec::syntax::unknown_character), help("{help}"))]
struct UnknownCharacter {
    found: String,
    help: String,
    #[label("means nothing here")]
    at: Span,
}
