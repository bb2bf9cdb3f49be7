//! What stands between two tokens of one line.

use moec_syntax::concrete::Rule;

use crate::lexeme::Lexeme;

/// The text between a token and the next one on its line.
pub fn between(left: &Lexeme, right: &Lexeme) -> &'static str {
    if right.begins.is_some() && !left.is_open() && right.parent != Rule::alternatives {
        return if right.gap.separator { "; " } else { "  " };
    }
    if is_tight(left, right) { "" } else { " " }
}

fn is_tight(left: &Lexeme, right: &Lexeme) -> bool {
    let spaced_brace = |lexeme: &Lexeme| lexeme.is_block_brace() || lexeme.is_branch_brace();
    // The whole of a parameter's path is written as one word.
    let of_path = |lexeme: &Lexeme| {
        matches!(lexeme.parent, Rule::path | Rule::segment | Rule::pieces | Rule::alternatives)
            || lexeme.rule == Rule::letters
    };
    if of_path(left) && of_path(right) {
        return true;
    }
    match left.rule {
        Rule::open_paren | Rule::open_bracket => return true,
        Rule::open_brace => {
            return !spaced_brace(left) || left.partner.is_some() && right.partner.is_some() && empty(left, right);
        }
        Rule::colons | Rule::dot | Rule::dots => return true,
        Rule::prefix => return left.text == "-",
        _ => {}
    }
    match right.rule {
        Rule::close_paren | Rule::close_bracket => true,
        Rule::close_brace => !spaced_brace(right),
        Rule::comma | Rule::colon | Rule::colons | Rule::dot | Rule::dots => true,
        Rule::open_paren => matches!(right.parent, Rule::call | Rule::formals | Rule::model | Rule::coefficient),
        Rule::open_bracket => matches!(right.parent, Rule::axes | Rule::index | Rule::segment),
        _ => false,
    }
}

/// Nothing stands between the two brackets.
fn empty(left: &Lexeme, right: &Lexeme) -> bool {
    right.is_close() && right.depth == left.depth
}
