//! The names of a text: where each is introduced, and which use means which.
//!
//! This follows the checker's rules over the tree alone, so that it works on files with problems. A name that means
//! nothing here is left out; the checker says why.

use std::collections::BTreeMap;

use moec_diag::Span;
use moec_syntax::tree::{
    Argument, AxisExpr, BankMember, Definition, DefinitionKind, Expr, ExprKind, File, Item, Lane, Name, Pattern,
    Statement, StatementKind, TypeExpr, WeightRule,
};

use crate::library;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    Setting,
    Definition(DefinitionKind),
    Model,
    Input,
    Formal,
    /// An axis that the caller names.
    FormalAxis,
    /// An axis of the file.
    Axis,
    Param,
    Part,
    /// What a `scan` carries.
    State,
    Let,
    /// The number of the layer.
    Layer,
}

/// Where a symbol is introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the document, by this name.
    Here(Span),
    /// In a file of the library.
    Library { file: &'static str, at: Span },
}

#[derive(Clone, Debug)]
pub struct Symbol {
    pub name: String,
    pub kind: SymbolKind,
    pub home: Home,
    pub doc: Vec<String>,
    /// How it is written when used: `rms_norm(eps over A)`. Empty where its name says it all.
    pub form: String,
    /// The part of the document in which it can be used; the whole of it, where there is none.
    pub scope: Option<Span>,
}

/// A place where a symbol's name stands, the place that introduces it included.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    pub at: Span,
    pub symbol: usize,
    /// The call that the name is the function of.
    pub call: Option<Span>,
    pub introduces: bool,
    /// It stands for an axis here.
    pub axis: bool,
}

#[derive(Debug, Default)]
pub struct Names {
    pub symbols: Vec<Symbol>,
    /// In the order of the text.
    pub uses: Vec<Use>,
    /// Calls of primitives.
    pub primitives: Vec<(Span, String, Span)>,
}

impl Names {
    pub fn of(file: &File) -> Names {
        let mut finder = Finder::default();
        finder.file(file);
        let mut names = finder.names;
        names.uses.sort_by_key(|used| (used.at, !used.introduces));
        names.uses.dedup_by_key(|used| used.at);
        names.primitives.sort();
        names
    }

    /// The name at an offset, or just before it.
    pub fn at(&self, offset: u32) -> Option<Use> {
        self.uses.iter().rfind(|used| used.at.start <= offset && offset <= used.at.end).copied()
    }

    pub fn uses_of(&self, symbol: usize) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(move |used| used.symbol == symbol)
    }
}

#[derive(Default)]
struct Finder {
    names: Names,
    /// Functions, blocks, experts and gates in scope: own ones before those of the library.
    definitions: BTreeMap<String, usize>,
    /// The arguments and axes of each definition.
    formals: BTreeMap<usize, Vec<usize>>,
    settings: BTreeMap<String, usize>,
    axes: BTreeMap<String, usize>,
    /// What the bodies around introduced so far, the innermost last.
    locals: Vec<usize>,
}

impl Finder {
    fn file(&mut self, file: &File) {
        self.library(file);
        for item in &file.items {
            match item {
                Item::Config(config) => {
                    for entry in &config.entries {
                        let symbol = self.introduce(&entry.name, SymbolKind::Setting, &entry.doc, String::new(), None);
                        self.settings.insert(entry.name.text.clone(), symbol);
                    }
                }
                Item::Definition(definition) => self.definition(definition),
                Item::Model(_) | Item::Weights(_) => {}
            }
        }
        // Axes that are given a size are introduced there, and not where they happen to be used first.
        self.sized_axes(file);
        for item in &file.items {
            match item {
                Item::Config(config) => {
                    for value in config.entries.iter().map(|entry| &entry.default) {
                        self.expr(value);
                    }
                    config.requires.iter().for_each(|require| self.expr(&require.value));
                }
                Item::Definition(definition) => self.definition_body(definition),
                Item::Model(model) => {
                    self.introduce(&model.name, SymbolKind::Model, &model.doc, String::new(), None);
                    for input in &model.inputs {
                        let symbol = self.introduce(&input.name, SymbolKind::Input, &[], String::new(), Some(model.at));
                        self.locals.push(symbol);
                        self.tensor_type(&input.ty);
                    }
                    model.across.iter().for_each(|axis| self.axis(axis));
                    self.body(&model.body, model.at);
                    self.locals.clear();
                }
                Item::Weights(weights) => {
                    for rule in &weights.rules {
                        match rule {
                            WeightRule::Bind(bind) => {
                                bind.sources
                                    .iter()
                                    .filter_map(|source| source.layout.as_ref())
                                    .flatten()
                                    .for_each(|lane| self.lane(lane));
                            }
                            WeightRule::Scaled(scaled) => scaled.blocks.iter().for_each(|block| self.expr(block)),
                            WeightRule::Ignore(_) => {}
                        }
                    }
                }
            }
        }
    }

