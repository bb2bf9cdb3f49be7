//! After lowering: results written in place, buffers placed in the workspace, barriers left out where nothing needs them.

use std::collections::BTreeMap;

use moec_plan::{BufferId, Gemm, Home, Layers, Node, Plan, RowOp, Rows, Source, Step, StepKind, Store, View, Work};

/// One use of a buffer by a step.
#[derive(Clone, Copy, Debug)]
struct Touch {
    buffer: BufferId,
    write: bool,
    /// A row program's use of the row that it computes.
    own_row: Option<Share>,
}

/// How a row program's rows are shared out among threads: two steps that agree in it have each row on the same thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    rows: Rows,
    /// Some experts' slots: they are shared out among themselves.
    group: Option<(BufferId, u32, u32)>,
}

impl Share {
    const ONE: Share = Share { rows: Rows::ONE, group: None };
}

/// Everything that a step reads and writes, in order.
fn touches(kind: &StepKind) -> Vec<Touch> {
    let mut found = Vec::new();
    match kind {
        StepKind::Rows { rows, program, group } => {
            if let Some(group) = group {
                found.push(Touch { buffer: group.offsets, write: false, own_row: None });
            }
            let group = group.as_ref().map(|group| (group.offsets, group.first, group.count));
            let share = Share { rows: *rows, group };
            for op in &program.ops {
                op.reads().into_iter().for_each(|view| touch_view(view, false, share, &mut found));
                op.writes().into_iter().for_each(|view| touch_view(view, true, share, &mut found));
                if let RowOp::TopK { work: Some(Work::Buffer(buffer)), .. } = op {
                    found.push(Touch { buffer: *buffer, write: true, own_row: None });
                }
            }
        }
        StepKind::Gemm(gemm) => touch_gemm(gemm, &mut found),
        StepKind::Bin(bin) => {
            let reads = [bin.indices, bin.weights];
            let writes = [Some(bin.offsets), Some(bin.order), bin.slot_of];
            found.extend(reads.map(|buffer| Touch { buffer, write: false, own_row: None }));
            found.extend(writes.into_iter().flatten().map(|buffer| Touch { buffer, write: true, own_row: None }));
        }
        StepKind::Attention(step) => {
            let touch = |buffer, write| Touch { buffer, write, own_row: None };
            found.extend([touch(step.q, false), touch(step.k, false), touch(step.v, false), touch(step.out, true)]);
        }
        StepKind::Assign(step) => {
            let touch = |buffer, write| Touch { buffer, write, own_row: None };
            found.extend([touch(step.score, false), touch(step.room, true), touch(step.out, true)]);
        }
        StepKind::Scan(scan) => {
            // Its parts are not shared out as rows are.
            let mut own = Vec::new();
            for op in scan.start.ops.iter().chain(&scan.program.ops) {
                op.reads().into_iter().for_each(|view| touch_view(view, false, Share::ONE, &mut own));
                op.writes().into_iter().for_each(|view| touch_view(view, true, Share::ONE, &mut own));
            }
            found.extend(own.into_iter().map(|touch| Touch { own_row: None, ..touch }));
        }
    }
    found
}

fn touch_gemm(gemm: &Gemm, found: &mut Vec<Touch>) {
    let touch = |buffer, write| Touch { buffer, write, own_row: None };
    found.push(touch(gemm.a, false));
    for view in &gemm.extras {
        if let Source::Row(buffer) | Source::Whole(buffer) = view.source {
            found.push(touch(buffer, false));
        }
    }
    if let Some(group) = &gemm.group {
        found.extend([touch(group.offsets, false), touch(group.order, false)]);
        if let Store::Choices { weights } = group.store {
            found.push(touch(weights, false));
        }
    }
    found.push(touch(gemm.out, true));
}

fn touch_view(view: &View, write: bool, share: Share, found: &mut Vec<Touch>) {
    match view.source {
        Source::Row(buffer) => found.push(Touch { buffer, write, own_row: Some(share) }),
        Source::Whole(buffer) => found.push(Touch { buffer, write, own_row: None }),
        Source::Local(_)
        | Source::Param(_)
        | Source::Literal(_)
        | Source::Place
        | Source::Position
        | Source::Count(_) => {}
    }
    if let Some(index) = &view.index {
        touch_view(&index.view, false, share, found);
    }
}

