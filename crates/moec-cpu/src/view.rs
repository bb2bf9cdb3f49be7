//! Affine views: where their elements are, and loads of one or several lanes.

use moec_plan::{RowProgram, Source, View};
use moec_types::DType;

use crate::{
    builder::{Builder, Elem, Val},
    frame::Frame,
    memory,
};

/// The row that a program works on, and its scratch.
pub struct Row<'a> {
    pub frame: &'a Frame<'a>,
    pub program: &'a RowProgram,
    pub row: Val,
    /// What `View::row` counts: the row, or a scan's part.
    pub part: Val,
    /// Where each local starts, in bytes of the thread's scratch.
    pub locals: &'a [u64],
    /// For parameters with an instance for each expert.
    pub expert: Option<Val>,
}

/// The loop that lanes run along, and how many.
pub type Lanes = Option<(usize, u32)>;

impl Row<'_> {
    pub fn dtype(&self, source: Source) -> DType {
        let plan = self.frame.plan;
        match source {
            Source::Local(id) => self.program.locals[id.0 as usize].dtype,
            Source::Row(id) | Source::Whole(id) => plan.buffer(id).dtype,
            Source::Param(id) => plan.param(id).dtype(),
            Source::Literal(id) => plan.literal(id).dtype,
            Source::Place | Source::Position | Source::Count(_) => DType::I32,
        }
    }

    /// Element 0, and how many elements apart successive ones lie.
    fn base(&self, b: &Builder, source: Source) -> (Val, u64) {
        let frame = self.frame;
        match source {
            Source::Local(id) => (b.offset_by(frame.scratch, self.locals[id.0 as usize] as i64), 1),
            Source::Row(id) => (frame.row(b, id, self.row), frame.buffer_stride(id)),
            Source::Whole(id) => (frame.buffer(b, id).base, 1),
            Source::Param(id) => (frame.param(b, id, self.expert), 1),
            Source::Literal(id) => (frame.literal(b, id), 1),
            Source::Place | Source::Position | Source::Count(_) => unreachable!("computed, not stored"),
        }
    }

    /// Elements from element 0: the affine part and the indirect one, as i64.
    fn elements(&self, b: &Builder, view: &View, ivs: &[Val]) -> Val {
        let mut sum = b.i64(view.offset as i64);
        if view.row != 0 {
            sum = b.add(sum, b.mul(self.part, b.i64(view.row as i64)));
        }
        for (stride, iv) in view.strides.iter().zip(ivs) {
            if *stride != 0 {
                sum = b.add(sum, b.mul(*iv, b.i64(*stride as i64)));
            }
        }
        if let Some(index) = &view.index {
            let value = b.widen_signed(self.load(b, &index.view, ivs, None), Elem::I64);
            sum = b.add(sum, b.mul(value, b.i64(index.stride as i64)));
        }
        sum
    }

    /// The address of one element, and bytes to the next along `along`.
    pub fn address(&self, b: &Builder, view: &View, ivs: &[Val], along: Option<usize>) -> (Val, i64) {
        let (base, spread) = self.base(b, view.source);
        let bytes = (self.dtype(view.source).bytes() * spread) as i64;
        let elements = self.elements(b, view, ivs);
        let stride = along.map_or(0, |at| view.strides[at] as i64);
        (b.offset(base, b.mul(elements, b.i64(bytes))), stride * bytes)
    }

    /// The element at `ivs`, or the lanes from there on.
    pub fn load(&self, b: &Builder, view: &View, ivs: &[Val], lanes: Lanes) -> Val {
        if let Some(computed) = self.computed(b, view, ivs, lanes) {
            return computed;
        }
        let (dtype, level) = (self.dtype(view.source), self.frame.level);
        let Some((along, count)) = lanes else {
            return memory::load(b, level, dtype, self.address(b, view, ivs, None).0, 0);
        };
        if varies(view, along) {
            let lane = |lane: u32| {
                let mut ivs = ivs.to_vec();
                ivs[along] = b.add(ivs[along], b.i64(i64::from(lane)));
                memory::load(b, level, dtype, self.address(b, view, &ivs, None).0, 0)
            };
            return b.gather(&(0..count).map(lane).collect::<Vec<_>>());
        }
        let (ptr, stride) = self.address(b, view, ivs, Some(along));
        memory::load_strided(b, level, dtype, ptr, stride, count)
    }

    /// What is computed rather than stored.
    fn computed(&self, b: &Builder, view: &View, ivs: &[Val], lanes: Lanes) -> Option<Val> {
        let place = || self.elements(b, view, ivs);
        let first = match view.source {
            Source::Place => place(),
            Source::Position => return Some(self.positions(b, view, ivs, lanes)),
            Source::Count(extent) => b.add(place(), self.frame.extent(b, extent)),
            Source::Local(_) | Source::Row(_) | Source::Whole(_) | Source::Param(_) | Source::Literal(_) => {
                return None;
            }
        };
        let count = lanes.map_or(0, |(_, count)| count);
        let first = b.splat(b.narrow(first, Elem::I32), count);
        let Some((along, count)) = lanes else { return Some(first) };
        let steps = b.iota(count);
        Some(b.add(first, b.mul(steps, b.int(steps.ty, view.strides[along] as i64))))
    }

    /// The positions of rows: those of several sessions do not follow each other.
    fn positions(&self, b: &Builder, view: &View, ivs: &[Val], lanes: Lanes) -> Val {
        let one = |ivs: &[Val]| {
            let row = self.elements(b, view, ivs);
            // What an index says of no row is not looked up.
            let row = match view.index {
                None => row,
                Some(_) => b.min(b.max(row, b.i64(0)), b.sub(self.frame.tokens, b.i64(1))),
            };
            b.narrow(self.frame.position(b, row), Elem::I32)
        };
        match lanes {
            Some((along, count)) if view.strides[along] != 0 || varies(view, along) => {
                let lane = |lane: u32| {
                    let mut ivs = ivs.to_vec();
                    ivs[along] = b.add(ivs[along], b.i64(i64::from(lane)));
                    one(&ivs)
                };
                b.gather(&(0..count).map(lane).collect::<Vec<_>>())
            }
            Some((_, count)) => b.splat(one(ivs), count),
            None => one(ivs),
        }
    }

    pub fn store(&self, b: &Builder, view: &View, ivs: &[Val], lanes: Lanes, value: Val) {
        let (dtype, level) = (self.dtype(view.source), self.frame.level);
        let (ptr, stride) = self.address(b, view, ivs, lanes.map(|(along, _)| along));
        memory::store_strided(b, level, dtype, value, ptr, stride);
    }

    /// How a view moves along a loop.
    pub fn motion(&self, view: &View, along: usize) -> Motion {
        let spread = match view.source {
            Source::Row(id) => self.frame.buffer_stride(id),
            Source::Local(_) | Source::Whole(_) | Source::Param(_) | Source::Literal(_) => 1,
            Source::Place | Source::Position | Source::Count(_) => 1,
        };
        match (view.source, view.strides[along] * spread) {
            _ if varies(view, along) => Motion::Jumps,
            (_, 0) => Motion::Still,
            (Source::Place | Source::Position | Source::Count(_), _) => Motion::Still,
            (_, 1) => Motion::Contiguous,
            _ => Motion::Jumps,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// The same element, or none.
    Still,
    Contiguous,
    /// One load for each lane.
    Jumps,
}

/// Whether the view's index depends on a loop.
pub fn varies(view: &View, along: usize) -> bool {
    view.index.as_ref().is_some_and(|index| index.view.strides[along] != 0 || varies(&index.view, along))
}

/// Whether an index moves the view.
pub fn is_indirect(view: &View) -> bool {
    view.index.is_some()
}
