//! One instance of a packed parameter: from tensors with named axes to the bytes that kernels read.

use std::{
    borrow::Cow,
    error::Error,
    num::NonZero,
    ops::Deref,
    sync::{Mutex, PoisonError},
    thread,
};

use half::{bf16, f16};
use miette::Diagnostic;
use moec_plan::{Format, Layout, PANEL, PackSource, PackedParam, quantise};
use moec_types::DType;
use thiserror::Error;

use crate::panels::Panels;

/// The elements of a tensor as they are stored; bf16 and f16 by their bits, bools as 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub enum Values<'a> {
    F32(Cow<'a, [f32]>),
    Bf16(Cow<'a, [u16]>),
    F16(Cow<'a, [u16]>),
    I32(Cow<'a, [i32]>),
    Bool(Cow<'a, [u8]>),
    Coded(Coded),
}

/// Small floats, each with the scale that it is to be multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub struct Coded {
    pub kind: CodeKind,
    pub codes: Vec<u8>,
    pub scales: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    E2m1,
    E4m3,
}

impl Coded {
    fn float(&self, at: usize) -> f32 {
        let value = match self.kind {
            CodeKind::E2m1 => quantise::e2m1(self.codes[at]),
            CodeKind::E4m3 => quantise::e4m3(self.codes[at]),
        };
        value * self.scales[at]
    }

    /// As floats of their own.
    pub fn floats(&self) -> Vec<f32> {
        (0..self.codes.len()).map(|at| self.float(at)).collect()
    }
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
pub fn pack(param: &PackedParam, instances: &[Instance]) -> Result<Packed, Misfit> {
    assert_eq!(param.sources.len(), instances.len(), "one instance for each source of `{}`", param.name);
    match param.storage {
        Format::Each(DType::F32) => pack_as::<f32>(param, instances, put_floats),
        Format::Each(DType::Bf16) => pack_as::<Bf16>(param, instances, put_floats),
        Format::Each(DType::F16) => pack_as::<F16>(param, instances, put_floats),
        Format::Each(DType::I32) => pack_as(param, instances, put_ints),
        Format::Each(DType::Bool) => pack_as(param, instances, put_bools),
        Format::Pairs | Format::Int8 | Format::Int4 { .. } | Format::Mxfp4 | Format::Fp8 { .. } => {
            pack_panels(param, instances)
        }
    }
}

/// Formats that make something of several elements: column by column, panels shared out among threads.
fn pack_panels(param: &PackedParam, instances: &[Instance]) -> Result<Packed, Misfit> {
    let Layout::Panels { k, n: _, branches } = param.layout else {
        unreachable!("verified: such formats are in panels")
    };
    let panels = Panels { format: param.storage, k: k as usize, branches: branches as usize };
    let mut packed = Packed::zeros(param.instance_bytes);
    let bytes = &mut packed.elements::<u8>()[..param.needed_bytes() as usize];
    for (branch, (source, instance)) in param.sources.iter().zip(instances).enumerate() {
        let misfit = |reason| Misfit { path: source.path.clone(), reason };
        let matrix = Matrix::of(source, instance).map_err(misfit)?;
        matrix.check(&param.layout).map_err(misfit)?;
        if !instance.values.dtype().is_float() {
            return Err(misfit(format!(
                "its values are {}, and are to be stored as {}",
                instance.values.dtype(),
                param.storage
            )));
        }
        if panels.bytes() == 0 {
            continue;
        }
        let (rows, columns) = (matrix.rows.list(), matrix.columns.list());
        let problem = Mutex::new(None);
        let each = rows.chunks(LANES).zip(bytes.chunks_mut(panels.bytes())).collect();
        in_parallel(each, &|rows: &[usize], panel: &mut [u8]| {
            for (lane, row) in rows.iter().enumerate() {
                let written = match &instance.values {
                    Values::Coded(coded) if panels.keeps(coded.kind) => {
                        let codes: Vec<u8> = columns.iter().map(|column| coded.codes[row + column]).collect();
                        let scales: Vec<f32> = columns.iter().map(|column| coded.scales[row + column]).collect();
                        panels.write_codes(panel, [branch, lane], &codes, &scales)
                    }
                    values => {
                        let column: Vec<f32> = columns.iter().map(|column| values.float(row + column)).collect();
                        panels.write(panel, [branch, lane], &column)
                    }
                };
                if let Err(reason) = written {
                    problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
                }
            }
        });
        if let Some(reason) = problem.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(misfit(reason));
        }
    }
    Ok(packed)
}

/// An element as it stands in the file.
///
/// # Safety
/// Any bytes are a value of the type, it has no padding, and it is no larger than eight bytes.
unsafe trait Stored: Copy + Default + Send + Sync {}

/// How a stored float comes from others. It rounds to the nearest, ties to even.
trait Float: Stored {
    fn from_f32(value: f32) -> Self;
    fn from_bf16(bits: u16) -> Self;
    fn from_f16(bits: u16) -> Self;
}

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct Bf16(u16);

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct F16(u16);

// SAFETY: numbers, and one number each.
unsafe impl Stored for f32 {}
unsafe impl Stored for Bf16 {}
unsafe impl Stored for F16 {}
unsafe impl Stored for i32 {}
unsafe impl Stored for u8 {}

impl Float for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_bf16(bits: u16) -> Self {
        bf16::from_bits(bits).to_f32()
    }
    fn from_f16(bits: u16) -> Self {
        f16::from_bits(bits).to_f32()
    }
}

impl Float for Bf16 {
    fn from_f32(value: f32) -> Self {
        Bf16(bf16::from_f32(value).to_bits())
    }
    fn from_bf16(bits: u16) -> Self {
        Bf16(bits)
    }
    fn from_f16(bits: u16) -> Self {
        Self::from_f32(f16::from_bits(bits).to_f32())
    }
}

impl Float for F16 {
    fn from_f32(value: f32) -> Self {
        F16(f16::from_f32(value).to_bits())
    }
    fn from_bf16(bits: u16) -> Self {
        Self::from_f32(bf16::from_bits(bits).to_f32())
    }
    fn from_f16(bits: u16) -> Self {
        F16(bits)
    }
}

/// Puts the values of one source where they belong; `None` where they are of a type that cannot be stored so.
type Put<S> = fn(&Place, &Values, &mut [S]) -> Option<()>;

fn put_floats<S: Float>(place: &Place, values: &Values, packed: &mut [S]) -> Option<()> {
    match values {
        Values::F32(values) => place.put(values, S::from_f32, packed),
        Values::Bf16(bits) => place.put(bits, S::from_bf16, packed),
        Values::F16(bits) => place.put(bits, S::from_f16, packed),
        Values::Coded(coded) => place.put(&coded.floats(), S::from_f32, packed),
        Values::I32(_) | Values::Bool(_) => return None,
    }
    Some(())
}

fn put_ints(place: &Place, values: &Values, packed: &mut [i32]) -> Option<()> {
    match values {
        Values::I32(values) => place.put(values, |value| value, packed),
        Values::F32(_) | Values::Bf16(_) | Values::F16(_) | Values::Bool(_) | Values::Coded(_) => return None,
    }
    Some(())
}

fn put_bools(place: &Place, values: &Values, packed: &mut [u8]) -> Option<()> {
    match values {
        Values::Bool(values) => place.put(values, |value| u8::from(value != 0), packed),
        Values::F32(_) | Values::Bf16(_) | Values::F16(_) | Values::I32(_) | Values::Coded(_) => return None,
    }
    Some(())
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(bits) | Values::F16(bits) => bits.len(),
            Values::I32(values) => values.len(),
            Values::Bool(values) => values.len(),
            Values::Coded(coded) => coded.codes.len(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Values::F32(_) | Values::Coded(_) => DType::F32,
            Values::Bf16(_) => DType::Bf16,
            Values::F16(_) => DType::F16,
            Values::I32(_) => DType::I32,
            Values::Bool(_) => DType::Bool,
        }
    }

    /// # Panics
    /// Where they are no floats.
    fn float(&self, at: usize) -> f32 {
        match self {
            Values::F32(values) => values[at],
            Values::Bf16(bits) => bf16::from_bits(bits[at]).to_f32(),
            Values::F16(bits) => f16::from_bits(bits[at]).to_f32(),
            Values::Coded(coded) => coded.float(at),
            Values::I32(_) | Values::Bool(_) => unreachable!("checked before: they are floats"),
        }
    }
}

fn pack_as<S: Stored>(param: &PackedParam, instances: &[Instance], put: Put<S>) -> Result<Packed, Misfit> {
    let mut packed = Packed::zeros(param.instance_bytes);
    let elements = &mut packed.elements()[..param.needed_bytes() as usize / size_of::<S>()];
    for (branch, (source, instance)) in param.sources.iter().zip(instances).enumerate() {
        let misfit = |reason| Misfit { path: source.path.clone(), reason };
        let matrix = Matrix::of(source, instance).map_err(misfit)?;
        matrix.check(&param.layout).map_err(misfit)?;
        let place = Place { layout: &param.layout, branch, matrix: &matrix };
        if put(&place, &instance.values, elements).is_none() {
            let (found, storage) = (instance.values.dtype(), param.storage);
            return Err(misfit(format!("its values are {found}, and are to be stored as {storage}")));
        }
    }
    Ok(packed)
}

/// The bytes of one instance. They are kept as words, so that elements of any type can be put there in place.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed(Vec<u64>);

impl Packed {
    fn zeros(bytes: u64) -> Self {
        assert_eq!(bytes % 64, 0, "instances are multiples of 64 bytes");
        Packed(vec![0; bytes as usize / size_of::<u64>()])
    }

    fn elements<S: Stored>(&mut self) -> &mut [S] {
        const { assert!(cfg!(target_endian = "little"), "weight files are little-endian") };
        // SAFETY: any bytes are good elements.
        let (before, elements, after) = unsafe { self.0.align_to_mut() };
        assert!(before.is_empty() && after.is_empty(), "words hold whole elements");
        elements
    }
}

impl Deref for Packed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: bytes of words are bytes.
        unsafe { self.0.align_to().1 }
    }
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

    /// Whether the offsets are 0, 1, 2 and so on.
    fn is_contiguous(&self) -> bool {
        self.outer.iter().enumerate().all(|(at, start)| *start == at * self.inner)
            && (self.stride == 1 || self.inner == 1)
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

/// Where one branch goes.
struct Place<'a> {
    layout: &'a Layout,
    branch: usize,
    matrix: &'a Matrix,
}