fn steps_of(nodes: &[Node]) -> impl Iterator<Item = &Step> {
    nodes.iter().flat_map(|node| match node {
        Node::Step(step) => vec![step],
        Node::Layers(layers) => layers.kinds.iter().flat_map(|kind| steps_of(kind).collect::<Vec<_>>()).collect(),
    })
}

/// Lets what writes `from` write `to` instead, when `to`'s old content is not needed after that. Says whether it did.
pub fn write_in_place(nodes: &mut [Node], from: BufferId, to: BufferId) -> bool {
    let writes = |node: &Node, buffer| {
        steps_of(std::slice::from_ref(node))
            .any(|step| touches(&step.kind).iter().any(|t| t.write && t.buffer == buffer))
    };
    let uses = |node: &Node, buffer| {
        steps_of(std::slice::from_ref(node)).any(|step| touches(&step.kind).iter().any(|t| t.buffer == buffer))
    };
    let writers: Vec<usize> = (0..nodes.len()).filter(|at| writes(&nodes[*at], from)).collect();
    let [writer] = writers[..] else { return false };
    let Node::Step(step) = &nodes[writer] else { return false };
    if nodes[writer + 1..].iter().any(|node| uses(node, to)) || !safe_in_place(&step.kind, from, to) {
        return false;
    }
    for node in &mut nodes[writer..] {
        rename(node, from, to);
    }
    true
}

fn safe_in_place(kind: &StepKind, from: BufferId, to: BufferId) -> bool {
    match kind {
        StepKind::Rows { program, .. } => {
            let row = |view: &View, buffer| view.source == Source::Row(buffer);
            let Some(first) = program.ops.iter().position(|op| op.writes().iter().any(|view| row(view, from))) else {
                return false;
            };
            let reads = |op: &RowOp| {
                let mut found = Vec::new();
                op.reads().into_iter().for_each(|view| touch_view(view, false, Share::ONE, &mut found));
                found.iter().any(|touch| touch.buffer == to)
            };
            let elementwise = match &program.ops[first] {
                RowOp::Map { args, into, .. } => args.iter().filter(|view| touch_any(view, to)).all(|view| {
                    view.source == Source::Row(to)
                        && view.index.is_none()
                        && view.strides == into.strides
                        && view.offset == into.offset
                        && view.row == into.row
                }),
                op @ (RowOp::Reduce { .. } | RowOp::Cumsum { .. } | RowOp::ScatterAdd { .. } | RowOp::TopK { .. }) => {
                    !reads(op)
                }
            };
            let whole = program.ops[..=first]
                .iter()
                .any(|op| op.reads().iter().chain(&op.writes()).any(|view| view.source == Source::Whole(to)));
            elementwise && !whole && !program.ops[first + 1..].iter().any(reads)
        }
        StepKind::Gemm(gemm) => {
            let in_place = |view: &View| {
                let own = match view.source {
                    Source::Row(buffer) => buffer == to,
                    // Several matrix rows a row: each reads where it writes.
                    Source::Whole(buffer) => buffer == to && gemm.batch > 1 && view.row > 0,
                    Source::Local(_)
                    | Source::Param(_)
                    | Source::Literal(_)
                    | Source::Place
                    | Source::Position
                    | Source::Count(_) => false,
                };
                !touch_any(view, to) || (own && view.strides == [1] && view.offset == 0)
            };
            gemm.a != to && gemm.group.is_none() && gemm.extras.iter().all(in_place)
        }
        StepKind::Bin(_) | StepKind::Attention(_) | StepKind::Scan(_) | StepKind::Assign(_) => false,
    }
}

fn touch_any(view: &View, buffer: BufferId) -> bool {
    let mut found = Vec::new();
    touch_view(view, false, Share::ONE, &mut found);
    found.iter().any(|touch| touch.buffer == buffer)
}

