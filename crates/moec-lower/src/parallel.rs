//! Programs of one row, cut into rows for all threads.
//!
//! Before:  rows fixed(1) { sum [64] over [tokens] $0 (whole 3 [1, 64]) -> row 4 [1] }
//! After:   rows fixed(4) { sum [16] over [tokens] $0 (whole 3 [1, 64] each 16) -> whole 4 [1] each 16 }
//! Holds when every op of the program begins with the same loop of fixed size, whose turns have nothing to do with each
//! other, and there is enough to do. What each row computes, and in which order, does not depend on the threads.

use moec_plan::{Extent, Local, Node, Plan, RowOp, RowProgram, Rows, Source, StepKind, View};

/// Below so many elements a barrier costs more than it gives.
const WORTH_IT: u64 = 4096;

/// What a loop that the pass counts is taken for.
const USUAL_TOKENS: u64 = 64;

/// Neighbours that stay together, for lanes.
const TOGETHER: u64 = 16;

pub fn cut_single_rows(plan: &mut Plan) {
    let single: Vec<bool> = plan.buffers.iter().map(|buffer| buffer.rows == Rows::ONE).collect();
    plan.passes_mut().for_each(|pass| cut_nodes(pass, &single));
}

fn cut_nodes(nodes: &mut [Node], single: &[bool]) {
    for node in nodes {
        match node {
            Node::Layers(layers) => layers.kinds.iter_mut().for_each(|kind| cut_nodes(kind, single)),
            Node::Step(step) => {
                if let StepKind::Rows { rows: rows @ Rows::ONE, program, group: None } = &mut step.kind
                    && let Some((count, cut)) = cut(program, single)
                {
                    (*rows, *program) = (Rows::Fixed(count), cut);
                }
            }
        }
    }
}

/// The number of rows, and what each does.
fn cut(program: &RowProgram, single: &[bool]) -> Option<(u64, RowProgram)> {
    let first = program.ops.first()?;
    let leading = kept(first).first()?.fixed()?;
    let agree = program.ops.iter().all(|op| kept(op).first() == Some(&Extent::Fixed(leading)));
    let work: u64 = program.ops.iter().map(turns).sum();
    if leading < 2 || !agree || work < WORTH_IT {
        return None;
    }
    let together = together(program, leading)?;
    let strides = local_strides(program, leading)?;
    if program.ops.len() > 1 && !own_part_only(program) {
        return None;
    }
    let mut cut = program.clone();
    for op in &mut cut.ops {
        shorten(op, together);
        op.views_mut().into_iter().for_each(|view| to_row(view, together, single));
    }
    for (Local { elements, .. }, stride) in cut.locals.iter_mut().zip(strides) {
        if let Some(stride) = stride {
            *elements = stride * together;
        }
    }
    Some((leading / together, cut))
}

/// The loops that are not summed, sorted or run along.
fn kept(op: &RowOp) -> &[Extent] {
    match op {
        RowOp::Map { extents, .. }
        | RowOp::Reduce { extents, .. }
        | RowOp::Cumsum { extents, .. }
        | RowOp::ScatterAdd { extents, .. }
        | RowOp::TopK { extents, .. } => extents,
    }
}

fn turns(op: &RowOp) -> u64 {
    let product = |extents: &[Extent]| extents.iter().map(|extent| extent.of(USUAL_TOKENS)).product::<u64>();
    let each = match op {
        RowOp::Map { .. } => 1,
        RowOp::Reduce { over, .. } | RowOp::ScatterAdd { over, .. } => product(over),
        RowOp::Cumsum { along, .. } => along.of(USUAL_TOKENS),
        RowOp::TopK { len, .. } => 16 * len.of(USUAL_TOKENS),
    };
    product(kept(op)) * each
}

/// Turns of the leading loop that one row takes: one, where it leaves enough for lanes, else as many as they need.
fn together(program: &RowProgram, leading: u64) -> Option<u64> {
    let fills_lanes = |op: &RowOp| match op {
        RowOp::TopK { .. } => true,
        RowOp::Map { extents, .. } | RowOp::Cumsum { extents, .. } | RowOp::ScatterAdd { extents, .. } => {
            wide(&extents[1..])
        }
        RowOp::Reduce { extents, over, .. } => wide(&extents[1..]) || wide(over),
    };
    if program.ops.iter().all(fills_lanes) {
        return Some(1);
    }
    (leading > TOGETHER && leading.is_multiple_of(TOGETHER)).then_some(TOGETHER)
}

