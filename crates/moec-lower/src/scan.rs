//! Scans: the region as a program for one position, its states in memory that a session keeps.
//!
//! An axis that all states and results have, and that no op works along, is cut into parts, for threads to share out. What
//! becomes a state's next value is computed in the state's own place where nothing needs the old value any more.

use std::collections::BTreeMap;

use moec_ir::{Node as ModelNode, Op, RegionId, ValueId, ops};
use moec_plan::{BufferId, Extent, LocalId, RowOp, RowProgram, Scan, Source, StepKind, View, Work};
use moec_types::{Axis, DType, Expr};

use crate::{
    Unsupported,
    access::{Access, elements, extents, whole},
    context::{Lowering, Place},
    program::{Part, Programmer, RowAxis},
};

/// A part has at least so many elements of a state: enough for all lanes.
const LEAST_ELEMENTS: u64 = 256;

impl Lowering<'_> {
    pub fn scan(&mut self, op: &ops::Scan, node: &ModelNode) -> Result<(), Unsupported> {
        let module = self.module;
        let region = module.region(op.region);
        self.fixed_sizes(op, node)?;
        let (sequences, initial) = node.operands.split_at(op.sequences(node.operands.len()));
        let (seen, states) = region.args.split_at(sequences.len());
        let (next, given) = region.results.split_at(op.states);
        let elsewhere: Vec<(ValueId, Place)> = sequences
            .iter()
            .map(|value| Ok((*value, self.in_rows(*value, node)?)))
            .collect::<Result<_, Unsupported>>()?;
        let (parts, part) = match self.part(op.region, op.states) {
            Some((parts, part)) => (parts, Some(part)),
            None => (1, None),
        };
        let yields: Vec<(ValueId, ValueId)> = given.iter().copied().zip(node.results.iter().copied()).collect();
        let mut targets = BTreeMap::new();
        for (inner, outer) in &yields {
            let buffer = self.result_buffer(*outer, node.at)?;
            self.places.insert(*outer, Place::Buffer(buffer));
            targets.entry(*inner).or_insert_with(Vec::new).push((buffer, *outer));
        }
        let buffers: Vec<BufferId> = states.iter().map(|state| self.new_state(*state)).collect();
        let mut uses = BTreeMap::new();
        let reads = region.nodes.iter().flat_map(|at| &module.node(*at).operands);
        for value in reads.chain(&region.results) {
            *uses.entry(*value).or_insert(0) += 1;
        }

        let row = RowAxis { axis: op.over.axis.clone(), rows: self.tokens };
        let mut programmer = Programmer { uses, targets, part, ..Programmer::new(self, Some(row)) };
        for (inner, outer) in seen.iter().zip(sequences) {
            let access = programmer.outer(*outer, node.at)?;
            programmer.values.insert(*inner, access);
        }
        // What was laid out is there for this scan only: other regions may run without it.
        programmer.lowering.places.extend(elsewhere);
        let homes: Vec<Access> =
            states.iter().zip(&buffers).map(|(state, buffer)| home(&programmer, *state, *buffer)).collect();
        let mut start = Vec::new();
        for (home, initial) in homes.iter().zip(initial) {
            let first = programmer.outer(*initial, node.at)?;
            start.push(copy(&first, home));
        }
        for (state, home) in states.iter().zip(&homes) {
            programmer.values.insert(*state, home.clone());
        }
        for value in module.captures(op.region) {
            let access = programmer.outer(value, node.at)?;
            programmer.values.insert(value, access);
        }
        for at in &region.nodes {
            programmer.node(module.node(*at))?;
        }
        programmer.finish(&yields);
        // All next values are there before any state is overwritten.
        let next: Vec<Access> = next.iter().map(|value| programmer.apart(*value, &buffers)).collect();
        programmer
            .ops
            .extend(next.iter().zip(&homes).filter(|(next, home)| !same(next, home)).map(|(n, h)| copy(n, h)));
        if let Some(problem) = programmer.failed {
            return Err(problem);
        }
        let Programmer { locals, ops, .. } = programmer;
        let mut program = RowProgram { locals, ops };
        in_place(&mut program, &buffers);
        let start = RowProgram { locals: Vec::new(), ops: start };
        let label = module.name_of(node.results[0]).unwrap_or("scan").to_owned();
        self.step(StepKind::Scan(Scan { parts, start, program }), node.at, label);
        Ok(())
    }

    /// Refuses values that look along the sequence under another name.
    fn fixed_sizes(&self, op: &ops::Scan, node: &ModelNode) -> Result<(), Unsupported> {
        let region = self.module.region(op.region);
        let inside = region.nodes.iter().flat_map(|at| &self.module.node(*at).results);
        let captured = self.module.captures(op.region);
        for value in region.args.iter().chain(inside).chain(&captured) {
            let ty = self.module.tensor(*value);
            if let Some(dim) = ty.dims.iter().find(|dim| dim.size.fixed().is_none()) {
                let reason =
                    format!("at one position it sees {ty}, which is as long as the input along `{}`", dim.axis);
                return Err(self.unsupported(node, reason, "use values with one axis of the input's length"));
            }
        }
        Ok(())
    }

    /// Makes sure that a sequence has a row in memory for each position; gives the place that it had.
    fn in_rows(&mut self, value: ValueId, node: &ModelNode) -> Result<Place, Unsupported> {
        let place = self.places[&value].clone();
        if let Place::Buffer(_) = place {
            return Ok(place);
        }
        let (rows, dims) = self.shape(value, node.at)?;
        let buffer = self.new_buffer("sequence", self.module.tensor(value).dtype, rows, elements(&dims));
        self.copy(value, rows, &dims, whole(Source::Row(buffer), &dims), node.at)?;
        self.places.insert(value, Place::Buffer(buffer));
        Ok(place)
    }

    /// The axis to cut, and in how many parts.
    fn part(&self, region: RegionId, states: usize) -> Option<(u64, Part)> {
        let module = self.module;
        let body = module.region(region);
        let first = module.tensor(*body.results.first()?);
        let first = if states > 0 { first } else { module.tensor(body.results[states]) };
        let everywhere = |axis: &Axis| body.results.iter().all(|value| module.tensor(*value).has(axis));
        let apart = |axis: &Axis| body.nodes.iter().all(|at| leaves_apart(&module.node(*at).op, axis));
        first.dims.iter().find_map(|dim| {
            let size = dim.size.fixed().filter(|size| *size > 1 && everywhere(&dim.axis) && apart(&dim.axis))?;
            let others = first.elements()? / size;
            let together = (1..=size).find(|part| size.is_multiple_of(*part) && part * others >= LEAST_ELEMENTS);
            let part = together.filter(|part| *part < size)?;
            Some((size / part, Part { axis: dim.axis.clone(), size: part }))
        })
    }

    fn new_state(&mut self, state: ValueId) -> BufferId {
        let elements = self.module.tensor(state).elements().expect("verified: a state has a fixed size");
        let name = self.module.name_of(state).unwrap_or("state").to_owned();
        self.state_buffer(&name, elements)
    }
}

