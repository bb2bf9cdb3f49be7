//! Weights and inputs of a model that has none: what they say does not matter, only that they are ordinary numbers.

use std::{borrow::Cow, error::Error};

use moec_codegen::{Instance, Instances, PortRows, Values, port_rows};
use moec_ir::Module;
use moec_plan::{Node, Plan, Port, StepKind};
use moec_types::DType;

use crate::native::NamedTensor;

/// Weights between -1/64 and 1/64; all instances are pieces of one pool.
pub struct Drawn {
    params: Vec<(DType, Vec<(String, u64)>)>,
    pool: Vec<u16>,
}

/// How far apart the pieces may begin.
const OFFSETS: u64 = 1 << 16;

impl Drawn {
    pub fn of(module: &Module) -> Drawn {
        let axis = |dim: &moec_types::Dim| (dim.axis.name().to_string(), dim.size.fixed().unwrap_or(1));
        Drawn::new(module.params.iter().map(|p| (p.ty.dtype, p.ty.dims.iter().map(axis).collect())).collect())
    }

    pub fn new(params: Vec<(DType, Vec<(String, u64)>)>) -> Drawn {
        let elements = |(_, axes): &(DType, Vec<(String, u64)>)| axes.iter().map(|(_, size)| size).product::<u64>();
        let most = params.iter().map(elements).max().unwrap_or(0) + OFFSETS;
        let mut random = Random(1);
        // bf16 by their bits: a sign, an exponent of 2^-7 and less, any mantissa.
        let pool = (0..most).map(|_| random.next() as u16 & 0x80ff | 0x3b00).collect();
        Drawn { params, pool }
    }
}

impl Instances for Drawn {
    fn load(&self, param: u32, layer: u32, expert: u32) -> Result<Instance<'_>, Box<dyn Error + Send + Sync>> {
        let (dtype, axes) = &self.params[param as usize];
        let elements = axes.iter().map(|(_, size)| *size as usize).product();
        let from =
            (Random(u64::from(param) << 40 | u64::from(layer) << 20 | u64::from(expert)).next() % OFFSETS) as usize;
        let values = match dtype {
            DType::F32 | DType::Bf16 | DType::F16 => Values::Bf16(Cow::Borrowed(&self.pool[from..from + elements])),
            DType::I32 => Values::I32(Cow::Owned(vec![0; elements])),
            DType::Bool => Values::Bool(Cow::Owned(vec![0; elements])),
        };
        Ok(Instance { axes: axes.clone(), values })
    }
}

/// Inputs of a pass of so many positions; another `round` has others, so that routes go elsewhere.
pub fn inputs(plan: &Plan, tokens: u64, round: u64) -> Vec<NamedTensor> {
    plan.inputs.iter().map(|port| input(plan, port, tokens, round)).collect()
}

/// Room for the outputs.
pub fn outputs(plan: &Plan, tokens: u64) -> Vec<NamedTensor> {
    plan.outputs.iter().map(|port| tensor(plan, port, tokens, |_, bytes| vec![0; bytes])).collect()
}

fn input(plan: &Plan, port: &Port, tokens: u64, round: u64) -> NamedTensor {
    let row = plan.buffer(port.buffer).row.max(1);
    let limit = port.index_limit.or_else(|| experts_chosen(plan, port)).unwrap_or(1).max(1);
    tensor(plan, port, tokens, |dtype, bytes| {
        let count = bytes as u64 / dtype.bytes();
        let mut random = Random(round + 1);
        match dtype {
            DType::F32 => (0..count).flat_map(|_| random.float().to_le_bytes()).collect(),
            DType::Bf16 | DType::F16 => {
                (0..count).flat_map(|_| (random.next() as u16 & 0x80ff | 0x3b00).to_le_bytes()).collect()
            }
            DType::I32 => (0..count.div_ceil(row))
                .flat_map(|_| different(&mut random, limit, row))
                .flat_map(|index| (index as i32).to_le_bytes())
                .collect(),
            DType::Bool => vec![1; bytes],
        }
    })
}

/// The indices of one row: they differ where there are enough, as those of a choice do.
fn different(random: &mut Random, limit: u64, count: u64) -> Vec<u64> {
    let mut row: Vec<u64> = Vec::new();
    while (row.len() as u64) < count {
        let mut index = random.next() % limit;
        while (row.len() as u64) < limit && row.contains(&index) {
            index = (index + 1) % limit;
        }
        row.push(index);
    }
    row
}

fn tensor(plan: &Plan, port: &Port, tokens: u64, make: impl FnOnce(DType, usize) -> Vec<u8>) -> NamedTensor {
    let positions = matches!(port_rows(plan, port), Some(PortRows::Tokens | PortRows::Outputs));
    let first = positions.then_some(tokens);
    let shape: Vec<usize> =
        first.into_iter().chain(port.axes.iter().map(|(_, size)| *size)).map(|size| size as usize).collect();
    let dtype = plan.buffer(port.buffer).dtype;
    let bytes = shape.iter().product::<usize>() * dtype.bytes() as usize;
    NamedTensor { name: port.name.clone(), dtype, shape, bytes: make(dtype, bytes) }
}

/// The experts of the route whose choices are given as this input.
fn experts_chosen(plan: &Plan, port: &Port) -> Option<u64> {
    fn find(nodes: &[Node], port: &Port) -> Option<u64> {
        nodes.iter().find_map(|node| match node {
            Node::Layers(layers) => layers.kinds.iter().find_map(|kind| find(kind, port)),
            Node::Step(step) => match &step.kind {
                StepKind::Bin(bin) => (bin.indices == port.buffer).then_some(bin.experts),
                StepKind::Rows { .. }
                | StepKind::Gemm(_)
                | StepKind::Attention(_)
                | StepKind::Scan(_)
                | StepKind::Assign(_) => None,
            },
        })
    }
    plan.passes().find_map(|pass| find(pass, port))
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
