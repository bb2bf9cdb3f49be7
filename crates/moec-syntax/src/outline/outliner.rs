//! The one walk over the tokens: a stack of what is open, the region and the segments being read.

use super::found::{Found, Kind, unknown_escape};
use super::{MOST_NESTED, Region, Segment, Shape};
use crate::scan::{Scan, Token, TokenKind, number_is_well_formed};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    Never,
    /// An item word at the left margin starts an item; a `}` closes a line of its own indent.
    ByIndent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Paren,
    Square,
    /// Around an expression, names or alternatives.
    Brace,
    /// Around statements, entries or rules.
    Body,
    /// An `if` whose brace is still to come. No bracket, but it nests like one.
    If,
}

struct Opener {
    bracket: Bracket,
    token: usize,
    /// Of a body: the segment being read in it.
    segment: Option<usize>,
    /// Of a body: the `layers` segment that it belongs to.
    owner: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the body's brace.
    Head,
    Body,
    /// In an item that has no body: it ends where the next begins.
    Tail,
}

pub struct Outliner<'a> {
    text: &'a str,
    tokens: &'a [Token],
    guess: Guess,
    pub regions: Vec<Region>,
    /// The region being read: the index of its first token.
    head: Option<usize>,
    phase: Phase,
    stack: Vec<Opener>,
    /// Openers inside a full stack, which are only counted.
    uncounted: usize,
    pub problems: Vec<Found>,
    /// No brace was found open or stray.
    pub braces_match: bool,
    /// Too deep nesting was reported for this region.
    too_deep: bool,
    whole_expression: bool,
}

/// More than anybody is told of: bounds the memory that a hostile file takes.
const MOST_NOTED: usize = 200;

