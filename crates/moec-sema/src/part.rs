//! Parts at work: a block's body over its input, and the life of a token in a `moe` layer: gate, dispatch, experts, combine.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    Experts as ExpertRange, RegionId, RouteType, ValueId,
    ops::{Combine, Dispatch, Experts, ExpertsInput, ExpertsOutput, Member},
};
use moec_syntax::tree::{DefinitionKind, Name};
use moec_types::{Axis, BinaryOp, Dim, Size};
use thiserror::Error;

use crate::{
    call::{Arguments, TooDeep},
    evaluator::{Call, Evaluator, limits},
    scope::{Bank, BodyKind, Frame, Origin},
    value::{MoeTemplate, Operand, Part, PartOf, Template, Value},
};

/// The axis of the rows that experts see.
const SLOTS: &str = "Slot";
/// The axis of the experts of a bank, known in its gate.
const EXPERTS: &str = "E";

impl Evaluator {
    /// `attn(h)`.
    pub fn call_part(&mut self, frame: &mut Frame, part: &Rc<Part>, given: Arguments, name: &Name, at: Span) -> Value {
        let ([x], [], [], []) = (&given.positional[..], &given.named[..], &given.regroups[..], &given.over[..]) else {
            return self.fail(PartForm { name: name.text.clone(), at });
        };
        if self.tensor(x, &format!("`{}`", name.text)).is_none() {
            return Value::Error;
        }
        match &part.of {
            PartOf::Block(template) => self.run(frame, part, template, x, frame.region, None, at),
            PartOf::Moe(moe) => self.run_moe(frame, part, moe, x, at),
            PartOf::Body => self.fail(PartForm { name: name.text.clone(), at }),
        }
    }

    /// A block, expert or gate over `x`, its nodes in `region`.
    #[expect(clippy::too_many_arguments, reason = "a call is a place, a thing, its input and its surroundings")]
    fn run(
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
            x: Some(x.value.clone()),
        };
        if let Some(ty) = x.value.tensor_type(&self.module) {
            body.note(&ty.clone());
        }
        if let Some(bank) = bank {
            body.dims.insert(Axis::new(EXPERTS), Dim::fixed(EXPERTS, bank.experts));
        }
        self.enter(&mut body, &template.arguments, &template.axes);
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
        let Value::Tensor(tokens) = x.value else { return Value::Error };
        if self.refused_in_a_scan(frame, "a `moe` layer", at) {
            return Value::Error;
        }
        let (layer, outer) = (part.layer, part.experts);
        if outer.is_some() {
            return self.fail(BankInBank { at: moe.at });
        }
        let bank_at = moe.members.iter().map(|member| member.at).reduce(Span::to).unwrap_or(moe.at);
        let bank = Bank { experts: moe.experts, at: bank_at };

        let gate = part.child("gate", |path| Part::new(path, layer, None, PartOf::Block(moe.gate.clone())));
        let route = self.run(frame, &gate, &moe.gate, x, frame.region, Some(bank), moe.gate.at);

