//! One item from its region of the text, with what is broken in it reported and left out.

use std::ops::Range;

use miette::Diagnostic;
use moec_diag::Span;
use thiserror::Error;

use crate::build::{self, Docs};
use crate::expected::{Place, Reader};
use crate::findings::Findings;
use crate::grammar::{Rule, Stop, read};
use crate::outline::{Region, Segment, Shape};
use crate::scan::Scan;
use crate::tree::File;

/// An item longer than this is refused: reading takes some hundred bytes of memory for each byte of it.
const LONGEST_ITEM_BYTES: u32 = 1 << 20;

/// Adds to the file what stands in the region.
pub fn read_region(text: &str, scan: &Scan, region: &Region, file: &mut File, findings: &mut Findings) {
    if region.end - region.start > LONGEST_ITEM_BYTES {
        let at = findings.span(region.start, region.end);
        let from = findings.span(region.start, scan.tokens[scan.index_at(region.start)].end);
        findings.report(from, ItemTooLong { bytes: at.end - at.start, at: from });
        return;
    }
    let docs = Docs { scan };
    let reader = Reader { text, scan };
    let own = &text[region.start as usize..region.end as usize];
    let whole = region.segments.iter().all(|segment| !segment.broken && !segment.unclosed);
    let sound = whole && !region.broken && !region.unclosed;
    let stop = match sound.then(|| read(Rule::lone_item, own)) {
        Some(Ok(item)) => return build::item(item, region.start, &docs, file, findings),
        Some(Err(stop)) => Some(stop),
        None => None,
    };
    let left_out = report_segments(text, region, &reader, findings);
    if region.broken {
        return;
    }
    match stop {
        Some(stop) if !left_out.contains(&true) => {
            report(&reader, stop, region.start..region.end, Place::Item, findings)
        }
        Some(_) | None => {
            let mended = mended(text, region, &left_out);
            match read(Rule::lone_item, &mended) {
                Ok(item) => build::item(item, region.start, &docs, file, findings),
                Err(stop) => report(&reader, stop, region.start..region.end, Place::Item, findings),
            }
        }
    }
}

/// Reads each segment by itself and reports where it stops; says which ones are not sound.
fn report_segments(text: &str, region: &Region, reader: &Reader, findings: &mut Findings) -> Vec<bool> {
    let (rule, place) = match region.shape {
        Shape::Statements => (Rule::lone_statement, Place::Statement),
        Shape::Settings => (Rule::lone_setting, Place::Setting),
        Shape::Rules => (Rule::lone_rule, Place::Rule),
        Shape::Bare => return vec![false; region.segments.len()],
    };
    let mut left_out = Vec::with_capacity(region.segments.len());
    for segment in &region.segments {
        let stop = if segment.broken { None } else { read_segment(text, segment, rule).err() };
        let inside = segment.parent.is_some_and(|parent| left_out[parent]);
        left_out.push(segment.broken || stop.is_some() || inside);
        if let Some(stop) = stop {
            report(reader, stop, segment.start..segment.end, place, findings);
        }
    }
    left_out
}

fn read_segment(text: &str, segment: &Segment, rule: Rule) -> Result<(), Stop> {
    let own = &text[segment.start as usize..segment.end as usize];
    if segment.opens {
        return read(rule, &format!("{own}}}")).map(|_| ());
    }
    read(rule, own).map(|_| ())
}

fn report(reader: &Reader, stop: Stop, range: Range<u32>, place: Place, findings: &mut Findings) {
    reader.report(Stop { at: range.start + stop.at, expected: stop.expected }, range, place, findings);
}

/// The region with the segments left out made blank, so that offsets stay, and with missing braces at its end.
fn mended(text: &str, region: &Region, left_out: &[bool]) -> String {
    let mut bytes = text.as_bytes()[region.start as usize..region.end as usize].to_vec();
    let mut missing = usize::from(region.unclosed);
    for (segment, &left_out) in region.segments.iter().zip(left_out) {
        if left_out {
            bytes[(segment.start - region.start) as usize..(segment.whole_end - region.start) as usize].fill(b' ');
        } else {
            missing += usize::from(segment.unclosed);
        }
    }
    // The region may end in a comment.
    bytes.push(b'\n');
    bytes.resize(bytes.len() + missing, b'}');
    // Segments start and end at tokens, so no character was cut; were one, its rest is no text of ours.
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Debug, Error, Diagnostic)]
#[error("this item has {bytes} bytes")]
#[diagnostic(code(moec::syntax::item_too_long), help("an item has at most {LONGEST_ITEM_BYTES} bytes: split it"))]
struct ItemTooLong {
    bytes: u32,
    #[label("starts here")]
    at: Span,
}
