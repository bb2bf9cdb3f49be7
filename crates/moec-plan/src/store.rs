//! Which parameters are stored in another format than they come in: the matrices that rows are multiplied by.
//!
//! Tables, norms and biases stay, for row programs read them. So do matrices whose products do nothing but choose: what a
//! router finds to be nearly equal, rounding would order anew. That is seen from where their products go, not from names.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    BufferId, Format, Gemm, Home, Layout, LocalId, Node, PackedParam, ParamId, Plan, RowProgram, Source, StepKind,
    Store, View,
};

/// Stores matrices as `format` says, where it says anything and the format takes them; all parameters find new places.
pub fn store(plan: &mut Plan, format: impl Fn(&PackedParam) -> Option<Format>) {
    let kept = choosing(plan);
    let mut offset = 0;
    for (number, param) in plan.params.iter_mut().enumerate() {
        if let Layout::Panels { k, n, .. } = param.layout
            && !kept.contains(&ParamId(number as u32))
            && param.storage.each().is_some_and(|dtype| dtype.is_float())
            && let Some(format) = format(param).filter(|format| format.takes(k, n))
        {
            param.storage = format;
            param.instance_bytes = param.needed_bytes().next_multiple_of(64);
        }
        param.offset = offset;
        offset += param.bytes();
    }
}

/// Parameters of GEMMs whose results reach the model's results only by way of a route.
pub fn choosing(plan: &Plan) -> BTreeSet<ParamId> {
    let mut flow = Flow::default();
    plan.passes().for_each(|pass| flow.nodes(pass));
    let kept = |at: &Place| match at {
        Place::Buffer(id) => match plan.buffer(*id).home {
            Home::Output(_) | Home::Cache { .. } | Home::State { .. } => true,
            Home::Input(_) | Home::Workspace { .. } => false,
        },
        Place::Local(..) => false,
    };
    let chooses = |gemm: &&Gemm| {
        let reached = flow.reached_from(Place::Buffer(gemm.out));
        reached.iter().any(|at| flow.routes.contains(at)) && !reached.iter().any(kept)
    };
    let (choosing, others): (Vec<&Gemm>, Vec<&Gemm>) = flow.gemms.iter().copied().partition(chooses);
    let others: BTreeSet<ParamId> = others.into_iter().map(|gemm| gemm.weights).collect();
    choosing.into_iter().map(|gemm| gemm.weights).filter(|weights| !others.contains(weights)).collect()
}

/// Where values stand: in a buffer, or in a local of the program with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Buffer(BufferId),
    Local(u32, LocalId),
}

/// What is computed from what.
#[derive(Default)]
struct Flow<'p> {
    to: BTreeMap<Place, BTreeSet<Place>>,
    /// The choices and weights of routes.
    routes: BTreeSet<Place>,
    gemms: Vec<&'p Gemm>,
    programs: u32,
}

impl<'p> Flow<'p> {
    fn nodes(&mut self, nodes: &'p [Node]) {
        for node in nodes {
            match node {
                Node::Layers(layers) => layers.kinds.iter().for_each(|kind| self.nodes(kind)),
                Node::Step(step) => self.step(&step.kind),
            }
        }
    }

    fn step(&mut self, step: &'p StepKind) {
        match step {
            StepKind::Rows { program, .. } => self.program(program),
            StepKind::Scan(scan) => [&scan.start, &scan.program].into_iter().for_each(|program| self.program(program)),
            StepKind::Assign(assign) => self.add(vec![Place::Buffer(assign.score)], Place::Buffer(assign.out)),
            StepKind::Bin(bin) => self.routes.extend([bin.indices, bin.weights].map(Place::Buffer)),
            StepKind::Gemm(gemm) => {
                self.gemms.push(gemm);
                let weights = gemm.group.as_ref().and_then(|group| match group.store {
                    Store::Choices { weights } => Some(Place::Buffer(weights)),
                    Store::Slots => None,
                });
                let extras = gemm.extras.iter().flat_map(|view| self.looked_at(view));
                let read: Vec<Place> = extras.chain(weights).chain([Place::Buffer(gemm.a)]).collect();
                self.add(read, Place::Buffer(gemm.out));
            }
            StepKind::Attention(attention) => {
                let operands = [attention.q, attention.k, attention.v].map(Place::Buffer);
                let extras = attention.extras.iter().flat_map(|view| self.looked_at(view));
                let read: Vec<Place> = extras.chain(operands).collect();
                self.add(read, Place::Buffer(attention.out));
            }
        }
    }

    fn program(&mut self, program: &RowProgram) {
        self.programs += 1;
        for op in &program.ops {
            let read: Vec<Place> = op.reads().into_iter().flat_map(|view| self.looked_at(view)).collect();
            let written: Vec<Place> = op.writes().into_iter().filter_map(|view| self.place(view)).collect();
            written.into_iter().for_each(|written| self.add(read.clone(), written));
        }
    }

    fn add(&mut self, read: Vec<Place>, written: Place) {
        for place in read {
            self.to.entry(place).or_default().insert(written);
        }
    }

    fn place(&self, view: &View) -> Option<Place> {
        match view.source {
            Source::Row(id) | Source::Whole(id) => Some(Place::Buffer(id)),
            Source::Local(id) => Some(Place::Local(self.programs, id)),
            Source::Param(_) | Source::Literal(_) | Source::Place | Source::Position | Source::Count(_) => None,
        }
    }

    /// What a view looks at, and what it finds its way by.
    fn looked_at(&self, view: &View) -> Vec<Place> {
        let by = view.index.as_ref().and_then(|index| self.place(&index.view));
        self.place(view).into_iter().chain(by).collect()
    }

    /// All that something becomes, itself among it; what a route becomes is not followed.
    fn reached_from(&self, start: Place) -> BTreeSet<Place> {
        let mut reached = BTreeSet::from([start]);
        let mut open = vec![start];
        while let Some(place) = open.pop() {
            if self.routes.contains(&place) {
                continue;
            }
            for next in self.to.get(&place).into_iter().flatten() {
                if reached.insert(*next) {
                    open.push(*next);
                }
            }
        }
        reached
    }
}