const ITEM_WORDS: [&str; 9] = ["serves", "use", "config", "model", "weights", "fn", "block", "expert", "gate"];
pub const STATEMENT_WORDS: [&str; 6] = ["param", "part", "let", "route", "out", "layers"];
const RESERVED_IN_EXPRESSIONS: [&str; 7] = ["if", "else", "or", "and", "not", "in", "over"];

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

    fn word(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| &self.text[token.start as usize..token.end as usize])
    }

    fn is_word(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Word)
    }

    fn shape(&self) -> Shape {
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
                if let Some(escape) = unknown_escape(self.word(at)) {
                    self.found(Kind::UnknownEscape(escape), at);
                }
            }
            TokenKind::Unknown => self.found(Kind::UnknownCharacter, at),
        }
    }

    fn word_of_region(&self) -> &'a str {
        self.head.map_or("", |head| self.word(head))
    }

    /// No bracket is open.
    fn outside(&self) -> bool {
        self.stack.iter().all(|opener| opener.bracket == Bracket::If)
    }

    fn starts_item(&self, at: usize) -> bool {
        let Some(head) = self.head.filter(|_| !self.whole_expression) else { return false };
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
            Phase::Head if self.is_item_word(head) => certain && token.first_on_line,
            Phase::Head => token.first_on_line && token.indent == 0,
            Phase::Body => false,
            // Two expressions never stand side by side, so the word cannot belong to the one before.
            Phase::Tail => (certain && self.stack.is_empty()) || (at - 1 > head && self.ends_expression(at - 1)),
        }
    }

    fn is_item_word(&self, at: usize) -> bool {
        self.is_word(at) && ITEM_WORDS.contains(&self.word(at))
    }

    fn ends_expression(&self, at: usize) -> bool {
        match self.tokens[at].kind {
            TokenKind::Word => !RESERVED_IN_EXPRESSIONS.contains(&self.word(at)),
            TokenKind::Number | TokenKind::Text { .. } | TokenKind::Close => true,
            TokenKind::Mark => self.word(at) == ";",
            TokenKind::Open | TokenKind::Unknown => false,
        }
    }

    fn start_region(&mut self, at: usize) {
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

    fn end_region(&mut self, end: u32) {
        if self.head.take().is_some()
            && let Some(region) = self.regions.last_mut()
        {
            region.end = end;
        }
        self.uncounted = 0;
    }

    /// Notices that a new statement, entry or rule starts at this token, and that brackets before it were left open.
    fn enter_segment(&mut self, at: usize) {
        let Some(body) = self.stack.iter().rposition(|opener| opener.bracket == Bracket::Body) else { return };
        let directly = body + 1 == self.stack.len();
        if directly && matches!(self.word(at), ";" | "}") {
            self.leave_segment(body, at);
            return;
        }
        let fresh = directly && self.stack[body].segment.is_none();
        let boundary = self.is_boundary(at, directly);
        if !(fresh || boundary) {
            return;
        }
        self.unclosed_above(body + 1, at);
        self.leave_segment(body, at);
        let owner = self.stack[body].owner;
        let Some(region) = self.regions.last_mut() else { return };
        let start = self.tokens[at].start;
        self.stack[body].segment = Some(region.segments.len());
        region.segments.push(Segment {
            start,
            end: start,
            whole_end: start,
            parent: owner,
            opens: false,
            unclosed: false,
            broken: false,
        });
    }

    /// The segment being read in a body ends before this token.
    fn leave_segment(&mut self, body: usize, at: usize) {
        let Some(segment) = self.stack[body].segment.take() else { return };
        let end = self.start_of(at);
        let Some(region) = self.regions.last_mut() else { return };
        let segment = &mut region.segments[segment];
        if !segment.opens {
            segment.end = end;
        }
        segment.whole_end = end;
    }

    fn is_boundary(&self, at: usize, directly: bool) -> bool {
        let word = self.word(at);
        let before = if at == 0 { "" } else { self.word(at - 1) };
        match self.shape() {
            Shape::Statements => {
                // Where only a name can stand, such a word is a mistake of another kind.
                let misplaced = before == "." || (matches!(before, "(" | "[" | ",") && !self.tokens[at].first_on_line);
                let statement = self.is_word(at) && STATEMENT_WORDS.contains(&word) && !misplaced;
                statement || self.is_assigned(at, before) || (directly && self.begins_line_anew(at, before))
            }
            Shape::Settings => {
                let requires = word == "require" && self.word(at + 1).starts_with('"');
                requires || self.is_assigned(at, before) || (directly && self.begins_line_anew(at, before))
            }
            Shape::Rules => {
                let continues = matches!(before, "(" | "[" | "," | "{" | "." | "=" | "as" | "ignore");
                let starts = self.is_word(at) || (directly && word == "{");
                let after_rule = directly && (before.starts_with('"') || before == "]");
                starts && !continues && word != "as" && (self.tokens[at].first_on_line || after_rule)
            }
            Shape::Bare => false,
        }
    }

    /// `name =` that is not `let name =` nor a named argument or axis.
    fn is_assigned(&self, at: usize, before: &str) -> bool {
        let first = self.tokens[at].first_on_line;
        let in_braces = self.stack.last().is_some_and(|opener| opener.bracket == Bracket::Brace);
        self.is_word(at)
            && self.word(at + 1) == "="
            && !matches!(before, "let" | "part" | "param" | "out" | "(" | "[" | "," | ":" | ".")
            && (first || !in_braces && (matches!(before, "{" | "}") || self.ends_expression(at - 1)))
    }

    /// A line that begins with a word or a string after an expression: two expressions never stand side by side.
    fn begins_line_anew(&self, at: usize, before: &str) -> bool {
        let continues = RESERVED_IN_EXPRESSIONS.contains(&self.word(at)) || matches!(self.word(at), "as" | "from");
        let waits = STATEMENT_WORDS.contains(&before) || matches!(before, "from" | "require" | "as" | "moe");
        self.tokens[at].first_on_line
            && matches!(self.tokens[at].kind, TokenKind::Word | TokenKind::Text { .. })
            && !continues
            && !waits
            && at > 0
            && self.ends_expression(at - 1)
    }

    fn push(&mut self, bracket: Bracket, token: usize) {
        if self.stack.len() < MOST_NESTED {
            self.stack.push(Opener { bracket, token, segment: None, owner: None });
            return;
        }
        if bracket != Bracket::If {
            self.uncounted += 1;
        }
        self.mark_broken();
        if !std::mem::replace(&mut self.too_deep, true) {
            self.found(Kind::TooDeep, token);
        }
    }

    fn open(&mut self, at: usize) {
        let before = if at == 0 { "" } else { self.word(at - 1) };
        match self.word(at) {
            "(" => self.push(Bracket::Paren, at),
            "[" => self.push(Bracket::Square, at),
            _ if matches!(before, "else" | "moe" | "::") => self.push(Bracket::Brace, at),
            _ if self.stack.last().is_some_and(|opener| opener.bracket == Bracket::If) => {
                self.stack.pop();
                self.push(Bracket::Brace, at);
            }
            _ if self.head.is_some() && self.phase == Phase::Head => {
                self.unclosed_above(0, at);
                self.phase = Phase::Body;
                self.push(Bracket::Body, at);
            }
            _ => match self.layers_at_head() {
                Some((body, segment)) => {
                    self.unclosed_above(body + 1, at);
                    let end = self.tokens[at].end;
                    if let Some(region) = self.regions.last_mut() {
                        region.segments[segment].opens = true;
                        region.segments[segment].end = end;
                    }
                    self.push(Bracket::Body, at);
                    if let Some(opener) = self.stack.last_mut().filter(|opener| opener.token == at) {
                        opener.owner = Some(segment);
                    }
                }
                None => self.push(Bracket::Brace, at),
            },
        }
    }

    /// The body and the segment of a statement whose own body this brace opens: `layers`, or a loop of another language.
    fn layers_at_head(&self) -> Option<(usize, usize)> {
        let body = self.stack.iter().rposition(|opener| matches!(opener.bracket, Bracket::Body | Bracket::Brace))?;
        let segment = self.stack[body].segment?;
        let found = &self.regions.last()?.segments[segment];
        let word = &self.text[found.start as usize..self.tokens[self.scan_index(found.start)].end as usize];
        let has_body = word == "layers" || !STATEMENT_WORDS.contains(&word);
        (has_body && !found.opens && self.shape() == Shape::Statements).then_some((body, segment))
    }

    fn scan_index(&self, offset: u32) -> usize {
        self.tokens.partition_point(|token| token.end <= offset)
    }

    fn close(&mut self, at: usize) {
        if self.uncounted > 0 {
            self.uncounted -= 1;
            return;
        }
        while self.stack.last().is_some_and(|opener| opener.bracket == Bracket::If) {
            self.stack.pop();
        }
        let closer = self.word(at);
        if closer == "}" {
            self.close_brace(at);
            return;
        }
        match self.stack.last().map(|opener| (opener.bracket, opener.token)) {
            Some((Bracket::Paren, _)) if closer == ")" => {
                self.stack.pop();
            }
            Some((Bracket::Square, _)) if closer == "]" => {
                self.stack.pop();
            }
            Some((Bracket::Paren | Bracket::Square, opener)) => {
                self.stack.pop();
                self.found(Kind::Mismatched(self.tokens[opener]), at);
            }
            Some((Bracket::Brace | Bracket::Body | Bracket::If, _)) | None => self.found(Kind::Stray, at),
        }
    }

    fn close_brace(&mut self, at: usize) {
        let brace = |opener: &Opener| matches!(opener.bracket, Bracket::Brace | Bracket::Body);
        let Some(mut depth) = self.stack.iter().rposition(brace) else {
            self.braces_match = false;
            // In the head of an item the grammar says what is missing.
            if self.phase != Phase::Head || self.word_of_region() == "}" {
                self.found(Kind::Stray, at);
            }
            self.unclosed_above(0, at);
            self.end_region(self.tokens[at].end);
            return;
        };
        if self.guess == Guess::ByIndent && self.tokens[at].first_on_line {
            let indent = self.tokens[at].indent;
            let line_indent = |opener: &Opener| self.tokens[opener.token].indent;
            let level = self.stack.iter().rposition(|opener| brace(opener) && line_indent(opener) == indent);
            if let Some(level) = level
                && line_indent(&self.stack[depth]) > indent
            {
                depth = level;
            }
        }
        self.unclosed_above(depth + 1, at);
        if self.stack[depth].bracket == Bracket::Body {
            self.leave_segment(depth, at);
        }
        let end = self.tokens[at].end;
        let Some(closed) = self.stack.pop() else { return };
        if let (Some(owner), Some(region)) = (closed.owner, self.regions.last_mut()) {
            region.segments[owner].whole_end = end;
            // What follows on the same level is a statement of its own.
            if let Some(outer) = self.stack.last_mut() {
                outer.segment = None;
            }
        }
        if closed.bracket == Bracket::Body && self.stack.is_empty() {
            self.end_region(end);
        }
    }

    /// Reports what is open above a depth of the stack, and drops it; the token is where that is noticed.
    fn unclosed_above(&mut self, depth: usize, at: usize) {
        if self.stack.len() > depth {
            self.uncounted = 0;
        }
        while self.stack.len() > depth {
            let body = self.stack.iter().rposition(|opener| opener.bracket == Bracket::Body);
            let from = depth.max(body.map_or(0, |body| body + 1));
            if from == self.stack.len() {
                self.unclosed_body(at);
                continue;
            }
            // Of several brackets in one statement the outermost is the one that a reader looks for.
            let open = self.stack[from..].iter().find(|opener| opener.bracket != Bracket::If);
            if let Some(opener) = open.map(|opener| opener.token) {
                self.found(Kind::Unclosed, opener);
            }
            self.stack.truncate(from);
        }
    }

    /// Drops the body on top of the stack, whose closing brace is missing.
    fn unclosed_body(&mut self, at: usize) {
        self.leave_segment(self.stack.len() - 1, at);
        let Some(body) = self.stack.pop() else { return };
        self.braces_match = false;
        self.note(Found { kind: Kind::Unclosed, token: self.tokens[body.token] });
        let end = self.start_of(at);
        let Some(region) = self.regions.last_mut() else { return };
        match body.owner {
            Some(owner) => {
                region.segments[owner].unclosed = true;
                region.segments[owner].whole_end = end;
            }
            None => region.unclosed = true,
        }
    }

    /// Where a token starts, or the text ends.
    fn start_of(&self, at: usize) -> u32 {
        self.tokens.get(at).map_or(self.text.len() as u32, |token| token.start)
    }

    fn mark_broken(&mut self) {
        let segment = self.stack.iter().rev().find_map(|opener| match opener.bracket {
            Bracket::Body => Some(opener.segment.or(opener.owner)),
            Bracket::Paren | Bracket::Square | Bracket::Brace | Bracket::If => None,
        });
        let Some(region) = self.regions.last_mut() else { return };
        match segment.flatten() {
            Some(segment) => region.segments[segment].broken = true,
            None => region.broken = true,
        }
    }

    fn found(&mut self, kind: Kind, at: usize) {
        self.mark_broken();
        if matches!(kind, Kind::Unclosed | Kind::Stray) && matches!(self.word(at), "{" | "}") {
            self.braces_match = false;
        }
        self.note(Found { kind, token: self.tokens[at] });
    }

    fn note(&mut self, found: Found) {
        // `))))` is one mistake.
        let repeated = self.problems.last().is_some_and(|last| {
            last.kind == Kind::Stray && found.kind == Kind::Stray && last.token.end == found.token.start
        });
        if repeated {
            self.problems.pop();
        }
        if self.problems.len() < MOST_NOTED {
            self.problems.push(found);
        }
    }
}
