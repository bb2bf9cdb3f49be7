//! A balanced assignment of tokens to experts, of the largest total score.

use moec_ir::ops::Assign;

use crate::tensor::Tensor;

/// One token after the other enters by the cheapest chain of moves: it takes a place of some expert, a token of that expert
/// one of another, and so on until there is room. Chains of least cost keep the whole one of least cost.
pub(super) fn eval_assign(op: &Assign, most: usize, score: &Tensor) -> Tensor {
    let (tokens, experts) = (score.expect_size(op.tokens()), score.expect_size(op.experts()));
    let axes = [(op.tokens().clone(), tokens), (op.experts().clone(), experts)];
    let score = score.broadcast(&axes).into_owned();
    let score: Vec<i128> = score.f32().iter().map(|score| units(*score)).collect();
    // One more, with room for all, and a score below what any other assignment could lose: none.
    let places = experts + 1;
    let cost = |token: usize, expert: usize| {
        if expert < experts { -score[token * experts + expert] } else { 1 << 90 }
    };
    let mut of: Vec<usize> = Vec::with_capacity(tokens);
    let mut load = vec![0usize; places];
    for token in 0..tokens {
        // The cheapest move of a token already there from one expert to another.
        let mut moves = vec![vec![(NEVER, 0usize); places]; places];
        for (other, at) in of.iter().enumerate() {
            for to in (0..places).filter(|to| to != at) {
                let change = cost(other, to) - cost(other, *at);
                if change < moves[*at][to].0 {
                    moves[*at][to] = (change, other);
                }
            }
        }
        let mut best: Vec<i128> = (0..places).map(|expert| cost(token, expert)).collect();
        let mut from: Vec<Option<usize>> = vec![None; places];
        for _ in 1..places {
            for at in 0..places {
                for to in (0..places).filter(|to| *to != at) {
                    let through = best[at] + moves[at][to].0;
                    if through < best[to] {
                        best[to] = through;
                        from[to] = Some(at);
                    }
                }
            }
        }
        let room = |expert: &usize| *expert == experts || load[*expert] < most;
        let end = (0..places).filter(room).reduce(|a, b| if best[b] < best[a] { b } else { a });
        let mut at = end.expect("there is always room for none");
        load[at] += 1;
        of.push(at);
        while let Some(before) = from[at] {
            of[moves[before][at].1] = at;
            at = before;
        }
        of[token] = at;
    }
    let chosen = of.iter().map(|expert| if *expert < experts { *expert as i32 } else { -1 }).collect::<Vec<i32>>();
    Tensor::new(vec![(op.tokens().clone(), tokens)], chosen)
}

/// What a move costs that there is none for.
const NEVER: i128 = 1 << 100;

/// Scores as whole numbers, so that no rounding decides what is best: units of 2^-30.
fn units(score: f32) -> i128 {
    let bounded = if score.is_nan() { -1e9 } else { f64::from(score).clamp(-1e9, 1e9) };
    (bounded * f64::from(1 << 30)).round_ties_even() as i128
}
