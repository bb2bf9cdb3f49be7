//! Breaks lines that are too long: between statements and before `else` first, then after a comma or around an operator,
//! as far out as possible.

use moec_syntax::concrete::Rule;

use crate::{
    INDENT, LINE_WIDTH,
    breaks::{Breaks, is_place},
    lexeme::{Lexeme, Sheet},
    page::Line,
};

/// Adds line ends to lines that are too long and can be broken. `places` has the column of each token.
pub fn break_more(sheet: &Sheet, lines: &[Line], places: &[usize], breaks: &mut Breaks) {
    for line in lines {
        let last = line.end - 1;
        if places[last] + sheet.lexemes[last].width() <= LINE_WIDTH {
            continue;
        }
        if !break_between(sheet, line, breaks) {
            fill(sheet, line, places, breaks);
        }
    }
}

/// Before all statements, or all `else`, that stand in the fewest brackets.
fn break_between(sheet: &Sheet, line: &Line, breaks: &mut Breaks) -> bool {
    let fits = |at: &usize| {
        let lexeme = &sheet.lexemes[*at];
        lexeme.begins.is_some() || lexeme.rule == Rule::word_else && !breaks[at - 1]
    };
    let found: Vec<usize> = (line.start + 1..line.end).filter(fits).collect();
    let Some(depth) = found.iter().map(|&at| sheet.lexemes[at].depth).min() else { return false };
    for at in found {
        breaks[at] |= sheet.lexemes[at].depth == depth;
    }
    true
}

fn fill(sheet: &Sheet, line: &Line, places: &[usize], breaks: &mut Breaks) {
    let depth = sheet.lexemes[line.start..line.end].iter().map(|lexeme| lexeme.depth).min().unwrap_or(0);
    let (mut from, mut column, mut shift) = (line.start, places[line.start], 0);
    let continued = line.indent + INDENT;
    loop {
        // The column that a token would have with the breaks so far.
        let place = |at: usize| places[at] - shift;
        let last = line.end - 1;
        if place(last) + sheet.lexemes[last].width() <= LINE_WIDTH {
            return;
        }
        let mut best: Option<(usize, usize)> = None;
        for at in from + 1..line.end {
            if best.is_some() && place(at) > LINE_WIDTH + 1 {
                break;
            }
            if sheet.lexemes[at].is_close() || !is_place(sheet, at) {
                continue;
            }
            let early = place(at) < column + (LINE_WIDTH - column.min(LINE_WIDTH)) * 2 / 5;
            let end = place(last) + sheet.lexemes[last].width();
            let whole = sheet.lexemes[at - 1].rule == Rule::equals && end - place(at) + continued <= LINE_WIDTH;
            let early = if early && !whole { 15 } else { 0 };
            let penalty = penalty(&sheet.lexemes[at - 1], &sheet.lexemes[at], depth) + early;
            if best.is_none_or(|(least, _)| penalty <= least) {
                best = Some((penalty, at));
            }
        }
        let Some((_, at)) = best else { return };
        breaks[at] = true;
        // Nothing is won where the rest begins no further left.
        if place(at) <= continued {
            return;
        }
        shift = places[at] - continued;
        (from, column) = (at, continued);
    }
}

/// How bad a line end is between these two: 10 for each bracket around it, and something for what it parts.
fn penalty(left: &Lexeme, right: &Lexeme, depth: usize) -> usize {
    let operator = if right.rule == Rule::infix { right } else { left };
    let parts = if left.is_open() {
        // The contents get lines of their own.
        8
    } else if left.rule == Rule::equals {
        // Better than within two brackets.
        11
    } else if operator.rule == Rule::infix {
        // An operator begins a line rather than ends one.
        usize::from(left.rule == Rule::infix)
            + match operator.text {
                "or" => 1,
                "and" => 2,
                "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" => 4,
                "+" | "-" => 5,
                "*" | "/" | "%" => 6,
                _ => 7,
            }
    } else {
        // After a comma; before `from`, `as`, `|`.
        0
    };
    (right.depth - depth.min(right.depth)) * 10 + parts
}