fn rename(node: &mut Node, from: BufferId, to: BufferId) {
    let swap = |buffer: &mut BufferId| {
        if *buffer == from {
            *buffer = to;
        }
    };
    match node {
        Node::Layers(layers) => layers.kinds.iter_mut().flatten().for_each(|node| rename(node, from, to)),
        Node::Step(step) => match &mut step.kind {
            StepKind::Rows { program, group, .. } => {
                if let Some(group) = group {
                    swap(&mut group.offsets);
                }
                for op in &mut program.ops {
                    op.views_mut().into_iter().for_each(|view| rename_view(view, from, to));
                    if let RowOp::TopK { work: Some(Work::Buffer(buffer)), .. } = op {
                        swap(buffer);
                    }
                }
            }
            StepKind::Gemm(gemm) => {
                swap(&mut gemm.a);
                swap(&mut gemm.out);
                gemm.extras.iter_mut().for_each(|view| rename_view(view, from, to));
                if let Some(group) = &mut gemm.group {
                    swap(&mut group.offsets);
                    swap(&mut group.order);
                    if let Store::Choices { weights } = &mut group.store {
                        swap(weights);
                    }
                }
            }
            StepKind::Bin(bin) => {
                [&mut bin.indices, &mut bin.weights, &mut bin.offsets, &mut bin.order].into_iter().for_each(swap);
                if let Some(buffer) = &mut bin.slot_of {
                    swap(buffer);
                }
            }
            StepKind::Attention(step) => {
                [&mut step.q, &mut step.k, &mut step.v, &mut step.out].into_iter().for_each(swap);
            }
            StepKind::Assign(step) => [&mut step.score, &mut step.room, &mut step.out].into_iter().for_each(swap),
            StepKind::Scan(scan) => {
                let ops = scan.start.ops.iter_mut().chain(&mut scan.program.ops);
                ops.flat_map(RowOp::views_mut).for_each(|view| rename_view(view, from, to));
            }
        },
    }
}

fn rename_view(view: &mut View, from: BufferId, to: BufferId) {
    match &mut view.source {
        Source::Row(buffer) | Source::Whole(buffer) if *buffer == from => *buffer = to,
        Source::Row(_)
        | Source::Whole(_)
        | Source::Local(_)
        | Source::Param(_)
        | Source::Literal(_)
        | Source::Place
        | Source::Position
        | Source::Count(_) => {}
    }
    if let Some(index) = &mut view.index {
        rename_view(&mut index.view, from, to);
    }
}

/// Gives every workspace buffer its place, then decides the barriers.
pub fn assign(plan: &mut Plan) {
    place(plan);
    let Plan { body, sources, buffers, .. } = plan;
    [body].into_iter().chain(sources).for_each(|pass| barriers(pass, buffers));
}

/// First and last moment of a buffer's life.
type Life = (usize, usize);

fn lives(plan: &Plan) -> BTreeMap<BufferId, Life> {
    let mut lives: BTreeMap<BufferId, Life> = BTreeMap::new();
    let mut now = 0;
    let extend = |lives: &mut BTreeMap<BufferId, Life>, buffer, from, to| {
        let life = lives.entry(buffer).or_insert((from, to));
        *life = (life.0.min(from), life.1.max(to));
    };
    let mut outside: BTreeMap<BufferId, ()> = BTreeMap::new();
    for node in plan.passes().flatten() {
        if let Node::Step(step) = node {
            outside.extend(touches(&step.kind).iter().map(|touch| (touch.buffer, ())));
        }
    }
    for node in plan.passes().flatten() {
        let start = now;
        for step in steps_of(std::slice::from_ref(node)) {
            for touch in touches(&step.kind) {
                extend(&mut lives, touch.buffer, now, now);
            }
            now += 1;
        }
        // What a loop shares with the outside, or one kind with another, lives throughout the loop.
        if let Node::Layers(layers) = node {
            let mut seen: BTreeMap<BufferId, usize> = BTreeMap::new();
            for (kind, nodes) in layers.kinds.iter().enumerate() {
                for touch in steps_of(nodes).flat_map(|step| touches(&step.kind)) {
                    let shared = *seen.entry(touch.buffer).or_insert(kind) != kind;
                    if shared || outside.contains_key(&touch.buffer) {
                        extend(&mut lives, touch.buffer, start, now - 1);
                    }
                }
            }
        }
    }
    lives
}

