//! A document's text, and its positions: the protocol counts lines and UTF-16 units, we count bytes.

use lsp_types::{Position, Range};
use moec_diag::Span;

#[derive(Clone, Debug)]
pub struct Document {
    pub text: String,
    /// The offset at which each line starts.
    lines: Vec<usize>,
}

impl Document {
    pub fn new(text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Document { text, lines }
    }

    /// The position of an offset; one beyond the end, or within a character, is taken back.
    pub fn position(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|&start| start <= offset) - 1;
        let before = &self.text[self.lines[line]..offset];
        Position { line: line as u32, character: before.encode_utf16().count() as u32 }
    }

    pub fn range(&self, at: Span) -> Range {
        Range { start: self.position(at.start as usize), end: self.position(at.end as usize) }
    }

    pub fn whole(&self) -> Range {
        Range { start: self.position(0), end: self.position(self.text.len()) }
    }

    /// The offset of a position; one beyond its line's end is that end.
    pub fn offset(&self, position: Position) -> usize {
        let Some(&start) = self.lines.get(position.line as usize) else { return self.text.len() };
        let end = self.lines.get(position.line as usize + 1).map_or(self.text.len(), |next| next - 1);
        let mut units = 0;
        for (at, c) in self.text[start..end].char_indices() {
            if units >= position.character {
                return start + at;
            }
            units += c.len_utf16() as u32;
        }
        end
    }
}
