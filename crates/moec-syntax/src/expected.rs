//! Where the text leaves the grammar: what was found, what could have stood there, and what to type.

use std::ops::Range;

use miette::Diagnostic;
use moec_diag::Span;
use thiserror::Error;

use crate::findings::Findings;
use crate::grammar::{Rule, Stop};
use crate::outline::STATEMENT_WORDS;
use crate::scan::{Scan, TokenKind};

/// What is being read, as far as it makes a difference to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Item,
    Statement,
    Setting,
    Rule,
    Expression,
}

/// The whole file, to see what stands around a place.
pub struct Reader<'a> {
    pub text: &'a str,
    pub scan: &'a Scan,
}

const RESERVED: [&str; 17] = [
    "param", "part", "let", "route", "out", "layers", "if", "else", "moe", "true", "false", "or", "and", "not", "in",
    "over", "as",
];

impl<'a> Reader<'a> {
    /// `stop.at` is within the file, as is the `range` of the thing being read.
    pub fn report(&self, stop: Stop, range: Range<u32>, place: Place, findings: &mut Findings) {
        // White space is skipped before a token, so that the stop may be at the end of the one before.
        let at = self.scan.index_at(stop.at.min(self.text.len() as u32));
        let first = self.scan.index_at(range.start);
        let Some(token) = self.scan.tokens.get(at).filter(|token| token.start < range.end) else {
            return self.report_end(at, &stop.expected, place, findings);
        };
        let span = findings.span(token.start, token.end);
        let found = self.word(at);
        let wants_name = stop.expected.iter().any(|&rule| wants_name(rule));
        let wants_value = stop.expected.iter().any(|&rule| phrase(rule, place) == Phrase::Firm("an expression"));
        let named = wants_name && !wants_value || self.word(at + 1) == "=";
        if RESERVED.contains(&found) && named {
            findings.report(span, ReservedWord { word: found.to_owned(), at: span });
            return;
        }
        let expected = expectation(&stop.expected, place);
        let help = self
            .help(at, first, &stop.expected, wants_value, place)
            .unwrap_or_else(|| format!("write {expected} here"));
        findings.report(span, Unexpected { found: self.describe(at), expected, help, at: span });
    }

    /// The thing being read ends before the token `at`, and the grammar wants more of it.
    fn report_end(&self, at: usize, expected: &[Rule], place: Place, findings: &mut Findings) {
        let end = at.checked_sub(1).map_or(0, |before| self.scan.tokens[before].end);
        let at = findings.span(end, end);
        let what = match place {
            Place::Item => "item",
            Place::Statement => "statement",
            Place::Setting => "entry",
            Place::Rule => "rule",
            Place::Expression => "expression",
        };
        findings.report(at, EndsEarly { what, expected: expectation(expected, place), at });
    }