impl Programmer<'_, '_> {
    /// A value in memory that is no state's, unless it is its own.
    fn apart(&mut self, value: ValueId, states: &[BufferId]) -> Access {
        let access = self.read(value);
        let of_state =
            access.memory().is_some_and(|view| states.iter().any(|state| view.source == Source::Whole(*state)));
        if of_state { self.materialise(&access, None) } else { access }
    }
}

/// Whether an op does at each position of an axis what it does at the others, and keeps them apart.
fn leaves_apart(op: &Op, axis: &Axis) -> bool {
    let made = match op {
        Op::Split(op) => op.axis == *axis || op.into.iter().any(|dim| dim.axis == *axis),
        Op::Unfold(op) => op.place == *axis || op.window.axis == *axis,
        Op::Merge(op) => op.into == *axis || op.axes.contains(axis),
        Op::Rename(op) => op.from == *axis || op.to == *axis,
        Op::TopK(op) => op.choices.axis == *axis,
        _ => false,
    };
    !made && !op.along().contains(axis)
}

/// Where a state is kept: part after part, each in the order of the state's axes.
fn home(programmer: &Programmer, state: ValueId, buffer: BufferId) -> Access {
    let dims = programmer.dims(state);
    let view = View { row: elements(&dims), ..whole(Source::Whole(buffer), &dims) };
    let view = if programmer.part.is_some() { view } else { View { row: 0, ..view } };
    Access::view(DType::F32, dims, view)
}

fn copy(from: &Access, to: &Access) -> RowOp {
    let into = to.memory().expect("a state is in memory").clone();
    RowOp::Map { extents: extents(&to.dims), expr: Expr::Arg(0), args: vec![from.over(&to.dims)], into }
}

fn same(a: &Access, b: &Access) -> bool {
    a.over(&b.dims) == b.over(&b.dims)
}

/// Lets scratch that becomes a state, or becomes what becomes one, be the state's own memory, wherever no old value is lost
/// that something still reads.
fn in_place(program: &mut RowProgram, states: &[BufferId]) {
    for state in states.iter().map(|buffer| Source::Whole(*buffer)) {
        let local = |at: usize| Source::Local(LocalId(at as u32));
        while let Some((taken, home)) =
            (0..program.locals.len()).rev().find_map(|at| Some((local(at), can_take(program, local(at), state)?)))
        {
            for view in program.ops.iter_mut().flat_map(RowOp::views_mut) {
                exchange(view, taken, (home.source, home.row));
            }
            program.ops.retain(|op| !changes_nothing(op));
        }
    }
    drop_unused(program);
}

