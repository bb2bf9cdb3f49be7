//! Memory that generated code is given: poisoned, with ends that are looked at, and filled from a plan's ports and weights.

use moec_codegen::{Instance, Values};
use moec_plan::{Buffer, Layout, PANEL, PackedParam, Plan, Port, Rows};
use moec_types::DType;

/// 64-byte aligned memory, filled with NaN.
pub struct Memory {
    pub data: Vec<u8>,
    pub start: usize,
}

impl Memory {
    pub fn new(bytes: u64) -> Memory {
        // Every f32, bf16 and f16 of it is NaN, every i32 negative.
        let data = vec![0xff; bytes as usize + 192];
        let start = data.as_ptr().align_offset(64) + 64;
        Memory { data, start }
    }

    pub fn pointer(&mut self) -> *mut u8 {
        unsafe { self.data.as_mut_ptr().add(self.start) }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// Nobody wrote past the ends.
    pub fn check_ends(&self) {
        let before = &self.data[..self.start];
        assert!(before.iter().all(|byte| *byte == 0xff), "written before the start");
        let end = self.data.len() - (192 - self.start).min(64);
        assert!(self.data[end..].iter().all(|byte| *byte == 0xff), "written after the end");
    }
}

/// The weights' data: `weights` has the values of each parameter, instance by instance, source by source, `[n, k]` each.
pub fn packed(plan: &Plan, weights: &[Vec<f64>]) -> Memory {
    let mut packed = Memory::new(plan.weight_bytes());
    for (param, values) in plan.params.iter().zip(weights) {
        let mut values = values.iter();
        for instance in 0..u64::from(param.layers * param.experts) {
            let base = packed.start + (param.offset + instance * param.instance_bytes) as usize;
            let Some(dtype) = param.storage.each() else {
                let bytes = pack_instance(param, &mut values);
                packed.data[base..base + bytes.len()].copy_from_slice(&bytes);
                continue;
            };
            let size = dtype.bytes() as usize;
            let mut put = |element: u64, value: f64| {
                write(&mut packed.data[base + element as usize * size..], dtype, value);
            };
            match param.layout {
                Layout::Plain { elements } => (0..elements).for_each(|at| put(at, *values.next().expect("a value"))),
                Layout::Panels { k, n, branches } => {
                    (0..param.needed_bytes() / dtype.bytes()).for_each(|at| put(at, 0.0));
                    for branch in 0..u64::from(branches) {
                        for at in 0..n * k {
                            let (n, k_at) = (at / k, at % k);
                            let place = ((n / PANEL * k + k_at) * u64::from(branches) + branch) * PANEL + n % PANEL;
                            put(place, *values.next().expect("a value"));
                        }
                    }
                }
            }
        }
    }
    packed
}

/// What outputs hold, of `tokens` positions from row `first` on.
pub fn read_ports(plan: &Plan, memory: &[Memory], first: u64, tokens: u64) -> Vec<Vec<f64>> {
    let read_all = |(memory, port): (&Memory, &moec_plan::Port)| {
        let buffer = plan.buffer(port.buffer);
        let size = buffer.dtype.bytes() as usize;
        let before = if matches!(buffer.rows, Rows::Fixed(_)) { 0 } else { rows_of(buffer, first) };
        let (start, count) = ((before * buffer.row) as usize, (rows_of(buffer, tokens) * buffer.row) as usize);
        (start..start + count).map(|at| read(&memory.bytes()[at * size..], buffer.dtype)).collect()
    };
    memory.iter().zip(&plan.outputs).map(read_all).collect()
}

/// Room for inputs of `tokens` positions, with these values.
pub fn write_ports(plan: &Plan, inputs: &[Vec<f64>], tokens: u64) -> Vec<Memory> {
    let of = |(port, values): (&Port, &Vec<f64>)| {
        let buffer = plan.buffer(port.buffer);
        let mut memory = Memory::new(buffer.row_bytes() * rows_of(buffer, tokens));
        let start = memory.start;
        for (at, value) in values.iter().enumerate() {
            write(&mut memory.data[start + at * buffer.dtype.bytes() as usize..], buffer.dtype, *value);
        }
        memory
    };
    plan.inputs.iter().zip(inputs).map(of).collect()
}

/// Room for outputs of `tokens` positions.
pub fn output_room(plan: &Plan, tokens: u64) -> Vec<Memory> {
    let of = |port: &Port| {
        let buffer = plan.buffer(port.buffer);
        Memory::new(buffer.row_bytes() * rows_of(buffer, tokens))
    };
    plan.outputs.iter().map(of).collect()
}

/// The next instance in a format of several elements, as the compiler packs it.
fn pack_instance(param: &PackedParam, values: &mut std::slice::Iter<f64>) -> Vec<u8> {
    let Layout::Panels { k, n, .. } = param.layout else { panic!("such formats are in panels") };
    let instances: Vec<Instance> = (param.sources.iter())
        .map(|_| {
            let values = values.by_ref().take((n * k) as usize).map(|value| *value as f32).collect::<Vec<f32>>();
            Instance { axes: vec![("N".into(), n), ("K".into(), k)], values: Values::F32(values.into()) }
        })
        .collect();
    moec_codegen::pack(param, &instances).expect("it fits").to_vec()
}

pub fn rows_of(buffer: &Buffer, tokens: u64) -> u64 {
    match buffer.rows {
        Rows::Fixed(rows) => rows,
        Rows::Share(share) => share.of(tokens),
        Rows::Tokens | Rows::Outputs => tokens,
        Rows::Slots { choices } => tokens * choices,
        Rows::Positions => panic!("an input or output of all positions"),
    }
}

pub fn write(place: &mut [u8], dtype: DType, value: f64) {
    match dtype {
        DType::F32 => place[..4].copy_from_slice(&(value as f32).to_le_bytes()),
        DType::I32 => place[..4].copy_from_slice(&(value as i32).to_le_bytes()),
        DType::Bf16 => place[..2].copy_from_slice(&half::bf16::from_f32(value as f32).to_le_bytes()),
        DType::F16 => place[..2].copy_from_slice(&half::f16::from_f32(value as f32).to_le_bytes()),
        DType::Bool => place[0] = u8::from(value != 0.0),
    }
}

pub fn read(place: &[u8], dtype: DType) -> f64 {
    let four = || place[..4].try_into().expect("four bytes");
    let two = || place[..2].try_into().expect("two bytes");
    match dtype {
        DType::F32 => f64::from(f32::from_le_bytes(four())),
        DType::I32 => f64::from(i32::from_le_bytes(four())),
        DType::Bf16 => half::bf16::from_le_bytes(two()).to_f64(),
        DType::F16 => half::f16::from_le_bytes(two()).to_f64(),
        DType::Bool => f64::from(place[0]),
    }
}
