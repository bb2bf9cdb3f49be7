//! A plan as one MLIR module: the pass function, a function for each layer kind and for each step, the kernels they call.

use std::cell::Cell;

use melior::{Context, ir::Location};
use moec_diag::Span;
use moec_plan::{Layers, LiteralId, Node, Plan, Step, StepKind};
use moec_types::DType;

use crate::{
    END, Marks, assign, attention, bin,
    builder::{Builder, Cmp, Elem, I32, ModuleBuilder, PTR, Val},
    frame::{self, ARGUMENTS, Frame},
    gemm, helping,
    kernel::Kernels,
    level::Level,
    mark, rows,
};

/// Finds the file, line and column of a span.
pub type Locate<'a> = dyn Fn(Span) -> Option<(String, usize, usize)> + Sync + 'a;

/// The name of a level's pass function along a sequence.
pub fn function_name(level: Level, sequence: usize) -> String {
    match sequence {
        0 => ["moec_pass_", level.name()].concat(),
        _ => ["moec_pass_", level.name(), "_", &sequence.to_string()].concat(),
    }
}

/// The whole module. The plan has been checked.
pub fn emit<'c>(context: &'c Context, plan: &Plan, level: Level, marks: Marks, locate: &Locate) -> ModuleBuilder<'c> {
    let module = ModuleBuilder::new(context);
    module.external("moec_barrier", &[PTR], &[]);
    assign::declare(&module);
    if level.multiplies_tiles() {
        gemm::tiles::declare(&module, plan);
    }
    for (at, literal) in plan.literals.iter().enumerate() {
        let (elem, bytes) = literal_bytes(literal.dtype, &literal.data);
        module.constant(&frame::literal_name(LiteralId(at as u32)), elem, &bytes);
    }
    let emitter = Emitter {
        module: &module,
        plan,
        level,
        marks,
        locate,
        kernels: Kernels::default(),
        functions: Cell::new(0),
        steps: Cell::new(0),
    };
    for (sequence, nodes) in plan.passes().enumerate() {
        let body = emitter.nodes(nodes);
        module.function(&function_name(level, sequence), &[PTR, I32, I32], &[], |b, arguments| {
            let [thread, threads] = [1, 2].map(|at| b.widen_signed(arguments[at], Elem::I64));
            let arguments = [arguments[0], thread, threads, b.i64(0)];
            helping::begin_pass(b, frame::before_scratch(b, arguments[0], thread));
            b.call(&body, &arguments, &[]);
            if marks == Marks::Steps {
                frame::barrier(b, arguments[0]);
                Frame::new(b, plan, level, &arguments).mark(b, END);
            }
            Vec::new()
        });
    }
    emitter.kernels.emit(&module, level);
    module
}

fn literal_bytes(dtype: DType, data: &[f64]) -> (Elem, Vec<u8>) {
    let int = || data.iter().flat_map(|value| (*value as i32).to_le_bytes()).collect();
    match dtype {
        DType::F32 => (Elem::F32, data.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()),
        DType::I32 => (Elem::I32, int()),
        DType::Bool => (Elem::I8, data.iter().map(|value| u8::from(*value != 0.0)).collect()),
        DType::Bf16 | DType::F16 => unreachable!("checked before"),
    }
}

/// What a sequence of nodes does for one of them.
struct Call {
    /// A step's barrier stands before its call: all threads pass it, whatever the step gives them to do.
    barrier: bool,
    mark: Option<i32>,
    function: String,
}

struct Emitter<'a, 'c> {
    module: &'a ModuleBuilder<'c>,
    plan: &'a Plan,
    level: Level,
    marks: Marks,
    locate: &'a Locate<'a>,
    kernels: Kernels,
    functions: Cell<u32>,
    /// Those emitted so far.
    steps: Cell<usize>,
}

