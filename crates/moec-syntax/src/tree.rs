//! The tree of a `.moe` file: what was written, with spans, before anything is known of its meaning.

use std::fmt;

use moec_diag::Span;

/// A word of the text with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub at: Span,
}

/// A string literal, unescaped, with the place of its content and quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    pub at: Span,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// The `//!` lines at the head, without the marks.
    pub doc: Vec<String>,
    /// `serves "NameForCausalLM"`: architecture names in `config.json` that this file is for.
    pub serves: Vec<Text>,
    pub uses: Vec<Use>,
    pub items: Vec<Item>,
    /// The whole text, without the white space at its end.
    pub at: Span,
}

/// `use std::attention::{causal_attention, rope_half}`, `use "gates/mine.moe"::best`.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    /// A file of one's own; `path` is within it.
    pub file: Option<Text>,
    pub path: Vec<Name>,
    /// What is taken from there.
    pub names: Vec<Name>,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Config(Config),
    Definition(Definition),
    Model(Model),
    Weights(Weights),
}

/// `config { D = 2048 from "hidden_size" … }`
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where a `config.json` keeps these keys if it describes several models.
    pub inside: Option<Text>,
    pub entries: Vec<ConfigEntry>,
    pub requires: Vec<Require>,
    /// `ignore "initializer_range", "vision_config"`: keys that a `config.json` may have and that change nothing here, with
    /// all that is inside them.
    pub ignores: Vec<Text>,
    pub at: Span,
}

/// `Hd = D / H from "head_dim" | "attention.head_dim"`: the first key present and not null wins, else the default.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigEntry {
    pub doc: Vec<String>,
    pub name: Name,
    pub default: Expr,
    pub keys: Vec<Text>,
}

/// `require "hidden_act" == "silu"`: a key that, where present, must have this value.
#[derive(Clone, Debug, PartialEq)]
pub struct Require {
    pub key: Text,
    pub value: Expr,
    pub at: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefinitionKind {
    /// Expressions only; no parameters of its own.
    Fn,
    /// Has parameters; takes `x`; gives its `out`.
    Block,
    /// A block that may stand in a bank.
    Expert,
    /// Ends in a `route`.
    Gate,
}

/// `gate name(k, renormalise = true over A) { … }`, and `fn f(x) = expr` as a body of one `out`.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub doc: Vec<String>,
    pub kind: DefinitionKind,
    pub name: Name,
    pub params: Vec<FormalParam>,
    /// Axes that the caller names: `over A`.
    pub axes: Vec<Name>,
    pub body: Vec<Statement>,
    pub at: Span,
}

