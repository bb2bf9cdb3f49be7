//! Banks at work: tokens brought to their experts, each member's body over its rows, and what comes back.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    Experts as ExpertRange, RegionId, RouteType, ValueId,
    ops::{Combine, Dispatch, Each, Experts, ExpertsInput, ExpertsOutput, Member},
};
use moec_types::{Axis, Dim, Size};
use thiserror::Error;

use crate::{
    evaluator::Evaluator,
    scope::{Bank, Frame},
    value::{BankTemplate, MemberTemplate, Operand, Part, PartOf, Value},
};

/// The axis of the rows that experts see.
const SLOTS: &str = "Slot";

/// A route and the text that it comes from.
type Routed = (ValueId, Span);

impl Evaluator {
    /// What the experts of a route make of each token, weighed and summed.
    pub fn mixed(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        bank: &BankTemplate,
        x: &Operand,
        route: Routed,
        at: Span,
    ) -> Option<Value> {
        let rows = self.run_bank(frame, part, bank, x, route, at)?;
        self.combined(frame, (rows, bank.at), route, at)
    }

    /// Rows of experts, weighed and summed, with the tokens first.
    pub fn combined(&mut self, frame: &mut Frame, rows: (ValueId, Span), route: Routed, at: Span) -> Option<Value> {
        let Value::Tensor(combined) = self.emit1(frame, Combine, &[rows, route], at) else { return None };
        // A bank may hand back as many axes as it likes, in the order of its rows.
        let RouteType { tokens, .. } = self.module.ty(route.0).route()?.clone();
        let mut dims = self.module.tensor(combined).dims.clone();
        dims.sort_by_key(|dim| dim.axis != tokens.axis);
        Some(self.reorder(frame, combined, &dims, at))
    }

    /// What the experts of a route make of each token, one result for each choice.
    pub fn each_choice(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        bank: &BankTemplate,
        x: &Operand,
        route: Routed,
        at: Span,
    ) -> Option<Value> {
        let rows = self.run_bank(frame, part, bank, x, route, at)?;
        Some(self.emit1(frame, Each, &[(rows, bank.at), route], at))
    }

    /// Where a member's parameters live. Members have their own under one path: `experts[e]`, told apart by `e`.
    pub fn member_part(&self, part: &Rc<Part>, member: &MemberTemplate, number: usize) -> Rc<Part> {
        part.child(&format!("experts {number}"), |_| {
            let path = part.path_of("experts[e]");
            let range = ExpertRange { first: member.first, count: member.count };
            Part::new(path, part.layer, Some(range), PartOf::Block(member.expert.clone()))
        })
    }

    /// The experts' rows, by slot.
    fn run_bank(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        template: &BankTemplate,
        x: &Operand,
        route: Routed,
        at: Span,
    ) -> Option<ValueId> {
        let experts = self.module.ty(route.0).route()?.experts;
        if experts != template.experts {
            let (told, bank) = (Bank { experts, at: route.1 }, Bank { experts: template.experts, at: template.at });
            self.report(BankOfAnotherSize::new(told, bank));
            return None;
        }
        let x = self.tensor(x, "a bank")?;
        let slots = Axis::new(SLOTS);
        let rows = self.emit1(frame, Dispatch { slots: slots.clone() }, &[x, route], at);
        let Value::Tensor(rows) = rows else { return None };
        let ty = self.module.tensor(rows).clone();
        let mut bank = Vec::new();
        let mut order: Option<Vec<Dim>> = None;
        for (number, member) in template.members.iter().enumerate() {
            let instance = self.member_part(part, member, number);
            let region = self.module.add_region();
            let arg = self.module.add_arg(region, ty.clone());
            self.module.set_name(arg, "x");
            let mut inside = Frame { region, names: Vec::new(), ..frame.clone() };
            inside.dims.retain(|_, dim| matches!(dim.size, Size::Fixed(_)));
            let input = Operand { value: Value::Tensor(arg), at: member.at };
            let result = self.run(&mut inside, &instance, &member.expert, &input, region, None, member.at);
            let Value::Tensor(result) = result else { return None };
            let found = self.module.tensor(result).dims.clone();
            let result = match &order {
                None => result,
                Some(wanted) if wanted.len() == found.len() && wanted.iter().all(|dim| found.contains(dim)) => {
                    match self.reorder(&mut inside, result, wanted, member.at) {
                        Value::Tensor(result) => result,
                        _ => return None,
                    }
                }
                Some(_) => {
                    let (first, second) = (&template.members[0], member);
                    let give = |member: RegionId, module: &moec_ir::Module| {
                        module.tensor(module.region(member).results[0]).to_string()
                    };
                    let first_gives =
                        bank.first().map(|member: &Member| give(member.region, &self.module)).unwrap_or_default();
                    let second_gives = self.module.tensor(result).to_string();
                    self.report(MembersDiffer { first_gives, second_gives, first_at: first.at, second_at: second.at });
                    return None;
                }
            };
            order.get_or_insert(found);
            self.module.region_mut(region).results = vec![result];
            if let Some((node_at, axis)) = self.looks_across(region, &slots) {
                self.report(ExpertLooksAcross { axis, node_at, expert_at: member.at });
                return None;
            }
            bank.push(Member { region, first: member.first, count: member.count });
        }
        let op = Experts { bank, slots, input: ExpertsInput::Packed, output: ExpertsOutput::PerSlot };
        match self.emit1(frame, op, &[(rows, template.at), route], at) {
            Value::Tensor(out) => Some(out),
            _ => None,
        }
    }
}

/// A route or a gate made for another number of experts than the bank holds.
#[derive(Debug, Error, Diagnostic)]
#[error("a choice among {told} experts, and a bank of {holds}")]
#[diagnostic(
    code(moec::sema::bank_of_another_size),
    help("let the bank hold {told}, or tell the gate how many there are: `E = {holds}`")
)]
pub(crate) struct BankOfAnotherSize {
    told: u64,
    holds: u64,
    #[label("chooses among {told}")]
    told_at: Span,
    #[label("holds {holds}")]
    bank_at: Span,
}

impl BankOfAnotherSize {
    pub fn new(told: Bank, bank: Bank) -> Self {
        BankOfAnotherSize { told: told.experts, holds: bank.experts, told_at: told.at, bank_at: bank.at }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("a choice of experts within an expert")]
#[diagnostic(
    code(moec::sema::bank_in_bank),
    help("an expert works on its rows alone; give the outer layer more experts instead")
)]
pub(crate) struct BankInBank {
    #[label("this is used inside an expert")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the experts of a bank give {first_gives} and {second_gives}")]
#[diagnostic(code(moec::sema::members_differ), help("all experts of a bank must give the same axes"))]
pub(crate) struct MembersDiffer {
    pub first_gives: String,
    pub second_gives: String,
    #[label("gives {first_gives}")]
    pub first_at: Span,
    #[label("gives {second_gives}")]
    pub second_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("an expert looks across tokens")]
#[diagnostic(
    code(moec::sema::expert_looks_across),
    help("which tokens meet in an expert is up to the route: an expert works on each by itself")
)]
pub(crate) struct ExpertLooksAcross {
    pub axis: Axis,
    #[label("works along `{axis}`, the tokens that came here")]
    pub node_at: Span,
    #[label("in this expert")]
    pub expert_at: Span,
}
