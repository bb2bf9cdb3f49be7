//! Text to words, numbers, strings, marks: enough to find brackets, statements and documentation around a broken place.
//!
//! The grammar judges what is well formed; this scan only has to agree with it on comments, strings and word bounds.

/// A piece of the text between white space and comments; offsets are within the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    pub start: u32,
    pub end: u32,
    /// Nothing stands before it on its line.
    pub first_on_line: bool,
    /// Bytes of white space at the start of its line.
    pub indent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Word,
    Number,
    /// A string, quotes included; where it is not closed, to the end of its line.
    Text {
        closed: bool,
    },
    Open,
    Close,
    /// An operator or separator.
    Mark,
    /// A character that means nothing in the language, or several of it.
    Unknown,
}

/// One `///` or `//!` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocLine {
    pub head: bool,
    pub text: String,
    pub start: u32,
}

#[derive(Debug, Default)]
pub struct Scan {
    pub tokens: Vec<Token>,
    pub docs: Vec<DocLine>,
}

impl Scan {
    /// The index of the first token that ends after `offset`.
    pub fn index_at(&self, offset: u32) -> usize {
        self.tokens.partition_point(|token| token.end <= offset)
    }
}

const TWO_BYTE_MARKS: [&str; 8] = ["==", "!=", "<=", ">=", "..", "::", "·", "×"];

pub fn scan(text: &str) -> Scan {
    let mut found = Scan::default();
    let mut line = Line { fresh: true, start: 0, indent: 0 };
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        if next == '\n' {
            at += 1;
            line = Line { fresh: true, start: at, indent: 0 };
            continue;
        }
        if matches!(next, ' ' | '\t' | '\r') {
            at += 1;
            continue;
        }
        if text[at..].starts_with("//") {
            let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
            found.docs.extend(doc_line(&text[at..end], at));
            at = end;
            continue;
        }
        let (kind, length) = token(&text[at..], next);
        if line.fresh {
            line.indent = at - line.start;
        }
        found.tokens.push(Token {
            kind,
            start: at as u32,
            end: (at + length) as u32,
            first_on_line: line.fresh,
            indent: line.indent as u32,
        });
        line.fresh = false;
        at += length;
    }
    found
}

struct Line {
    fresh: bool,
    start: usize,
    indent: usize,
}

/// The kind and the length in bytes of the token at the start of `rest`, which is `next`.
fn token(rest: &str, next: char) -> (TokenKind, usize) {
    match next {
        '"' => string(rest),
        '(' | '[' | '{' => (TokenKind::Open, 1),
        ')' | ']' | '}' => (TokenKind::Close, 1),
        _ if next.is_ascii_digit() => (TokenKind::Number, number_length(rest)),
        _ if is_word(next) => (TokenKind::Word, rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
        _ if TWO_BYTE_MARKS.iter().any(|mark| rest.starts_with(mark)) => (TokenKind::Mark, 2),
        '=' | '<' | '>' | '+' | '-' | '*' | '/' | '%' | '^' | '@' | ',' | ';' | ':' | '.' | '|' => (TokenKind::Mark, 1),
        // One of a kind, as in `&&`, is one mistake.
        _ => (TokenKind::Unknown, rest.find(|c| c != next).unwrap_or(rest.len())),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn string(rest: &str) -> (TokenKind, usize) {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' | '\r' => return (TokenKind::Text { closed: false }, at),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return (TokenKind::Text { closed: true }, at + 1),
            _ => {}
        }
    }
    (TokenKind::Text { closed: false }, rest.len())
}

/// Digits with what a reader would take for a part of the number, well formed or not: `1e-6`, `1.5`, `0x10`, `2nd`.
fn number_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut exponent_seen = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let before_digit = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        let part = match byte {
            b'.' => before_digit && !exponent_seen,
            b'+' | b'-' => before_digit && exponent_seen && matches!(bytes[at - 1], b'e' | b'E'),
            _ => byte.is_ascii_alphanumeric() || byte == b'_',
        };
        if !part {
            break;
        }
        exponent_seen |= byte.is_ascii_alphabetic();
        at += 1;
    }
    at
}

fn doc_line(line: &str, at: usize) -> Option<DocLine> {
    let line = line.trim_end();
    let head = line.starts_with("//!");
    let item = line.starts_with("///") && !line.starts_with("////");
    let text = line.get(3..).filter(|_| head || item)?;
    Some(DocLine { head, text: text.strip_prefix(' ').unwrap_or(text).to_owned(), start: at as u32 })
}

/// Whether the grammar takes this spelling of a number.
pub fn number_is_well_formed(spelling: &str) -> bool {
    let (mantissa, exponent) = match spelling.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.trim_start_matches(['+', '-']))),
        None => (spelling, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits =
        |part: &str| part.split('_').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    digits(whole) && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}
