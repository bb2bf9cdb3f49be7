//! The one walk over the tokens: a stack of what is open, the region and the segments being read.

use super::found::{Found, Kind, closer_of, unknown_escape};
use super::{Region, Shape};
use crate::scan::{Scan, Token, TokenKind, number_is_well_formed};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    Never,
    /// An item word at the left margin starts an item; a `}` closes a line of its own indent.
    ByIndent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    Paren,
    Square,
    /// Around an expression, names or alternatives.
    Brace,
    /// Around statements, entries or rules.
    Body,
    /// Around the statements of a `scan`: parts of the statement that the `scan` stands in.
    Scan,
    /// An `if` whose brace is still to come. No bracket, but it nests like one.
    If,
}

pub(super) struct Opener {
    pub bracket: Bracket,
    pub token: usize,
    /// Of a body: the segment being read in it.
    pub segment: Option<usize>,
    /// Of a body: the `layers` segment that it belongs to.
    pub owner: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the body's brace.
    Head,
    Body,
    /// In an item that has no body: it ends where the next begins.
    Tail,
}

pub struct Outliner<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: &'a [Token],
    pub(super) guess: Guess,
    pub regions: Vec<Region>,
    /// The region being read: the index of its first token.
    pub(super) head: Option<usize>,
    pub(super) phase: Phase,
    pub(super) stack: Vec<Opener>,
    /// Openers inside a full stack, which are only counted.
    pub(super) uncounted: usize,
    pub problems: Vec<Found>,
    /// No brace was found open or stray.
    pub braces_match: bool,
    /// Too deep nesting was reported for this region.
    pub(super) too_deep: bool,
    whole_expression: bool,
}

/// More than anybody is told of: bounds the memory that a hostile file takes.
const MOST_NOTED: usize = 200;

/// The words that begin an item.
pub const ITEM_WORDS: [&str; 9] = ["serves", "use", "config", "model", "weights", "fn", "block", "expert", "gate"];
/// Words that begin an item in other languages.
const FOREIGN_ITEM_WORDS: [&str; 8] = ["def", "func", "function", "import", "include", "class", "struct", "router"];
/// The words that begin a statement. They are reserved, so each is a sure sign of one.
pub const STATEMENT_WORDS: [&str; 10] =
    ["param", "buffer", "part", "state", "let", "route", "out", "aux", "trace", "layers"];
pub(super) const RESERVED_IN_EXPRESSIONS: [&str; 7] = ["if", "else", "or", "and", "not", "in", "over"];

impl<'a> Outliner<'a> {
    pub fn new(text: &'a str, scan: &'a Scan, guess: Guess) -> Self {
        Outliner {
            text,
            tokens: &scan.tokens,
            guess,
            regions: Vec::new(),
            head: None,
            phase: Phase::Head,
            stack: Vec::new(),
            uncounted: 0,
            problems: Vec::new(),
            braces_match: true,
            too_deep: false,
            whole_expression: false,
        }
    }

    /// The text is one expression, in which no item can start.
    pub fn expression(mut self) -> Self {
        self.whole_expression = true;
        self
    }

    pub fn run(mut self) -> Self {
        for at in 0..self.tokens.len() {
            self.token(at);
        }
        self.unclosed_above(0, self.tokens.len());
        self.end_region(self.text.len() as u32);
        self
    }

