//! Where an instance of a parameter lies in a tensor, as the layout after `as` says.

use moec_diag::Span;
use moec_syntax::tree::{Lane, Name};
use moec_types::{Axis, TensorType};

/// A part of a tensor, or all of it, under a parameter's axes.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Each axis of the whole tensor, slowest first: as the rule spells it, and its size.
    pub shape: Vec<(String, u64)>,
    /// Elements before the first.
    pub offset: u64,
    /// The parameter's axes, as the tensor has them, slowest first: size, and elements from one position to the next.
    pub axes: Vec<(Axis, u64, u64)>,
}

/// An index of a path: its name, the rank of this instance, how many instances there are.
pub type Index<'a> = (&'a str, u64, u64);

impl View {
    /// Where the element of a rank among the view's own stands in the whole tensor, slowest axis first.
    pub fn place(&self, rank: u64) -> Vec<u64> {
        let inner = self.axes.iter().rev().scan(rank, |rank, (_, size, stride)| {
            let size = (*size).max(1);
            let at = *rank % size * stride;
            *rank /= size;
            Some(at)
        });
        let mut element = self.offset + inner.sum::<u64>();
        let mut place: Vec<u64> = Vec::with_capacity(self.shape.len());
        for (_, size) in self.shape.iter().rev() {
            place.push(element % (*size).max(1));
            element /= (*size).max(1);
        }
        place.reverse();
        place
    }

    /// A tensor with the parameter's own axes.
    pub fn whole(ty: &TensorType) -> View {
        let lanes = ty.dims.iter().map(|dim| Placed::axis(&dim.axis, dim.size.fixed().unwrap_or(1)));
        View::side_by_side(lanes.collect())
    }

    /// `types` are those of the parameters that lie side by side, `part` says which of them this is.
    pub fn of(lanes: &[Lane], part: usize, types: &[&TensorType], indices: &[Index]) -> View {
        View::side_by_side(lanes.iter().map(|lane| place(lane, part, types, indices)).collect())
    }

    fn side_by_side(lanes: Vec<Placed>) -> View {
        let shape = lanes.iter().map(|lane| (lane.label.clone(), lane.size)).collect();
        let Placed { offset, axes, .. } = product(lanes);
        View { shape, offset, axes }
    }
}

/// An axis of a tensor, or a factor of one.
struct Placed {
    label: String,
    size: u64,
    offset: u64,
    axes: Vec<(Axis, u64, u64)>,
}

impl Placed {
    fn axis(axis: &Axis, size: u64) -> Placed {
        Placed { label: axis.to_string(), size, offset: 0, axes: vec![(axis.clone(), size, 1)] }
    }
}

/// The last is the fastest. Sizes that overflow are wrong in any case, and no tensor's.
fn product(lanes: Vec<Placed>) -> Placed {
    let label = format!("({})", lanes.iter().map(|lane| lane.label.as_str()).collect::<Vec<_>>().join(", "));
    let mut whole = Placed { label, size: 1, offset: 0, axes: Vec::new() };
    for lane in lanes.into_iter().rev() {
        let times = whole.size;
        whole.offset = whole.offset.saturating_add(lane.offset.saturating_mul(times));
        let axes = lane.axes.into_iter().map(|(axis, size, stride)| (axis, size, stride.saturating_mul(times)));
        whole.axes.splice(0..0, axes);
        whole.size = whole.size.saturating_mul(lane.size);
    }
    whole
}

fn place(lane: &Lane, part: usize, types: &[&TensorType], indices: &[Index]) -> Placed {
    match lane {
        Lane::One(_) => Placed { label: "1".to_owned(), size: 1, offset: 0, axes: Vec::new() },
        Lane::Axis(name) => match indices.iter().find(|(index, ..)| *index == name.text) {
            Some((_, rank, count)) => {
                Placed { label: name.text.clone(), size: *count, offset: *rank, axes: Vec::new() }
            }
            None => {
                let axis = Axis::new(&name.text);
                let size = types[part].dim(&axis).and_then(|dim| dim.size.fixed()).unwrap_or(1);
                Placed::axis(&axis, size)
            }
        },
        Lane::Product(lanes) => product(lanes.iter().map(|lane| place(lane, part, types, indices)).collect()),
        Lane::Beside(lanes, _) => {
            let mut all: Vec<Placed> =
                lanes.iter().enumerate().map(|(at, lane)| place(lane, at, types, indices)).collect();
            let label = format!("({})", all.iter().map(|lane| lane.label.as_str()).collect::<Vec<_>>().join(" | "));
            let size = all.iter().map(|lane| lane.size).fold(0, u64::saturating_add);
            let before = all[..part].iter().map(|lane| lane.size).fold(0, u64::saturating_add);
            let own = all.swap_remove(part);
            Placed { label, size, offset: before.saturating_add(own.offset), axes: own.axes }
        }
    }
}

/// Every `(A | B)`: how many lie side by side there.
pub fn besides(lane: &Lane) -> Vec<(usize, Span)> {
    match lane {
        Lane::Axis(_) | Lane::One(_) => Vec::new(),
        Lane::Product(lanes) => lanes.iter().flat_map(besides).collect(),
        Lane::Beside(lanes, at) => [(lanes.len(), *at)].into_iter().chain(lanes.iter().flat_map(besides)).collect(),
    }
}

/// The names that concern one of the parameters that lie side by side.
pub fn names_of(lane: &Lane, part: usize) -> Vec<&Name> {
    match lane {
        Lane::Axis(name) => vec![name],
        Lane::One(_) => Vec::new(),
        Lane::Product(lanes) => lanes.iter().flat_map(|lane| names_of(lane, part)).collect(),
        Lane::Beside(lanes, _) => lanes.get(part).map_or(Vec::new(), |lane| names_of(lane, part)),
    }
}

/// Whether a name stands anywhere in it.
pub fn names(lane: &Lane, name: &str) -> bool {
    match lane {
        Lane::Axis(own) => own.text == name,
        Lane::One(_) => false,
        Lane::Product(lanes) | Lane::Beside(lanes, _) => lanes.iter().any(|lane| names(lane, name)),
    }
}
