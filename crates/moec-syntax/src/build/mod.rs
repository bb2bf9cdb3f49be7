//! From what the grammar matched to the tree. The grammar has checked the shape; what it cannot check is checked here.
//!
//! Each function takes the pair of the rule that it is named for, and its children in the order of the grammar file.

mod expression;
mod statement;
mod weights;

use moec_diag::Span;
use pest::iterators::Pair;

use crate::findings::Findings;
use crate::grammar::Rule;
use crate::scan::Scan;
use crate::tree::{
    Config, ConfigEntry, Definition, DefinitionKind, Expr, File, FormalParam, Item, Model, ModelInput, Name, Require,
    Statement, StatementKind, Text, Use,
};

/// Finds the documentation that stands before something.
pub struct Docs<'a> {
    pub scan: &'a Scan,
}

impl Docs<'_> {
    /// The `///` lines between the token before this offset of the file and the offset.
    fn before(&self, offset: u32) -> Vec<String> {
        let token = self.scan.index_at(offset);
        let from = token.checked_sub(1).map_or(0, |before| self.scan.tokens[before].end);
        let docs = &self.scan.docs;
        let (first, end) =
            (docs.partition_point(|doc| doc.start < from), docs.partition_point(|doc| doc.start < offset));
        docs[first..end].iter().filter(|doc| !doc.head).map(|doc| doc.text.clone()).collect()
    }
}

/// Adds the item of a `lone_item` to the file. `start` is the offset in the file of the text that was read.
pub fn item(lone: Pair<Rule>, start: u32, docs: &Docs, file: &mut File, findings: &mut Findings) {
    let mut builder = Builder { start, docs, findings, tallest: 0 };
    for item in lone.into_inner().filter(|pair| pair.as_rule() == Rule::item) {
        for pair in item.into_inner() {
            match pair.as_rule() {
                Rule::serves => file.serves.extend(children(pair).map(|text| builder.text(text))),
                Rule::uses => file.uses.push(builder.uses(pair)),
                Rule::config => file.items.push(Item::Config(builder.config(pair))),
                Rule::model => file.items.push(Item::Model(builder.model(pair))),
                Rule::weights => file.items.push(Item::Weights(builder.weights(pair))),
                _ => file.items.push(Item::Definition(builder.definition(pair))),
            }
        }
    }
}

/// The expression of a `lone_expression`.
pub fn expression(lone: Pair<Rule>, scan: &Scan, findings: &mut Findings) -> Option<Expr> {
    let mut builder = Builder { start: 0, docs: &Docs { scan }, findings, tallest: 0 };
    children(lone).next().map(|pair| builder.expression(pair))
}

struct Builder<'a> {
    /// The offset in the file of the text that was read.
    start: u32,
    docs: &'a Docs<'a>,
    findings: &'a mut Findings,
    /// The height of the tallest expression among the statements being read.
    tallest: u32,
}

/// The children of a pair that mean something: not its brackets, separators and fixed words.
fn children(pair: Pair<Rule>) -> impl Iterator<Item = Pair<Rule>> {
    pair.into_inner().filter(|child| !is_fixed(child.as_rule()))
}

fn is_fixed(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::EOI
            | Rule::comma
            | Rule::colon
            | Rule::colons
            | Rule::equals
            | Rule::same
            | Rule::dot
            | Rule::dots
            | Rule::bar
            | Rule::times
            | Rule::open_paren
            | Rule::close_paren
            | Rule::open_bracket
            | Rule::close_bracket
            | Rule::open_brace
            | Rule::close_brace
            | Rule::word_serves
            | Rule::word_use
            | Rule::word_config
            | Rule::word_from
            | Rule::word_require
            | Rule::word_fn
            | Rule::word_model
            | Rule::word_across
            | Rule::word_weights
            | Rule::word_ignore
            | Rule::word_scaled
            | Rule::word_by
            | Rule::word_inside
            | Rule::word_gate
            | Rule::word_experts
            | Rule::word_always
            | Rule::word_param
            | Rule::word_part
            | Rule::word_let
            | Rule::word_route
            | Rule::word_out
            | Rule::word_layers
            | Rule::word_buffer
            | Rule::word_state
            | Rule::word_on
            | Rule::word_step
            | Rule::word_aux
            | Rule::word_trace
            | Rule::word_iterate
            | Rule::word_until
            | Rule::word_if
            | Rule::word_else
            | Rule::word_moe
            | Rule::word_bank
            | Rule::word_scan
            | Rule::word_in
            | Rule::word_over
            | Rule::word_as
    )
}

/// A child that the grammar says is there.
fn given<'a>(children: &mut impl Iterator<Item = Pair<'a, Rule>>, rule: Rule) -> Pair<'a, Rule> {
    match children.next() {
        Some(pair) => pair,
        None => unreachable!("the grammar gives every {rule:?} this child"),
    }
}

