//! Where statements, entries and rules start and end within a body.

use super::outliner::{Bracket, Outliner, RESERVED_IN_EXPRESSIONS, STATEMENT_WORDS};
use super::{Segment, Shape};
use crate::scan::TokenKind;

impl Outliner<'_> {
    /// Notices that a new statement, entry or rule starts at this token, and that brackets before it were left open.
    pub(super) fn enter_segment(&mut self, at: usize) {
        let Some(body) = self.stack.iter().rposition(|opener| opener.bracket == Bracket::Body) else { return };
        if self.stack[body..].iter().any(|opener| opener.bracket == Bracket::Scan) {
            return;
        }
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
    pub(super) fn leave_segment(&mut self, body: usize, at: usize) {
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
                let misplaced = before == "."
                    || (matches!(before, "(" | "[" | "," | "let" | "param" | "part") && !self.tokens[at].first_on_line);
                let statement = self.is_word(at) && STATEMENT_WORDS.contains(&word) && !misplaced;
                statement || self.is_assigned(at, before) || (directly && self.begins_line_anew(at, before))
            }
            Shape::Settings => {
                let of_keys = matches!(word, "require" | "ignore") && self.word(at + 1).starts_with('"');
                of_keys || self.is_assigned(at, before) || (directly && self.begins_line_anew(at, before))
            }
            Shape::Rules => {
                let continues =
                    matches!(before, "(" | "[" | "," | "{" | "." | "=" | "|" | "as" | "by" | "in" | "ignore");
                let starts = self.is_word(at) || (directly && word == "{");
                let after_rule = directly && (before.starts_with('"') || before == "]");
                starts
                    && !continues
                    && !matches!(word, "as" | "by" | "in")
                    && (self.tokens[at].first_on_line || after_rule)
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
            && !matches!(
                before,
                "let" | "part" | "param" | "buffer" | "state" | "out" | "aux" | "trace" | "(" | "[" | "," | ":" | "."
            )
            && (first || !in_braces && (matches!(before, "{" | "}") || self.ends_expression(at - 1)))
    }

    /// A line that begins with a word or a string after an expression: two expressions never stand side by side.
    fn begins_line_anew(&self, at: usize, before: &str) -> bool {
        let continues = RESERVED_IN_EXPRESSIONS.contains(&self.word(at)) || matches!(self.word(at), "as" | "from");
        let waits = STATEMENT_WORDS.contains(&before)
            || matches!(before, "from" | "require" | "ignore" | "as" | "moe" | "bank");
        self.tokens[at].first_on_line
            && matches!(self.tokens[at].kind, TokenKind::Word | TokenKind::Text { .. })
            && !continues
            && !waits
            && at > 0
            && self.ends_expression(at - 1)
    }
}
