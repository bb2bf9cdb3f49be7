//! Lines up consecutive lines that say the same kind of thing.
//!
//! Before:  `D = 64 from "hidden"`     after:  `D    = 64    from "hidden"`
//!          `act = "silu" from "act"`          `act  = "silu" from "act"` and so on for `=`, `from`, `as` and for the
//! second statement of a line. Lines that differ too much in width form columns of their own.

use moec_syntax::concrete::Rule;

use crate::{
    INDENT, LINE_WIDTH,
    lexeme::{Begins, Sheet},
    page::{Blanks, Line},
    space::between,
};

/// Spaces to add before each token.
pub type Pads = Vec<usize>;

/// Splitting a column in two must save so many spaces.
const SPLIT_SAVES: usize = 60;

/// A longer column is split anyway.
const LONGEST_COLUMN: usize = 200;

/// A line that may have columns.
struct Row {
    line: usize,
    /// The bracket that it stands in.
    block: Option<usize>,
    kinds: Vec<Begins>,
    /// Where columns begin: which statement of the line, which of its columns, which token.
    cells: Vec<(usize, Slot, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Start,
    Equals,
    Second,
}

pub fn pads(sheet: &Sheet, lines: &[Line]) -> Pads {
    let mut pads = vec![0; sheet.lexemes.len()];
    let brackets = sheet.brackets();
    let mut run: Vec<Row> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let row = row(sheet, &brackets, number, line);
        let goes_on = match (run.last(), &row) {
            (Some(last), Some(row)) => {
                last.line + 1 == number
                    && last.block == row.block
                    && last.kinds == row.kinds
                    && !Blanks::before(sheet, line.start).any()
            }
            _ => false,
        };
        if !goes_on {
            align(sheet, lines, &std::mem::take(&mut run), &mut pads);
        }
        run.extend(row);
    }
    align(sheet, lines, &run, &mut pads);
    pads
}

fn row(sheet: &Sheet, brackets: &[Option<usize>], number: usize, line: &Line) -> Option<Row> {
    let first = &sheet.lexemes[line.start];
    let mut row = Row { line: number, block: brackets[line.start], kinds: Vec::new(), cells: Vec::new() };
    let mut second_seen = false;
    for at in line.tokens() {
        let lexeme = &sheet.lexemes[at];
        if lexeme.depth != first.depth {
            continue;
        }
        if let Some(begins) = lexeme.begins {
            if begins == Begins::Other {
                return None;
            }
            if at > line.start {
                row.cells.push((row.kinds.len(), Slot::Start, at));
            }
            row.kinds.push(begins);
            second_seen = false;
        }
        let statement = row.kinds.len().checked_sub(1)?;
        match (lexeme.rule, lexeme.parent) {
            (Rule::equals, Rule::entry | Rule::bind | Rule::param | Rule::part | Rule::let_value | Rule::assign) => {
                row.cells.push((statement, Slot::Equals, at));
            }
            (Rule::word_from, _) | (Rule::word_as, Rule::layout) if !second_seen => {
                second_seen = true;
                row.cells.push((statement, Slot::Second, at));
            }
            _ => {}
        }
    }
    Some(row)
}

/// Pads the rows of one run, column by column from the left.
fn align(sheet: &Sheet, lines: &[Line], rows: &[Row], pads: &mut Pads) {
    if rows.len() < 2 {
        return;
    }
    let mut keys: Vec<(usize, Slot)> =
        rows.iter().flat_map(|row| &row.cells).map(|&(statement, slot, _)| (statement, slot)).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let mut cells = Vec::new();
        for row in rows {
            let found = row.cells.iter().find(|&&(statement, slot, _)| (statement, slot) == key);
            let Some(&(_, _, token)) = found else { continue };
            let line = &lines[row.line];
            let (before, whole) = widths(sheet, line, token, pads);
            cells.push(Cell { token, before, rest: whole - before });
        }
        for (cell, pad) in cells.iter().zip(columns(&cells)) {
            pads[cell.token] += pad;
        }
    }
}

/// A token that begins a column.
struct Cell {
    token: usize,
    /// Characters on its line before it.
    before: usize,
    /// Characters from it to the end of the line.
    rest: usize,
}

fn widths(sheet: &Sheet, line: &Line, token: usize, pads: &Pads) -> (usize, usize) {
    let mut width = sheet.lexemes[line.start].depth * INDENT;
    let mut before = width;
    for at in line.tokens() {
        if at > line.start {
            width += between(&sheet.lexemes[at - 1], &sheet.lexemes[at]).chars().count() + pads[at];
        }
        if at == token {
            before = width;
        }
        width += sheet.lexemes[at].width();
    }
    (before, width)
}

/// The spaces to add before each cell: cut into consecutive groups so that the fewest are added, a cut having its price.
fn columns(cells: &[Cell]) -> Vec<usize> {
    // best[n]: the least cost of the first n cells, and where their last group begins.
    let mut best: Vec<(usize, usize)> = vec![(0, 0)];
    for end in 1..=cells.len() {
        let (mut widest, mut sum, mut found) = (0, 0, (usize::MAX, end - 1));
        let mut longest_rest = 0;
        for start in (end.saturating_sub(LONGEST_COLUMN)..end).rev() {
            let cell = &cells[start];
            widest = widest.max(cell.before);
            sum += cell.before;
            if cell.before + cell.rest <= LINE_WIDTH {
                longest_rest = longest_rest.max(cell.rest);
            }
            if start + 1 < end && widest + longest_rest > LINE_WIDTH {
                break;
            }
            let cost = best[start].0 + SPLIT_SAVES + widest * (end - start) - sum;
            // Of equal cost, the longer group.
            if cost <= found.0 {
                found = (cost, start);
            }
        }
        best.push(found);
    }
    let mut pads = vec![0; cells.len()];
    let mut end = cells.len();
    while end > 0 {
        let start = best[end].1;
        let widest = cells[start..end].iter().map(|cell| cell.before).max().unwrap_or(0);
        for (pad, cell) in pads[start..end].iter_mut().zip(&cells[start..end]) {
            *pad = widest - cell.before;
        }
        end = start;
    }
    pads
}

/// The same for widths alone: what comments at the ends of lines need.
pub fn comment_pads(widths: &[usize]) -> Vec<usize> {
    let cells: Vec<Cell> = widths.iter().map(|&before| Cell { token: 0, before, rest: 0 }).collect();
    columns(&cells)
}