fn wide(extents: &[Extent]) -> bool {
    extents.iter().any(|extent| extent.fixed().is_some_and(|size| size >= TOGETHER))
}

/// The part of each local that belongs to one turn of the leading loop; `None` for room to sort in, which any turn may use;
/// nothing at all where a turn looks into the part of another.
fn local_strides(program: &RowProgram, leading: u64) -> Option<Vec<Option<u64>>> {
    let mut strides: Vec<Option<u64>> = vec![None; program.locals.len()];
    for (op, view) in views(program) {
        let Source::Local(id) = view.source else { continue };
        let stride = *view.strides.first()?;
        let known = *strides[id.0 as usize].get_or_insert(stride);
        let whole = stride * leading == program.locals[id.0 as usize].elements;
        if known != stride || !whole || !within(op, view, stride) {
            return None;
        }
    }
    Some(strides)
}

/// Whether all reads of what the program writes are of the same turn of the leading loop.
fn own_part_only(program: &RowProgram) -> bool {
    let written: Vec<Source> =
        program.ops.iter().flat_map(RowOp::writes).map(|view| view.source).filter(is_buffer).collect();
    let mut touching = views(program).into_iter().filter(|(_, view)| written.contains(&view.source));
    let stride_of = |source| {
        let writes = program.ops.iter().flat_map(RowOp::writes);
        writes.filter(|view| view.source == source).find_map(|view| view.strides.first().copied())
    };
    touching.all(|(op, view)| {
        let stride = stride_of(view.source);
        view.index.is_none()
            && view.strides.first().copied() == stride
            && stride.is_some_and(|stride| within(op, view, stride))
    })
}

fn is_buffer(source: &Source) -> bool {
    matches!(source, Source::Row(_) | Source::Whole(_))
}

/// Every view of the program, and those within them, with their op.
fn views(program: &RowProgram) -> Vec<(&RowOp, &View)> {
    let mut found = Vec::new();
    for op in &program.ops {
        for view in op.reads().into_iter().chain(op.writes()) {
            found.push((op, view));
            found.extend(view.index.as_ref().map(|index| (op, &index.view)));
        }
    }
    found
}

/// Whether one turn of the leading loop sees no more than `stride` elements.
fn within(op: &RowOp, view: &View, stride: u64) -> bool {
    let more = match op {
        RowOp::Map { .. } => Vec::new(),
        RowOp::Reduce { over, .. } => over.clone(),
        RowOp::Cumsum { along, .. } => vec![*along],
        RowOp::ScatterAdd { over, count, .. } => {
            let into = op.writes().iter().any(|written| std::ptr::eq(*written, view));
            if into { vec![*count] } else { over.clone() }
        }
        RowOp::TopK { len, k, .. } => {
            let chosen = op.writes().iter().any(|written| std::ptr::eq(*written, view));
            vec![if chosen { *k } else { *len }]
        }
    };
    let inner = kept(op)[1..].iter().chain(&more).zip(view.strides.get(1..).unwrap_or(&[]));
    let reach: Option<u64> = inner
        .filter(|(_, stride)| **stride != 0)
        .map(|(extent, stride)| Some(extent.fixed()?.saturating_sub(1) * stride))
        .sum();
    view.index.is_none() && reach.is_some_and(|reach| view.offset + reach < stride)
}

/// Leaves the leading loop the turns that go together.
fn shorten(op: &mut RowOp, together: u64) {
    let extents = match op {
        RowOp::Map { extents, .. }
        | RowOp::Reduce { extents, .. }
        | RowOp::Cumsum { extents, .. }
        | RowOp::ScatterAdd { extents, .. }
        | RowOp::TopK { extents, .. } => extents,
    };
    extents[0] = Extent::Fixed(together);
}

fn to_row(view: &mut View, together: u64, single: &[bool]) {
    let per_row = view.strides.first().copied().unwrap_or(0) * together;
    view.source = match view.source {
        Source::Row(id) if single[id.0 as usize] => Source::Whole(id),
        other => other,
    };
    // Scratch is each row's own.
    view.row = if let Source::Local(_) = view.source { 0 } else { per_row };
    if let Some(index) = &mut view.index {
        to_row(&mut index.view, together, single);
    }
}
