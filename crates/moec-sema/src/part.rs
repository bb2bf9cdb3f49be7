//! Parts at work: a block's body over its input, a gate's, and those of a `moe` layer, one after the other.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::RegionId;
use moec_syntax::tree::{DefinitionKind, Name};
use moec_types::{Axis, BinaryOp, Dim};
use thiserror::Error;

use crate::{
    bank::{BankInBank, BankOfAnotherSize},
    body::Reported,
    call::{Arguments, TooDeep},
    evaluator::{Call, Evaluator, limits},
    scope::{Bank, BodyKind, EXPERTS, Frame, Origin, TOKENS},
    value::{MoeTemplate, Operand, Part, PartOf, Template, Value},
};

impl Evaluator {
    /// `attn(h)`.
    pub fn call_part(&mut self, frame: &mut Frame, part: &Rc<Part>, given: Arguments, name: &Name, at: Span) -> Value {
        let ([x], [], [], []) = (&given.positional[..], &given.named[..], &given.regroups[..], &given.over[..]) else {
            let help = match &given.over[..] {
                [] => format!("write `{}(x)`; what else it needs is said where the part is declared", name.text),
                // What was meant for a contraction within belongs to the call.
                [axis, ..] => format!(
                    "an `over` at the end belongs to the call: write `{}((a · b over {}))`, or name the value with `let`",
                    name.text, axis.text
                ),
            };
            return self.fail(PartForm { at, help });
        };
        if self.tensor(x, &format!("`{}`", name.text)).is_none() {
            return Value::Error;
        }
        self.place(frame, part);
        match &part.of {
            PartOf::Block(template) => self.run(frame, part, template, x, frame.region, None, at),
            PartOf::Gate(gate) => self.run_gate(frame, part, gate, x, name, at),
            PartOf::Moe(moe) => self.run_moe(frame, part, moe, x, at),
            PartOf::Bank(_) => self.fail(BankCalled { name: name.text.clone(), at }),
            PartOf::Body => self.fail(PartForm { at, help: format!("`{}` is not called", name.text) }),
        }
    }

    /// A gate that is a part of its own: it chooses among as many experts as it was told, or as there are in `E`.
    fn run_gate(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        gate: &Template,
        x: &Operand,
        name: &Name,
        at: Span,
    ) -> Value {
        if self.refused_in_a_scan(frame, "a gate", at) {
            return Value::Error;
        }
        if part.experts.is_some() {
            return self.fail(BankInBank { at: gate.at });
        }
        let e = Name { text: EXPERTS.to_owned(), at };
        let bank = match (gate.experts, self.named_size(frame, &e)) {
            (Some(bank), _) => bank,
            (None, Ok(Some(experts))) => Bank { experts, at },
            (None, Err(Reported)) => return Value::Error,
            (None, Ok(None)) => {
                return self.fail(ExpertsUnknown {
                    name: name.text.clone(),
                    gate: gate.name.clone(),
                    at,
                    gate_at: gate.at,
                });
            }
        };
        self.run(frame, part, gate, x, frame.region, Some(bank), at)
    }

