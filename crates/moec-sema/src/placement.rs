//! Which parts are used in which layers: `ffn` is `dense(10944)` in layer 0 and a `moe` in all others. The module no longer
//! knows, as definitions are dissolved in it.

use std::fmt;

use moec_syntax::tree::{Expr, ExprKind};

use crate::{
    evaluator::Evaluator,
    scope::Frame,
    value::{BankTemplate, Part, PartOf, Template, Value, equal},
};

/// One use of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The part's path, `layers[l].ffn`; without `layers` where all layers have the same one.
    pub path: String,
    /// The layer that uses it; none outside layers.
    pub layer: Option<u32>,
    pub part: PlacedPart,
}

/// What stands there, as the text would say it with this configuration's numbers: `dense(96)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacedPart {
    Block(String),
    Gate(String),
    Bank(Vec<(String, u32)>),
    Moe { gate: String, experts: Vec<(String, u32)>, always: Vec<String> },
}

impl PlacedPart {
    /// Experts are chosen there.
    pub fn chooses(&self) -> bool {
        match self {
            PlacedPart::Block(_) => false,
            PlacedPart::Gate(_) | PlacedPart::Bank(_) | PlacedPart::Moe { .. } => true,
        }
    }
}

/// As the language writes it.
impl fmt::Display for PlacedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlacedPart::Block(block) => f.write_str(block),
            PlacedPart::Gate(gate) => write!(f, "gate {gate}"),
            PlacedPart::Bank(experts) => write!(f, "bank {{ {} }}", counted(experts)),
            PlacedPart::Moe { gate, experts, always } => {
                write!(f, "moe {{ gate {gate}; experts {}", counted(experts))?;
                always.iter().try_for_each(|always| write!(f, "; always {always}"))?;
                f.write_str(" }")
            }
        }
    }
}

/// `wide(96) × 8, copy`.
fn counted(experts: &[(String, u32)]) -> String {
    let each = |(expert, count): &(String, u32)| match count {
        1 => expert.clone(),
        count => format!("{expert} × {count}"),
    };
    experts.iter().map(each).collect::<Vec<_>>().join(", ")
}

impl Evaluator {
    /// Notes that a part is used here.
    pub fn place(&mut self, frame: &Frame, part: &Part) {
        let placed = match &part.of {
            PartOf::Body => return,
            PartOf::Block(block) => PlacedPart::Block(self.spelled(block)),
            PartOf::Gate(gate) => PlacedPart::Gate(self.spelled(gate)),
            PartOf::Bank(bank) => PlacedPart::Bank(self.members(bank)),
            PartOf::Moe(moe) => PlacedPart::Moe {
                gate: self.spelled(&moe.gate),
                experts: self.members(&moe.bank),
                always: moe.always.iter().map(|always| self.spelled(always)).collect(),
            },
        };
        let placement = Placement { path: part.path.clone(), layer: frame.part.layer, part: placed };
        // A layer's uses stand together.
        let mut of_layer = self.placements.iter().rev().take_while(|known| known.layer == placement.layer);
        if !of_layer.any(|known| known.path == placement.path) {
            self.placements.push(placement);
        }
    }

    fn members(&self, bank: &BankTemplate) -> Vec<(String, u32)> {
        bank.members.iter().map(|member| (self.spelled(&member.expert), member.count)).collect()
    }

    /// `best(2, scale = 0.5)`: what has a default is named, and left out where it has that value.
    fn spelled(&self, template: &Template) -> String {
        let formals = &self.definitions.get(template.definition).params;
        let argument = |(name, value, _): &(String, Value, _)| {
            let formal = formals.iter().find(|formal| formal.name.text == *name);
            match formal.and_then(|formal| formal.default.as_ref()) {
                None => Some(self.argument(value)),
                Some(default) if is_literally(default, value) => None,
                Some(_) => Some(format!("{name} = {}", self.argument(value))),
            }
        };
        let arguments: Vec<String> = template.arguments.iter().filter_map(argument).collect();
        match &arguments[..] {
            [] => template.name.clone(),
            arguments => format!("{}({})", template.name, arguments.join(", ")),
        }
    }

    fn argument(&self, value: &Value) -> String {
        match value {
            Value::Int(value) => value.to_string(),
            Value::Float(value) => format!("{value:?}"),
            Value::Bool(value) => value.to_string(),
            Value::Text(value) => format!("{value:?}"),
            Value::Function(definition) => self.definitions.get(*definition).name.text.clone(),
            Value::Template(template) => self.spelled(template),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| self.argument(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Error
            | Value::Nothing
            | Value::Count(_)
            | Value::Tuple(_)
            | Value::Tensor(_)
            | Value::Route(_)
            | Value::Shape(_)
            | Value::Bank(_)
            | Value::Moe(_)
            | Value::Part(_) => "…".to_owned(),
        }
    }
}

/// Whether an expression is the plain number or word that a value is.
fn is_literally(expr: &Expr, value: &Value) -> bool {
    let literal = match &*expr.kind {
        ExprKind::Int(literal) => Value::Int(*literal),
        ExprKind::Float(literal) => Value::Float(*literal),
        ExprKind::Bool(literal) => Value::Bool(*literal),
        ExprKind::Text(literal) => Value::text(literal),
        _ => return false,
    };
    equal(&literal, value)
}
