//! A balanced assignment, as the step's contract says it: one token after the other, each by the cheapest chain of moves.

use moec_plan::Assign;

use crate::machine::Machine;

/// What leaves a token without an expert costs more than any chain of moves.
const NO_EXPERT: i128 = 1 << 90;

/// `tokens` and `most` as this pass counts them.
pub fn run(machine: &mut Machine, step: &Assign, tokens: u64, most: u64) {
    let costs: Vec<Vec<i128>> = (0..tokens)
        .map(|token| {
            let score = |expert| machine.cell(step.score, 0, token * step.experts + expert).value;
            (0..step.experts).map(|expert| -units(score(expert))).chain([NO_EXPERT]).collect()
        })
        .collect();
    let none = step.experts as usize;
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); none + 1];
    for token in 0..costs.len() {
        let chain = cheapest_chain(&costs, &members, token, most as usize);
        for (mover, from, to) in chain {
            if let Some(from) = from {
                members[from].retain(|member| *member != mover);
            }
            members[to].push(mover);
            members[to].sort_unstable();
        }
    }
    for (place, tokens) in members.iter().enumerate() {
        let expert = if place == none { -1.0 } else { place as f64 };
        tokens.iter().for_each(|token| machine.store(step.out, 0, *token as u64, expert));
    }
}

/// A score in units of 2^-30.
fn units(score: f64) -> i128 {
    let bounded = if score.is_nan() { -1e9 } else { score.clamp(-1e9, 1e9) };
    (bounded * f64::from(1 << 30)).round_ties_even() as i128
}

/// Who moves, from where and to where; `token` itself comes from nowhere.
fn cheapest_chain(
    costs: &[Vec<i128>],
    members: &[Vec<usize>],
    token: usize,
    most: usize,
) -> Vec<(usize, Option<usize>, usize)> {
    let none = members.len() - 1;
    // The first of the cheapest from one place to another.
    let cheapest = |from: usize, to: usize| {
        let change = |member: &usize| costs[*member][to] - costs[*member][from];
        let found = members[from].iter().min_by_key(|member| change(member))?;
        Some((change(found), *found))
    };
    let mut best = costs[token].clone();
    let mut from: Vec<Option<usize>> = vec![None; members.len()];
    let pairs: Vec<(usize, usize, i128)> = (0..=none)
        .flat_map(|at| (0..=none).map(move |to| (at, to)))
        .filter(|(at, to)| at != to)
        .filter_map(|(at, to)| Some((at, to, cheapest(at, to)?.0)))
        .collect();
    for _ in 0..none {
        for (at, to, change) in &pairs {
            if best[*at] + change < best[*to] {
                best[*to] = best[*at] + change;
                from[*to] = Some(*at);
            }
        }
    }
    let room = |place: &usize| *place == none || members[*place].len() < most;
    let mut at = (0..=none).filter(room).min_by_key(|place| best[*place]).unwrap_or(none);
    let mut chain = Vec::new();
    while let Some(before) = from[at] {
        let (_, mover) = cheapest(before, at).expect("a chain goes where someone moves");
        chain.push((mover, Some(before), at));
        at = before;
    }
    chain.push((token, None, at));
    chain
}
