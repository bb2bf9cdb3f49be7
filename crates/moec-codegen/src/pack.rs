//! One instance of a packed parameter: from tensors with named axes to the bytes that kernels read.

use std::{borrow::Cow, error::Error, num::NonZero, thread};

use half::{bf16, f16};
use miette::Diagnostic;
use moec_plan::{Layout, PANEL, PackSource, PackedParam};
use moec_types::DType;
use thiserror::Error;

/// The elements of a tensor as they are stored; bf16 and f16 by their bits, bools as 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub enum Values<'a> {
    F32(Cow<'a, [f32]>),
    Bf16(Cow<'a, [u16]>),
    F16(Cow<'a, [u16]>),
    I32(Cow<'a, [i32]>),
    Bool(Cow<'a, [u8]>),
}

/// One instance of a parameter, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance<'a> {
    /// Names and sizes, slowest first.
    pub axes: Vec<(String, u64)>,
    pub values: Values<'a>,
}

/// Where weights come from: a checkpoint, an oracle's random numbers, a file of named tensors.
pub trait Instances {
    /// `param` is its number in the module; `layer` and `expert` are ranks among its layers and experts, 0 where it has
    /// none.
    fn load(&self, param: u32, layer: u32, expert: u32) -> Result<Instance<'_>, Box<dyn Error + Send + Sync>>;
}

/// An instance that is not what the plan says it is.
#[derive(Debug, Error, Diagnostic)]
#[error("`{path}` cannot be packed: {reason}")]
#[diagnostic(code(moec::codegen::misfit))]
pub struct Misfit {
    pub path: String,
    pub reason: String,
}

/// The bytes of one instance, `instance_bytes` of them. `instances[i]` belongs to `param.sources[i]`.
///
/// # Panics
/// Where `instances` are not as many as the sources, or the layout has not as many branches: a bug of the caller.
pub fn pack(param: &PackedParam, instances: &[Instance]) -> Result<Vec<u8>, Misfit> {
    assert_eq!(param.sources.len(), instances.len(), "one instance for each source of `{}`", param.name);
    match param.storage {
        DType::F32 => pack_as::<f32>(param, instances),
        DType::Bf16 => pack_as::<Bf16>(param, instances),
        DType::F16 => pack_as::<F16>(param, instances),
        DType::I32 => pack_as::<i32>(param, instances),
        DType::Bool => pack_as::<u8>(param, instances),
    }
}

/// A stored element and how it comes from others; `None` where it does not. Floats round to the nearest, ties to even.
trait Stored: Copy + Default + Send + Sync {
    fn put(self, bytes: &mut Vec<u8>);
    fn from_f32(_: f32) -> Option<Self> {
        None
    }
    fn from_bf16(_bits: u16) -> Option<Self> {
        None
    }
    fn from_f16(_bits: u16) -> Option<Self> {
        None
    }
    fn from_i32(_: i32) -> Option<Self> {
        None
    }
    fn from_bool(_: u8) -> Option<Self> {
        None
    }
}

#[derive(Clone, Copy, Default)]
struct Bf16(u16);

#[derive(Clone, Copy, Default)]
struct F16(u16);

impl Stored for f32 {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }
    fn from_f32(value: f32) -> Option<Self> {
        Some(value)
    }
    fn from_bf16(bits: u16) -> Option<Self> {
        Some(bf16::from_bits(bits).to_f32())
    }
    fn from_f16(bits: u16) -> Option<Self> {
        Some(f16::from_bits(bits).to_f32())
    }
}

impl Stored for Bf16 {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0.to_le_bytes());
    }
    fn from_f32(value: f32) -> Option<Self> {
        Some(Bf16(bf16::from_f32(value).to_bits()))
    }
    fn from_bf16(bits: u16) -> Option<Self> {
        Some(Bf16(bits))
    }
    fn from_f16(bits: u16) -> Option<Self> {
        Self::from_f32(f16::from_bits(bits).to_f32())
    }
}

