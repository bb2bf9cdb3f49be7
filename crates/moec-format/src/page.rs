//! Lines with their indentation and columns, printed.

use std::ops::Range;

use moec_syntax::concrete::Rule;

use crate::{
    INDENT,
    breaks::{self, Breaks},
    columns,
    lexeme::{Gap, Sheet},
    space::between,
    too_long,
};

/// Consecutive tokens on one line.
#[derive(Clone, Debug)]
pub struct Line {
    pub start: usize,
    pub end: usize,
    /// Columns before the first token.
    pub indent: usize,
    /// Columns before comments on lines of their own that stand before this line.
    comment_indent: usize,
}

impl Line {
    /// The numbers of its tokens.
    pub fn tokens(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Which lines of a gap are left empty: before each comment, and before the token.
pub struct Blanks {
    pub comments: Vec<bool>,
    pub token: bool,
}

impl Blanks {
    /// Empty lines stay between statements and the comments there, not at the start or the end of a block.
    pub fn before(sheet: &Sheet, at: usize) -> Blanks {
        let (gap, begins, closes) = match sheet.lexemes.get(at) {
            Some(lexeme) => (&lexeme.gap, lexeme.begins.is_some(), lexeme.is_close()),
            None => (&sheet.end, false, true),
        };
        let starts = sheet.before(at).is_none_or(|before| before.is_open());
        let may = |number: usize| number > 0 || !starts;
        let comments = gap.comments.iter().enumerate();
        Blanks {
            comments: comments
                .map(|(number, comment)| comment.blank_before && (begins || closes) && may(number))
                .collect(),
            token: gap.blank && begins && may(gap.comments.len()),
        }
    }

    pub fn any(&self) -> bool {
        self.token || self.comments.contains(&true)
    }
}

pub fn print(sheet: &Sheet) -> String {
    let mut breaks = breaks::written(sheet);
    loop {
        let mut lines = lines_of(&breaks);
        let pads = columns::pads(sheet, &lines);
        let places = place(sheet, &breaks, &pads, &mut lines);
        let mut more = breaks.clone();
        too_long::break_more(sheet, &lines, &places, &mut more);
        breaks::settle(sheet, &mut more);
        if more == breaks {
            return write(sheet, &lines, &places);
        }
        breaks = more;
    }
}

fn lines_of(breaks: &Breaks) -> Vec<Line> {
    let starts: Vec<usize> = (0..breaks.len()).filter(|&at| at == 0 || breaks[at]).collect();
    let ends = starts.iter().skip(1).copied().chain([breaks.len()]);
    starts.iter().zip(ends).map(|(&start, end)| Line { start, end, indent: 0, comment_indent: 0 }).collect()
}

/// A bracket that is open.
struct Open {
    at: usize,
    /// The indentation of its line; of a body, that of the line on which its owner begins.
    indent: usize,
    /// Its contents begin on a new line.
    apart: bool,
}

/// Indents all lines; gives the column of every token.
fn place(sheet: &Sheet, breaks: &Breaks, pads: &columns::Pads, lines: &mut [Line]) -> Vec<usize> {
    let mut places = vec![0; sheet.lexemes.len()];
    let mut open: Vec<Open> = Vec::new();
    // By depth: the indentation of the last line on which something began there.
    let mut owners: Vec<usize> = Vec::new();
    for line in lines {
        let first = &sheet.lexemes[line.start];
        let around = open.iter().rfind(|open| open.apart);
        let inside = around.map_or(0, |open| open.indent + INDENT);
        let begins = match around {
            None => first.begins.is_some(),
            Some(open) if sheet.lexemes[open.at].is_block_brace() => first.begins.is_some(),
            Some(open) => {
                let after_comma = sheet.lexemes[line.start - 1].rule == Rule::comma;
                line.start == open.at + 1 || after_comma && first.depth == sheet.lexemes[open.at].depth + 1
            }
        };
        let closes = first.is_close() && around.is_some_and(|open| Some(open.at) == first.partner);
        (line.indent, line.comment_indent) = match (around, first.first_if) {
            (Some(open), _) if closes => (open.indent, inside),
            (_, Some(first_if)) => (places[first_if], places[first_if]),
            (_, None) if begins => (inside, inside),
            (_, _) => (inside + INDENT, inside + INDENT),
        };
        let mut column = line.indent;
        for at in line.tokens() {
            let lexeme = &sheet.lexemes[at];
            if at > line.start {
                column += between(&sheet.lexemes[at - 1], lexeme).chars().count() + pads[at];
            }
            places[at] = column;
            if lexeme.begins.is_some() {
                owners.truncate(lexeme.depth);
                owners.resize(lexeme.depth + 1, line.indent);
            }
            column += lexeme.width();
            if lexeme.is_open() {
                let apart = breaks.get(at + 1).is_some_and(|&breaks| breaks);
                let of_item = matches!(lexeme.parent, Rule::body | Rule::config | Rule::weights);
                let owner = owners.get(lexeme.depth).copied().filter(|_| of_item);
                open.push(Open { at, indent: owner.unwrap_or(line.indent), apart });
            } else if lexeme.is_close() {
                open.pop();
            }
        }
    }
    places
}

fn write(sheet: &Sheet, lines: &[Line], places: &[usize]) -> String {
    let remarks = remark_columns(sheet, lines, places);
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let first = &sheet.lexemes[line.start];
        let blanks = Blanks::before(sheet, line.start);
        own_lines(&first.gap, line.comment_indent, &blanks, &mut text);
        if blanks.token {
            text.push('\n');
        }
        spaces(line.indent, &mut text);
        let mut column = line.indent;
        for at in line.tokens() {
            let lexeme = &sheet.lexemes[at];
            if at > line.start {
                let between = between(&sheet.lexemes[at - 1], lexeme);
                text.push_str(between);
                column += between.chars().count();
            }
            spaces(places[at] - column, &mut text);
            text.push_str(lexeme.text);
            column = places[at] + lexeme.width();
        }
        if let Some(remark) = remark(gap_after(sheet, line)) {
            spaces(remarks[number] - column, &mut text);
            text.push_str(remark);
        }
        text.push('\n');
    }
    own_lines(&sheet.end, 0, &Blanks::before(sheet, sheet.lexemes.len()), &mut text);
    text
}

fn spaces(count: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', count));
}

/// The comments of a gap that have lines of their own.
fn own_lines(gap: &Gap, indent: usize, blanks: &Blanks, text: &mut String) {
    for (comment, blank) in gap.comments.iter().zip(&blanks.comments).filter(|(comment, _)| comment.own_line) {
        if *blank {
            text.push('\n');
        }
        spaces(indent, text);
        text.push_str(comment.text);
        text.push('\n');
    }
}

fn gap_after<'s, 't>(sheet: &'s Sheet<'t>, line: &Line) -> &'s Gap<'t> {
    sheet.lexemes.get(line.end).map_or(&sheet.end, |next| &next.gap)
}

/// The comment at the end of the line before a gap.
fn remark<'t>(gap: &Gap<'t>) -> Option<&'t str> {
    gap.comments.first().filter(|comment| !comment.own_line).map(|comment| comment.text)
}

/// The columns of comments at the ends of lines, consecutive ones below each other.
fn remark_columns(sheet: &Sheet, lines: &[Line], places: &[usize]) -> Vec<usize> {
    let mut columns = vec![0; lines.len()];
    let mut run: Vec<usize> = Vec::new();
    let width = |line: &Line| places[line.end - 1] + sheet.lexemes[line.end - 1].width() + 2;
    let settle = |run: &mut Vec<usize>, columns: &mut Vec<usize>| {
        let widths: Vec<usize> = run.iter().map(|&number| width(&lines[number])).collect();
        for (pad, number) in columns::comment_pads(&widths).into_iter().zip(run.drain(..)) {
            columns[number] = width(&lines[number]) + pad;
        }
    };
    for (number, line) in lines.iter().enumerate() {
        if Blanks::before(sheet, line.start).any() || remark(gap_after(sheet, line)).is_none() {
            settle(&mut run, &mut columns);
        }
        if remark(gap_after(sheet, line)).is_some() {
            run.push(number);
        }
    }
    settle(&mut run, &mut columns);
    columns
}