    fn word(&self, at: usize) -> &'a str {
        self.scan.tokens.get(at).map_or("", |token| &self.text[token.start as usize..token.end as usize])
    }

    fn before(&self, at: usize, back: usize) -> &'a str {
        at.checked_sub(back).map_or("", |at| self.word(at))
    }

    fn describe(&self, at: usize) -> String {
        let Some(token) = self.scan.tokens.get(at) else { return "end".into() };
        let spelling = self.word(at);
        let short = |spelling: &str| {
            let cut = spelling.char_indices().nth(40).map(|(cut, _)| cut);
            cut.map_or(spelling.to_owned(), |cut| format!("{}…", &spelling[..cut]))
        };
        match token.kind {
            TokenKind::Text { .. } => format!("string {}", short(spelling)),
            TokenKind::Number => format!("number {}", short(spelling)),
            TokenKind::Word | TokenKind::Open | TokenKind::Close | TokenKind::Mark | TokenKind::Unknown => {
                format!("`{}`", short(spelling))
            }
        }
    }

    /// The next thing to type, where more can be said than what is expected.
    fn help(&self, at: usize, first: usize, expected: &[Rule], wants_value: bool, place: Place) -> Option<String> {
        let found = self.word(at);
        let before = self.before(at, 1);
        let continues = expected.contains(&Rule::infix);
        let first_word = self.word(first);
        let begins_line = self.scan.tokens.get(at).is_some_and(|token| token.first_on_line);
        let opening = match place {
            Place::Statement if at <= first + 1 => Some(first_word),
            // A statement that does not begin like one was taken for more of the statement before.
            Place::Statement if begins_line => Some(found),
            Place::Statement | Place::Item | Place::Setting | Place::Rule | Place::Expression => None,
        };
        if let Some(word) = opening {
            if let Some(meant) = foreign_statement(word) {
                return Some(meant.into());
            }
            if let Some(meant) = nearest(word, &STATEMENT_WORDS) {
                return Some(format!("did you mean `{meant}`?"));
            }
        }
        if place == Place::Item && at == first {
            if STATEMENT_WORDS.contains(&found) {
                return Some("statements stand inside a `fn`, `block`, `expert`, `gate` or `model`".into());
            }
            if let Some(meant) = foreign_item(found) {
                return Some(meant.into());
            }
            const ITEMS: [&str; 9] = ["serves", "use", "config", "model", "weights", "fn", "block", "expert", "gate"];
            return nearest(found, &ITEMS).map(|meant| format!("did you mean `{meant}`?"));
        }
        let help = match found {
            "=" if continues => "to compare, write `==`; to give a name a new value, begin with the name",
            "*" if before == "*" => "a power is written `^`",
            "|" if continues => "write `or`; keys are joined by `|` after `from` only",
            "," if !wants_value
                && !expected.contains(&Rule::close_bracket)
                && !expected.contains(&Rule::close_paren) =>
            {
                "no comma is needed: each stands on its own line, or after `;`"
            }
            "or" if expected.contains(&Rule::bar) => "several keys are joined by `|`",
            _ if expected.contains(&Rule::from) && self.word(at).starts_with('"') => "a key comes after `from`",
            _ if before == "from" => "a key of `config.json` stands in quotes",
            _ if before == "require" => "write `require \"key\" == value`, the key in quotes",
            _ if before == "ignore" && place == Place::Rule => "write `ignore \"name.of.the.tensor\"`, in quotes",
            _ if expected == [Rule::text] && place == Place::Rule => "the name of a tensor stands in quotes",
            "}" if place == Place::Rule => "alternatives are two or more: `{gate,up}`",
            _ if place == Place::Rule && before == "[" && self.is_number(at) => {
                "an index is a name, such as `l`, that the tensor's name has as `{l}`"
            }
            "(" if continues && self.before(at, 2) == "." => {
                "only a plain name can be called: write `name(value)`, and a block's parts are called inside that block"
            }
            ":" if place == Place::Item && first_word != "model" && expected.contains(&Rule::close_paren) => {
                "arguments have no written type"
            }
            ":" if place == Place::Statement => "only a model's inputs and outputs have a written type",
            "x" | "X" if expected.contains(&Rule::times) => "a bank's count is written `× 8`, or `times 8`",
            "over" if continues => "`over` stands just after a contraction, or last inside a call's parentheses",
            "as" if continues => "`as` stands in a call's parentheses: `split(x, Head as (KV, Rep))`",
            "else" => "`else` stands after the `}` of an `if`",
            _ if before == "else" => "both branches of an `if` stand in braces",
            _ if before == "[" && expected == [Rule::name] => {
                "an index names its axis: `x[Half = 0]`, `x[Half = 0..2]`"
            }
            "{" if continues && self.before(at, 1) == "]" => "is an `=` or an operator missing before this?",
            _ if expected.contains(&Rule::equals) && place == Place::Rule => {
                "a rule is `layers[l].norm.w = \"name.of.{l}.the.tensor\"`, with its layout after `as`"
            }
            _ if !continues && !wants_value && (place == Place::Item || at <= first + 2) => {
                return form(first_word, place).map(|form| format!("it is written `{form}`"));
            }
            _ => return None,
        };
        Some(help.into())
    }

    fn is_number(&self, at: usize) -> bool {
        self.scan.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Number)
    }
}