    /// A block, expert or gate over `x`, its nodes in `region`.
    #[expect(clippy::too_many_arguments, reason = "a call is a place, a thing, its input and its surroundings")]
    pub fn run(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        template: &Template,
        x: &Operand,
        region: RegionId,
        bank: Option<Bank>,
        at: Span,
    ) -> Value {
        if self.calls.len() >= limits::CALLS {
            self.report(TooDeep { at });
            self.stopped = true;
            return Value::Error;
        }
        let definition = self.definitions.get(template.definition).clone();
        self.evaluated.insert(template.definition);
        self.calls.push(Call { definition: template.definition, from: frame.file, at });
        let mut body = Frame {
            file: self.definitions.file_of(template.definition),
            kind: if template.kind == DefinitionKind::Gate { BodyKind::Gate } else { BodyKind::Block },
            names: Vec::new(),
            aliases: Vec::new(),
            dims: frame.dims.clone(),
            declared: Default::default(),
            unsure: frame.unsure.clone(),
            declares: Default::default(),
            region,
            part: part.clone(),
            bank,
            params: frame.params.clone(),
            x: Some(x.value.clone()),
        };
        if let Some(ty) = x.value.tensor_type(&self.module) {
            body.note(&ty.clone());
        }
        if let Some(bank) = bank {
            body.dims.insert(Axis::new(EXPERTS), Dim::fixed(EXPERTS, bank.experts));
        }
        self.enter(&mut body, &template.arguments, &template.axes);
        if let (BodyKind::Gate, Some(ty)) = (body.kind, x.value.tensor_type(&self.module)) {
            let symbolic = ty.dims.iter().find(|dim| dim.size.fixed().is_none());
            let tokens = symbolic.or(ty.dims.first()).map(|dim| dim.axis.clone());
            body.aliases.extend(tokens.map(|axis| (TOKENS.to_owned(), axis)));
        }
        self.note_formals(&body, &definition);
        body.bind(&Name { text: "x".to_owned(), at: Span::NONE }, x.value.clone(), Origin::Formal);
        let result = self.body(&mut body, &definition.body, definition.name.at);
        self.calls.pop();
        if let Some(ty) = result.tensor_type(&self.module) {
            frame.note(ty);
        }
        result
    }

    fn run_moe(&mut self, frame: &mut Frame, part: &Rc<Part>, moe: &MoeTemplate, x: &Operand, at: Span) -> Value {
        let layer = part.layer;
        if self.refused_in_a_scan(frame, "a `moe` layer", at) {
            return Value::Error;
        }
        if part.experts.is_some() {
            return self.fail(BankInBank { at: moe.bank.at });
        }
        let bank = Bank { experts: moe.bank.experts, at: moe.bank.at };
        if let Some(told) = moe.gate.experts.filter(|told| told.experts != bank.experts) {
            return self.fail(BankOfAnotherSize::new(told, bank));
        }
        let gate = part.child("gate", |path| Part::new(path, layer, None, PartOf::Gate(moe.gate.clone())));
        let route = self.run(frame, &gate, &moe.gate, x, frame.region, Some(bank), moe.gate.at);
        let ran = match route {
            Value::Route(route) => self.mixed(frame, part, &moe.bank, x, (route, moe.gate.at), at),
            Value::Shape(shape) => match self.each_of_shape(frame, part, &moe.bank, x, &shape, at) {
                Some(Value::Tensor(y)) => self.combine_of_shape(frame, (y, bank.at), &shape, at),
                Some(_) | None => None,
            },
            _ => None,
        };
        // Shared experts see every token; they are checked even where the routed ones failed.
        let mut result = ran.unwrap_or(Value::Error);
        for (number, always) in moe.always.iter().enumerate() {
            let name = if moe.always.len() == 1 { "always".to_owned() } else { format!("always{number}") };
            let shared = part.child(&name, |path| Part::new(path, layer, None, PartOf::Block(always.clone())));
            let value = self.run(frame, &shared, always, x, frame.region, None, always.at);
            let (a, b) = (Operand { value: result, at: bank.at }, Operand { value, at: always.at });
            result = self.binary_op(frame, BinaryOp::Add, a, b, at);
        }
        result
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("a part takes one tensor")]
#[diagnostic(code(moec::sema::part_form), help("{help}"))]
struct PartForm {
    #[label("does not fit")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is a bank: which of its experts see a token is up to a route")]
#[diagnostic(code(moec::sema::bank_called), help("choose, then use it: `each(choose(x), {name}, x)`"))]
struct BankCalled {
    name: String,
    #[label("called without a route")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("how many experts `{name}` chooses among is not known")]
#[diagnostic(
    code(moec::sema::experts_unknown),
    help("say it where the part is declared, `{gate}(…, E = 8)`, or give `config` an entry `E`")
)]
struct ExpertsUnknown {
    name: String,
    gate: String,
    #[label("used without a bank")]
    at: Span,
    #[label("does not say how many")]
    gate_at: Span,
}
