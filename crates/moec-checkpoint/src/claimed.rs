//! Tensors as rules see them: parts of what a file holds, and small numbers times their scales.

use std::borrow::Cow;

use moec_sema::{Encoding, Scaling, View, WeightMap};
use moec_types::Axis;

use crate::checkpoint::Checkpoint;
use crate::small;
use crate::stored::{StoredTensor, StoredType};

/// One instance of a parameter, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Part<'a> {
    /// As the tensor has them, slowest first.
    pub axes: Vec<(Axis, u64)>,
    pub dtype: StoredType,
    pub bytes: Cow<'a, [u8]>,
}

/// One instance as the checkpoint codes it, in the order of [`Part`].
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    pub encoding: Encoding,
    /// One a byte.
    pub codes: Vec<u8>,
    /// Of each element.
    pub scales: Vec<f32>,
}

/// A tensor of a checkpoint under the rules of a `weights` section.
pub enum Tensor<'a> {
    Plain(StoredTensor<'a>),
    Scaled(Scaled<'a>),
    /// There is a rule that says how it is scaled, and why it cannot be so.
    Unscalable(String),
}

/// Small numbers, and the factor of each block of them.
pub struct Scaled<'a> {
    bytes: &'a [u8],
    elements: Encoding,
    shape: Vec<u64>,
    scales: StoredTensor<'a>,
    powers_of_two: bool,
    /// Elements of a block along each axis.
    blocks: Vec<u64>,
}

/// `None` where the checkpoint has no such tensor.
pub fn find<'a>(checkpoint: &'a Checkpoint, weights: &WeightMap, name: &str) -> Option<Tensor<'a>> {
    let stored = checkpoint.tensor(name)?;
    let Some((scaling, scales)) = scales_of(checkpoint, weights, name) else { return Some(Tensor::Plain(stored)) };
    let scales = checkpoint.tensor(&scales)?;
    Some(match Scaled::new(&stored, scales, scaling) {
        Ok(scaled) => Tensor::Scaled(scaled),
        Err(reason) => Tensor::Unscalable(reason),
    })
}

/// The rule by which a tensor is scaled, and the name of its scales, which the checkpoint has.
pub fn scales_of<'w>(checkpoint: &Checkpoint, weights: &'w WeightMap, name: &str) -> Option<(&'w Scaling, String)> {
    let of = |scaling: &'w Scaling| {
        let any = name.strip_prefix(scaling.tensor.0.as_str())?.strip_suffix(scaling.tensor.1.as_str())?;
        Some((scaling, format!("{}{any}{}", scaling.scales.0, scaling.scales.1)))
    };
    weights.scaled.iter().filter_map(of).find(|(_, scales)| checkpoint.tensor(scales).is_some())
}

impl<'a> Tensor<'a> {
    /// `None` where it cannot be known.
    pub fn shape(&self) -> Option<Vec<u64>> {
        match self {
            Tensor::Plain(stored) => Some(stored.shape.to_vec()),
            Tensor::Scaled(scaled) => Some(scaled.shape.clone()),
            Tensor::Unscalable(_) => None,
        }
    }

    /// What its elements are once they are scaled: the smallest type that holds them all.
    pub fn dtype(&self) -> Option<StoredType> {
        match self {
            Tensor::Plain(stored) => Some(stored.dtype.clone()),
            Tensor::Scaled(scaled) if scaled.powers_of_two => Some(StoredType::Bf16),
            Tensor::Scaled(_) => Some(StoredType::F32),
            Tensor::Unscalable(_) => None,
        }
    }

    /// What the elements are before they are scaled, and how many along the last axis share a scale; `None` where they are
    /// numbers by themselves.
    pub fn encoding(&self) -> Option<(Encoding, u64)> {
        match self {
            Tensor::Scaled(scaled) => Some((scaled.elements, *scaled.blocks.last()?)),
            Tensor::Plain(_) | Tensor::Unscalable(_) => None,
        }
    }

