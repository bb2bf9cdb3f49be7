//! What to type, where more can be said than what is expected: mistakes that people make, and words of other languages.

use super::{Place, Reader};
use crate::grammar::Rule;
use crate::outline::{ITEM_WORDS, STATEMENT_WORDS};
use crate::scan::TokenKind;

impl Reader<'_> {
    /// The next thing to type, where more can be said than what is expected.
    pub(super) fn help(
        &self,
        at: usize,
        first: usize,
        expected: &[Rule],
        wants_value: bool,
        place: Place,
    ) -> Option<String> {
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
            return nearest(found, &ITEM_WORDS).map(|meant| format!("did you mean `{meant}`?"));
        }
        let iterates = (1..=3).any(|back| self.before(at, back) == "iterate");
        if iterates || expected.contains(&Rule::until) {
            return Some("it is written `iterate 8 (z = x) { f(z) }`, or `(z = x, until = 1e-4)`".into());
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
            _ if before == "ignore" && place == Place::Setting => "write `ignore \"key\"`, the key in quotes",
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
            "to" | "into" if expected.contains(&Rule::comma) => "axes are regrouped with `as`: `rename(x, D as E)`",
            "×" | "times" if continues => "to multiply, write `*`; `×` counts the experts of a bank",
            "from" if place == Place::Setting && at == first + 1 => {
                "before `from` stands the default: `E = 8 from \"num_experts\"`"
            }
            _ if place == Place::Setting && found.starts_with('"') && at == first => {
                "an entry's name stands without quotes; the key of `config.json` comes after `from`"
            }
            _ if place == Place::Setting && found.starts_with('"') => "a key comes after `from`",
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
            _ if self.lacks_comma(at, expected) => {
                return Some(format!("put a comma between: `{}, {found}`", self.before(at, 1)));
            }
            _ if !continues && !wants_value && (place == Place::Item || at <= first + 2) => {
                return form(first_word, place).map(|form| format!("it is written `{form}`"));
            }
            _ => return None,
        };
        Some(help.into())
    }

    /// As [`Reader::help`], where something ends before it is whole.
    pub(super) fn help_at_end(&self, first: usize, place: Place) -> Option<String> {
        let word = self.word(first);
        match place {
            Place::Statement => foreign_statement(word).map(str::to_owned),
            Place::Item if matches!(word, "use" | "serves") => {
                form(word, place).map(|form| format!("it is written `{form}`"))
            }
            Place::Item | Place::Setting | Place::Rule | Place::Expression => None,
        }
    }

    /// Two things side by side, where a comma could stand between them.
    fn lacks_comma(&self, at: usize, expected: &[Rule]) -> bool {
        let begins = matches!(
            self.scan.tokens.get(at).map(|token| token.kind),
            Some(TokenKind::Word | TokenKind::Number | TokenKind::Text { .. })
        );
        begins && expected.contains(&Rule::comma) && !matches!(self.before(at, 1), "," | "(" | "[" | "{")
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
        (Place::Statement, "state") => "state h[D] = 0.0",
        (Place::Statement, "let") => "let name = expression",
        (Place::Statement, "buffer") => "buffer table[V]",
        (Place::Statement, "aux") => "aux balance(0.01) = expression",
        (Place::Statement, "trace") => "trace load = expression",
        (Place::Statement, "layers") => "layers l in 0..L { … }",
        _ => return None,
    };
    Some(form)
}

fn foreign_statement(word: &str) -> Option<&'static str> {
    match word {
        "return" | "output" | "yield" => Some("a value is given with `out`, a route with `route`"),
        "for" | "while" | "loop" | "repeat" => Some(
            "layers repeat with `layers l in 0..L { … }`, positions with `scan over S { … }`, an expression with `iterate 8 (z = x) { … }`",
        ),
        "var" | "const" | "set" | "val" => Some("a value is named with `let name = …`"),
        "weight" | "parameter" => Some("a parameter is declared with `param W[E, D]`"),
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
