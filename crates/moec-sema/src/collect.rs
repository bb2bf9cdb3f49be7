//! Extras of layers: those of all layers that have one are collected along an axis `Layer`.
//!
//! ```text
//! before   layers l in 0..4 { …; aux balance(0.01) = b }
//! after    one more tensor f32[Layer = 4] goes from layer to layer, with the number of places filled so far; each layer puts
//!          its b into the next place
//! ```

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    RegionId, ValueId,
    ops::{Iota, Literal, Map},
};
use moec_types::{Axis, BinaryOp, DType, Dim, Expr, TensorType};
use thiserror::Error;

use crate::{
    evaluator::Evaluator,
    extra::{ExtraKind, Found, StateOfAllLayers},
    scope::Frame,
};

/// The axis of the layers that have such a value.
const LAYERS: &str = "Layer";

/// Extras that are one after the layers.
struct Group {
    first: Found,
    /// The values of each kind: none, one, or several to be added up.
    values: Vec<Vec<ValueId>>,
}

impl Evaluator {
    /// Adds to the operands of `layers`, and to the arguments and results of the region of each kind, what it takes to hand
    /// the kinds' extras out. `order` has the number and the kind of each layer. Gives what will be found in which result.
    pub fn collect(
        &mut self,
        frame: &mut Frame,
        kinds: &[(RegionId, Vec<Found>)],
        order: &[(u32, usize)],
        operands: &mut Vec<(ValueId, Span)>,
    ) -> Vec<(usize, Found)> {
        for (region, _) in kinds {
            self.module.region_mut(*region).results.truncate(operands.len());
        }
        let regions: Vec<RegionId> = kinds.iter().map(|(region, _)| *region).collect();
        let mut collected = Vec::new();
        for group in grouped(kinds) {
            let at = group.first.at;
            let found = Found { region: frame.region, ..group.first.clone() };
            let result = operands.len();
            if found.kind == ExtraKind::State && !found.path.starts_with("layers[") {
                self.report(StateOfAllLayers { path: found.path, at });
                continue;
            }
            let more = if group.first.kind == ExtraKind::Total {
                collected.push((result, found));
                self.collect_total(frame, &regions, &group)
            } else {
                let has = |kind: usize| !group.values[kind].is_empty();
                let layers: Vec<u32> = order.iter().filter(|(_, kind)| has(*kind)).map(|(layer, _)| *layer).collect();
                let count = layers.len() as u64;
                collected.push((result, Found { layers: Some(layers), ..found }));
                self.collect_places(frame, &regions, &group, count)
            };
            operands.extend(more.into_iter().flatten().map(|value| (value, at)));
        }
        collected
    }

    /// A number that every layer adds to.
    fn collect_total(&mut self, frame: &mut Frame, regions: &[RegionId], group: &Group) -> Option<Vec<ValueId>> {
        let at = group.first.at;
        let ty = TensorType::scalar(DType::F32);
        let none = Literal { ty: ty.clone(), data: vec![0.0] };
        let none = *self.emit(frame, none, &[], at)?.first()?;
        for (region, values) in regions.iter().zip(&group.values) {
            let mut inside = Frame { region: *region, ..frame.clone() };
            let arg = self.module.add_arg(*region, ty.clone());
            let mut total = arg;
            for value in values {
                total = self.sum(&mut inside, total, *value, at)?;
            }
            self.module.region_mut(*region).results.push(total);
        }
        Some(vec![none])
    }

