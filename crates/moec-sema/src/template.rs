//! `moe { … }` and `bank { … }` as they are written: which gate, which experts and how many of each.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_syntax::tree::{self, DefinitionKind, Expr};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, WrongKind, limits},
    scope::Frame,
    value::{BankTemplate, MemberTemplate, MoeTemplate, Template, Value, kind_name},
};

impl Evaluator {
    pub fn moe(&mut self, frame: &mut Frame, moe: &tree::Moe) -> Value {
        let gate = self.template(frame, &moe.gate, &[DefinitionKind::Gate], "`gate`");
        let bank = self.bank(frame, &moe.experts);
        let kinds = [DefinitionKind::Expert, DefinitionKind::Block];
        let always: Vec<_> = moe.always.iter().map(|expr| self.template(frame, expr, &kinds, "`always`")).collect();
        let (Some(gate), Some(bank), true) = (gate, bank, always.iter().all(Option::is_some)) else {
            return Value::Error;
        };
        let always = always.into_iter().flatten().collect();
        Value::Moe(Rc::new(MoeTemplate { gate, bank: bank.into(), always }))
    }

    /// `wide(F) × 8, copy`: experts and how many of each.
    pub fn bank(&mut self, frame: &mut Frame, experts: &[tree::BankMember]) -> Option<BankTemplate> {
        let mut members: Vec<MemberTemplate> = Vec::new();
        let mut first = 0u64;
        let mut sound = true;
        for member in experts {
            let expert = self.template(frame, &member.expert, &[DefinitionKind::Expert], "a bank");
            let count = match &member.count {
                None => Some(1),
                Some(count) => {
                    let count = self.operand(frame, count);
                    self.size(&count, "the number of experts")
                }
            };
            let (Some(expert), Some(count)) = (expert, count) else {
                sound = false;
                continue;
            };
            if first + count > limits::EXPERTS {
                let at = member.count.as_ref().map_or(member.expert.at, |count| count.at);
                self.report(TooManyExperts { count: first + count, at });
                return None;
            }
            let at = member.count.as_ref().map_or(member.expert.at, |count| member.expert.at.to(count.at));
            members.push(MemberTemplate { expert, first: first as u32, count: count as u32, at });
            first += count;
        }
        // Without members, reading the text said so.
        let at = members.iter().map(|member| member.at).reduce(Span::to)?;
        sound.then_some(BankTemplate { members, experts: first, at })
    }

    pub fn template(
        &mut self,
        frame: &mut Frame,
        expr: &Expr,
        kinds: &[DefinitionKind],
        who: &str,
    ) -> Option<Rc<Template>> {
        let found = self.eval(frame, expr);
        match found {
            Value::Template(template) if kinds.contains(&template.kind) => Some(template),
            Value::Error => None,
            other => {
                let wants = match kinds {
                    [DefinitionKind::Gate] => "a gate",
                    [DefinitionKind::Expert] => "an expert",
                    _ => "an expert or a block",
                };
                let help = match &other {
                    Value::Template(template)
                        if self.definitions.is_own(self.definitions.file_of(template.definition)) =>
                    {
                        Some(format!(
                            "declare `{}` as `{}` instead of `{}`",
                            template.name,
                            kind_name(kinds[0]),
                            kind_name(template.kind)
                        ))
                    }
                    _ => None,
                };
                let found = other.describe(&self.module);
                self.report(WrongKind { who: who.to_owned(), wants, found, at: expr.at, help });
                None
            }
        }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("a bank of {count} experts")]
#[diagnostic(code(moec::sema::too_many_experts), help("a bank holds at most {}", crate::evaluator::limits::EXPERTS))]
struct TooManyExperts {
    count: u64,
    #[label("makes them {count}")]
    at: Span,
}
