//! Scores, softmax and weighted sum over all keys.

use moec_ir::ops::Attention;
use moec_types::{Axis, Expr};

use super::{contract::eval_contract, gather::eval_gather, map::eval_map};
use crate::error::EvalError;
use crate::scalar::max_f32;
use crate::tensor::{Tensor, elements};

pub(super) fn eval_attention(op: &Attention, operands: &[&Tensor]) -> Result<Tensor, EvalError> {
    let [q, k, v, extras @ ..] = operands else { unreachable!("attention has q, k and v") };
    let scores = eval_contract(q, k, &op.over)?;
    let (extras, tables) = extras.split_at(extras.len() - op.lookups.len());
    let plain: Vec<&Tensor> = [&scores].into_iter().chain(extras.iter().copied()).collect();
    let mut read = Vec::new();
    for (table, (axis, index)) in tables.iter().zip(&op.lookups) {
        let place = eval_of_read(index, &plain)?;
        read.push(eval_gather(axis, table, &place, &|| "a place in a table".to_string())?);
    }
    let args: Vec<&Tensor> = plain.into_iter().chain(&read).collect();
    let scores = eval_map(&op.score, &args)?;
    let shares = match &op.sink {
        None => softmax(&scores, &op.keys, None),
        Some(sink) => softmax(&scores, &op.keys, Some(&eval_of_read(sink, &args)?)),
    };
    eval_contract(&shares, v, std::slice::from_ref(&op.keys))
}

/// Of those operands alone that it reads: it has the axes of no other.
fn eval_of_read(expr: &Expr, args: &[&Tensor]) -> Result<Tensor, EvalError> {
    let mut read = Vec::new();
    expr.visit(&mut |expr| {
        if let Expr::Arg(at) = expr
            && !read.contains(at)
        {
            read.push(*at);
        }
    });
    let of_read = |at| Expr::Arg(read.iter().position(|known| *known == at).expect("every operand was collected"));
    let args: Vec<&Tensor> = read.iter().map(|at| args[*at]).collect();
    eval_map(&expr.substitute(&of_read), &args)
}

/// A row whose scores are all -inf is NaN, as the quotient it stands for.
fn softmax(x: &Tensor, over: &Axis, sink: Option<&Tensor>) -> Tensor {
    let size = x.expect_size(over);
    let kept: Vec<_> = x.axes().iter().filter(|(axis, _)| axis != over).cloned().collect();
    let rows = elements(&kept);
    let sinks = sink.map(|sink| sink.broadcast(&kept));
    let axes = [kept, vec![(over.clone(), size)]].concat();
    let x = x.broadcast(&axes);
    let x = x.f32();
    let mut out = Vec::with_capacity(x.len());
    for (number, row) in (0..rows).map(|row| &x[row * size..][..size]).enumerate() {
        let sink = sinks.as_ref().map(|sinks| sinks.f32()[number]);
        let largest = f64::from(row.iter().copied().chain(sink).fold(f32::NEG_INFINITY, max_f32));
        let powers: Vec<f64> = row.iter().map(|x| (f64::from(*x) - largest).exp()).collect();
        let sum: f64 = powers.iter().sum::<f64>() + sink.map_or(0.0, |sink| (f64::from(sink) - largest).exp());
        out.extend(powers.iter().map(|power| (power / sum) as f32));
    }
    Tensor::new(axes, out)
}