        let ran = match route {
            Value::Route(route) => self.run_bank(frame, part, moe, (tokens, x.at), route, at),
            _ => Value::Error,
        };
        // Shared experts see every token; they are checked even where the routed ones failed.
        let mut result = ran;
        for (number, always) in moe.always.iter().enumerate() {
            let name = if moe.always.len() == 1 { "always".to_owned() } else { format!("always{number}") };
            let shared = part.child(&name, |path| Part::new(path, layer, None, PartOf::Block(always.clone())));
            let value = self.run(frame, &shared, always, x, frame.region, None, always.at);
            let (a, b) = (Operand { value: result, at: bank_at }, Operand { value, at: always.at });
            result = self.binary_op(frame, BinaryOp::Add, a, b, at);
        }
        result
    }

    fn run_bank(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        moe: &MoeTemplate,
        x: (ValueId, Span),
        route: ValueId,
        at: Span,
    ) -> Value {
        let slots = Axis::new(SLOTS);
        let gate_at = moe.gate.at;
        let rows = self.emit1(frame, Dispatch { slots: slots.clone() }, &[x, (route, gate_at)], at);
        let Value::Tensor(rows) = rows else { return Value::Error };
        let ty = self.module.tensor(rows).clone();
        let mut bank = Vec::new();
        let mut order: Option<Vec<Dim>> = None;
        for (number, member) in moe.members.iter().enumerate() {
            let range = ExpertRange { first: member.first, count: member.count };
            // Members have their own parameters under one path: `experts[e]`, told apart by `e`.
            let instance = part.child(&format!("experts {number}"), |_| {
                let path = part.path_of("experts[e]");
                Part::new(path, part.layer, Some(range), PartOf::Block(member.expert.clone()))
            });
            let region = self.module.add_region();
            let arg = self.module.add_arg(region, ty.clone());
            self.module.set_name(arg, "x");
            let mut inside = Frame { region, names: Vec::new(), ..frame.clone() };
            inside.dims.retain(|_, dim| matches!(dim.size, Size::Fixed(_)));
            let input = Operand { value: Value::Tensor(arg), at: member.at };
            let result = self.run(&mut inside, &instance, &member.expert, &input, region, None, member.at);
            let Value::Tensor(result) = result else { return Value::Error };
            let found = self.module.tensor(result).dims.clone();
            let result = match &order {
                None => result,
                Some(wanted) if wanted.len() == found.len() && wanted.iter().all(|dim| found.contains(dim)) => {
                    match self.reorder(&mut inside, result, wanted, member.at) {
                        Value::Tensor(result) => result,
                        _ => return Value::Error,
                    }
                }
                Some(_) => {
                    let (first, second) = (&moe.members[0], member);
                    let give = |member: RegionId, module: &moec_ir::Module| {
                        module.tensor(module.region(member).results[0]).to_string()
                    };
                    let first_gives =
                        bank.first().map(|member: &Member| give(member.region, &self.module)).unwrap_or_default();
                    let second_gives = self.module.tensor(result).to_string();
                    return self.fail(MembersDiffer {
                        first_gives,
                        second_gives,
                        first_at: first.at,
                        second_at: second.at,
                    });
                }
            };
            order.get_or_insert(found);
            self.module.region_mut(region).results = vec![result];
            if let Some((node_at, axis)) = self.looks_across(region, &slots) {
                return self.fail(ExpertLooksAcross { axis, node_at, expert_at: member.at });
            }
            bank.push(Member { region, first: member.first, count: member.count });
        }
        let op = Experts { bank, slots, input: ExpertsInput::Packed, output: ExpertsOutput::PerSlot };
        let bank_at = moe.members.iter().map(|member| member.at).reduce(Span::to).unwrap_or(moe.at);
        let out = self.emit1(frame, op, &[(rows, bank_at), (route, gate_at)], at);
        let Value::Tensor(out) = out else { return Value::Error };
        let combined = self.emit1(frame, Combine, &[(out, bank_at), (route, gate_at)], at);
        let Value::Tensor(combined) = combined else { return Value::Error };
        // A bank may hand back as many axes as it likes, in the order of its rows.
        let RouteType { tokens, .. } = self.module.ty(route).route().expect("a gate gives a route").clone();
        let mut dims = self.module.tensor(combined).dims.clone();
        dims.sort_by_key(|dim| dim.axis != tokens.axis);
        self.reorder(frame, combined, &dims, at)
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("a part takes one tensor")]
#[diagnostic(
    code(moec::sema::part_form),
    help("write `{name}(x)`; what else it needs is said where the part is declared")
)]
struct PartForm {
    name: String,
    #[label("does not fit")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a `moe` layer within an expert")]
#[diagnostic(
    code(moec::sema::bank_in_bank),
    help("an expert works on its rows alone; give the outer layer more experts instead")
)]
struct BankInBank {
    #[label("this is used inside an expert")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the experts of a bank give {first_gives} and {second_gives}")]
#[diagnostic(code(moec::sema::members_differ), help("all experts of a bank must give the same axes"))]
struct MembersDiffer {
    first_gives: String,
    second_gives: String,
    #[label("gives {first_gives}")]
    first_at: Span,
    #[label("gives {second_gives}")]
    second_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("an expert looks across tokens")]
#[diagnostic(
    code(moec::sema::expert_looks_across),
    help("which tokens meet in an expert is up to the route: an expert works on each by itself")
)]
struct ExpertLooksAcross {
    axis: Axis,
    #[label("works along `{axis}`, the tokens that came here")]
    node_at: Span,
    #[label("in this expert")]
    expert_at: Span,
}