/// Scratch that nothing writes goes.
fn drop_unused(program: &mut RowProgram) {
    for at in (0..program.locals.len()).rev() {
        let local = |at: usize| Source::Local(LocalId(at as u32));
        let writes = |op: &RowOp| op.writes().iter().any(|view| view.source == local(at));
        if program.ops.iter().any(|op| writes(op) || room(op).is_some_and(|id| id.0 as usize == at)) {
            continue;
        }
        program.locals.remove(at);
        for op in &mut program.ops {
            for later in at + 1..=program.locals.len() {
                op.views_mut().into_iter().for_each(|view| exchange(view, local(later), (local(later - 1), 0)));
            }
            if let RowOp::TopK { work: Some(Work::Local(id)), .. } = op
                && id.0 as usize > at
            {
                id.0 -= 1;
            }
        }
    }
}

/// The state's place, if scratch may live there: see the module's head.
fn can_take(program: &RowProgram, local: Source, state: Source) -> Option<View> {
    let ops = &program.ops;
    let writes = |source: Source| {
        let of = move |op: &&RowOp| op.writes().iter().any(|view| view.source == source);
        ops.iter().enumerate().filter(move |(_, op)| of(op)).map(|(at, _)| at)
    };
    let mut writers = writes(local);
    let (Some(first), None) = (writers.next(), writers.next()) else { return None };
    let overwritten = writes(state).find(|at| *at > first)?;
    if writes(state).any(|at| at <= first) {
        return None;
    }
    let home = element_wise_into(&ops[overwritten], state)?.1;
    // Scratch and state lie alike: whole, and in one order.
    let RowOp::Map { extents: whole_loops, .. } = &ops[overwritten] else { return None };
    let (own, elements) = (element_wise_into(&ops[overwritten], state)?.0, product(whole_loops)?);
    let read_there = own.iter().find(|view| view.source == local)?;
    let Source::Local(id) = local else { return None };
    let alike = read_there.strides == home.strides
        && read_there.offset == 0
        && home.offset == 0
        && program.locals[id.0 as usize].elements == elements;
    let in_step = |op: &RowOp, source: Source, into: Source| match element_wise_into(op, into) {
        Some((args, into)) => args.iter().filter(|view| reads(view, source)).all(|view| {
            view.source == source && view.index.is_none() && view.strides == into.strides && view.offset == into.offset
        }),
        None => !op.reads().iter().any(|view| reads(view, source)),
    };
    let sound = ops.iter().enumerate().all(|(at, op)| {
        let reads_state = op.reads().iter().any(|view| reads(view, state));
        let reads_local = op.reads().iter().any(|view| reads(view, local));
        let state_sound =
            if at == first { in_step(op, state, local) } else { at < first || at > overwritten || !reads_state };
        let local_sound = if at == overwritten { in_step(op, local, state) } else { at < overwritten || !reads_local };
        state_sound && local_sound
    });
    (alike && sound).then(|| home.clone())
}

/// What an element-wise op that writes a source reads, and how it writes.
fn element_wise_into(op: &RowOp, source: Source) -> Option<(&[View], &View)> {
    match op {
        RowOp::Map { args, into, .. } if into.source == source && into.index.is_none() => Some((args, into)),
        _ => None,
    }
}

fn reads(view: &View, source: Source) -> bool {
    view.source == source || view.index.as_ref().is_some_and(|index| reads(&index.view, source))
}

fn product(extents: &[Extent]) -> Option<u64> {
    moec_plan::fixed_product(extents)
}

/// The scratch that an op sorts in.
fn room(op: &RowOp) -> Option<LocalId> {
    match op {
        RowOp::TopK { work: Some(Work::Local(id)), .. } => Some(*id),
        RowOp::TopK { work: Some(Work::Buffer(_)) | None, .. }
        | RowOp::Map { .. }
        | RowOp::Reduce { .. }
        | RowOp::Cumsum { .. }
        | RowOp::ScatterAdd { .. } => None,
    }
}

fn exchange(view: &mut View, from: Source, to: (Source, u64)) {
    if view.source == from {
        (view.source, view.row) = to;
    }
    if let Some(index) = &mut view.index {
        exchange(&mut index.view, from, to);
    }
}

fn changes_nothing(op: &RowOp) -> bool {
    matches!(op, RowOp::Map { expr: Expr::Arg(0), args, into, .. } if args[0] == *into)
}