    fn lane(&mut self, lane: &Lane) {
        match lane {
            Lane::Axis(axis) => self.axis(axis),
            Lane::One(_) => {}
            Lane::Product(lanes) | Lane::Beside(lanes, _) => lanes.iter().for_each(|lane| self.lane(lane)),
        }
    }

    /// What the file takes from the library, and what is there anyway.
    fn library(&mut self, file: &File) {
        if let Some(prelude) = library::file(library::PRELUDE) {
            for definition in prelude.definitions() {
                let symbol = self.of_library(prelude.name, definition);
                self.definitions.insert(definition.name.text.clone(), symbol);
            }
        }
        for used in &file.uses {
            let [root, path] = &used.path[..] else { continue };
            let Some(opened) = library::file(&path.text).filter(|_| root.text == "std") else { continue };
            for name in &used.names {
                let found = opened.definitions().find(|definition| definition.name.text == name.text);
                let Some(definition) = found else { continue };
                let symbol = self.of_library(opened.name, definition);
                self.definitions.insert(name.text.clone(), symbol);
                self.used(name.at, symbol);
            }
        }
    }

    fn of_library(&mut self, file: &'static str, definition: &Definition) -> usize {
        self.names.symbols.push(Symbol {
            name: definition.name.text.clone(),
            kind: SymbolKind::Definition(definition.kind),
            home: Home::Library { file, at: definition.name.at },
            doc: definition.doc.clone(),
            form: library::form_of(definition),
            scope: None,
        });
        self.names.symbols.len() - 1
    }

    fn introduce(&mut self, name: &Name, kind: SymbolKind, doc: &[String], form: String, scope: Option<Span>) -> usize {
        let symbol = self.names.symbols.len();
        let home = Home::Here(name.at);
        self.names.symbols.push(Symbol { name: name.text.clone(), kind, home, doc: doc.to_vec(), form, scope });
        self.names.uses.push(Use { at: name.at, symbol, call: None, introduces: true, axis: kind == SymbolKind::Axis });
        symbol
    }

    fn used(&mut self, at: Span, symbol: usize) {
        self.names.uses.push(Use { at, symbol, call: None, introduces: false, axis: false });
    }

    fn definition(&mut self, definition: &Definition) {
        let kind = SymbolKind::Definition(definition.kind);
        let form = library::form_of(definition);
        let symbol = self.introduce(&definition.name, kind, &definition.doc, form, None);
        self.definitions.insert(definition.name.text.clone(), symbol);
        let scope = Some(definition.at);
        let mut formals = Vec::new();
        for param in &definition.params {
            formals.push(self.introduce(&param.name, SymbolKind::Formal, &[], String::new(), scope));
        }
        for axis in &definition.axes {
            formals.push(self.introduce(axis, SymbolKind::FormalAxis, &[], String::new(), scope));
        }
        self.formals.insert(symbol, formals);
    }

    fn definition_body(&mut self, definition: &Definition) {
        let Some(&symbol) = self.definitions.get(&definition.name.text) else { return };
        self.locals = self.formals.get(&symbol).cloned().unwrap_or_default();
        for default in definition.params.iter().filter_map(|param| param.default.as_ref()) {
            self.expr(default);
        }
        self.body(&definition.body, definition.at);
        self.locals.clear();
    }

    fn body(&mut self, statements: &[Statement], scope: Span) {
        let outside = self.locals.len();
        for statement in statements {
            self.statement(statement, scope);
        }
        self.locals.truncate(outside);
    }

