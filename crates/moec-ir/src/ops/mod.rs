//! The ops: one file each, with its data, its typing rule and its meaning.

use std::fmt;

use crate::{Module, ParseError, RegionId, ValueId, ValueType, reader::Reader};

/// What every op says of itself.
pub trait OpDef: Sized {
    /// Its name in the IR's text.
    const MNEMONIC: &'static str;

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
    literal::Literal,
    iota::Iota,
    map::Map,
    contract::Contract,
    linear::Linear,
    reduce::Reduce,
    top_k::TopK,
    gather::Gather,
    split::Split,
    merge::Merge,
    rename::Rename,
    slice::Slice,
    concat::Concat,
    past::Past,
    attention::Attention,
    route::Route,
    dispatch::Dispatch,
    experts::Experts,
    combine::Combine,
    layers::Layers,
    rows::Rows,
}

pub use experts::{ExpertsInput, ExpertsOutput, Member};
pub use reduce::ReduceOp;

impl Op {
    /// The regions that this op holds.
    pub fn regions(&self) -> Vec<RegionId> {
        match self {
            Op::Experts(op) => op.bank.iter().map(|member| member.region).collect(),
            Op::Layers(op) => op.kinds.clone(),
            Op::Rows(op) => vec![op.region],
            Op::ParamRef(_)
            | Op::Literal(_)
            | Op::Iota(_)
            | Op::Map(_)
            | Op::Contract(_)
            | Op::Linear(_)
            | Op::Reduce(_)
            | Op::TopK(_)
            | Op::Gather(_)
            | Op::Split(_)
            | Op::Merge(_)
            | Op::Rename(_)
            | Op::Slice(_)
            | Op::Concat(_)
            | Op::Past(_)
            | Op::Attention(_)
            | Op::Route(_)
            | Op::Dispatch(_)
            | Op::Combine(_) => Vec::new(),
        }
    }

    /// The same, to put others in their place.
    pub fn regions_mut(&mut self) -> Vec<&mut RegionId> {
        match self {
            Op::Experts(op) => op.bank.iter_mut().map(|member| &mut member.region).collect(),
            Op::Layers(op) => op.kinds.iter_mut().collect(),
            Op::Rows(op) => vec![&mut op.region],
            Op::ParamRef(_)
            | Op::Literal(_)
            | Op::Iota(_)
            | Op::Map(_)
            | Op::Contract(_)
            | Op::Linear(_)
            | Op::Reduce(_)
            | Op::TopK(_)
            | Op::Gather(_)
            | Op::Split(_)
            | Op::Merge(_)
            | Op::Rename(_)
            | Op::Slice(_)
            | Op::Concat(_)
            | Op::Past(_)
            | Op::Attention(_)
            | Op::Route(_)
            | Op::Dispatch(_)
            | Op::Combine(_) => Vec::new(),
        }
    }
}