/// Buffers that scale with the tokens lie behind those that do not; within each, the lowest place free during its life.
fn place(plan: &mut Plan) {
    let lives = lives(plan);
    let overlap = |a: Life, b: Life| a.0 <= b.1 && b.0 <= a.1;
    let mut order: Vec<(BufferId, Life)> =
        lives.into_iter().filter(|(buffer, _)| matches!(plan.buffer(*buffer).home, Home::Workspace { .. })).collect();
    order.sort_by_key(|(buffer, life)| (life.0, *buffer));
    let mut fixed_end = 0;
    let mut scaled_ends: Vec<(u64, u64)> = Vec::new();
    for scaled in [false, true] {
        let mut placed: Vec<(Life, u64, u64)> = Vec::new();
        for (buffer, life) in &order {
            let (per_token, fixed) = plan.buffer(*buffer).bytes();
            let size = if scaled { per_token } else { fixed };
            if (per_token > 0) != scaled {
                continue;
            }
            let mut others: Vec<(u64, u64)> = placed
                .iter()
                .filter(|(other, ..)| overlap(*life, *other))
                .map(|(_, start, end)| (*start, *end))
                .collect();
            others.sort_unstable();
            let start = others.iter().fold(0, |at, (start, end)| if at + size <= *start { at } else { at.max(*end) });
            // The fold may pass a gap only to fall behind a later neighbour: check, and take the end if so.
            let free = others.iter().all(|(from, to)| start + size <= *from || *to <= start);
            let start = if free { start } else { others.iter().map(|(_, end)| *end).max().unwrap_or(0) };
            placed.push((*life, start, start + size));
            if scaled {
                scaled_ends.push((start + size, fixed));
            } else {
                fixed_end = fixed_end.max(start + size);
            }
            plan.buffers[buffer.0 as usize].home = if scaled {
                Home::Workspace { per_token: start, fixed: fixed_end }
            } else {
                Home::Workspace { per_token: 0, fixed: start }
            };
        }
    }
    // What scales may need some bytes more, whatever the pass: all that lies behind it moves on by so many.
    for (buffer, _) in &order {
        let found = &mut plan.buffers[buffer.0 as usize];
        let scales = found.bytes().0 > 0;
        if let Home::Workspace { per_token, fixed } = &mut found.home
            && scales
        {
            *fixed += scaled_ends.iter().filter(|(end, _)| end <= per_token).map(|(_, more)| more).sum::<u64>();
        }
    }
}

/// The memory that a buffer occupies, as far as conflicts go.
fn same_memory(buffers: &[moec_plan::Buffer], a: BufferId, b: BufferId) -> bool {
    if a == b {
        return true;
    }
    let (x, y) = (&buffers[a.0 as usize], &buffers[b.0 as usize]);
    let (Home::Workspace { per_token: p, fixed: f }, Home::Workspace { per_token: q, fixed: g }) = (&x.home, &y.home)
    else {
        return false;
    };
    let ((row_x, fixed_x), (row_y, fixed_y)) = (x.bytes(), y.bytes());
    match (row_x > 0, row_y > 0) {
        (true, true) => *p < q + row_y && *q < p + row_x,
        (false, false) => *f < g + fixed_y && *g < f + fixed_x,
        (true, false) | (false, true) => false,
    }
}

/// A step needs a barrier when it touches what an earlier step since the last barrier wrote, or writes what one touched;
/// a row program that meets only its own rows of the same buffer, shared out in the same way, does not.
fn barriers(nodes: &mut [Node], buffers: &[moec_plan::Buffer]) {
    let mut since: Vec<Touch> = Vec::new();
    let mut forced = false;
    for node in nodes {
        match node {
            Node::Layers(layers) => {
                layer_barriers(layers, buffers);
                forced = true;
                since.clear();
            }
            Node::Step(step) => {
                let now = touches(&step.kind);
                let conflict = |a: &Touch, b: &Touch| {
                    let same_row = a.buffer == b.buffer && a.own_row.is_some() && a.own_row == b.own_row;
                    (a.write || b.write) && !same_row && same_memory(buffers, a.buffer, b.buffer)
                };
                step.barrier = forced || now.iter().any(|a| since.iter().any(|b| conflict(a, b)));
                if step.barrier {
                    since.clear();
                }
                forced = false;
                since.extend(now);
            }
        }
    }
}

fn layer_barriers(layers: &mut Layers, buffers: &[moec_plan::Buffer]) {
    for kind in &mut layers.kinds {
        barriers(kind, buffers);
        if let Some(Node::Step(first)) = kind.first_mut() {
            first.barrier = true;
        }
    }
}
