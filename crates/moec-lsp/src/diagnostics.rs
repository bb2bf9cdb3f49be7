//! Problems as the protocol has them: a range in the document, and the other places that disagree beside it.

use lsp_types::{Diagnostic, DiagnosticRelatedInformation, DiagnosticSeverity, Location, NumberOrString, Range, Uri};
use miette::LabeledSpan;
use moec_diag::{Problem, Span};

use crate::analysis::Analysis;

pub fn diagnostics(analysis: &Analysis, uri: &Uri) -> Vec<Diagnostic> {
    analysis.problems.iter().map(|problem| diagnostic(analysis, uri, problem)).collect()
}

fn diagnostic(analysis: &Analysis, uri: &Uri, problem: &Problem) -> Diagnostic {
    let labels: Vec<LabeledSpan> = problem.labels().into_iter().flatten().collect();
    // The first place in the document is where the problem is shown.
    let shown = labels.iter().position(|label| range(analysis, label).is_some());
    let mut message = problem.to_string();
    if let Some(label) = shown.and_then(|shown| labels[shown].label()) {
        message.push_str(&format!("\n{label}"));
    }
    let mut related = Vec::new();
    for (number, label) in labels.iter().enumerate().filter(|(number, _)| Some(*number) != shown) {
        let text = label.label().unwrap_or("here");
        match range(analysis, label) {
            Some(range) => {
                let location = Location { uri: uri.clone(), range };
                related.push(DiagnosticRelatedInformation { location, message: text.to_owned() });
            }
            // A place in the library, which the client may not be able to open.
            None => {
                let at = Span::new(label.offset() as u32, (label.offset() + label.len()) as u32);
                if let Some((file, line, _)) = analysis.sources.position(at) {
                    message.push_str(&format!("\n{file}:{line}: {text}"));
                } else if number == 0 {
                    message.push_str(&format!("\n{text}"));
                }
            }
        }
    }
    if let Some(help) = problem.help() {
        message.push_str(&format!("\nhelp: {help}"));
    }
    Diagnostic {
        range: shown.and_then(|shown| range(analysis, &labels[shown])).unwrap_or_default(),
        severity: Some(match problem.severity() {
            None | Some(miette::Severity::Error) => DiagnosticSeverity::ERROR,
            Some(miette::Severity::Warning) => DiagnosticSeverity::WARNING,
            Some(miette::Severity::Advice) => DiagnosticSeverity::INFORMATION,
        }),
        code: problem.code().map(|code| NumberOrString::String(code.to_string())),
        source: Some("moec".to_owned()),
        message,
        related_information: (!related.is_empty()).then_some(related),
        ..Diagnostic::default()
    }
}

/// The range of a label, where it is in the document: the first file of the sources, so offsets are its own.
fn range(analysis: &Analysis, label: &LabeledSpan) -> Option<Range> {
    let (start, end) = (label.offset(), label.offset() + label.len());
    let inside = end <= analysis.document.text.len();
    inside.then(|| analysis.document.range(Span::new(start as u32, end as u32)))
}
