//! The problems of one file while it is read, in the order of the text, and not more of them than anybody reads.

use miette::Diagnostic;
use moec_diag::{Problems, Span};
use thiserror::Error;

/// A file with more problems than this is probably not a `.moe` file at all.
const MOST_REPORTED: usize = 50;

/// What was found so far, with the file's place among the sources.
pub struct Findings {
    /// Where the file starts in the source map.
    base: u32,
    /// How long it is.
    bytes: u32,
    found: Vec<(u32, Problems)>,
    unreported: usize,
    /// The first of those.
    unreported_at: Option<Span>,
}

impl Findings {
    pub fn new(base: u32, text: &str) -> Self {
        Findings { base, bytes: text.len() as u32, found: Vec::new(), unreported: 0, unreported_at: None }
    }

    /// The span of a range of the file; of braces that recovery added at its end, the end.
    pub fn span(&self, start: u32, end: u32) -> Span {
        Span::new(self.base + start.min(self.bytes), self.base + end.min(self.bytes))
    }

    /// `at` says where in the order of the reports this one comes.
    pub fn report(&mut self, at: Span, problem: impl Diagnostic + Send + Sync + 'static) {
        if self.found.len() == MOST_REPORTED {
            self.unreported += 1;
            self.unreported_at.get_or_insert(at);
            return;
        }
        let mut one = Problems::default();
        one.report(problem);
        self.found.push((at.start, one));
    }

    pub fn into_problems(mut self) -> Problems {
        self.found.sort_by_key(|&(at, _)| at);
        let mut problems = Problems::default();
        for (_, one) in self.found {
            problems.append(one);
        }
        if self.unreported > 0 {
            problems.report(AndMore { unreported: self.unreported, at: self.unreported_at });
        }
        problems
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("and {unreported} more problems in this file")]
#[diagnostic(code(moec::syntax::and_more), help("mend the first ones and check again"))]
struct AndMore {
    unreported: usize,
    #[label("one of them")]
    at: Option<Span>,
}