impl Definition {
    /// How it is called: `rms_norm(eps over A)`.
    pub fn form(&self) -> String {
        let mut form = format!("{}(", self.name.text);
        for (at, param) in self.params.iter().enumerate() {
            form.push_str(if at == 0 { "" } else { ", " });
            form.push_str(&param.name.text);
            form.push_str(if param.default.is_some() { " = …" } else { "" });
        }
        for (at, axis) in self.axes.iter().enumerate() {
            form.push_str(match at {
                0 if self.params.is_empty() => "over ",
                0 => " over ",
                _ => ", ",
            });
            form.push_str(&axis.text);
        }
        form.push(')');
        form
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct FormalParam {
    pub name: Name,
    pub default: Option<Expr>,
}

/// `model decoder(ids: i32[S]) { … }`, `model crossing(ids: i32[S]) across S { … }`
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub doc: Vec<String>,
    pub name: Name,
    pub inputs: Vec<ModelInput>,
    /// The sequence whose tokens, the author accepts, depend on each other within a pass.
    pub across: Vec<Name>,
    pub body: Vec<Statement>,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelInput {
    pub name: Name,
    pub ty: TypeExpr,
}

/// `f32[S, V]`, `i32[S]`, `f32[C = 3, Y, X]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeExpr {
    pub dtype: Name,
    pub axes: Vec<AxisExpr>,
    pub at: Span,
}

/// `Head = heads`, or `D`, whose size is the configuration value (or symbolic input axis) of that name.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisExpr {
    pub name: Name,
    pub size: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub kind: StatementKind,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// `param W[E, D]`; `param head[V, D] = if tied { table }` shares where the expression gives a parameter.
    Param { name: Name, axes: Vec<AxisExpr>, shared: Option<Expr> },
    /// `buffer T[V]`: a parameter that is not trained; `buffer T[V] = expression`: a constant that is computed.
    Buffer { name: Name, axes: Vec<AxisExpr>, value: Option<Expr> },
    /// In a `scan`, `state h[Head, Dv] = 0.0`: what it carries from position to position, and what that is before the first.
    /// Elsewhere, `state b[E] = 0.0 on step b + 0.001`: what the model keeps from step to step.
    State { name: Name, axes: Vec<AxisExpr>, initial: Expr, next: Option<Expr> },
    /// `part attn = attention(8)`: an instance of a block, whose parameters live under `attn`.
    Part { name: Name, value: Expr },
    /// `let (v, i) = top_k(…)`
    Let { pattern: Pattern, value: Expr },
    /// `h = h + attn(h)`: a new value for a name that a `let` introduced, or the next value of a `state`.
    Assign { name: Name, value: Expr },
    /// `route tokens(i, w)`
    Route { value: Expr },
    /// `out expr`, and in a model `out logits: f32[S, V] = expr`.
    Out { name: Option<Name>, ty: Option<TypeExpr>, value: Expr },
    /// `aux balance(0.01) = expression`: a loss, given on request, and how much it counts.
    Aux { name: Name, coefficient: Option<Expr>, value: Expr },
    /// `trace load = expression`: given on request.
    Trace { name: Name, value: Expr },
    /// `layers l in 0..L { … }`
    Layers { index: Name, from: Expr, to: Expr, body: Vec<Statement> },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    Name(Name),
    /// `(v, _)`: `None` for the underscore.
    Tuple(Vec<Option<Name>>, Span),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub kind: Box<ExprKind>,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    /// A value, a configuration entry, a definition, an axis (its positions, as i32), or `inf`.
    Name(String),
    Unary(Unary, Expr),
    Binary(Binary, Expr, Expr),
    /// `a · b`, `a · b over (X, Y)`; no axes written means the one shared axis.
    Contract {
        left: Expr,
        right: Expr,
        over: Vec<Name>,
    },
    /// `f(x, k = 2 over E)`.
    Call {
        function: Name,
        arguments: Vec<Argument>,
        over: Vec<Name>,
    },
    /// `.values`, or a part's parameter.
    Field {
        of: Expr,
        field: Name,
    },
    /// `x[Half = 0]` drops the axis; `x[Half = 0..2]` keeps it.
    Index {
        of: Expr,
        axis: Name,
        from: Expr,
        to: Option<Expr>,
    },
    If {
        condition: Expr,
        yes: Expr,
        no: Option<Expr>,
    },
    /// `iterate 8 (z = l, until = 1e-4) { … }`
    Iterate {
        steps: Expr,
        name: Name,
        initial: Expr,
        until: Option<Expr>,
        body: Expr,
    },
    /// `moe { gate g(…); experts a × 8, b × 1; always c }`
    Moe(Moe),
    /// `bank { a × 8, b × 1 }`: experts without a gate.
    Bank(Vec<BankMember>),
    /// `scan over S { state h[D] = 0.0; h = 0.9 * h + x; out h }`
    Scan {
        over: Name,
        body: Vec<Statement>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Negate,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    /// `l in dense`: membership in a list.
    In,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    Value(Expr),
    Named(Name, Expr),
    /// `Head as (KV, Rep = 4)`, `(KV, Rep) as Head`, `S as T`.
    Regroup {
        from: Vec<Name>,
        to: Vec<AxisExpr>,
        at: Span,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Moe {
    pub gate: Expr,
    pub experts: Vec<BankMember>,
    pub always: Vec<Expr>,
}

/// `wide(F) × 8`; no count means one.
#[derive(Clone, Debug, PartialEq)]
pub struct BankMember {
    pub expert: Expr,
    pub count: Option<Expr>,
}

/// `weights hf { table = "model.embed_tokens.weight" as [V, D] … }`
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    pub name: Name,
    /// What all names begin with in checkpoints that nest this model in another.
    pub inside: Option<Text>,
    pub rules: Vec<WeightRule>,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum WeightRule {
    Bind(Binding),
    /// `ignore "model.layers.{l}.rotary_emb.inv_freq"`
    Ignore(TensorPattern),
    Scaled(Scaled),
}

/// `layers[l].attn.{q,k}_norm.w = "model.layers.{l}.self_attn.{q,k}_norm.weight" as [Dh]`
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    pub target: ParamPattern,
    /// At least one; the first that the checkpoint has is taken.
    pub sources: Vec<TensorSource>,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TensorSource {
    pub tensor: TensorPattern,
    /// One entry for each axis of the checkpoint's tensor, slowest first.
    pub layout: Option<Vec<Lane>>,
}

/// What an axis of a tensor runs over.
#[derive(Clone, Debug, PartialEq)]
pub enum Lane {
    /// An axis of the parameter, or an index of its path.
    Axis(Name),
    /// Of size one.
    One(Span),
    /// `(Head, Dh)`: the last is the fastest.
    Product(Vec<Lane>),
    /// `(Dn | Dr)`: one after the other, one for each of the path's `(q, r)`.
    Beside(Vec<Lane>, Span),
}

/// `scaled "{any}.weight" by "{any}.weight_scale_inv" in [128, 128]`: each block of elements has a factor of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    pub tensor: TensorPattern,
    /// What the bytes are, where the file does not say.
    pub elements: Option<Name>,
    pub scales: TensorPattern,
    pub scale_elements: Option<Name>,
    /// Sizes of a block along the last axes.
    pub blocks: Vec<Expr>,
    pub at: Span,
}

/// `layers[l].ffn.experts[e].{gate,up}`
#[derive(Clone, Debug, PartialEq)]
pub struct ParamPattern {
    pub segments: Vec<ParamSegment>,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ParamSegment {
    /// Text and alternatives, or several names alone.
    pub pieces: Vec<PatternPiece>,
    pub index: Option<Name>,
}

/// A checkpoint tensor's name with holes.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPattern {
    pub pieces: Vec<PatternPiece>,
    pub at: Span,
}

/// As it is written, without the quotes.
impl fmt::Display for TensorPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            PatternPiece::Text(text) => f.write_str(text),
            PatternPiece::Index(index) => write!(f, "{{{index}}}"),
            PatternPiece::AtLeast { index, least } => write!(f, "{{{index} >= {least}}}"),
            PatternPiece::Several(names) => write!(f, "({})", names.join(", ")),
            PatternPiece::Alternatives(names) => write!(f, "{{{}}}", names.join(",")),
            PatternPiece::Any => f.write_str("{any}"),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternPiece {
    Text(String),
    /// `{l}`: the number that the parameter's path has at `[l]`.
    Index(String),
    /// `{l >= L}`, after `ignore` only: a number from one on, which is a number or a `config` entry.
    AtLeast {
        index: String,
        least: String,
    },
    /// `(gate, up)`, in a path only: parameters that lie side by side in one tensor, or have one each.
    Several(Vec<String>),
    /// `{gate,up}`: the n-th alternative on one side goes with the n-th on the other.
    Alternatives(Vec<String>),
    /// `{any}`, in `ignore` only.
    Any,
}
