//! How many parameters a model has, and how many of them one token meets.

use std::collections::BTreeMap;

use moec_ir::{Module, OpId, ParamId, RegionId, ops::Op};

/// What a token chooses in the bank that a parameter stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Experts of the bank.
    pub experts: u64,
    /// Chosen by each token.
    pub choices: u64,
    /// Experts of the bank member that the parameter belongs to.
    pub count: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pub total: u64,
    /// All that is outside banks, and of each bank as many experts as a token chooses. Where a bank mixes types, its members
    /// count by their share.
    pub active: u64,
}

pub fn parameters(module: &Module) -> Parameters {
    let chosen = choices(module);
    let mut counted = Parameters::default();
    for (at, param) in module.params.iter().enumerate() {
        let total = param.elements();
        counted.total += total;
        counted.active += match chosen.get(&ParamId(at as u32)) {
            Some(choice) => active_share(total, *choice),
            None => total,
        };
    }
    counted
}

/// `total` elements of all the member's experts, cut to those that one token meets.
pub fn active_share(total: u64, choice: Choice) -> u64 {
    let Choice { experts, choices, count } = choice;
    // A token's choices fall on this member in proportion to its share of the bank, and each meets one expert:
    // total / count * (choices * count / experts).
    let met = u128::from(total) * u128::from(choices.min(experts)) / u128::from(experts.max(1));
    if count == 0 { 0 } else { met as u64 }
}

/// For each parameter of a bank, how its experts are chosen; by all routes that lead to it.
pub fn choices(module: &Module) -> BTreeMap<ParamId, Choice> {
    let mut found = BTreeMap::new();
    walk(module, &mut |node, place| {
        if let (Op::ParamRef(reference), Some(choice)) = (&module.node(node).op, place.choice) {
            found
                .entry(reference.param)
                .and_modify(|known: &mut Choice| known.choices += choice.choices)
                .or_insert(choice);
        }
    });
    found
}

/// Where a node stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// How often it is run in a pass: the layers of its kind.
    pub executions: u64,
    /// The bank around it.
    pub choice: Option<Choice>,
    /// It stands in a scan: what it does is done for each position.
    pub each_position: bool,
}

/// Calls `visit` for every node, outer ones first.
pub fn walk(module: &Module, visit: &mut impl FnMut(OpId, Place)) {
    walk_region(module, module.body, Place { executions: 1, choice: None, each_position: false }, visit);
}

fn walk_region(module: &Module, region: RegionId, place: Place, visit: &mut impl FnMut(OpId, Place)) {
    for at in module.region(region).nodes.clone() {
        visit(at, place);
        let node = module.node(at);
        match &node.op {
            Op::Layers(op) => {
                for (kind, region) in op.kinds.iter().enumerate() {
                    let times = op.order.iter().filter(|of| **of as usize == kind).count() as u64;
                    walk_region(module, *region, Place { executions: place.executions * times, ..place }, visit);
                }
            }
            Op::Experts(op) => {
                let route = node.operands.iter().find_map(|operand| module.ty(*operand).route());
                for member in &op.bank {
                    let choice = route.map(|route| Choice {
                        experts: route.experts,
                        choices: route.choices.size.fixed().unwrap_or(1),
                        count: u64::from(member.count),
                    });
                    walk_region(module, member.region, Place { choice, ..place }, visit);
                }
            }
            Op::Scan(op) => walk_region(module, op.region, Place { each_position: true, ..place }, visit),
            op => op.regions().into_iter().for_each(|region| walk_region(module, region, place, visit)),
        }
    }
}

/// `46,702,792,704`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