    /// The codes and scales of a view of small numbers; `None` of others, and where [`Tensor::part`] gives nothing.
    pub fn codes(&self, view: &View) -> Option<Codes> {
        let Tensor::Scaled(scaled) = self else { return None };
        if !view.shape.iter().map(|(_, size)| *size).eq(self.shape()?) {
            return None;
        }
        let runs = Runs::of(view)?;
        let elements = runs.starts.iter().flat_map(|start| (0..runs.length).map(move |at| start + at * runs.stride));
        let last = scaled.shape.last().map_or(1, |size| (*size as usize).max(1));
        let block = scaled.blocks.last().map_or(1, |size| *size as usize);
        let (codes, scales) = elements
            .map(|at| {
                let scale = scaled.scale(scaled.first_scale((at / last) as u64) + at % last / block);
                (scaled.code(at), scale)
            })
            .unzip();
        Some(Codes { encoding: scaled.elements, codes, scales })
    }

    /// `None` where the view is of a tensor of another shape, or the elements of no known size.
    pub fn part(&self, view: &View) -> Option<Part<'a>> {
        if !view.shape.iter().map(|(_, size)| *size).eq(self.shape()?) {
            return None;
        }
        let axes = view.axes.iter().map(|(axis, size, _)| (axis.clone(), *size)).collect();
        let runs = Runs::of(view)?;
        match self {
            Tensor::Plain(stored) => {
                let size = usize::try_from(stored.dtype.bytes()?).ok()?;
                Some(Part { axes, dtype: stored.dtype.clone(), bytes: runs.bytes(stored.bytes, size)? })
            }
            Tensor::Scaled(scaled) => {
                let values = runs.starts.iter().flat_map(|start| scaled.run(*start, runs.length, runs.stride));
                let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
                Some(Part { axes, dtype: StoredType::F32, bytes: Cow::Owned(bytes) })
            }
            Tensor::Unscalable(_) => None,
        }
    }
}

impl<'a> Scaled<'a> {
    fn new(stored: &StoredTensor<'a>, scales: StoredTensor<'a>, rule: &Scaling) -> Result<Self, String> {
        let encoding = |dtype: &StoredType, said: Option<Encoding>| match (dtype, said) {
            (StoredType::F8E4M3, None | Some(Encoding::F8E4M3)) => Some(Encoding::F8E4M3),
            (StoredType::F8E8M0, None | Some(Encoding::E8M0)) => Some(Encoding::E8M0),
            (StoredType::U8, said) => said,
            _ => None,
        };
        let elements = encoding(stored.dtype, rule.elements);
        let elements = elements.ok_or_else(|| {
            format!("its elements are {}, and the rule does not say what those stand for", stored.dtype)
        })?;
        let powers_of_two = encoding(scales.dtype, rule.scale_elements) == Some(Encoding::E8M0);
        if !powers_of_two && (rule.scale_elements.is_some() || scales.to_f32().is_none()) {
            return Err(format!("its scales are {}", scales.dtype));
        }
        let rank = scales.shape.len();
        if rank == 0 || stored.shape.len() < rank || rule.blocks.len() > rank || rule.blocks.contains(&0) {
            return Err(format!("it is {:?} and its scales are {:?}", stored.shape, scales.shape));
        }
        let halves = if elements == Encoding::F4E2M1 { 2u64 } else { 1 };
        let last = stored.shape[rank - 1..].iter().try_fold(halves, |product, size| product.checked_mul(*size));
        let mut shape = stored.shape[..rank - 1].to_vec();
        shape.push(last.ok_or("its shape has more elements than can be counted")?);
        let mut blocks = vec![1; rank - rule.blocks.len()];
        blocks.extend(&rule.blocks);
        let wanted: Vec<u64> = shape.iter().zip(&blocks).map(|(size, block)| size.div_ceil(*block)).collect();
        if wanted != scales.shape {
            return Err(format!("in such blocks its scales are {wanted:?}, the checkpoint has {:?}", scales.shape));
        }
        Ok(Scaled { bytes: stored.bytes, elements, shape, scales, powers_of_two, blocks })
    }