impl<'c> Emitter<'_, 'c> {
    fn name(&self, kind: &str) -> String {
        let number = self.functions.get();
        self.functions.set(number + 1);
        [kind, "_", &number.to_string()].concat()
    }

    /// A function that runs the nodes in order; its name.
    fn nodes(&self, nodes: &[Node]) -> String {
        let calls: Vec<Call> = nodes
            .iter()
            .map(|node| match node {
                Node::Step(step) => {
                    let number = self.steps.replace(self.steps.get() + 1);
                    let mark = (self.marks == Marks::Steps).then(|| mark(number));
                    Call { barrier: step.barrier || mark.is_some(), mark, function: self.step(step) }
                }
                Node::Layers(layers) => Call { barrier: false, mark: None, function: self.layers(layers) },
            })
            .collect();
        let name = self.name("nodes");
        self.module.function(&name, &ARGUMENTS, &[], |b, arguments| {
            for call in &calls {
                if call.barrier {
                    frame::barrier(b, arguments[0]);
                }
                if let Some(mark) = call.mark {
                    Frame::new(b, self.plan, self.level, arguments).mark(b, mark);
                    // Nobody begins before the mark is made: whoever is early would do the work of who makes it as well.
                    frame::barrier(b, arguments[0]);
                }
                b.call(&call.function, arguments, &[]);
            }
            Vec::new()
        });
        name
    }

    fn layers(&self, layers: &Layers) -> String {
        let kinds: Vec<String> = layers.kinds.iter().map(|kind| self.nodes(kind)).collect();
        let name = self.name("layers");
        let mut counts = vec![0i32; kinds.len()];
        let mut ranks = Vec::new();
        for kind in &layers.order {
            ranks.push(counts[*kind as usize]);
            counts[*kind as usize] += 1;
        }
        let bytes = |values: &mut dyn Iterator<Item = i32>| values.flat_map(i32::to_le_bytes).collect::<Vec<u8>>();
        let [order_name, ranks_name] = ["_order", "_ranks"].map(|suffix| [&name, suffix].concat());
        self.module.constant(&order_name, Elem::I32, &bytes(&mut layers.order.iter().map(|kind| *kind as i32)));
        self.module.constant(&ranks_name, Elem::I32, &bytes(&mut ranks.into_iter()));
        self.module.function(&name, &ARGUMENTS, &[], |b, arguments| {
            let [order, ranks] = [&order_name, &ranks_name].map(|name| b.address_of(name));
            b.repeat(b.i64(layers.order.len() as i64), |b, layer| {
                let entry = |array: Val| b.widen_signed(b.load(I32, b.offset(array, b.shl(layer, 2))), Elem::I64);
                let [kind, rank] = [order, ranks].map(entry);
                for (at, function) in kinds.iter().enumerate() {
                    let call = |b: &Builder| {
                        // A stack within a layer runs once for each of that layer.
                        let outer = b.mul(arguments[3], b.i64(i64::from(counts[at])));
                        b.call(function, &[arguments[0], arguments[1], arguments[2], b.add(outer, rank)], &[]);
                    };
                    if kinds.len() == 1 {
                        call(b);
                    } else {
                        b.when(b.cmp(Cmp::Eq, kind, b.i64(at as i64)), call);
                    }
                }
            });
            Vec::new()
        });
        name
    }

    fn step(&self, step: &Step) -> String {
        let name = self.name(&symbol(step));
        let location =
            (self.locate)(step.at).map(|(file, line, column)| Location::new(self.module.context, &file, line, column));
        self.module.function(&name, &ARGUMENTS, &[], |b, arguments| {
            let b = &location.map_or(*b, |location| b.at(location));
            let frame = Frame::new(b, self.plan, self.level, arguments);
            match &step.kind {
                StepKind::Rows { rows, program, group } => rows::emit(b, &frame, *rows, program, group.as_ref()),
                StepKind::Gemm(gemm) => gemm::emit(b, &frame, &self.kernels, gemm, step.barrier),
                StepKind::Bin(bin) => bin::emit(b, &frame, bin),
                StepKind::Attention(attention) => attention::emit(b, &frame, &self.kernels, attention),
                StepKind::Assign(assign) => assign::emit(b, &frame, assign),
                StepKind::Scan(scan) => rows::emit_scan(b, &frame, scan),
            }
            Vec::new()
        });
        name
    }
}

/// A step's word and label as a symbol, for whoever reads a profile or a disassembly: `rows_layers_l_ffn_gate_W`.
fn symbol(step: &Step) -> String {
    let words = step.label.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let symbol = [step.kind.name()].into_iter().chain(words).collect::<Vec<_>>().join("_");
    symbol.chars().take(80).collect()
}

/// Bytes of scratch that each thread needs for a pass.
pub fn scratch_bytes(plan: &Plan) -> u64 {
    fn most(plan: &Plan, nodes: &[Node]) -> u64 {
        let of = |node: &Node| match node {
            Node::Step(step) => match &step.kind {
                StepKind::Rows { program, .. } => rows::scratch_bytes(program),
                StepKind::Attention(attention) => attention::scratch_bytes(attention),
                StepKind::Scan(scan) => rows::scratch_bytes(&scan.start).max(rows::scratch_bytes(&scan.program)),
                StepKind::Gemm(gemm) => gemm::rows::Rows::scratch_bytes(plan, gemm),
                StepKind::Bin(_) | StepKind::Assign(_) => 0,
            },
            Node::Layers(layers) => layers.kinds.iter().map(|kind| most(plan, kind)).max().unwrap_or(0),
        };
        nodes.iter().map(of).max().unwrap_or(0)
    }
    let most = plan.passes().map(|pass| most(plan, pass)).max().unwrap_or(0);
    most.next_multiple_of(64) + helping::BYTES as u64
}
