//! The files of one run, laid end to end in one offset space.

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A range of bytes in a [`SourceMap`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Code that no text stands behind (made by a pass, read from an IR file).
    pub const NONE: Span = Span { start: u32::MAX, end: u32::MAX };

    pub fn new(start: u32, end: u32) -> Self {
        Span { start, end }
    }

    /// From the start of `self` to the end of `other`.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl From<Span> for SourceSpan {
    fn from(span: Span) -> Self {
        (span.start as usize, (span.end.saturating_sub(span.start)) as usize).into()
    }
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    text: String,
    start: u32,
}

/// Every file of a run. Files are added once and never change.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    files: Vec<File>,
}

impl SourceMap {
    /// Adds a file and returns the offset at which it starts: add it to positions within `text` to get a [`Span`].
    ///
    /// # Panics
    /// When all files together exceed 4 GiB; the driver refuses large files long before.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> u32 {
        let start = self.end();
        let text = text.into();
        u32::try_from(start as usize + text.len() + 1).expect("the driver bounds the size of source files");
        self.files.push(File { name: name.into(), text, start });
        start
    }

    fn end(&self) -> u32 {
        // One byte between files, so that a position just past the end of one is not the start of the next.
        self.files.last().map_or(0, |file| file.start + file.text.len() as u32 + 1)
    }

    fn file_at(&self, offset: u32) -> Option<&File> {
        self.files.iter().rfind(|file| file.start <= offset && (offset - file.start) as usize <= file.text.len())
    }

    /// The text under a span; empty for [`Span::NONE`].
    pub fn text(&self, span: Span) -> &str {
        let Some(file) = self.file_at(span.start) else { return "" };
        let (from, to) = ((span.start - file.start) as usize, (span.end - file.start) as usize);
        file.text.get(from..to.min(file.text.len())).unwrap_or("")
    }

    /// File name, line and column (both from 1) of the start of a span.
    pub fn position(&self, span: Span) -> Option<(&str, usize, usize)> {
        let file = self.file_at(span.start)?;
        let before = file.text.get(..(span.start - file.start) as usize)?;
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        Some((&file.name, line, column))
    }
}

impl SourceCode for SourceMap {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let file = self.file_at(span.offset() as u32).ok_or(MietteError::OutOfBounds)?;
        let local = (span.offset() - file.start as usize, span.len());
        if local.0 + local.1 > file.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let found = file.text.read_span(&local.into(), lines_before, lines_after)?;
        let shifted = (found.span().offset() + file.start as usize, found.span().len());
        Ok(Box::new(MietteSpanContents::new_named(
            file.name.clone(),
            found.data(),
            shifted.into(),
            found.line(),
            found.column(),
            found.line_count(),
        )))
    }
}
