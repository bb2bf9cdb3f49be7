//! How a row program reaches a value: memory seen through strides, or an expression not yet computed.

use moec_plan::{Extent, Indirect, Source, View};
use moec_types::{Axis, DType, Expr};

/// An axis that a loop runs along: its name, and how long it is.
pub type RowDim = (Axis, Extent);

/// A value as seen from within one row: the row's own axis is gone.
#[derive(Clone, Debug)]
pub struct Access {
    pub dtype: DType,
    pub dims: Vec<RowDim>,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    /// One stride for each of the dims.
    View(View),
    /// Computed where it is read. The arguments are views.
    Lazy { expr: Expr, args: Vec<Access> },
}

/// Elements along the dims of fixed size: of one row, where the others count rows.
pub fn elements(dims: &[RowDim]) -> u64 {
    dims.iter().filter_map(|(_, extent)| extent.fixed()).product()
}

pub fn extents(dims: &[RowDim]) -> Vec<Extent> {
    dims.iter().map(|(_, extent)| *extent).collect()
}

/// Strides of dims that lie one after the other, the last fastest; a dim that the pass counts (one at most) lies outside of
/// all others, wherever it stands.
pub fn contiguous(dims: &[RowDim]) -> Vec<u64> {
    let mut strides = vec![0; dims.len()];
    let mut next = 1;
    for (stride, (_, extent)) in strides.iter_mut().zip(dims).rev() {
        if let Some(size) = extent.fixed() {
            *stride = next;
            next *= size;
        }
    }
    let counted = strides.iter_mut().zip(dims).filter(|(_, (_, extent))| extent.fixed().is_none());
    counted.for_each(|(stride, _)| *stride = next);
    strides
}

/// A view of a whole source in its natural order.
pub fn whole(source: Source, dims: &[RowDim]) -> View {
    View { source, offset: 0, strides: contiguous(dims), row: 0, index: None }
}

impl Access {
    pub fn view(dtype: DType, dims: Vec<RowDim>, view: View) -> Self {
        Access { dtype, dims, body: Body::View(view) }
    }

    pub fn position(&self, axis: &Axis) -> Option<usize> {
        self.dims.iter().position(|(name, _)| name == axis)
    }

    /// The memory behind it; `None` for an expression.
    pub fn memory(&self) -> Option<&View> {
        match &self.body {
            Body::View(view) => Some(view),
            Body::Lazy { .. } => None,
        }
    }

    /// The view as loops over other axes see it: stride 0 along those that it lacks.
    ///
    /// # Panics
    /// When it is an expression.
    pub fn over(&self, loops: &[RowDim]) -> View {
        let view = self.memory().expect("only views are read by loops");
        let places: Vec<Option<usize>> = loops.iter().map(|(axis, _)| self.position(axis)).collect();
        map_strides(view, &|strides| places.iter().map(|place| place.map_or(0, |at| strides[at])).collect())
    }
}

/// The same elements with other strides, of the view and of the index within it.
pub fn map_strides(view: &View, f: &impl Fn(&[u64]) -> Vec<u64>) -> View {
    let index =
        view.index.as_ref().map(|index| Box::new(Indirect { view: map_strides(&index.view, f), stride: index.stride }));
    View { source: view.source, offset: view.offset, strides: f(&view.strides), row: view.row, index }
}

/// `x[axis = start ..]`: moves the view, and the index within it, along one of its dims.
pub fn advance(view: &View, dim: usize, start: u64) -> View {
    let index = view
        .index
        .as_ref()
        .map(|index| Box::new(Indirect { view: advance(&index.view, dim, start), stride: index.stride }));
    View { offset: view.offset + start * view.strides[dim], index, ..view.clone() }
}

/// The one stride with which several adjacent dims (`strides` and sizes, slowest first) can be walked as one.
pub fn merged_stride(strides: &[u64], sizes: &[Extent]) -> Option<u64> {
    let real: Vec<(u64, Extent)> =
        strides.iter().copied().zip(sizes.iter().copied()).filter(|(_, size)| *size != Extent::Fixed(1)).collect();
    let fits = real.windows(2).all(|pair| pair[1].1.fixed().is_some_and(|size| pair[0].0 == pair[1].0 * size));
    fits.then(|| real.last().map_or(0, |(stride, _)| *stride))
}

/// Whether the dims at `places` can be walked as one, in the view and in the index within it.
pub fn can_merge(view: &View, places: &[usize], sizes: &[Extent]) -> bool {
    let strides: Vec<u64> = places.iter().map(|at| view.strides[*at]).collect();
    merged_stride(&strides, sizes).is_some()
        && view.index.as_ref().is_none_or(|index| can_merge(&index.view, places, sizes))
}