impl Stored for F16 {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0.to_le_bytes());
    }
    fn from_f32(value: f32) -> Option<Self> {
        Some(F16(f16::from_f32(value).to_bits()))
    }
    fn from_bf16(bits: u16) -> Option<Self> {
        Self::from_f32(bf16::from_bits(bits).to_f32())
    }
    fn from_f16(bits: u16) -> Option<Self> {
        Some(F16(bits))
    }
}

impl Stored for i32 {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }
    fn from_i32(value: i32) -> Option<Self> {
        Some(value)
    }
}

impl Stored for u8 {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(self);
    }
    fn from_bool(value: u8) -> Option<Self> {
        Some(u8::from(value != 0))
    }
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(bits) | Values::F16(bits) => bits.len(),
            Values::I32(values) => values.len(),
            Values::Bool(values) => values.len(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::Bf16(_) => DType::Bf16,
            Values::F16(_) => DType::F16,
            Values::I32(_) => DType::I32,
            Values::Bool(_) => DType::Bool,
        }
    }
}

fn pack_as<S: Stored>(param: &PackedParam, instances: &[Instance]) -> Result<Vec<u8>, Misfit> {
    let mut packed = vec![S::default(); param.instance_elements() as usize];
    for (branch, (source, instance)) in param.sources.iter().zip(instances).enumerate() {
        let misfit = |reason| Misfit { path: source.path.clone(), reason };
        let matrix = Matrix::of(source, instance).map_err(misfit)?;
        matrix.check(&param.layout).map_err(misfit)?;
        let convertible = match &instance.values {
            Values::F32(values) => place(&param.layout, branch, &matrix, values, S::from_f32, &mut packed),
            Values::Bf16(bits) => place(&param.layout, branch, &matrix, bits, S::from_bf16, &mut packed),
            Values::F16(bits) => place(&param.layout, branch, &matrix, bits, S::from_f16, &mut packed),
            Values::I32(values) => place(&param.layout, branch, &matrix, values, S::from_i32, &mut packed),
            Values::Bool(values) => place(&param.layout, branch, &matrix, values, S::from_bool, &mut packed),
        };
        if convertible.is_none() {
            return Err(misfit(format!(
                "its values are {}, and are to be stored as {}",
                instance.values.dtype(),
                param.storage
            )));
        }
    }
    let mut bytes = Vec::with_capacity(param.instance_bytes as usize);
    packed.into_iter().for_each(|element| element.put(&mut bytes));
    assert!(bytes.len() as u64 <= param.instance_bytes, "`{}` does not fit its own size", param.name);
    bytes.resize(param.instance_bytes as usize, 0);
    Ok(bytes)
}

/// A tensor seen as a matrix: the element of row n and column k stands at `rows[n] + columns[k]`.
struct Matrix {
    rows: Offsets,
    columns: Offsets,
}

/// The offsets that some axes make, slowest first, without listing the fastest of them.
struct Offsets {
    outer: Vec<usize>,
    inner: usize,
    stride: usize,
}

impl Offsets {
    fn len(&self) -> usize {
        self.outer.len() * self.inner
    }

    fn list(&self) -> Vec<usize> {
        let each = |outer: &usize| (*outer..).step_by(self.stride.max(1)).take(self.inner);
        self.outer.iter().flat_map(each).collect()
    }
}

impl Matrix {
    fn of(source: &PackSource, instance: &Instance) -> Result<Matrix, String> {
        let wanted = source.rows.iter().chain(&source.columns);
        let mut rest: Vec<&str> = instance.axes.iter().map(|(name, _)| name.as_str()).collect();
        for axis in wanted {
            let Some(at) = rest.iter().position(|name| name == axis) else {
                return Err(format!("it has no axis `{axis}`, or that axis is wanted twice"));
            };
            rest.remove(at);
        }
        if let Some(axis) = rest.first() {
            return Err(format!("nothing is said of its axis `{axis}`"));
        }
        let elements: u64 = instance.axes.iter().map(|(_, size)| size).product();
        if elements != instance.values.len() as u64 {
            return Err(format!("its axes make {elements} elements, but it has {}", instance.values.len()));
        }
        Ok(Matrix { rows: offsets(&source.rows, instance), columns: offsets(&source.columns, instance) })
    }

