//! The fusion report for people: what layers and experts of one kind say again is said once, and counted.

use moec_diag::SourceMap;
use moec_passes::{Entry, Report};

use super::place;

/// What a pass did at one place of the text, or why it did not.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub pass: &'static str,
    pub at: String,
    pub what: String,
    /// Bytes, as an expression, and steps; `None` where it did not fuse.
    pub saves: Option<(String, usize)>,
}

impl Told {
    fn of(entry: &Entry, sources: &SourceMap) -> Told {
        match entry {
            Entry::Fused { pass, at, what, saves } => Told {
                pass,
                at: place(sources, *at),
                what: what.to_string(),
                saves: Some((saves.bytes.to_string(), saves.launches)),
            },
            Entry::Blocked { pass, at, rule } => {
                Told { pass, at: place(sources, *at), what: rule.to_string(), saves: None }
            }
        }
    }

    pub fn line(&self) -> String {
        let Told { pass, at, what, saves } = self;
        match saves {
            Some((bytes, launches)) => {
                let plural = if *launches == 1 { "step" } else { "steps" };
                format!("{pass}: {what} ({at}); saves {bytes} bytes, {launches} {plural}")
            }
            None => format!("{pass}: not at {at}: {what}"),
        }
    }
}

/// Each thing that is told, with how often.
pub fn counted(report: &Report, sources: &SourceMap) -> Vec<(Told, usize)> {
    let mut counted: Vec<(Told, usize)> = Vec::new();
    for entry in &report.entries {
        let told = Told::of(entry, sources);
        match counted.iter_mut().find(|(known, _)| *known == told) {
            Some((_, count)) => *count += 1,
            None => counted.push((told, 1)),
        }
    }
    counted
}

/// ` (16 times)`, where it was more than once.
pub fn times(count: usize) -> String {
    if count > 1 { format!(" ({count} times)") } else { String::new() }
}
