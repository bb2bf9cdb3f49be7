//! The ops: one file each, with its data, its typing rule and its meaning.

use std::fmt;

use moec_types::Axis;

use crate::{Module, ParseError, RegionId, ValueId, ValueType, reader::Reader};

/// How far an op looks along the symbolic axis of what it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At one position at a time, unless [`OpDef::along`] names a symbolic axis: it may join a row program.
    Row,
    /// At one position at a time, as a step of its own.
    Step,
    /// At other positions, at the routing, or through its regions.
    Across,
}

/// What every op says of itself.
pub trait OpDef: Sized {
    /// Its name in the IR's text.
    const MNEMONIC: &'static str;

    const REACH: Reach;

    /// The axes along which it sums, sorts, chooses, looks up, cuts or joins.
    fn along(&self) -> &[Axis] {
        &[]
    }

    /// The regions that it holds.
    fn regions(&self) -> Vec<RegionId> {
        Vec::new()
    }

    /// The same, to put others in their place.
    fn regions_mut(&mut self) -> Vec<&mut RegionId> {
        Vec::new()
    }

    /// Its own data as text, which stands in braces behind the operands; empty where it has none but regions.
    fn attributes(&self, module: &Module) -> String;

    /// Reads what `attributes` writes. Regions come later: they are [`RegionId::NONE`], as many as there are to be.
    fn read(text: &mut Reader) -> Result<Self, ParseError>;

    /// Operand types to result types. Regions and parameters are looked up in the module.
    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError>;
}

/// Why operands do not fit an op. It speaks the language's words: sema shows it to the author as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError {
    /// The fact: `` no axis `D` in f32[S, E=8] ``.
    pub message: String,
    /// What the operands at fault are, by number, each for a label in the text.
    pub labels: Vec<(usize, String)>,
    /// What to type instead.
    pub help: Option<String>,
}

impl TypeError {
    pub fn new(message: impl Into<String>) -> Self {
        TypeError { message: message.into(), labels: Vec::new(), help: None }
    }

    pub fn label(mut self, operand: usize, text: impl Into<String>) -> Self {
        self.labels.push((operand, text.into()));
        self
    }

    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

mod operands;

/// Declares the modules and the sum of all ops: the one list of them.
macro_rules! ops {
    ($($file:ident :: $op:ident),* $(,)?) => {
        $(mod $file; pub use $file::$op;)*

        /// Any op.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op { $($op($op)),* }

        impl Op {
            pub fn mnemonic(&self) -> &'static str {
                match self { $(Op::$op(_) => $op::MNEMONIC),* }
            }

            pub fn reach(&self) -> Reach {
                match self { $(Op::$op(_) => $op::REACH),* }
            }

            /// The axes along which it sums, sorts, chooses, looks up, cuts or joins.
            pub fn along(&self) -> &[Axis] {
                match self { $(Op::$op(op) => op.along()),* }
            }

            /// The regions that this op holds.
            pub fn regions(&self) -> Vec<RegionId> {
                match self { $(Op::$op(op) => op.regions()),* }
            }

            /// The same, to put others in their place.
            pub fn regions_mut(&mut self) -> Vec<&mut RegionId> {
                match self { $(Op::$op(op) => op.regions_mut()),* }
            }

            pub fn attributes(&self, module: &Module) -> String {
                match self { $(Op::$op(op) => op.attributes(module)),* }
            }

            /// The data of the op of that name; `None` where there is no such op.
            pub fn read(mnemonic: &str, text: &mut Reader) -> Option<Result<Op, ParseError>> {
                $(if mnemonic == $op::MNEMONIC { return Some($op::read(text).map(Op::$op)) })*
                None
            }

            pub fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
                match self { $(Op::$op(op) => op.infer(module, operands)),* }
            }
        }

        $(impl From<$op> for Op { fn from(op: $op) -> Op { Op::$op(op) } })*
    };
}

ops! {
    param::ParamRef,
    stack::Stack,
    literal::Literal,
    iota::Iota,
    count::Count,
    map::Map,
    contract::Contract,
    linear::Linear,
    reduce::Reduce,
    cumsum::Cumsum,
    assign::Assign,
    top_k::TopK,
    gather::Gather,
    scatter_add::ScatterAdd,
    split::Split,
    merge::Merge,
    rename::Rename,
    slice::Slice,
    unfold::Unfold,
    concat::Concat,
    past::Past,
    scan::Scan,
    attention::Attention,
    route::Route,
    dispatch::Dispatch,
    experts::Experts,
    combine::Combine,
    each::Each,
    layers::Layers,
    rows::Rows,
}

pub use experts::{ExpertsInput, ExpertsOutput, Member};
pub use reduce::ReduceOp;
pub(crate) use scan::at_one_position;