impl Builder<'_> {
    /// The place of a pair among the sources.
    fn at(&self, pair: &Pair<Rule>) -> Span {
        let span = pair.as_span();
        // A pair may take the white space before an optional child that is not there.
        let end = span.start() + span.as_str().trim_end().len();
        self.findings.span(self.start + span.start() as u32, self.start + end as u32)
    }

    fn name(&self, pair: Pair<Rule>) -> Name {
        Name { text: pair.as_str().to_owned(), at: self.at(&pair) }
    }

    /// The children that are names.
    fn names(&self, pair: Pair<Rule>) -> Vec<Name> {
        children(pair).filter(|child| child.as_rule() == Rule::name).map(|name| self.name(name)).collect()
    }

    fn text(&self, pair: Pair<Rule>) -> Text {
        Text { text: unescaped(pair.as_str()), at: self.at(&pair) }
    }

    fn uses(&self, pair: Pair<Rule>) -> Use {
        let at = self.at(&pair);
        let (mut file, mut path, mut names) = (None, Vec::new(), Vec::new());
        for child in children(pair) {
            match child.as_rule() {
                Rule::text => file = Some(self.text(child)),
                Rule::use_names => names = self.names(child),
                _ => path.push(self.name(child)),
            }
        }
        if names.is_empty() {
            names.extend(path.pop());
        }
        Use { file, path, names, at }
    }

    fn config(&mut self, pair: Pair<Rule>) -> Config {
        let mut config =
            Config { inside: None, entries: Vec::new(), requires: Vec::new(), ignores: Vec::new(), at: self.at(&pair) };
        let (inside, settings): (Vec<_>, Vec<_>) = children(pair).partition(|child| child.as_rule() == Rule::inside);
        config.inside = self.inside(inside.into_iter().next());
        for setting in settings.into_iter().flat_map(children) {
            match setting.as_rule() {
                Rule::require => config.requires.extend(children(setting).map(|pair| self.requirement(pair))),
                Rule::ignore_keys => config.ignores.extend(children(setting).map(|key| self.text(key))),
                _ => config.entries.push(self.entry(setting)),
            }
        }
        config
    }

    /// `inside "text_config"`
    fn inside(&mut self, pair: Option<Pair<Rule>>) -> Option<Text> {
        pair.and_then(|pair| children(pair).next()).map(|text| self.text(text))
    }

    fn requirement(&mut self, pair: Pair<Rule>) -> Require {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair);
        Require { key: self.text(given(&mut parts, rule)), value: self.expression(given(&mut parts, rule)), at }
    }

    fn entry(&mut self, pair: Pair<Rule>) -> ConfigEntry {
        let rule = pair.as_rule();
        let doc = self.docs.before(self.start + pair.as_span().start() as u32);
        let mut parts = children(pair);
        let name = self.name(given(&mut parts, rule));
        let default = self.expression(given(&mut parts, rule));
        let keys = parts.flat_map(children).map(|key| self.text(key)).collect();
        ConfigEntry { doc, name, default, keys }
    }

    /// A `function` or a `block`, inside `definition`.
    fn definition(&mut self, pair: Pair<Rule>) -> Definition {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let doc = self.docs.before(self.start + pair.as_span().start() as u32);
        let mut found = Definition {
            doc,
            kind: DefinitionKind::Fn,
            name: Name { text: String::new(), at },
            params: Vec::new(),
            axes: Vec::new(),
            body: Vec::new(),
            at,
        };
        for part in children(given(&mut children(pair), rule)) {
            match part.as_rule() {
                Rule::block_kind => {
                    found.kind = match part.as_str() {
                        "gate" => DefinitionKind::Gate,
                        "expert" => DefinitionKind::Expert,
                        _ => DefinitionKind::Block,
                    }
                }
                Rule::name => found.name = self.name(part),
                Rule::formals => self.formals(part, &mut found),
                Rule::body => found.body = self.body(part),
                _ => {
                    let value = self.expression(part);
                    let at = value.at;
                    found.body = vec![Statement { kind: StatementKind::Out { name: None, ty: None, value }, at }];
                }
            }
        }
        found
    }

    fn formals(&mut self, pair: Pair<Rule>, definition: &mut Definition) {
        for child in children(pair) {
            match child.as_rule() {
                Rule::axes_over => definition.axes = self.names(child),
                rule => {
                    let mut parts = children(child);
                    let name = self.name(given(&mut parts, rule));
                    definition
                        .params
                        .push(FormalParam { name, default: parts.next().map(|pair| self.expression(pair)) });
                }
            }
        }
    }

    fn model(&mut self, pair: Pair<Rule>) -> Model {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let doc = self.docs.before(self.start + pair.as_span().start() as u32);
        let mut parts = children(pair);
        let name = self.name(given(&mut parts, rule));
        let mut model = Model { doc, name, inputs: Vec::new(), across: Vec::new(), body: Vec::new(), at };
        for part in parts {
            match part.as_rule() {
                Rule::across => model.across = self.names(part),
                Rule::input => {
                    let mut parts = children(part);
                    let name = self.name(given(&mut parts, rule));
                    model.inputs.push(ModelInput { name, ty: self.tensor_type(given(&mut parts, rule)) });
                }
                _ => model.body = self.body(part),
            }
        }
        model
    }
}

/// The text between the quotes.
fn unescaped(spelling: &str) -> String {
    let inside = spelling.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(spelling);
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(c) = characters.next() {
        text.push(match c {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    text
}