const LANES: usize = PANEL as usize;

impl Place<'_> {
    fn put<T: Copy + Sync, S: Stored>(&self, values: &[T], convert: impl Fn(T) -> S + Sync, packed: &mut [S]) {
        if packed.is_empty() {
            return;
        }
        match *self.layout {
            Layout::Plain { .. } => self.put_rows(values, convert, packed),
            Layout::Panels { k, n: _, branches } => {
                let (k, branches) = (k as usize, branches as usize);
                let rows = self.matrix.rows.list();
                let panels = rows.chunks(LANES).zip(packed.chunks_mut(k * branches * LANES)).collect();
                let columns = self.matrix.columns.list();
                let side_by_side = self.matrix.columns.is_contiguous();
                in_parallel(panels, &|rows: &[usize], into: &mut [S]| {
                    let into = into.chunks_mut(LANES).skip(self.branch).step_by(branches);
                    match <[usize; LANES]>::try_from(rows) {
                        Ok(rows) if side_by_side => {
                            let rows = rows.map(|row| &values[row..row + k]);
                            for (at, into) in into.enumerate() {
                                for lane in 0..LANES {
                                    into[lane] = convert(rows[lane][at]);
                                }
                            }
                        }
                        _ => {
                            for (column, into) in columns.iter().zip(into) {
                                for (row, into) in rows.iter().zip(into) {
                                    *into = convert(values[row + column]);
                                }
                            }
                        }
                    }
                });
            }
        }
    }

    fn put_rows<T: Copy, S: Stored>(&self, values: &[T], convert: impl Fn(T) -> S, packed: &mut [S]) {
        let Offsets { outer, inner, stride } = &self.matrix.rows;
        for (start, into) in outer.iter().zip(packed.chunks_mut(*inner)) {
            if *stride == 1 {
                into.iter_mut().zip(&values[*start..]).for_each(|(into, value)| *into = convert(*value));
            } else {
                into.iter_mut().enumerate().for_each(|(at, into)| *into = convert(values[start + at * stride]));
            }
        }
    }
}

/// Elements below which threads cost more than they save.
const WORTH_THREADS: usize = 1 << 16;

fn in_parallel<S: Send>(mut panels: Vec<(&[usize], &mut [S])>, work: &(impl Fn(&[usize], &mut [S]) + Sync)) {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let elements: usize = panels.iter().map(|(_, into)| into.len()).sum();
    if threads == 1 || elements < WORTH_THREADS {
        panels.into_iter().for_each(|(rows, into)| work(rows, into));
        return;
    }
    let share = panels.len().div_ceil(threads);
    thread::scope(|scope| {
        while !panels.is_empty() {
            let rest = panels.split_off(share.min(panels.len()));
            let mine = std::mem::replace(&mut panels, rest);
            scope.spawn(move || mine.into_iter().for_each(|(rows, into)| work(rows, into)));
        }
    });
}
