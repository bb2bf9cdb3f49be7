//! The plan: buffers, packed parameters and a small closed set of steps. Backends see nothing else.
//!
//! A plan describes one *pass*: `tokens` new positions of one sequence after `past` earlier ones; and, where a model has other
//! sequences that this one looks at, a pass over each of those. Every size in it is a number or a number times one of the row
//! counts below, so code made from it depends neither on layer nor expert counts. Where no position sees others but by
//! attention and scans, a backend may let the rows of several sessions stand in one pass.

mod buffer;
mod extent;
mod format;
mod param;
mod parse;
mod print;
pub mod quantise;
mod row_program;
mod step;
mod store;
mod verify;

pub use buffer::{Buffer, BufferId, Home, Port, Rows};
pub use extent::{Extent, Share, fixed_product};
pub use format::{Format, PanelBytes, RowFormat};
pub use param::{Layout, PAGE, PANEL, PackSource, PackedParam, ParamId};
pub use parse::parse;
pub use row_program::{Indirect, Local, LocalId, ReduceOp, RowOp, RowProgram, Source, View, Work};
pub use step::{Assign, Attention, Bin, Gemm, Group, Layers, Lookup, Node, RowGroup, Scan, Step, StepKind, Store};
pub use store::{choosing, store};
pub use verify::{VerifyError, verify};

/// Constant data that steps read.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    pub dtype: moec_types::DType,
    /// Integers and bools (0, 1) are exact.
    pub data: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LiteralId(pub u32);

/// A model, ready for a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub name: String,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub params: Vec<PackedParam>,
    pub literals: Vec<Literal>,
    pub buffers: Vec<Buffer>,
    pub body: Vec<Node>,
    /// The passes over other sequences, from number 1 on, whose caches `body` reads: it is that of sequence 0.
    pub sources: Vec<Vec<Node>>,
}

impl Plan {
    /// The passes, by sequence.
    pub fn passes(&self) -> impl Iterator<Item = &Vec<Node>> {
        std::iter::once(&self.body).chain(&self.sources)
    }

    pub fn passes_mut(&mut self) -> impl Iterator<Item = &mut Vec<Node>> {
        std::iter::once(&mut self.body).chain(&mut self.sources)
    }

    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    pub fn param(&self, id: ParamId) -> &PackedParam {
        &self.params[id.0 as usize]
    }

    pub fn literal(&self, id: LiteralId) -> &Literal {
        &self.literals[id.0 as usize]
    }

    /// The fewest tokens of a pass along each sequence: wherever some of them are chosen, there are as many. 1 where none are.
    pub fn least_tokens(&self) -> impl Iterator<Item = u64> {
        fn of(nodes: &[Node]) -> u64 {
            let least = |node: &Node| match node {
                Node::Layers(layers) => layers.kinds.iter().map(|kind| of(kind)).max().unwrap_or(1),
                Node::Step(step) => match &step.kind {
                    StepKind::Rows { program, .. } => program.least_tokens(),
                    StepKind::Scan(scan) => scan.program.least_tokens().max(scan.start.least_tokens()),
                    StepKind::Gemm(_) | StepKind::Bin(_) | StepKind::Attention(_) | StepKind::Assign(_) => 1,
                },
            };
            nodes.iter().map(least).max().unwrap_or(1)
        }
        self.passes().map(|pass| of(pass))
    }

    /// Bytes of all packed parameters: the size of the weights' data.
    pub fn weight_bytes(&self) -> u64 {
        self.params.iter().map(|param| param.offset + param.bytes()).max().unwrap_or(0)
    }

    /// Workspace of a pass of up to `tokens` positions: `(bytes for each position, fixed bytes)`.
    pub fn workspace_bytes(&self) -> (u64, u64) {
        let ends = self.buffers.iter().filter_map(|buffer| match buffer.home {
            Home::Workspace { per_token, fixed } => {
                let (row, more) = buffer.bytes();
                Some((per_token + row, fixed + more))
            }
            Home::Input(_) | Home::Output(_) | Home::Cache { .. } | Home::State { .. } => None,
        });
        ends.fold((0, 0), |most, end| (most.0.max(end.0), most.1.max(end.1)))
    }

    /// Cache bytes for each position of context that a session holds, all layers together. The context is rounded up to a
    /// multiple of [`PAGE`] positions.
    pub fn cache_bytes_per_position(&self) -> u64 {
        let of = |buffer: &Buffer| match buffer.home {
            Home::Cache { instances, .. } => buffer.row_bytes() * u64::from(instances),
            Home::Input(_) | Home::Output(_) | Home::Workspace { .. } | Home::State { .. } => 0,
        };
        self.buffers.iter().map(of).sum()
    }

    /// Bytes of all states that a session holds, whatever its context.
    pub fn state_bytes(&self) -> u64 {
        let end = |buffer: &Buffer| match buffer.home {
            Home::State { instances, offset } => offset + u64::from(instances) * buffer.instance_bytes(),
            Home::Input(_) | Home::Output(_) | Home::Workspace { .. } | Home::Cache { .. } => 0,
        };
        self.buffers.iter().map(end).max().unwrap_or(0)
    }
}
