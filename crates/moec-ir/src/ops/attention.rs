//! Scores, softmax and weighted sum over all keys, without the scores ever being stored.

use moec_types::{Axis, DType, Expr, TensorType};

use super::{OpDef, Reach, TypeError, map, operands};
use crate::{Module, ValueId, ValueType, ParseError, print, reader::Reader};

/// `attention %q, %k, %v, extras…, tables… {over (Dh), keys T, score …, lookup B …, sink …}`: what `fuse-attention` makes of a contraction, element-wise
/// arithmetic, a softmax over the keys and a second contraction.
///
/// *Types.*   q `f32[S, heads.., Dh]`, k `f32[T, some of the heads.., Dh]`, v `f32[T, some of the heads.., values..]`; extras
///            with any of the axes S, T, heads -> `f32[q's axes without over, then v's axes that those lack, without T]`.
/// *Meaning.* `p = softmax(score(q · k over Dh, extras) over T)`, result `p · v over T`. In `score`, `Arg(0)` is the dot
///            product and `Arg(1 ..)` are the extras. A sink, made of extras that have heads alone, is one more score in the
///            softmax, without a value. Each table has heads and the axis of its lookup; the lookup's expression, of the
///            extras, says at which place it is read, and what is read there follows the extras in `score`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub over: Vec<Axis>,
    pub keys: Axis,
    pub score: Expr,
    pub sink: Option<Expr>,
    /// Of the last operands, in order: the axis along which each is read, and where.
    pub lookups: Vec<(Axis, Expr)>,
}

impl OpDef for Attention {
    const MNEMONIC: &'static str = "attention";
    const REACH: Reach = Reach::Across;

    fn along(&self) -> &[Axis] {
        &self.over
    }

    fn attributes(&self, _: &Module) -> String {
        let sink = self.sink.as_ref().map_or(String::new(), |sink| format!(", sink {sink}"));
        let lookups: String = self.lookups.iter().map(|(axis, index)| format!(", lookup {axis} {index}")).collect();
        format!("over {}, keys {}, score {}{lookups}{sink}", print::axes(&self.over), self.keys, self.score)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        let over = text.axes()?;
        text.expect(",")?;
        text.expect_word("keys")?;
        let keys = text.axis()?;
        text.expect(",")?;
        text.expect_word("score")?;
        let score = text.expr()?;
        let (mut lookups, mut sink) = (Vec::new(), None);
        while text.eats(",") {
            if text.eats_word("lookup") {
                lookups.push((text.axis()?, text.expr()?));
            } else {
                text.expect_word("sink")?;
                sink = Some(text.expr()?);
                break;
            }
        }
        Ok(Attention { over, keys, score, sink, lookups })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        operands::at_least(Self::MNEMONIC, operands, 3 + self.lookups.len())?;
        operands::distinct(&self.over)?;
        let [q, k, v] = [0, 1, 2].map(|at| operands::tensor(module, operands, at));
        let (q, k, v) = (q?, k?, v?);
        for (at, ty) in [q, k, v].into_iter().enumerate() {
            operands::dtype(ty, DType::F32, "attention", at)?;
        }
        for axis in &self.over {
            operands::axis(q, axis, 0)?;
            operands::axis(k, axis, 1)?;
        }
        operands::axis(k, &self.keys, 1)?;
        operands::axis(v, &self.keys, 2)?;
        operands::absent(q, &self.keys, 0)?;
        operands::agree((q, 0), (k, 1))?;
        let queries: Vec<_> = q.dims.iter().filter(|dim| !self.over.contains(&dim.axis)).cloned().collect();
        let queries = TensorType::new(DType::F32, queries);
        if let Some(axis) = k.axes().find(|axis| !q.has(axis) && **axis != self.keys) {
            return Err(TypeError::new(format!("the keys' axis `{axis}` is not one of the queries'"))
                .label(0, format!("this is {q}"))
                .label(1, format!("this is {k}")));
        }
        operands::agree((&queries, 0), (v, 2))?;
        let keys = TensorType::new(DType::F32, k.dim(&self.keys).cloned().into_iter().collect());
        operands::agree((&keys, 1), (v, 2))?;

        let mut dtypes = vec![DType::F32];
        let tables = operands.len() - self.lookups.len();
        for at in 3..tables {
            let extra = operands::tensor(module, operands, at)?;
            map::arithmetic(extra, at)?;
            operands::agree((&queries, 0), (extra, at))?;
            operands::agree((&keys, 1), (extra, at))?;
            if let Some(axis) = extra.axes().find(|axis| !queries.has(axis) && **axis != self.keys) {
                return Err(TypeError::new(format!("the score's {extra} has an axis `{axis}` that no score has"))
                    .label(at, format!("this is {extra}")));
            }
            dtypes.push(extra.dtype);
        }
        for (at, (axis, index)) in (tables..).zip(&self.lookups) {
            let table = operands::tensor(module, operands, at)?;
            map::arithmetic(table, at)?;
            let found = map::scalar(index, &dtypes[..tables - 2], "the place in a table")?;
            if found != DType::I32 {
                return Err(TypeError::new(format!("the place in a table is {found}, not i32")));
            }
            operands::axis(table, axis, at)?;
            if let Some(axis) = table.axes().find(|found| *found != axis && !(queries.has(found) && k.has(found))) {
                return Err(TypeError::new(format!("the table has an axis `{axis}`, which no head has"))
                    .label(at, format!("this is {table}")));
            }
            dtypes.push(table.dtype);
        }
        let score = map::scalar(&self.score, &dtypes, "the score")?;
        if score != DType::F32 {
            return Err(TypeError::new(format!("the score gives {score}, not f32")));
        }
        if let Some(sink) = &self.sink {
            let found = map::scalar(sink, &dtypes, "the sink")?;
            if found != DType::F32 {
                return Err(TypeError::new(format!("the sink gives {found}, not f32")));
            }
            let mut read = Vec::new();
            sink.visit(&mut |expr| read.extend(if let Expr::Arg(at) = expr { Some(*at) } else { None }));
            for at in read {
                let ty = if at == 0 { q } else { operands::tensor(module, operands, at + 2)? };
                if at == 0 || ty.elements().is_none() {
                    return Err(TypeError::new(format!("the sink reads {ty}, which is not the same at every position"))
                        .label(if at == 0 { 0 } else { at + 2 }, format!("this is {ty}")));
                }
            }
        }
        let values = v.dims.iter().filter(|dim| !queries.has(&dim.axis) && dim.axis != self.keys);
        let dims = queries.dims.iter().chain(values).cloned().collect();
        Ok(vec![TensorType::new(DType::F32, dims).into()])
    }
}
