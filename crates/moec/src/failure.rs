//! Why a command did not do what it was asked, and how that is shown.

use std::{fmt, io::IsTerminal, sync::Once};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, Severity, SourceCode};
use moec_diag::{Problem, Problems, SourceMap, pages};

/// Everything that went wrong in one run.
#[derive(Debug)]
pub struct Failure {
    problems: Vec<Problem>,
    sources: SourceMap,
    exit_code: u8,
}

impl Failure {
    /// The user's problems: exit code 1.
    pub fn problems(problems: Problems, sources: &SourceMap) -> Self {
        Failure { problems: problems.into_vec(), sources: sources.clone(), exit_code: 1 }
    }

    /// What a target cannot do: exit code 3.
    pub fn unsupported(problem: impl Diagnostic + Send + Sync + 'static, sources: &SourceMap) -> Self {
        Failure { problems: vec![Box::new(problem)], sources: sources.clone(), exit_code: 3 }
    }

    /// The command did its work and the answer is no (`verify`): exit code 1, nothing more to say.
    pub fn verdict() -> Self {
        Failure { problems: Vec::new(), sources: SourceMap::default(), exit_code: 1 }
    }

    /// Somebody asked for an end: the exit code that shells know for it.
    pub fn interrupted(problem: impl Diagnostic + Send + Sync + 'static) -> Self {
        Failure { exit_code: 130, ..Failure::from(problem) }
    }

    /// One problem that came boxed.
    pub fn one(problem: Problem) -> Self {
        Failure { problems: vec![problem], sources: SourceMap::default(), exit_code: 1 }
    }

    /// The problems' own sentences, for where they are a part of something else.
    pub fn messages(&self) -> String {
        self.problems.iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ")
    }

    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// All problems on standard error.
    pub fn print(&self) {
        for problem in &self.problems {
            eprintln!("{}", render(problem.as_ref(), &self.sources, Style::for_stderr()));
        }
        if self.problems.len() > 1 {
            eprintln!("{} problems", self.problems.len());
        }
        let codes = self.problems.iter().filter_map(|problem| problem.code()).map(|code| code.to_string());
        if let Some(code) = codes.into_iter().find(|code| pages::page(code).is_some()) {
            // Once is enough, however many files were asked about.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| eprintln!("(`moec explain-error {code}` says more)"));
        }
    }

    /// One JSON object a line.
    pub fn json_lines(&self) -> String {
        let handler = miette::JSONReportHandler::new();
        let mut text = String::new();
        for problem in &self.problems {
            let shown = Shown { problem: problem.as_ref(), sources: &self.sources };
            if handler.render_report(&mut text, &shown).is_ok() {
                text.push('\n');
            }
        }
        text
    }
}

/// One problem that no place in a source file stands behind.
impl<T: Diagnostic + Send + Sync + 'static> From<T> for Failure {
    fn from(problem: T) -> Self {
        Failure { problems: vec![Box::new(problem)], sources: SourceMap::default(), exit_code: 1 }
    }
}

#[derive(Clone, Copy)]
enum Style {
    Colour,
    Plain,
}

impl Style {
    fn for_stderr() -> Style {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if colour { Style::Colour } else { Style::Plain }
    }
}

fn render(problem: &(dyn Diagnostic + Send + Sync), sources: &SourceMap, style: Style) -> String {
    let handler = match style {
        Style::Colour => GraphicalReportHandler::new_themed(GraphicalTheme::unicode()),
        Style::Plain => GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_links(false),
    };
    let mut text = String::new();
    match handler.with_width(100).render_report(&mut text, &Shown { problem, sources }) {
        Ok(()) => text,
        // A label outside the text: the message alone is still worth showing.
        Err(fmt::Error) => problem.to_string(),
    }
}

/// A problem together with the text that its spans point into.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a (dyn Diagnostic + Send + Sync),
    sources: &'a SourceMap,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.problem, f)
    }
}

impl std::error::Error for Shown<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.code()
    }

    fn severity(&self) -> Option<Severity> {
        self.problem.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help()
    }

    fn url<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.url()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.problem.source_code().unwrap_or(self.sources))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        // Code without text behind it has no place to show.
        let none = u32::MAX as usize;
        let labels = self.problem.labels()?;
        Some(Box::new(labels.filter(move |label| label.offset() != none)))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        self.problem.related()
    }
}