    fn statement(&mut self, statement: &Statement, scope: Span) {
        let local = |finder: &mut Self, name: &Name, kind| {
            let symbol = finder.introduce(name, kind, &[], String::new(), Some(scope));
            finder.locals.push(symbol);
        };
        match &statement.kind {
            StatementKind::Param { name, axes, shared } => {
                self.axis_exprs(axes);
                shared.iter().for_each(|shared| self.expr(shared));
                local(self, name, SymbolKind::Param);
            }
            StatementKind::Buffer { name, axes, value } => {
                self.axis_exprs(axes);
                value.iter().for_each(|value| self.expr(value));
                local(self, name, SymbolKind::Param);
            }
            StatementKind::State { name, axes, initial, next } => {
                self.axis_exprs(axes);
                self.expr(initial);
                local(self, name, SymbolKind::State);
                next.iter().for_each(|next| self.expr(next));
            }
            StatementKind::Aux { name: _, coefficient, value } => {
                coefficient.iter().for_each(|coefficient| self.expr(coefficient));
                self.expr(value);
            }
            StatementKind::Trace { name: _, value } => self.expr(value),
            StatementKind::Part { name, value } => {
                self.expr(value);
                local(self, name, SymbolKind::Part);
            }
            StatementKind::Let { pattern, value } => {
                self.expr(value);
                match pattern {
                    Pattern::Name(name) => local(self, name, SymbolKind::Let),
                    Pattern::Tuple(names, _) => {
                        names.iter().flatten().for_each(|name| local(self, name, SymbolKind::Let));
                    }
                }
            }
            StatementKind::Assign { name, value } => {
                self.expr(value);
                if let Some(symbol) = self.local(&name.text) {
                    self.used(name.at, symbol);
                }
            }
            StatementKind::Route { value } => self.expr(value),
            StatementKind::Out { name: _, ty, value } => {
                ty.iter().for_each(|ty| self.tensor_type(ty));
                self.expr(value);
            }
            StatementKind::Layers { index, from, to, body } => {
                self.expr(from);
                self.expr(to);
                let outside = self.locals.len();
                let symbol = self.introduce(index, SymbolKind::Layer, &[], String::new(), Some(statement.at));
                self.locals.push(symbol);
                self.body(body, statement.at);
                self.locals.truncate(outside);
            }
        }
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.locals.iter().rfind(|&&symbol| self.names.symbols[symbol].name == name).copied()
    }