    fn check(&self, layout: &Layout) -> Result<(), String> {
        let (rows, columns) = (self.rows.len() as u64, self.columns.len() as u64);
        let fits = match layout {
            Layout::Plain { elements } => rows == *elements && columns == 1,
            Layout::Panels { k, n, branches: _ } => rows == *n && columns == *k,
        };
        if fits { Ok(()) } else { Err(format!("it is a matrix of {rows} by {columns}, which does not fit {layout:?}")) }
    }
}

/// Every axis is one of the instance's.
fn offsets(axes: &[String], instance: &Instance) -> Offsets {
    let find = |axis: &String| {
        let at = instance.axes.iter().position(|(name, _)| name == axis).expect("all axes were found before");
        let stride: u64 = instance.axes[at + 1..].iter().map(|(_, size)| size).product();
        (instance.axes[at].1 as usize, stride as usize)
    };
    let Some((last, slower)) = axes.split_last() else {
        return Offsets { outer: vec![0], inner: 1, stride: 0 };
    };
    let (inner, stride) = find(last);
    let mut outer = vec![0];
    for (size, stride) in slower.iter().map(find) {
        outer = outer.iter().flat_map(|start| (0..size).map(move |at| start + at * stride)).collect();
    }
    Offsets { outer, inner, stride }
}

/// Puts all elements of one branch where the layout has them. `None` where one cannot be converted.
fn place<T: Copy + Sync, S: Stored>(
    layout: &Layout,
    branch: usize,
    matrix: &Matrix,
    values: &[T],
    convert: fn(T) -> Option<S>,
    packed: &mut [S],
) -> Option<()> {
    match *layout {
        Layout::Plain { .. } => {
            let Offsets { outer, inner, stride } = &matrix.rows;
            for (start, into) in outer.iter().zip(packed.chunks_mut((*inner).max(1))) {
                for (at, into) in into.iter_mut().enumerate() {
                    *into = convert(values[start + at * stride])?;
                }
            }
            Some(())
        }
        Layout::Panels { k, n: _, branches } => {
            let (rows, columns) = (matrix.rows.list(), matrix.columns.list());
            let block = k as usize * branches as usize * PANEL as usize;
            if block == 0 {
                return Some(());
            }
            let panel = |(rows, into): (&[usize], &mut [S])| {
                let lanes = into.chunks_mut(PANEL as usize).skip(branch).step_by(branches as usize);
                for (column, into) in columns.iter().zip(lanes) {
                    for (row, into) in rows.iter().zip(into) {
                        *into = convert(values[row + column])?;
                    }
                }
                Some(())
            };
            let panels = rows.chunks(PANEL as usize).zip(packed.chunks_mut(block)).collect();
            in_parallel(panels, &panel)
        }
    }
}

/// Elements below which threads cost more than they save.
const WORTH_THREADS: usize = 1 << 16;

fn in_parallel<S: Send>(
    mut panels: Vec<(&[usize], &mut [S])>,
    work: &(impl Fn((&[usize], &mut [S])) -> Option<()> + Sync),
) -> Option<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let elements: usize = panels.iter().map(|(_, into)| into.len()).sum();
    if threads == 1 || elements < WORTH_THREADS {
        return panels.into_iter().try_for_each(work);
    }
    let share = panels.len().div_ceil(threads);
    thread::scope(|scope| {
        let mut running = Vec::new();
        while !panels.is_empty() {
            let rest = panels.split_off(share.min(panels.len()));
            let mine = std::mem::replace(&mut panels, rest);
            running.push(scope.spawn(move || mine.into_iter().try_for_each(work)));
        }
        running.into_iter().try_for_each(|thread| thread.join().expect("packing does not panic"))
    })
}
