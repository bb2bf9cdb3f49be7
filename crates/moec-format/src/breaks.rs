//! Where lines end.
//!
//! An author's line end stays where it stands before a statement or at a place where an expression reads well across lines;
//! elsewhere it goes. Comments end lines. A brace around several lines has lines of its own for its contents, and so has a
//! parenthesis whose contents begin on a new line.

use moec_syntax::concrete::Rule;

use crate::lexeme::Sheet;

/// For each token whether it begins a line.
pub type Breaks = Vec<bool>;

/// The author's line ends, made consistent.
pub fn written(sheet: &Sheet) -> Breaks {
    let lexemes = &sheet.lexemes;
    let mut breaks: Breaks = (0..lexemes.len())
        .map(|at| at > 0 && (forced(sheet, at) || lexemes[at].gap.newline && is_place(sheet, at)))
        .collect();
    settle(sheet, &mut breaks);
    breaks
}

/// A comment stands before the token.
fn forced(sheet: &Sheet, at: usize) -> bool {
    !sheet.lexemes[at].gap.comments.is_empty()
}

/// Whether a line may end before a token that is not the first.
pub fn is_place(sheet: &Sheet, at: usize) -> bool {
    let (left, right) = (&sheet.lexemes[at - 1], &sheet.lexemes[at]);
    if left.parent == Rule::alternatives || right.parent == Rule::alternatives {
        return false;
    }
    if right.begins.is_some() || right.is_close() {
        return true;
    }
    let listed = |parent| {
        matches!(
            parent,
            Rule::call
                | Rule::formals
                | Rule::group
                | Rule::list
                | Rule::axes
                | Rule::model
                | Rule::use_names
                | Rule::layout
        )
    };
    match left.rule {
        Rule::comma => return true,
        Rule::open_paren | Rule::open_bracket => return listed(left.parent),
        Rule::open_brace => return true,
        Rule::infix => return true,
        Rule::equals => {
            return matches!(
                left.parent,
                Rule::function
                    | Rule::part
                    | Rule::state
                    | Rule::let_value
                    | Rule::assign
                    | Rule::param
                    | Rule::out_name
                    | Rule::entry
                    | Rule::bind
            );
        }
        _ => {}
    }
    match right.rule {
        Rule::infix | Rule::word_from | Rule::bar | Rule::word_else => true,
        Rule::word_as => right.parent == Rule::layout,
        _ => false,
    }
}

/// Makes brackets and line ends agree. Inner brackets close first, so one pass is enough.
pub fn settle(sheet: &Sheet, breaks: &mut Breaks) {
    for (close, lexeme) in sheet.lexemes.iter().enumerate() {
        if lexeme.rule == Rule::word_else && sheet.lexemes[close - 1].is_branch_brace() && breaks[close - 1] {
            // `} else {` after a branch that has its own lines.
            breaks[close] = forced(sheet, close);
        }
        let Some(open) = lexeme.partner.filter(|_| lexeme.is_close()) else { continue };
        let inside = open + 1..close + 1;
        if lexeme.is_block_brace() || lexeme.is_branch_brace() {
            let several = if open + 1 == close { forced(sheet, close) } else { breaks[inside].contains(&true) };
            breaks[open + 1] = several;
            breaks[close] = several;
        } else {
            let apart = open + 1 < close && breaks[open + 1] || forced(sheet, close);
            breaks[open + 1] = apart;
            breaks[close] = apart;
        }
    }
}
