//! The stack of open brackets: what opens, closes, or was never closed.

use super::found::{Found, Kind};
use super::outliner::{Bracket, Guess, Opener, Outliner, Phase, STATEMENT_WORDS};
use super::{MOST_NESTED, Shape};

impl Outliner<'_> {
    pub(super) fn push(&mut self, bracket: Bracket, token: usize) {
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

    pub(super) fn open(&mut self, at: usize) {
        let before = if at == 0 { "" } else { self.word(at - 1) };
        match self.word(at) {
            "(" => self.push(Bracket::Paren, at),
            "[" => self.push(Bracket::Square, at),
            _ if matches!(before, "else" | "moe" | "bank" | "::") => self.push(Bracket::Brace, at),
            _ if self.ends_scan_head(at) => self.push(Bracket::Scan, at),
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

    /// Only names, commas and parentheses stand between a `scan` and this brace.
    fn ends_scan_head(&self, at: usize) -> bool {
        const LONGEST_HEAD: usize = 16;
        let of_head = |before: &usize| {
            let word = self.word(*before);
            matches!(word, "(" | ")" | ",") || self.is_word(*before) && !STATEMENT_WORDS.contains(&word)
        };
        let mut head = (0..at).rev().take(LONGEST_HEAD).take_while(of_head);
        head.any(|before| self.word(before) == "scan")
    }

    /// The body and the segment of a statement whose own body this brace opens: `layers`, or a loop of another language.
    fn layers_at_head(&self) -> Option<(usize, usize)> {
        let body = self
            .stack
            .iter()
            .rposition(|opener| matches!(opener.bracket, Bracket::Body | Bracket::Scan | Bracket::Brace))?;
        let segment = self.stack[body].segment?;
        let found = &self.regions.last()?.segments[segment];
        let first = self.scan_index(found.start);
        let (word, assigned) = (self.word(first), self.word(first + 1) == "=");
        let has_body = word == "layers" || !assigned && !STATEMENT_WORDS.contains(&word);
        (has_body && !found.opens && self.shape() == Shape::Statements).then_some((body, segment))
    }

    fn scan_index(&self, offset: u32) -> usize {
        self.tokens.partition_point(|token| token.end <= offset)
    }

    pub(super) fn close(&mut self, at: usize) {
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
            Some((Bracket::Brace | Bracket::Body | Bracket::Scan | Bracket::If, _)) | None => {
                self.found(Kind::Stray, at)
            }
        }
    }

    fn close_brace(&mut self, at: usize) {
        let brace = |opener: &Opener| matches!(opener.bracket, Bracket::Brace | Bracket::Body | Bracket::Scan);
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
    pub(super) fn unclosed_above(&mut self, depth: usize, at: usize) {
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
                self.found(Kind::Unclosed(self.tokens.get(at).copied()), opener);
            }
            self.stack.truncate(from);
        }
    }

    /// Drops the body on top of the stack, whose closing brace is missing.
    fn unclosed_body(&mut self, at: usize) {
        self.leave_segment(self.stack.len() - 1, at);
        let Some(body) = self.stack.pop() else { return };
        self.braces_match = false;
        self.note(Found { kind: Kind::Unclosed(self.tokens.get(at).copied()), token: self.tokens[body.token] });
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
    pub(super) fn start_of(&self, at: usize) -> u32 {
        self.tokens.get(at).map_or(self.text.len() as u32, |token| token.start)
    }
}