    /// A tensor with a place for each layer that has the value, and the number of places filled.
    fn collect_places(
        &mut self,
        frame: &mut Frame,
        regions: &[RegionId],
        group: &Group,
        layers: u64,
    ) -> Option<Vec<ValueId>> {
        let at = group.first.at;
        let ty = self.module.tensor(group.first.value).clone();
        for value in group.values.iter().flatten() {
            let other = self.module.tensor(*value);
            if other.dtype != ty.dtype
                || other.dims.len() != ty.dims.len()
                || !other.dims.iter().all(|dim| ty.dims.contains(dim))
            {
                let (path, first, second) = (group.first.path.clone(), ty.to_string(), other.to_string());
                self.report(ExtraDiffers { path, first, second, at });
                return None;
            }
        }
        let mut dims = vec![Dim::fixed(LAYERS, layers)];
        dims.extend(ty.dims.iter().cloned());
        // Positions come first wherever they are kept.
        dims.sort_by_key(|dim| dim.size.fixed().is_some());
        let all = self.zeros(frame, ty.dtype, dims, at)?;
        let none = Literal { ty: TensorType::scalar(DType::I32), data: vec![0.0] };
        let filled = *self.emit(frame, none, &[], at)?.first()?;
        for (region, values) in regions.iter().zip(&group.values) {
            let mut inside = Frame { region: *region, ..frame.clone() };
            let args = [all, filled].map(|value| {
                let ty = self.module.ty(value).clone();
                self.module.add_arg(*region, ty)
            });
            let results = match values.first() {
                Some(value) => self.fill(&mut inside, args, *value, at)?,
                None => args,
            };
            self.module.region_mut(*region).results.extend(results);
        }
        Some(vec![all, filled])
    }

    fn zeros(&mut self, frame: &mut Frame, dtype: DType, dims: Vec<Dim>, at: Span) -> Option<ValueId> {
        let zero = match dtype {
            DType::I32 => Expr::I32(0),
            DType::Bool => Expr::Bool(false),
            DType::F32 | DType::Bf16 | DType::F16 => Expr::F32(0.0),
        };
        let mut positions = Vec::new();
        for dim in dims {
            positions.push((*self.emit(frame, Iota { dim }, &[], at)?.first()?, at));
        }
        self.emit(frame, Map { expr: zero }, &positions, at)?.first().copied()
    }

    /// Puts a layer's value into the next place.
    fn fill(
        &mut self,
        inside: &mut Frame,
        [all, filled]: [ValueId; 2],
        value: ValueId,
        at: Span,
    ) -> Option<[ValueId; 2]> {
        let places = self.module.tensor(all).dim(&Axis::new(LAYERS))?.clone();
        let place = *self.emit(inside, Iota { dim: places }, &[], at)?.first()?;
        let here = Expr::binary(BinaryOp::Eq, Expr::Arg(1), Expr::Arg(2));
        let put = Map { expr: Expr::select(here, Expr::Arg(3), Expr::Arg(0)) };
        let all = *self.emit(inside, put, &[(all, at), (place, at), (filled, at), (value, at)], at)?.first()?;
        let more = Map { expr: Expr::binary(BinaryOp::Add, Expr::Arg(0), Expr::I32(1)) };
        let filled = *self.emit(inside, more, &[(filled, at)], at)?.first()?;
        Some([all, filled])
    }
}

/// Extras of one name are one, the n-th use of a part in a layer beside the n-th in the others; all totals are one.
fn grouped(kinds: &[(RegionId, Vec<Found>)]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (kind, (_, found)) in kinds.iter().enumerate() {
        for found in found {
            let total = found.kind == ExtraKind::Total;
            let same = |group: &&mut Group| {
                let first = &group.first;
                first.kind == found.kind && (total || first.path == found.path && group.values[kind].is_empty())
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.values[kind].push(found.value),
                None => {
                    let mut values = vec![Vec::new(); kinds.len()];
                    values[kind].push(found.value);
                    groups.push(Group { first: found.clone(), values });
                }
            }
        }
    }
    groups
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{path}` is {first} in one layer and {second} in another")]
#[diagnostic(
    code(moec::sema::extra_differs),
    help("what all layers give is collected in one tensor: give it another name where it has another type")
)]
struct ExtraDiffers {
    path: String,
    first: String,
    second: String,
    #[label("given here")]
    at: Span,
}
