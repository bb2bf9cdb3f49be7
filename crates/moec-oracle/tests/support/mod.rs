//! Modules built by hand, a node a line.
#![allow(dead_code, reason = "each test binary uses its own part")]

use moec_diag::Span;
use moec_ir::{Input, Module, Op, Output, Param, ParamId, RegionId, ValueId};
use moec_oracle::{EvalError, MemoryWeights, Session, Tensor, Weights};
use moec_types::{Axis, DType, Dim, Size, TensorType};

pub fn axis(name: &str) -> Axis {
    Axis::new(name)
}

/// `S` is symbolic, `D=3` fixed, `T=past(S)` all positions of `S`.
pub fn dim(text: &str) -> Dim {
    match text.split_once('=') {
        None => Dim::new(axis(text), Size::Input(axis(text))),
        Some((name, size)) => match size.strip_prefix("past(").and_then(|rest| rest.strip_suffix(')')) {
            Some(of) => Dim::new(axis(name), Size::Past(axis(of))),
            None => Dim::fixed(name, size.parse().expect("a size")),
        },
    }
}

pub fn ty(dtype: DType, dims: &[&str]) -> TensorType {
    TensorType::new(dtype, dims.iter().map(|text| dim(text)).collect())
}

pub struct Build {
    pub module: Module,
    pub weights: MemoryWeights,
    /// Where nodes go.
    pub region: RegionId,
}

impl Build {
    pub fn new() -> Self {
        let module = Module::new("test");
        let region = module.body;
        Build { module, weights: MemoryWeights::default(), region }
    }

    pub fn input(&mut self, name: &str, dtype: DType, dims: &[&str]) -> ValueId {
        let value = self.module.add_arg(self.module.body, ty(dtype, dims));
        self.module.inputs.push(Input { name: name.to_string(), value });
        value
    }

    pub fn param(
        &mut self,
        path: &str,
        dims: &[&str],
        layers: Option<Vec<u32>>,
        experts: Option<(u32, u32)>,
    ) -> ParamId {
        self.module.add_param(Param {
            path: path.to_string(),
            ty: ty(DType::F32, dims),
            layers,
            experts: experts.map(|(first, count)| moec_ir::Experts { first, count }),
            storage: DType::F32,
            role: moec_ir::Role::Trained,
            at: Span::NONE,
        })
    }

    pub fn all(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Vec<ValueId> {
        self.module.append(self.region, op, operands.to_vec(), Span::NONE).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn one(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        let [result] = self.all(op, operands)[..] else { panic!("an op with one result") };
        result
    }

    /// A region with one argument of the type of `like`, built by `body`, which returns its result.
    pub fn region_like(&mut self, like: ValueId, body: impl FnOnce(&mut Build, ValueId) -> ValueId) -> RegionId {
        let ty = self.module.ty(like).clone();
        let region = self.module.add_region();
        let arg = self.module.add_arg(region, ty);
        let outer = std::mem::replace(&mut self.region, region);
        let result = body(self, arg);
        self.region = outer;
        self.module.region_mut(region).results.push(result);
        region
    }

    pub fn output(&mut self, name: &str, value: ValueId) {
        self.module.outputs.push(Output { name: name.to_string(), value });
        let body = self.module.body;
        self.module.region_mut(body).results.push(value);
    }

    pub fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>, EvalError> {
        run(&self.module, &self.weights, inputs)
    }
}

/// The outputs of a fresh session's first pass.
pub fn run(module: &Module, weights: &dyn Weights, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>, EvalError> {
    let outputs = Session::new(module, weights).run(inputs, None)?;
    Ok(outputs.into_iter().map(|(_, tensor)| tensor).collect())
}

pub fn f32s(axes: &[(&str, usize)], values: &[f32]) -> Tensor {
    Tensor::named(axes, values.to_vec())
}

pub fn i32s(axes: &[(&str, usize)], values: &[i32]) -> Tensor {
    Tensor::named(axes, values.to_vec())
}

/// A small reproducible generator (linear congruential, Knuth's constants).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as u32) % limit
    }

    pub fn float(&mut self) -> f32 {
        self.below(2001) as f32 / 1000.0 - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

pub fn near(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.axes(), b.axes());
    for (at, (a, b)) in a.f32().iter().zip(b.f32()).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {at}: {a} and {b}");
    }
}
