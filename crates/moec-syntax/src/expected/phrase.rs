//! What each rule of the grammar is called in a report.

use super::Place;
use crate::grammar::Rule;

/// `a, b or c` of what could stand here. What could merely go on the expression before counts only if it is all.
pub fn expectation(expected: &[Rule], place: Place) -> String {
    let continues = expected.contains(&Rule::infix);
    let mut firm: Vec<&str> = Vec::new();
    let mut loose: Vec<&str> = Vec::new();
    for &rule in expected {
        let merely_continues = continues && matches!(rule, Rule::open_paren | Rule::open_bracket);
        match phrase(rule, place) {
            _ if merely_continues => {}
            Phrase::Firm(words) if !firm.contains(&words) => firm.push(words),
            Phrase::Loose(words) if !loose.contains(&words) => loose.push(words),
            Phrase::Firm(_) | Phrase::Loose(_) | Phrase::Silent => {}
        }
    }
    let named = if firm.is_empty() { loose } else { firm };
    match &named[..] {
        [] => "something else".into(),
        [one] => (*one).into(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phrase {
    Firm(&'static str),
    /// Could go on what stands before.
    Loose(&'static str),
    Silent,
}

pub fn phrase(rule: Rule, place: Place) -> Phrase {
    use Phrase::{Firm, Loose, Silent};
    match rule {
        Rule::EOI => match place {
            Place::Item => Firm("the next item"),
            Place::Statement => Firm("the next statement"),
            Place::Setting => Firm("the next entry"),
            Place::Rule => Firm("the next rule"),
            Place::Expression => Firm("the end"),
        },
        Rule::file | Rule::lone_item | Rule::item | Rule::definition | Rule::block | Rule::block_kind => {
            Firm("an item (`use`, `config`, `fn`, `block`, `expert`, `gate`, `model`, `weights`)")
        }
        Rule::lone_statement | Rule::statement => {
            Firm("a statement (`param`, `part`, `state`, `let`, `route`, `out`, `layers`, or `name = …`)")
        }
        Rule::lone_setting | Rule::setting | Rule::entry => Firm("an entry (`NAME = value`, `require` or `ignore`)"),
        Rule::lone_rule | Rule::weight_rule | Rule::bind => Firm("a rule (`path = \"tensor\"`, or `ignore`)"),
        Rule::lone_expression
        | Rule::expression
        | Rule::argument_value
        | Rule::default_value
        | Rule::operand
        | Rule::prefix
        | Rule::float
        | Rule::int
        | Rule::boolean
        | Rule::list
        | Rule::group
        | Rule::condition
        | Rule::moe
        | Rule::bank
        | Rule::scan
        | Rule::iterate
        | Rule::call
        | Rule::argument
        | Rule::named
        | Rule::regroup
        | Rule::regroup_from
        | Rule::member => Firm("an expression"),
        Rule::name | Rule::formal | Rule::input | Rule::axis | Rule::place | Rule::letters => Firm("a name"),
        Rule::nothing => Silent,
        Rule::text | Rule::requirement => Firm("a string"),
        Rule::pattern => Firm("a name or `(a, b)`"),
        Rule::regroup_to | Rule::lane | Rule::product => Firm("a name or names in parentheses"),
        Rule::beside | Rule::one => Silent,
        Rule::source => Firm("a string"),
        Rule::several => Silent,
        Rule::scaled | Rule::word_scaled => Firm("`scaled`"),
        Rule::word_by => Firm("`by`"),
        Rule::elements => Loose("`as`"),
        Rule::inside | Rule::word_inside => Loose("`inside`"),
        Rule::uses => Firm("`use`"),
        Rule::use_names => Firm("`{`"),
        Rule::path | Rule::segment | Rule::pieces => Firm("the path of a parameter"),
        Rule::alternatives => Firm("`{`"),
        Rule::body => Firm("`{`"),
        Rule::clause | Rule::gate | Rule::experts | Rule::always => Firm("`gate`, `experts`, `always`"),
        Rule::infix => Loose("an operator"),
        Rule::over | Rule::axes_over | Rule::word_over => Loose("`over`"),
        Rule::field | Rule::dot => Loose("`.`"),
        Rule::index | Rule::axes => Loose("`[`"),
        Rule::from | Rule::word_from => Loose("`from`"),
        Rule::layout | Rule::word_as => Loose("`as`"),
        Rule::times => Loose("`×`"),
        Rule::formals => Loose("`(`"),
        Rule::tensor_type => Firm("a type, such as `f32[N, D]`"),
        Rule::out_name => Silent,
        Rule::serves | Rule::word_serves => Firm("`serves`"),
        Rule::config | Rule::word_config => Firm("`config`"),
        Rule::model | Rule::word_model => Firm("`model`"),
        Rule::across | Rule::word_across => Loose("`across`"),
        Rule::weights | Rule::word_weights => Firm("`weights`"),
        Rule::function | Rule::word_fn => Firm("`fn`"),
        Rule::word_use => Firm("`use`"),
        Rule::require | Rule::word_require => Firm("`require`"),
        Rule::ignore | Rule::ignore_keys | Rule::word_ignore => Firm("`ignore`"),
        Rule::word_gate => Firm("`gate`"),
        Rule::word_experts => Firm("`experts`"),
        Rule::word_always => Firm("`always`"),
        Rule::param | Rule::word_param => Firm("`param`"),
        Rule::part | Rule::word_part => Firm("`part`"),
        Rule::let_value | Rule::word_let => Firm("`let`"),
        Rule::assign => Firm("an assignment"),
        Rule::route | Rule::word_route => Firm("`route`"),
        Rule::out | Rule::word_out => Firm("`out`"),
        Rule::layers | Rule::word_layers => Firm("`layers`"),
        Rule::buffer | Rule::word_buffer => Firm("`buffer`"),
        Rule::state | Rule::word_state => Firm("`state`"),
        Rule::on_step | Rule::word_on => Loose("`on step`"),
        Rule::word_step => Firm("`step`"),
        Rule::aux | Rule::word_aux => Firm("`aux`"),
        Rule::coefficient => Loose("`(`"),
        Rule::trace | Rule::word_trace => Firm("`trace`"),
        Rule::word_iterate => Firm("`iterate`"),
        Rule::steps => Firm("how often, such as `8`"),
        Rule::until | Rule::word_until => Firm("`until`"),
        Rule::word_if => Firm("`if`"),
        Rule::word_else => Loose("`else`"),
        Rule::word_moe => Firm("`moe`"),
        Rule::word_bank => Firm("`bank`"),
        Rule::word_scan => Firm("`scan`"),
        Rule::word_in => Firm("`in`"),
        Rule::comma => Firm("`,`"),
        Rule::colon => Firm("`:`"),
        Rule::colons => Firm("`::`"),
        Rule::equals => Firm("`=`"),
        Rule::same => Firm("`==`"),
        Rule::dots => Firm("`..`"),
        Rule::bar => Firm("`|`"),
        Rule::open_paren => Firm("`(`"),
        Rule::close_paren => Firm("`)`"),
        Rule::open_bracket => Firm("`[`"),
        Rule::close_bracket => Firm("`]`"),
        Rule::open_brace => Firm("`{`"),
        Rule::close_brace => Firm("`}`"),
        Rule::WHITESPACE
        | Rule::COMMENT
        | Rule::separator
        | Rule::primary
        | Rule::branch
        | Rule::inner_over
        | Rule::reserved
        | Rule::word_start
        | Rule::word_rest
        | Rule::digits
        | Rule::exponent
        | Rule::escape => Silent,
    }
}