    pub(super) fn word(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| &self.text[token.start as usize..token.end as usize])
    }

    pub(super) fn is_word(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Word)
    }

    pub(super) fn shape(&self) -> Shape {
        self.regions.last().map_or(Shape::Bare, |region| region.shape)
    }

    fn token(&mut self, at: usize) {
        let token = self.tokens[at];
        if self.starts_item(at) {
            self.unclosed_above(0, at);
            self.end_region(token.start);
        }
        if self.head.is_none() {
            if self.word(at) == ";" {
                return;
            }
            self.start_region(at);
        }
        self.enter_segment(at);
        match token.kind {
            TokenKind::Open => self.open(at),
            TokenKind::Close => self.close(at),
            TokenKind::Word => {
                if self.word(at) == "if" && self.shape() != Shape::Rules {
                    self.push(Bracket::If, at);
                }
            }
            TokenKind::Mark => {
                if self.word(at) == "=" && self.phase == Phase::Head && self.word_of_region() == "fn" && self.outside()
                {
                    self.phase = Phase::Tail;
                }
            }
            TokenKind::Number => {
                if !number_is_well_formed(self.word(at)) {
                    self.found(Kind::MalformedNumber, at);
                }
            }
            TokenKind::Text { closed: false } => self.found(Kind::UnclosedText, at),
            TokenKind::Text { closed: true } => {
                if let Some((offset, escape)) = unknown_escape(self.word(at)) {
                    self.mark_broken();
                    let start = token.start + offset as u32;
                    let token = Token { start, end: start + 1 + escape.len_utf8() as u32, ..token };
                    self.note(Found { kind: Kind::UnknownEscape(escape), token });
                }
            }
            TokenKind::Unknown => self.found(Kind::UnknownCharacter, at),
        }
    }

    pub(super) fn word_of_region(&self) -> &'a str {
        self.head.map_or("", |head| self.word(head))
    }

    /// No bracket is open.
    fn outside(&self) -> bool {
        self.stack.iter().all(|opener| opener.bracket == Bracket::If)
    }

    fn starts_item(&self, at: usize) -> bool {
        let Some(head) = self.head.filter(|_| !self.whole_expression) else { return false };
        if self.is_foreign_item(at) && at != head && self.outside() && self.phase != Phase::Body {
            return true;
        }
        if !self.is_item_word(at) || at == head {
            return false;
        }
        let token = self.tokens[at];
        let certain = match self.word(at) {
            "serves" => matches!(self.tokens.get(at + 1).map(|next| next.kind), Some(TokenKind::Text { .. })),
            "use" => self.is_word(at + 1) && self.word(at + 2) == "::",
            "config" => self.word(at + 1) == "{",
            "weights" => self.is_word(at + 1) && self.word(at + 2) == "{",
            "model" | "fn" => self.is_word(at + 1) && self.word(at + 2) == "(",
            _ => self.is_word(at + 1) && matches!(self.word(at + 2), "(" | "{"),
        };
        if self.guess == Guess::ByIndent && token.first_on_line && token.indent == 0 && certain {
            return true;
        }
        if !self.outside() {
            return false;
        }
        match self.phase {
            Phase::Head if self.is_item_word(head) => {
                let at_margin = token.indent == 0 && self.is_word(at + 1) && self.ends_expression(at - 1);
                token.first_on_line && (certain || at_margin)
            }
            Phase::Head => token.first_on_line && token.indent == 0,
            Phase::Body => false,
            // Two expressions never stand side by side, so the word cannot belong to the one before.
            Phase::Tail => (certain && self.stack.is_empty()) || (at - 1 > head && self.ends_expression(at - 1)),
        }
    }

    /// A line at the left margin that begins as an item does in another language.
    fn is_foreign_item(&self, at: usize) -> bool {
        let token = self.tokens[at];
        let alone = token.first_on_line && token.indent == 0 && self.is_word(at + 1);
        alone && at > 0 && self.ends_expression(at - 1) && FOREIGN_ITEM_WORDS.contains(&self.word(at))
    }

    fn is_item_word(&self, at: usize) -> bool {
        self.is_word(at) && ITEM_WORDS.contains(&self.word(at))
    }

    pub(super) fn ends_expression(&self, at: usize) -> bool {
        match self.tokens[at].kind {
            TokenKind::Word => !RESERVED_IN_EXPRESSIONS.contains(&self.word(at)),
            TokenKind::Number | TokenKind::Text { .. } | TokenKind::Close => true,
            TokenKind::Mark => self.word(at) == ";",
            TokenKind::Open | TokenKind::Unknown => false,
        }
    }

    pub(super) fn start_region(&mut self, at: usize) {
        let (shape, phase) = match self.word(at) {
            _ if self.whole_expression => (Shape::Bare, Phase::Tail),
            "config" => (Shape::Settings, Phase::Head),
            "weights" => (Shape::Rules, Phase::Head),
            "model" | "fn" | "block" | "expert" | "gate" => (Shape::Statements, Phase::Head),
            "serves" | "use" => (Shape::Bare, Phase::Tail),
            _ => (Shape::Bare, Phase::Head),
        };
        let start = self.tokens[at].start;
        let region = Region { start, end: start, shape, segments: Vec::new(), broken: false, unclosed: false };
        self.regions.push(region);
        (self.head, self.phase, self.too_deep) = (Some(at), phase, false);
    }

    pub(super) fn end_region(&mut self, end: u32) {
        if self.head.take().is_some()
            && let Some(region) = self.regions.last_mut()
        {
            region.end = end;
        }
        self.uncounted = 0;
    }

    pub(super) fn mark_broken(&mut self) {
        let segment = self.stack.iter().rev().find_map(|opener| match opener.bracket {
            Bracket::Body => Some(opener.segment.or(opener.owner)),
            Bracket::Paren | Bracket::Square | Bracket::Brace | Bracket::Scan | Bracket::If => None,
        });
        let Some(region) = self.regions.last_mut() else { return };
        match segment.flatten() {
            Some(segment) => region.segments[segment].broken = true,
            None => region.broken = true,
        }
    }

    pub(super) fn found(&mut self, kind: Kind, at: usize) {
        self.mark_broken();
        if matches!(kind, Kind::Unclosed(_) | Kind::Stray) && matches!(self.word(at), "{" | "}") {
            self.braces_match = false;
        }
        self.note(Found { kind, token: self.tokens[at] });
    }

    fn spelled(&self, token: Token) -> &'a str {
        &self.text[token.start as usize..token.end as usize]
    }

    pub(super) fn note(&mut self, found: Found) {
        // `))))` is one mistake.
        let repeated = self.problems.last().is_some_and(|last| {
            last.kind == Kind::Stray && found.kind == Kind::Stray && last.token.end == found.token.start
        });
        if repeated {
            self.problems.pop();
        }
        // The wrong bracket was one too many: the right one follows.
        let follows = self.problems.last().is_some_and(|last| match last.kind {
            Kind::Mismatched(opener) => {
                found.kind == Kind::Stray && closer_of(self.spelled(opener)) == self.spelled(found.token)
            }
            _ => false,
        });
        if follows {
            return;
        }
        if self.problems.len() < MOST_NOTED {
            self.problems.push(found);
        }
    }
}