    fn expr(&mut self, expr: &Expr) {
        match &*expr.kind {
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) | ExprKind::Text(_) => {}
            ExprKind::List(items) | ExprKind::Tuple(items) => items.iter().for_each(|item| self.expr(item)),
            ExprKind::Name(name) => {
                let found = self.local(name).or_else(|| self.settings.get(name).copied());
                let found = found.or_else(|| self.definitions.get(name).copied());
                if let Some(symbol) = found.or_else(|| self.axes.get(name).copied()) {
                    self.used(expr.at, symbol);
                }
            }
            ExprKind::Unary(_, x) => self.expr(x),
            ExprKind::Binary(_, a, b) => {
                self.expr(a);
                self.expr(b);
            }
            ExprKind::Contract { left, right, over } => {
                self.expr(left);
                self.expr(right);
                over.iter().for_each(|axis| self.axis(axis));
            }
            ExprKind::Call { function, arguments, over } => {
                self.call(function, arguments, expr.at);
                over.iter().for_each(|axis| self.axis(axis));
            }
            ExprKind::Field { of, field: _ } => self.expr(of),
            ExprKind::Index { of, axis, from, to } => {
                self.expr(of);
                self.axis(axis);
                self.expr(from);
                to.iter().for_each(|to| self.expr(to));
            }
            ExprKind::If { condition, yes, no } => {
                self.expr(condition);
                self.expr(yes);
                no.iter().for_each(|no| self.expr(no));
            }
            ExprKind::Iterate { steps, name, initial, until, body } => {
                self.expr(steps);
                self.expr(initial);
                until.iter().for_each(|until| self.expr(until));
                let outside = self.locals.len();
                let symbol = self.introduce(name, SymbolKind::Let, &[], String::new(), Some(expr.at));
                self.locals.push(symbol);
                self.expr(body);
                self.locals.truncate(outside);
            }
            ExprKind::Moe(moe) => {
                self.expr(&moe.gate);
                self.members(&moe.experts);
                moe.always.iter().for_each(|always| self.expr(always));
            }
            ExprKind::Scan { over, body } => {
                self.axis(over);
                self.body(body, expr.at);
            }
            ExprKind::Bank(members) => self.members(members),
        }
    }

    fn members(&mut self, members: &[BankMember]) {
        for member in members {
            self.expr(&member.expert);
            member.count.iter().for_each(|count| self.expr(count));
        }
    }

    fn call(&mut self, function: &Name, arguments: &[Argument], at: Span) {
        let found = self.local(&function.text).or_else(|| self.definitions.get(&function.text).copied());
        match found {
            Some(symbol) => {
                let call = Some(at);
                self.names.uses.push(Use { at: function.at, symbol, call, introduces: false, axis: false });
            }
            None => self.names.primitives.push((function.at, function.text.clone(), at)),
        }
        for argument in arguments {
            match argument {
                Argument::Value(value) => self.expr(value),
                Argument::Named(name, value) => {
                    let formals = found.and_then(|symbol| self.formals.get(&symbol));
                    let mut formals = formals.into_iter().flatten();
                    if let Some(&formal) = formals.find(|&&formal| self.names.symbols[formal].name == name.text) {
                        self.used(name.at, formal);
                    }
                    self.expr(value);
                }
                Argument::Regroup { from, to, at: _ } => {
                    from.iter().for_each(|axis| self.axis(axis));
                    self.axis_exprs(to);
                }
            }
        }
    }

    fn tensor_type(&mut self, ty: &TypeExpr) {
        self.axis_exprs(&ty.axes);
    }

    fn axis_exprs(&mut self, axes: &[AxisExpr]) {
        for axis in axes {
            self.axis(&axis.name);
            axis.size.iter().for_each(|size| self.expr(size));
        }
    }

    /// An argument, an axis that the caller names, a setting, or else an axis of the file.
    fn axis(&mut self, name: &Name) {
        let formal = self
            .local(&name.text)
            .filter(|&symbol| matches!(self.names.symbols[symbol].kind, SymbolKind::Formal | SymbolKind::FormalAxis));
        let known = formal.or_else(|| self.settings.get(&name.text).copied());
        match known.or_else(|| self.axes.get(&name.text).copied()) {
            Some(symbol) => {
                self.names.uses.push(Use { at: name.at, symbol, call: None, introduces: false, axis: true });
            }
            None => self.introduce_axis(name),
        }
    }

    fn introduce_axis(&mut self, name: &Name) {
        let symbol = self.introduce(name, SymbolKind::Axis, &[], String::new(), None);
        self.axes.insert(name.text.clone(), symbol);
    }

    /// Axes of the model's inputs, and axes that a `param` gives a size.
    fn sized_axes(&mut self, file: &File) {
        for item in &file.items {
            match item {
                Item::Model(model) => {
                    for axis in model.inputs.iter().flat_map(|input| &input.ty.axes) {
                        self.sized_axis(&axis.name);
                    }
                    self.sized_axes_of(&model.body);
                }
                Item::Definition(definition) => self.sized_axes_of(&definition.body),
                Item::Config(_) | Item::Weights(_) => {}
            }
        }
    }

    fn sized_axes_of(&mut self, statements: &[Statement]) {
        for statement in statements {
            match &statement.kind {
                StatementKind::Param { axes, .. }
                | StatementKind::Buffer { axes, .. }
                | StatementKind::State { axes, .. } => {
                    for axis in axes.iter().filter(|axis| axis.size.is_some()) {
                        self.sized_axis(&axis.name);
                    }
                }
                StatementKind::Layers { body, .. } => self.sized_axes_of(body),
                StatementKind::Part { .. }
                | StatementKind::Let { .. }
                | StatementKind::Assign { .. }
                | StatementKind::Route { .. }
                | StatementKind::Out { .. }
                | StatementKind::Aux { .. }
                | StatementKind::Trace { .. } => {}
            }
        }
    }

    fn sized_axis(&mut self, name: &Name) {
        if !self.settings.contains_key(&name.text) && !self.axes.contains_key(&name.text) {
            self.introduce_axis(name);
        }
    }
}
