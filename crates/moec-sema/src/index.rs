//! What a check learned of each place of the text, for editors: kept only when asked for.

use std::collections::BTreeMap;

use moec_diag::Span;
use moec_syntax::{
    axes,
    tree::{Definition, Expr, Name, Pattern, Statement, StatementKind},
};
use moec_types::TensorType;

use crate::{evaluator::Evaluator, scope::Frame, value::Value};

/// A place that was evaluated this often with more than one result is not looked at any more.
const MOST_VISITS: u32 = 64;

/// So many different results of one place are told.
const MOST_TOLD: usize = 3;

/// What values stand behind names and expressions; one place may have several, a body being evaluated at each use.
#[derive(Clone, Debug, Default)]
pub struct Index {
    facts: BTreeMap<Span, Facts>,
    /// Every parameter, in the order of its making.
    pub params: Vec<ParamFact>,
}

#[derive(Clone, Debug, Default)]
struct Facts {
    visits: u32,
    told: Vec<String>,
}

/// A parameter of the model.
#[derive(Clone, Debug)]
pub struct ParamFact {
    /// `layers[l].attn.q`.
    pub path: String,
    /// Of one instance.
    pub ty: TensorType,
    /// One for each layer and expert that has it.
    pub instances: u64,
    /// Its name in the text.
    pub at: Span,
}

impl Index {
    /// What was found at exactly this place, such as `f32[S, D=64]`.
    pub fn at(&self, at: Span) -> &[String] {
        self.facts.get(&at).map_or(&[], |facts| &facts.told)
    }

    /// The smallest place around an offset of which something is known.
    pub fn around(&self, offset: u32) -> Option<(Span, &[String])> {
        let around =
            self.facts.iter().filter(|(at, facts)| at.start <= offset && offset < at.end && !facts.told.is_empty());
        around.min_by_key(|(at, _)| at.end - at.start).map(|(at, facts)| (*at, &facts.told[..]))
    }

    fn note(&mut self, at: Span, tell: impl FnOnce() -> String) {
        if at == Span::NONE {
            return;
        }
        let facts = self.facts.entry(at).or_default();
        facts.visits += 1;
        if facts.visits > MOST_VISITS || facts.told.len() >= MOST_TOLD {
            return;
        }
        let told = tell();
        if !facts.told.contains(&told) {
            facts.told.push(told);
        }
    }
}

impl Evaluator {
    /// Remembers what a value at a place is.
    pub fn note(&mut self, at: Span, value: &Value) {
        let Some(index) = &mut self.index else { return };
        match value {
            Value::Error => {}
            Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Text(_) | Value::List(_) => {
                if let Some(value) = crate::config::setting_value(value) {
                    index.note(at, || value.to_string());
                }
            }
            Value::Nothing
            | Value::Count(_)
            | Value::Tuple(_)
            | Value::Tensor(_)
            | Value::Route(_)
            | Value::Shape(_)
            | Value::Function(_)
            | Value::Template(_)
            | Value::Moe(_)
            | Value::Bank(_)
            | Value::Part(_) => index.note(at, || value.describe(&self.module)),
        }
    }

    /// Remembers an expression's value, and the axes that it names.
    pub fn note_expr(&mut self, frame: &Frame, expr: &Expr, value: &Value) {
        if self.index.is_none() {
            return;
        }
        self.note(expr.at, value);
        self.note_axes(frame, axes::read(expr));
        self.note_axes(frame, axes::made(expr));
    }

    pub fn note_axes<'n>(&mut self, frame: &Frame, names: impl IntoIterator<Item = &'n Name>) {
        let Some(index) = &mut self.index else { return };
        for name in names {
            if let Some(dim) = frame.dims.get(&frame.axis(&name.text)) {
                index.note(name.at, || format!("the axis {dim}"));
            }
        }
    }

    /// Remembers what the names of a statement stand for after it.
    pub fn note_statement(&mut self, frame: &Frame, statement: &Statement) {
        if self.index.is_none() {
            return;
        }
        let names: Vec<&Name> = match &statement.kind {
            StatementKind::Param { name, axes, .. }
            | StatementKind::Buffer { name, axes, .. }
            | StatementKind::State { name, axes, .. } => {
                self.note_axes(frame, axes.iter().map(|axis| &axis.name));
                vec![name]
            }
            StatementKind::Part { name, .. }
            | StatementKind::Assign { name, .. }
            | StatementKind::Let { pattern: Pattern::Name(name), .. } => vec![name],
            StatementKind::Let { pattern: Pattern::Tuple(names, _), .. } => names.iter().flatten().collect(),
            StatementKind::Out { ty, .. } => {
                self.note_axes(frame, ty.iter().flat_map(|ty| &ty.axes).map(|axis| &axis.name));
                Vec::new()
            }
            StatementKind::Route { .. }
            | StatementKind::Layers { .. }
            | StatementKind::Aux { .. }
            | StatementKind::Trace { .. } => Vec::new(),
        };
        for name in names {
            self.note_bound(frame, name);
        }
    }

    /// Remembers the arguments of a definition, within its body.
    pub fn note_formals(&mut self, frame: &Frame, definition: &Definition) {
        if self.index.is_none() {
            return;
        }
        for param in &definition.params {
            self.note_bound(frame, &param.name);
        }
        self.note_axes(frame, &definition.axes);
    }

    pub fn note_bound(&mut self, frame: &Frame, name: &Name) {
        if self.index.is_some()
            && let Some(bound) = frame.bound(&name.text)
        {
            self.note(name.at, &bound.value);
        }
    }

    /// Lists the parameters made so far.
    pub fn note_params(&mut self) {
        let Some(index) = &mut self.index else { return };
        for param in &self.module.params {
            let layers = param.layers.as_ref().map_or(1, |layers| layers.len() as u64);
            let instances = layers * param.experts.map_or(1, |experts| u64::from(experts.count));
            index.params.push(ParamFact { path: param.path.clone(), ty: param.ty.clone(), instances, at: param.at });
        }
    }
}