/// How the item or statement that begins with a word is written.
fn form(word: &str, place: Place) -> Option<&'static str> {
    let form = match (place, word) {
        (Place::Item, "use") => "use std::norm::rms_norm",
        (Place::Item, "serves") => "serves \"ArchitectureName\"",
        (Place::Item, "config") => "config { D = 2048 from \"hidden_size\" }",
        (Place::Item, "fn") => "fn name(x, k = 1 over A) = expression",
        (Place::Item, "block") => "block name(width) { … }",
        (Place::Item, "expert") => "expert name(width) { … }",
        (Place::Item, "gate") => "gate name(k) { … }",
        (Place::Item, "model") => "model name(ids: i32[S]) { … }",
        (Place::Item, "weights") => "weights hf { … }",
        (Place::Statement, "param") => "param W[E, D]",
        (Place::Statement, "part") => "part norm = rms_norm(eps over D)",
        (Place::Statement, "let") => "let name = expression",
        (Place::Statement, "layers") => "layers l in 0..L { … }",
        _ => return None,
    };
    Some(form)
}

fn foreign_statement(word: &str) -> Option<&'static str> {
    match word {
        "return" | "output" | "yield" => Some("a value is given with `out`, a route with `route`"),
        "for" | "while" | "loop" | "repeat" => Some("layers repeat with `layers l in 0..L { … }`; nothing else loops"),
        "var" | "const" | "set" | "val" => Some("a value is named with `let name = …`"),
        "weight" | "parameter" | "buffer" => Some("a parameter is declared with `param W[E, D]`"),
        _ => None,
    }
}

fn foreign_item(word: &str) -> Option<&'static str> {
    match word {
        "def" | "func" | "function" => Some("a function is `fn name(x) = …`"),
        "import" | "include" | "from" => Some("library definitions come with `use std::norm::rms_norm`"),
        "class" | "struct" | "module" | "layer" => Some("a part with parameters is a `block name { … }`"),
        "router" => Some("a router is a `gate name { … }`"),
        _ => None,
    }
}

/// The word of the language that was probably meant.
fn nearest(word: &str, words: &[&'static str]) -> Option<&'static str> {
    let close = |meant: &&&'static str| {
        word.len() > 2 && word != **meant && strsim::osa_distance(word, meant) <= 1 + meant.len() / 5
    };
    words.iter().filter(close).min_by_key(|meant| strsim::osa_distance(word, meant)).copied()
}

/// `a, b or c` of what could stand here. What could merely go on the expression before counts only if it is all.
fn expectation(expected: &[Rule], place: Place) -> String {
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

fn wants_name(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::name
            | Rule::pattern
            | Rule::place
            | Rule::formal
            | Rule::input
            | Rule::axis
            | Rule::regroup_to
            | Rule::lane
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phrase {
    Firm(&'static str),
    /// Could go on what stands before.
    Loose(&'static str),
    Silent,
}

fn phrase(rule: Rule, place: Place) -> Phrase {
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
            Firm("a statement (`param`, `part`, `let`, `route`, `out`, `layers`, or `name = …`)")
        }
        Rule::lone_setting | Rule::setting | Rule::entry => Firm("an entry (`NAME = value`, or `require`)"),
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
        Rule::regroup_to | Rule::lane => Firm("a name or names in parentheses"),
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
        Rule::weights | Rule::word_weights => Firm("`weights`"),
        Rule::function | Rule::word_fn => Firm("`fn`"),
        Rule::word_use => Firm("`use`"),
        Rule::require | Rule::word_require => Firm("`require`"),
        Rule::ignore | Rule::word_ignore => Firm("`ignore`"),
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
        Rule::word_if => Firm("`if`"),
        Rule::word_else => Loose("`else`"),
        Rule::word_moe => Firm("`moe`"),
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

#[derive(Debug, Error, Diagnostic)]
#[error("unexpected {found}")]
#[diagnostic(code(moec::syntax::unexpected), help("{help}"))]
struct Unexpected {
    found: String,
    expected: String,
    help: String,
    #[label("expected {expected}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the {what} ends too early")]
#[diagnostic(code(moec::syntax::ends_early), help("write {expected} here"))]
struct EndsEarly {
    what: &'static str,
    expected: String,
    #[label("expected {expected}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{word}` is a word of the language and cannot be a name")]
#[diagnostic(code(moec::syntax::reserved_word), help("choose another name, such as `{word}_`"))]
struct ReservedWord {
    word: String,
    #[label("a name is expected here")]
    at: Span,
}