    /// `length` elements from `start` on, one every `stride`.
    fn run(&self, start: usize, length: usize, stride: usize) -> impl Iterator<Item = f32> + '_ {
        let last = self.shape.last().map_or(1, |size| (*size as usize).max(1));
        let block = self.blocks.last().map_or(1, |size| *size as usize);
        let mut row = usize::MAX;
        let mut first_scale = 0;
        (0..length).map(move |at| {
            let element = start + at * stride;
            if element / last != row {
                row = element / last;
                first_scale = self.first_scale(row as u64);
            }
            self.element(element) * self.scale(first_scale + element % last / block)
        })
    }

    /// The scale of the first block of a row, rows being all that the last axis goes along.
    fn first_scale(&self, row: u64) -> usize {
        let rank = self.shape.len();
        let (mut row, mut place) = (row, 0);
        let mut stride = self.scales.shape[rank - 1];
        for axis in (0..rank - 1).rev() {
            place += row % self.shape[axis] / self.blocks[axis] * stride;
            row /= self.shape[axis];
            stride *= self.scales.shape[axis];
        }
        place as usize
    }

    fn element(&self, at: usize) -> f32 {
        let code = self.code(at);
        match self.elements {
            Encoding::F8E4M3 => small::f8e4m3(code),
            Encoding::E8M0 => small::e8m0(code),
            Encoding::F4E2M1 => small::f4e2m1(code),
        }
    }

    fn code(&self, at: usize) -> u8 {
        match self.elements {
            Encoding::F8E4M3 | Encoding::E8M0 => self.bytes[at],
            Encoding::F4E2M1 => self.bytes[at / 2] >> (at % 2 * 4) & 15,
        }
    }

    fn scale(&self, at: usize) -> f32 {
        let bytes = self.scales.bytes;
        if self.powers_of_two {
            return small::e8m0(bytes[at]);
        }
        let size = bytes.len() / self.scales.shape.iter().product::<u64>().max(1) as usize;
        let one = StoredTensor { dtype: self.scales.dtype, shape: &[1], bytes: &bytes[at * size..][..size] };
        one.to_f32().map_or(f32::NAN, |values| values[0])
    }
}

/// Places of a view's elements in their tensor, in row-major order: equally long runs of equally distant ones.
struct Runs {
    starts: Vec<usize>,
    length: usize,
    stride: usize,
}

impl Runs {
    /// Axes that lie in each other without a gap are one.
    fn of(view: &View) -> Option<Runs> {
        let mut dims: Vec<(usize, usize)> = Vec::new();
        for (_, size, stride) in view.axes.iter().filter(|(_, size, _)| *size != 1) {
            let (size, stride) = (usize::try_from(*size).ok()?, usize::try_from(*stride).ok()?);
            match dims.last_mut() {
                Some((outer, outer_stride)) if *outer_stride == size * stride => {
                    (*outer, *outer_stride) = (*outer * size, stride);
                }
                Some(_) | None => dims.push((size, stride)),
            }
        }
        let (length, stride) = dims.pop().unwrap_or((1, 1));
        let mut starts = vec![usize::try_from(view.offset).ok()?];
        for (size, stride) in dims {
            starts = starts.iter().flat_map(|start| (0..size).map(move |at| start + at * stride)).collect();
        }
        Some(Runs { starts, length, stride })
    }

    /// The elements, each `size` bytes long: in place where they lie together.
    fn bytes<'a>(&self, bytes: &'a [u8], size: usize) -> Option<Cow<'a, [u8]>> {
        if let ([start], 1) = (&self.starts[..], self.stride) {
            return bytes.get(start * size..(start + self.length) * size).map(Cow::Borrowed);
        }
        let mut copy = Vec::with_capacity(self.starts.len() * self.length * size);
        for start in &self.starts {
            if self.stride == 1 {
                copy.extend_from_slice(bytes.get(start * size..(start + self.length) * size)?);
                continue;
            }
            for at in 0..self.length {
                let place = (start + at * self.stride) * size;
                copy.extend_from_slice(bytes.get(place..place + size)?);
            }
        }
        Some(Cow::Owned(copy))
    }
}
