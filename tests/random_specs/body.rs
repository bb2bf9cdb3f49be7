//! The statements of a body: random well-typed arithmetic over named axes.

use super::{Generator, random::Random};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32,
    I32,
    Bool,
}

/// The type of a value: a row for each token (or slot, in an expert), or one for all, of axes of fixed size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub kind: Kind,
    pub rows: bool,
    pub dims: Vec<Dim>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dim {
    pub axis: String,
    pub size: u64,
}

impl Shape {
    pub fn rows(dims: &[Dim]) -> Shape {
        Shape { kind: Kind::F32, rows: true, dims: dims.to_vec() }
    }

    pub fn dim(&self, axis: &str) -> Option<&Dim> {
        self.dims.iter().find(|dim| dim.axis == axis)
    }

    pub fn elements(&self) -> u64 {
        self.dims.iter().map(|dim| dim.size).product()
    }

    /// Whether the other has all of its axes.
    pub fn within(&self, other: &Shape) -> bool {
        (other.rows || !self.rows) && self.dims.iter().all(|dim| other.dims.contains(dim))
    }

    /// The axes of both, where no name has two sizes and the whole stays small.
    fn union(&self, other: &Shape) -> Option<Shape> {
        let mut union = self.clone();
        union.rows |= other.rows;
        for dim in &other.dims {
            match union.dim(&dim.axis) {
                None => union.dims.push(dim.clone()),
                Some(known) if known.size == dim.size => {}
                Some(_) => return None,
            }
        }
        (union.elements() <= LARGEST_ROW).then_some(union)
    }

    fn without(&self, axes: &[Dim]) -> Shape {
        Shape { dims: self.dims.iter().filter(|dim| !axes.contains(dim)).cloned().collect(), ..self.clone() }
    }

    fn of(&self, kind: Kind) -> Shape {
        Shape { kind, ..self.clone() }
    }
}

pub const LARGEST_ROW: u64 = 160;

#[derive(Clone, Debug)]
pub struct Value {
    /// A name, or an expression in brackets.
    pub text: String,
    pub shape: Shape,
    /// A bound of its magnitude, roughly.
    pub most: f32,
    /// The axis (and its size) that it is an index of.
    pub index_of: Option<Dim>,
}

/// Where statements stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Tokens along `S`, and parameters.
    Tokens,
    /// Rows of slots, whose axis has no name to use.
    Expert,
    /// No parameters and no axis of rows by name.
    Function,
    /// One position of a scan, and no parameters.
    Scan,
}

impl Place {
    /// Whether parameters and parts may be declared.
    fn declares(self) -> bool {
        match self {
            Place::Tokens | Place::Expert => true,
            Place::Function | Place::Scan => false,
        }
    }
}

pub struct Body<'g> {
    pub generator: &'g mut Generator,
    pub place: Place,
    pub lines: Vec<String>,
    pub values: Vec<Value>,
}

pub fn over(dims: &[Dim]) -> String {
    let names: Vec<&str> = dims.iter().map(|dim| dim.axis.as_str()).collect();
    if names.len() == 1 { format!("over {}", names[0]) } else { format!("over ({})", names.join(", ")) }
}

impl<'g> Body<'g> {
    pub fn new(generator: &'g mut Generator, place: Place, values: Vec<Value>) -> Self {
        Body { generator, place, lines: Vec::new(), values }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.generator.random
    }

    pub fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// A value, named by `let` or left within what reads it.
    pub fn define(&mut self, text: String, shape: Shape, most: f32) -> Value {
        let text = if text.len() > 90 || self.random().percent(65) {
            let name = self.generator.name("v");
            self.line(format!("let {name} = {text}"));
            name
        } else {
            format!("({text})")
        };
        let value = Value { text, shape, most, index_of: None };
        let value = self.tamed(value);
        self.values.push(value.clone());
        value
    }

    /// Keeps magnitudes small, so that results can be compared.
    fn tamed(&mut self, value: Value) -> Value {
        let most = if value.shape.kind == Kind::F32 { 20.0 } else { 1000.0 };
        if value.most <= most {
            return value;
        }
        let name = self.generator.name("v");
        let (text, most) = match value.shape.kind {
            Kind::F32 => match self.random().below(3) {
                0 => (format!("tanh({})", value.text), 1.0),
                1 => (format!("clamp({}, -2.0, 2.0)", value.text), 2.0),
                _ => (format!("{0} / (1.0 + abs({0}))", value.text), 1.0),
            },
            Kind::I32 | Kind::Bool => (format!("{} % 17", value.text), 17.0),
        };
        self.line(format!("let {name} = {text}"));
        Value { text: name, most, ..value }
    }

    /// A value for which `fits` holds; later ones more often.
    pub fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let found: Vec<usize> = (0..self.values.len()).filter(|at| fits(&self.values[*at])).collect();
        if found.is_empty() {
            return None;
        }
        let (a, b) = (self.random().below(found.len()), self.random().below(found.len()));
        Some(self.values[found[a.max(b)]].clone())
    }

    fn number(&mut self) -> Option<Value> {
        self.find(|value| value.shape.kind == Kind::F32)
    }

    fn axis(&mut self, shape: &Shape) -> Option<Dim> {
        self.random().maybe(&shape.dims).cloned()
    }

    /// Some of a shape's axes, at least one.
    fn axes(&mut self, shape: &Shape) -> Option<Vec<Dim>> {
        let mut dims = shape.dims.clone();
        self.random().shuffle(&mut dims);
        let most = dims.len();
        if most == 0 {
            return None;
        }
        let count = if self.random().percent(75) { 1 } else { self.random().within(1, most as u64) as usize };
        dims.truncate(count);
        Some(dims)
    }

    /// A new parameter over some axes, in any order.
    pub fn param(&mut self, dims: &[Dim]) -> Value {
        let mut dims = dims.to_vec();
        self.random().shuffle(&mut dims);
        let name = self.generator.name("p");
        let axes: Vec<String> = dims.iter().map(|dim| self.generator.axis_of_param(dim)).collect();
        let word = if self.random().percent(10) { "buffer" } else { "param" };
        self.line(format!("{word} {name}[{}]", axes.join(", ")));
        let most = match &dims[..] {
            [] | [_] => 1.5,
            [.., last] => (3.0 / last.size as f32).sqrt(),
        };
        Value { text: name, shape: Shape { kind: Kind::F32, rows: false, dims }, most, index_of: None }
    }

    /// One random statement or expression; several tries may fail before one fits.
    pub fn grow(&mut self) {
        if self.generator.crosses && self.place == Place::Tokens && self.random().percent(10) && self.across().is_some()
        {
            return;
        }
        for _ in 0..12 {
            let grown = match self.random().below(34) {
                0..=3 => self.unary(),
                4..=6 => self.binary(),
                7 => self.with_constant(),
                8 => self.comparison(),
                9 => self.logic(),
                10 => self.choice(),
                11..=12 => self.integers(),
                13 => self.conversion(),
                14..=15 => self.reduction(),
                16 => self.along_an_axis(),
                17 => self.top_k(),
                18 => self.gather(),
                19 => self.split(),
                20 => self.merge(),
                21 => self.rename(),
                22 => self.slice(),
                23 => self.concat(),
                24..=25 => self.product_with_param(),
                26 => self.product(),
                27 => self.norm(),
                28 => self.call(),
                29 => self.chance(),
                30 => self.repeated(),
                31 => self.windows(),
                32 => self.scattered(),
                _ => self.bias(),
            };
            if grown.is_some() {
                return;
            }
        }
    }

    fn unary(&mut self) -> Option<Value> {
        let x = self.number()?;
        let (t, m) = (&x.text, x.most);
        let forms: [(String, f32); 27] = [
            (format!("tanh({t})"), 1.0),
            (format!("sigmoid({t})"), 1.0),
            (format!("silu({t})"), m),
            (format!("relu({t})"), m),
            (format!("gelu({t})"), m),
            (format!("gelu_tanh({t})"), m),
            (format!("softplus({t})"), m + 1.0),
            (format!("abs({t})"), m),
            (format!("sign({t})"), 1.0),
            (format!("floor({t})"), m + 1.0),
            (format!("ceil({t} * 1.5)"), m * 1.5 + 1.0),
            (format!("round({t} * 3.0)"), m * 3.0 + 1.0),
            (format!("sin({t})"), 1.0),
            (format!("cos({t})"), 1.0),
            (format!("erf({t})"), 1.0),
            (format!("sqrt(abs({t}))"), m.sqrt()),
            (format!("square({t})"), m * m),
            (format!("-{t}"), m),
            (format!("clamp({t}, -1.0, 1.5)"), 1.5),
            (format!("exp(min({t}, 2.0))"), 8.0),
            (format!("log(1.0 + abs({t}))"), m),
            (format!("exp(-abs({t}))"), 1.0),
            (format!("{t} ^ 2"), m * m),
            (format!("rsqrt(1.0 + {t} * {t})"), 1.0),
            (format!("(0.1 + abs({t})) ^ 0.5"), m + 1.0),
            (format!("1.0 / (1.5 + square({t}))"), 1.0),
            (format!("{t} % 1.5"), 1.5),
        ];
        let (text, most) = self.random().pick(&forms).clone();
        Some(self.define(text, x.shape, most))
    }

    /// Two values whose axes go together.
    fn pair(&mut self, kind: Kind) -> Option<(Value, Value, Shape)> {
        let a = self.find(|value| value.shape.kind == kind)?;
        let b = self.find(|value| value.shape.kind == kind && value.shape.union(&a.shape).is_some())?;
        let shape = a.shape.union(&b.shape)?;
        Some((a, b, shape))
    }

    fn binary(&mut self) -> Option<Value> {
        let (a, b, shape) = self.pair(Kind::F32)?;
        let (x, y, m, n) = (&a.text, &b.text, a.most, b.most);
        let forms: [(String, f32); 9] = [
            (format!("{x} + {y}"), m + n),
            (format!("{x} + {y}"), m + n),
            (format!("{x} - {y}"), m + n),
            (format!("{x} * {y}"), m * n),
            (format!("{x} * {y}"), m * n),
            (format!("{x} / (1.0 + abs({y}))"), m),
            (format!("min({x}, {y})"), m.max(n)),
            (format!("max({x}, {y})"), m.max(n)),
            (format!("(0.5 + abs({x})) ^ clamp({y}, -1.0, 1.0)"), m + 2.0),
        ];
        let (text, most) = self.random().pick(&forms).clone();
        Some(self.define(text, shape, most))
    }

    fn with_constant(&mut self) -> Option<Value> {
        let x = self.number()?;
        let scale = self.generator.constant();
        let (t, m) = (&x.text, x.most);
        let forms: [(String, f32); 7] = [
            (format!("{t} * {scale}"), m * 2.0),
            (format!("{scale} * {t}"), m * 2.0),
            (format!("{t} + {scale}"), m + 2.0),
            (format!("{scale} - {t}"), m + 2.0),
            (format!("{t} * 1.0 + 0.0"), m),
            (format!("{t} * 0.0 + {scale}"), 2.0),
            (format!("{t} / 3"), m),
        ];
        let (text, most) = self.random().pick(&forms).clone();
        Some(self.define(text, x.shape, most))
    }

    fn comparison(&mut self) -> Option<Value> {
        let kind = if self.random().percent(70) { Kind::F32 } else { Kind::I32 };
        let (a, b, shape) = self.pair(kind)?;
        let ops: &[&str] = if kind == Kind::F32 { &["<", "<=", ">", ">="] } else { &["<", "==", "!=", ">="] };
        let op = *self.random().pick(ops);
        let text = match (self.random().percent(30), kind) {
            (true, Kind::F32) => format!("{} {op} 0.25", a.text),
            (true, Kind::I32 | Kind::Bool) => format!("{} {op} 2", a.text),
            (false, _) => format!("{} {op} {}", a.text, b.text),
        };
        let shape = if text.ends_with(" 0.25") || text.ends_with(" 2") { a.shape } else { shape };
        Some(self.define(text, shape.of(Kind::Bool), 1.0))
    }

    fn logic(&mut self) -> Option<Value> {
        let (a, b, shape) = self.pair(Kind::Bool)?;
        let text = match self.random().below(4) {
            0 => format!("{} and {}", a.text, b.text),
            1 => format!("{} or not {}", a.text, b.text),
            2 => format!("{} == {}", a.text, b.text),
            _ => format!("{} != {}", a.text, b.text),
        };
        Some(self.define(text, shape, 1.0))
    }

    /// `where`.
    fn choice(&mut self) -> Option<Value> {
        let condition = self.find(|value| value.shape.kind == Kind::Bool)?;
        let kind = if self.random().percent(80) { Kind::F32 } else { Kind::I32 };
        let (a, b, shape) = self.pair(kind)?;
        match self.random().below(4) {
            0 => {
                let shape = condition.shape.union(&a.shape)?.of(kind);
                let no = if kind == Kind::F32 { "-0.5" } else { "3" };
                Some(self.define(format!("where({}, {}, {no})", condition.text, a.text), shape, a.most.max(3.0)))
            }
            1 if kind == Kind::F32 => {
                let shape = condition.shape.of(kind);
                Some(self.define(format!("where({}, 1.0, 0.25)", condition.text), shape, 1.0))
            }
            _ => {
                let shape = condition.shape.union(&shape)?.of(kind);
                let text = format!("where({}, {}, {})", condition.text, a.text, b.text);
                Some(self.define(text, shape, a.most.max(b.most)))
            }
        }
    }

    fn integers(&mut self) -> Option<Value> {
        if self.random().percent(50) {
            return self.positions();
        }
        let (a, b, shape) = self.pair(Kind::I32)?;
        let (x, y, m, n) = (&a.text, &b.text, a.most, b.most);
        let forms: [(String, f32, bool); 12] = [
            (format!("{x} + {y}"), m + n, true),
            (format!("{x} - 3"), m + 3.0, false),
            (format!("{x} * {y}"), m * n, true),
            (format!("{x} / (abs({y}) + 1)"), m, true),
            (format!("{x} % (abs({y}) + 2)"), n + 2.0, true),
            (format!("{x} % -3"), 3.0, false),
            (format!("({x} - 2) / 3"), m, false),
            (format!("min({x}, {y})"), m.max(n), true),
            (format!("max({x}, 1)"), m + 1.0, false),
            (format!("-{x}"), m, false),
            (format!("sign({x} - 1)"), 1.0, false),
            // A quotient by zero is zero.
            (format!("{x} / {y} + {x} % {y}"), m + n, true),
        ];
        let (text, most, both) = self.random().pick(&forms).clone();
        Some(self.define(text, if both { shape } else { a.shape }, most))
    }

    /// Positions along some axis in scope.
    fn positions(&mut self) -> Option<Value> {
        if self.place == Place::Tokens && self.random().percent(25) {
            let shape = Shape { kind: Kind::I32, rows: true, dims: Vec::new() };
            return Some(self.define("positions(over S)".into(), shape, 64.0));
        }
        // The axes of what has a name are in scope.
        let named = |value: &Value| !value.text.starts_with('(');
        let of = self.find(|value| named(value) && value.shape.dims.iter().any(|dim| dim.axis != "K"))?;
        let dims: Vec<Dim> = of.shape.dims.iter().filter(|dim| dim.axis != "K").cloned().collect();
        let dim = self.random().pick(&dims).clone();
        let bare = dim.axis.starts_with('A') && self.random().percent(50);
        let text = if bare { dim.axis.clone() } else { format!("positions(over {})", dim.axis) };
        let shape = Shape { kind: Kind::I32, rows: false, dims: vec![dim.clone()] };
        let value = self.define(text, shape, dim.size as f32);
        Some(value)
    }

    fn conversion(&mut self) -> Option<Value> {
        match self.random().below(4) {
            0 => {
                let x = self.find(|value| value.shape.kind == Kind::Bool)?;
                Some(self.define(format!("f32({})", x.text), x.shape.of(Kind::F32), 1.0))
            }
            1 => {
                let x = self.find(|value| value.shape.kind == Kind::I32)?;
                Some(self.define(format!("f32({}) * 0.125", x.text), x.shape.of(Kind::F32), x.most * 0.125))
            }
            2 => {
                let x = self.number()?;
                Some(self.define(format!("i32({} * 4.0)", x.text), x.shape.of(Kind::I32), x.most * 4.0))
            }
            _ => {
                let x = self.find(|value| value.shape.kind == Kind::Bool)?;
                Some(self.define(format!("i32({})", x.text), x.shape.of(Kind::I32), 1.0))
            }
        }
    }

    fn reduction(&mut self) -> Option<Value> {
        let x = self.find(|value| !value.shape.dims.is_empty())?;
        let axes = self.axes(&x.shape)?;
        let count = axes.iter().map(|dim| dim.size).product::<u64>() as f32;
        let (t, axes_text) = (&x.text, over(&axes));
        let (text, most) = match x.shape.kind {
            Kind::F32 => match self.random().below(6) {
                0 | 1 => (format!("sum({t} {axes_text})"), x.most * count),
                2 => (format!("mean({t} {axes_text})"), x.most),
                3 => (format!("max({t} {axes_text})"), x.most),
                4 => (format!("min({t} {axes_text})"), x.most),
                _ if count < 20.0 => (format!("prod(1.0 + 0.1 * tanh({t}) {axes_text})"), 6.0),
                _ => (format!("sum(square({t}) {axes_text})"), x.most * x.most * count),
            },
            Kind::I32 => match self.random().below(3) {
                0 => (format!("sum({t} {axes_text})"), x.most * count),
                1 => (format!("max({t} {axes_text})"), x.most),
                _ => (format!("min({t} {axes_text})"), x.most),
            },
            Kind::Bool if self.random().percent(50) => (format!("any({t} {axes_text})"), 1.0),
            Kind::Bool => (format!("all({t} {axes_text})"), 1.0),
        };
        Some(self.define(text, x.shape.without(&axes), most))
    }

    /// What all tokens of a pass make together, or each with those before it.
    fn across(&mut self) -> Option<Value> {
        match self.random().below(10) {
            0..=2 => return self.tokens_in_order(),
            3 => return self.assigned(),
            _ => {}
        }
        let x = self.find(|value| value.shape.rows && value.shape.kind != Kind::Bool)?;
        let (t, m) = (&x.text, x.most);
        let one_for_all = Shape { rows: false, ..x.shape.clone() };
        let sum = (format!("sum({t} over S)"), one_for_all.clone(), 6.0 * m);
        let running = (format!("cumsum({t} over S)"), x.shape.clone(), 6.0 * m);
        let most = (format!("max({t} over S)"), one_for_all.clone(), m);
        let forms = match x.shape.kind {
            Kind::I32 | Kind::Bool => vec![sum, running, most],
            Kind::F32 => vec![
                sum,
                running,
                most,
                (format!("mean({t} over S)"), one_for_all.clone(), m),
                (format!("softmax({t} over S)"), x.shape.clone(), 1.0),
                (format!("{t} - mean({t} over S)"), x.shape.clone(), 2.0 * m),
                (format!("{t} * f32(size(S)) / 6.0"), x.shape.clone(), m),
                (format!("top_k({t}, 1 over S).values[K = 0]"), one_for_all.clone(), m),
                (format!("scatter_add({t}, mod(positions(over S), 2), (S) as S)"), x.shape.clone(), 3.0 * m),
            ],
        };
        let fits = |form: &&(String, Shape, f32)| !form.0.starts_with("top_k") || x.shape.dim("K").is_none();
        let forms: Vec<_> = forms.iter().filter(fits).collect();
        let (text, shape, most) = (*self.random().pick(&forms)).clone();
        Some(self.define(text, shape, most))
    }

    fn along_an_axis(&mut self) -> Option<Value> {
        let x = self.find(|value| value.shape.kind == Kind::F32 && !value.shape.dims.is_empty())?;
        let axis = self.axis(&x.shape)?;
        if self.random().percent(30) && axis.size <= 24 && (x.shape.dim("K").is_none() || axis.axis == "K") {
            return self.in_order(&x, &axis);
        }
        let (t, a) = (&x.text, &axis.axis);
        let forms: [(String, f32); 6] = [
            (format!("{t} / (0.1 + deviation({t} over {a}))"), 10.0 * x.most),
            (format!("softmax({t} over {a})"), 1.0),
            (format!("log_softmax({t} over {a})"), 2.0 * x.most + 3.0),
            (format!("normalise(0.1 + abs({t}) over {a})"), 1.0),
            (format!("unit({t}, 0.01 over {a})"), 1.0),
            (format!("{t} - mean({t} over {a})"), 2.0 * x.most),
        ];
        let (text, most) = self.random().pick(&forms).clone();
        Some(self.define(text, x.shape, most))
    }

    /// What looks along an axis in its order, or puts it in order.
    fn in_order(&mut self, x: &Value, axis: &Dim) -> Option<Value> {
        let (t, a, n) = (&x.text, &axis.axis, axis.size as f32);
        match self.random().below(4) {
            0 => Some(self.define(format!("cumsum({t} over {a})"), x.shape.clone(), x.most * n)),
            1 => Some(self.define(format!("sort({t} over {a})"), x.shape.clone(), x.most)),
            2 => Some(self.define(format!("argsort({t} over {a})"), x.shape.of(Kind::I32), n)),
            _ => {
                let shape = x.shape.without(std::slice::from_ref(axis)).of(Kind::I32);
                let value = self.define(format!("argmax({t} over {a})"), shape, n);
                let at = self.values.len() - 1;
                self.values[at].index_of = (axis.axis != "K").then(|| axis.clone());
                Some(value)
            }
        }
    }

    fn top_k(&mut self) -> Option<Value> {
        let x = self.find(|value| value.shape.kind == Kind::F32 && !value.shape.dims.is_empty())?;
        let axis = self.axis(&x.shape)?;
        if axis.axis != "K" && x.shape.dim("K").is_some() {
            return None;
        }
        let k = self.random().within(1, axis.size.min(4));
        let (values, indices) = self.chosen(&x, &axis, k);
        self.values.push(values);
        self.values.push(indices.clone());
        Some(indices)
    }

    /// Values and indices of the `k` largest.
    pub fn chosen(&mut self, x: &Value, axis: &Dim, k: u64) -> (Value, Value) {
        let mut shape = x.shape.clone();
        for dim in shape.dims.iter_mut().filter(|dim| *dim == axis) {
            *dim = Dim { axis: "K".into(), size: k };
        }
        let call = format!("top_k({}, {k} over {})", x.text, axis.axis);
        let (v, i) = (self.generator.name("v"), self.generator.name("i"));
        match self.random().below(3) {
            0 => {
                self.line(format!("let {v} = {call}.values"));
                self.line(format!("let {i} = {call}.indices"));
            }
            _ => self.line(format!("let ({v}, {i}) = {call}")),
        }
        let values = Value { text: v, shape: shape.clone(), most: x.most, index_of: None };
        let index_of = (axis.axis != "K").then(|| axis.clone());
        let indices = Value { text: i, shape: shape.of(Kind::I32), most: axis.size as f32, index_of };
        if self.random().percent(30) {
            let to = self.generator.new_axis(k);
            let renamed = |body: &mut Body, value: Value| {
                let name = body.generator.name("v");
                body.line(format!("let {name} = rename({}, K as {})", value.text, to.axis));
                let mut shape = value.shape.clone();
                shape.dims.iter_mut().filter(|dim| dim.axis == "K").for_each(|dim| *dim = to.clone());
                Value { text: name, shape, ..value }
            };
            return (renamed(self, values), renamed(self, indices));
        }
        (values, indices)
    }

    /// Look-up by an index known to be inside, or made so; or its one-hot mask.
    fn gather(&mut self) -> Option<Value> {
        let index = self.find(|value| value.shape.kind == Kind::I32)?;
        let known = index.index_of.clone();
        let fits = |value: &Value, dim: &Dim| {
            value.shape.dims.contains(dim)
                && index.shape.dim(&dim.axis).is_none()
                && value.shape.without(std::slice::from_ref(dim)).union(&index.shape).is_some()
        };
        if let Some(dim) = &known
            && index.shape.dim(&dim.axis).is_none()
            && self.values.iter().any(|value| !value.text.starts_with('(') && value.shape.dims.contains(dim))
            && self.random().percent(30)
        {
            let mut shape = index.shape.of(Kind::F32);
            shape.dims.push(dim.clone());
            if shape.elements() <= LARGEST_ROW {
                return Some(self.define(format!("one_hot({} over {})", index.text, dim.axis), shape, 1.0));
            }
        }
        let x = match &known {
            Some(dim) => self.find(|value| fits(value, dim))?,
            None => self.find(|value| value.shape.dims.iter().any(|dim| fits(value, dim)))?,
        };
        let dims: Vec<Dim> = x.shape.dims.iter().filter(|dim| fits(&x, dim)).cloned().collect();
        let dim = known.unwrap_or_else(|| self.random().pick(&dims).clone());
        let clamped = format!("min(max({}, 0), {})", index.text, dim.size - 1);
        let at = if index.index_of.is_some() { index.text.clone() } else { clamped };
        let shape = index.shape.union(&x.shape.without(std::slice::from_ref(&dim)))?.of(x.shape.kind);
        let shape = Shape { rows: index.shape.rows || x.shape.rows, ..shape };
        Some(self.define(format!("gather({}, {at} over {})", x.text, dim.axis), shape, x.most))
    }

    fn split(&mut self) -> Option<Value> {
        let composite = |dim: &Dim| (2..dim.size).any(|part| dim.size.is_multiple_of(part));
        let x = self.find(|value| value.shape.dims.iter().any(composite))?;
        let dims: Vec<Dim> = x.shape.dims.iter().filter(|dim| composite(dim)).cloned().collect();
        let dim = self.random().pick(&dims).clone();
        let parts: Vec<u64> = (2..dim.size).filter(|part| dim.size.is_multiple_of(*part)).collect();
        let part = *self.random().pick(&parts);
        let (a, b) = (self.generator.new_axis(part), self.generator.new_axis(dim.size / part));
        let text = match self.random().below(3) {
            0 => format!("split({}, {} as ({} = {}, {}))", x.text, dim.axis, a.axis, a.size, b.axis),
            1 => format!("split({}, {} as ({}, {} = {}))", x.text, dim.axis, a.axis, b.axis, b.size),
            _ => format!("split({}, {} as ({} = {}, {} = {}))", x.text, dim.axis, a.axis, a.size, b.axis, b.size),
        };
        let mut shape = x.shape.clone();
        let at = shape.dims.iter().position(|other| *other == dim)?;
        shape.dims.splice(at..=at, [a, b]);
        Some(self.define(text, shape, x.most))
    }

    fn merge(&mut self) -> Option<Value> {
        let x = self.find(|value| value.shape.dims.len() > 1)?;
        let mut dims = x.shape.dims.clone();
        self.random().shuffle(&mut dims);
        if dims.len() > 2 && self.random().percent(70) {
            dims.truncate(2);
        }
        let into = self.generator.new_axis(dims.iter().map(|dim| dim.size).product());
        let names: Vec<&str> = dims.iter().map(|dim| dim.axis.as_str()).collect();
        let text = format!("merge({}, ({}) as {})", x.text, names.join(", "), into.axis);
        let mut shape = x.shape.without(&dims);
        shape.dims.push(into);
        Some(self.define(text, shape, x.most))
    }

    fn rename(&mut self) -> Option<Value> {
        let x = self.find(|value| !value.shape.dims.is_empty())?;
        let dim = self.axis(&x.shape)?;
        let to = self.generator.new_axis(dim.size);
        let text = format!("rename({}, {} as {})", x.text, dim.axis, to.axis);
        let mut shape = x.shape.clone();
        shape.dims.iter_mut().filter(|other| **other == dim).for_each(|other| *other = to.clone());
        let mut value = self.define(text, shape, x.most);
        value.index_of = x.index_of;
        Some(value)
    }

    fn slice(&mut self) -> Option<Value> {
        let x = self.find(|value| value.shape.dims.iter().any(|dim| dim.size > 1))?;
        let dims: Vec<Dim> = x.shape.dims.iter().filter(|dim| dim.size > 1).cloned().collect();
        let dim = self.random().pick(&dims).clone();
        let start = self.random().within(0, dim.size - 1);
        if self.random().percent(50) {
            let text = format!("{}[{} = {start}]", x.text, dim.axis);
            return Some(self.define(text, x.shape.without(&[dim]), x.most));
        }
        let end = self.random().within(start + 1, dim.size);
        let to = self.generator.new_axis(end - start);
        let text = format!("rename({}, {} as {2})[{2} = {start}..{end}]", x.text, dim.axis, to.axis);
        let mut shape = x.shape.clone();
        shape.dims.iter_mut().filter(|other| **other == dim).for_each(|other| *other = to.clone());
        Some(self.define(text, shape, x.most))
    }

    fn concat(&mut self) -> Option<Value> {
        let a = self.find(|value| !value.shape.dims.is_empty())?;
        let dim = self.axis(&a.shape)?;
        let rest = |shape: &Shape| {
            let mut dims = shape.without(std::slice::from_ref(&dim)).dims;
            dims.sort_by(|a, b| a.axis.cmp(&b.axis));
            (shape.kind, shape.rows, dims)
        };
        let b = self.find(|value| value.shape.dims.contains(&dim) && rest(&value.shape) == rest(&a.shape))?;
        let name = self.generator.name("A");
        let t = &name;
        let [x, y] = [&a, &b].map(|value| format!("rename({}, {} as {t})", value.text, dim.axis));
        let (text, size) = match self.random().below(3) {
            0 if a.shape.kind == Kind::F32 && dim.size > 1 => {
                (format!("concat(-{x}[{t} = 1..{}], {y}[{t} = 0..1] over {t})", dim.size), dim.size)
            }
            1 => (format!("concat({x}, {y}, {x} over {t})"), dim.size * 3),
            _ => (format!("concat({x}, {y} over {t})"), dim.size * 2),
        };
        let to = Dim { axis: name, size };
        let mut shape = a.shape.clone();
        shape.dims.iter_mut().filter(|other| **other == dim).for_each(|other| *other = to.clone());
        if shape.elements() > LARGEST_ROW {
            return None;
        }
        Some(self.define(text, shape, a.most.max(b.most)))
    }

    fn product_with_param(&mut self) -> Option<Value> {
        if !self.place.declares() {
            return None;
        }
        let x = self.find(|value| value.shape.kind == Kind::F32 && !value.shape.dims.is_empty())?;
        let whole = self.random().percent(50);
        let axes = if whole { x.shape.dims.clone() } else { self.axes(&x.shape)? };
        let mut own = Vec::new();
        for _ in 0..self.random().below(3) {
            let size = self.random().within(1, 6);
            own.push(self.generator.new_axis(size));
        }
        let mut shape = x.shape.without(&axes);
        let batch = shape.dims.first().cloned().filter(|_| self.random().percent(25));
        shape.dims.extend(own.clone());
        if shape.elements() > LARGEST_ROW {
            return None;
        }
        let all: Vec<Dim> = axes.iter().cloned().chain(own).chain(batch.clone()).collect();
        let param = self.param(&all);
        let count = axes.iter().map(|dim| dim.size).product::<u64>() as f32;
        let over = if axes.len() == 1 && batch.is_none() && self.random().percent(60) {
            String::new()
        } else {
            format!(" {}", over(&axes))
        };
        let text = match self.random().percent(80) {
            true => format!("{} · {}{over}", x.text, param.text),
            false => format!("{} · {}{over}", param.text, x.text),
        };
        Some(self.define(text, shape, x.most * param.most * count))
    }

    fn product(&mut self) -> Option<Value> {
        let (a, b, union) = self.pair(Kind::F32)?;
        let mut shared: Vec<Dim> = a.shape.dims.iter().filter(|dim| b.shape.dims.contains(dim)).cloned().collect();
        if shared.is_empty() {
            return None;
        }
        if self.random().percent(60) {
            shared.truncate(1);
        }
        let count = shared.iter().map(|dim| dim.size).product::<u64>() as f32;
        let text = format!("{} · {} {}", a.text, b.text, over(&shared));
        Some(self.define(text, union.without(&shared), a.most * b.most * count))
    }

    fn norm(&mut self) -> Option<Value> {
        if !self.place.declares() {
            return None;
        }
        let x = self.find(|value| {
            value.shape.kind == Kind::F32 && value.shape.dims.iter().any(|dim| dim.axis != "K" && dim.size > 1)
        })?;
        let dims: Vec<Dim> = x.shape.dims.iter().filter(|dim| dim.axis != "K" && dim.size > 1).cloned().collect();
        let dim = self.random().pick(&dims).clone();
        let name = self.generator.name("norm");
        let kind = *self.random().pick(&["rms_norm", "layer_norm"]);
        self.generator.uses(&format!("std::norm::{kind}"));
        self.line(format!("part {name} = {kind}(0.01 over {})", dim.axis));
        Some(self.define(format!("{name}({})", x.text), x.shape, 1.5 * (dim.size as f32).sqrt() + 1.5))
    }

    /// A function of the file.
    fn call(&mut self) -> Option<Value> {
        if !self.place.declares() {
            return None;
        }
        let function = self.generator.function();
        let fits = |value: &Value| {
            let [dim] = &value.shape.dims[..] else { return false };
            value.shape.kind == Kind::F32 && value.shape.rows && dim.size == function.takes && value.most <= 20.0
        };
        let x = self.find(fits)?;
        let axis = x.shape.dims[0].axis.clone();
        let mut shape = function.gives.clone();
        shape.dims.iter_mut().filter(|dim| dim.axis == "P").for_each(|dim| dim.axis = axis.clone());
        let scale = self.generator.constant();
        let text = match self.random().percent(50) {
            true => format!("{}({}, {scale} over {axis})", function.name, x.text),
            false => format!("{}({}, scale = {scale} over {axis})", function.name, x.text),
        };
        Some(self.define(text, shape, function.most))
    }

    fn bias(&mut self) -> Option<Value> {
        if !self.place.declares() {
            return None;
        }
        let x = self.find(|value| value.shape.kind == Kind::F32 && !value.shape.dims.is_empty())?;
        let axes = self.axes(&x.shape)?;
        let param = self.param(&axes);
        let (text, most) = match self.random().percent(60) {
            true => (format!("{} + {}", x.text, param.text), x.most + 1.5),
            false => (format!("{} * {}", x.text, param.text), x.most * 1.5),
        };
        Some(self.define(text, x.shape, most))
    }

    /// Makes a value one of this type: whatever axes it lacks or has too many.
    pub fn coerced(&mut self, value: Value, wanted: &Shape) -> Value {
        let mut value = value;
        if value.shape.kind != Kind::F32 {
            let text = match value.shape.kind {
                Kind::Bool => format!("f32({})", value.text),
                Kind::I32 | Kind::F32 => format!("0.05 * f32({})", value.text),
            };
            value = self.define(text, value.shape.of(Kind::F32), value.most * 0.05);
        }
        let extra: Vec<Dim> = value.shape.dims.iter().filter(|dim| !wanted.dims.contains(dim)).cloned().collect();
        let missing = |value: &Value| -> Vec<Dim> {
            wanted.dims.iter().filter(|dim| !value.shape.dims.contains(dim)).cloned().collect()
        };
        if !extra.is_empty() {
            let lacks = missing(&value);
            let clash = lacks.iter().any(|dim| value.shape.dim(&dim.axis).is_some());
            if self.place.declares() && !lacks.is_empty() && !clash && self.random().percent(70) {
                let all: Vec<Dim> = extra.iter().chain(&lacks).cloned().collect();
                let param = self.param(&all);
                let count = extra.iter().map(|dim| dim.size).product::<u64>() as f32;
                let mut shape = value.shape.without(&extra);
                shape.dims.extend(lacks);
                let text = format!("{} · {} {}", value.text, param.text, over(&extra));
                value = self.define(text, shape, value.most * param.most * count);
            } else {
                let op = *self.random().pick(&["sum", "mean", "max"]);
                let most = value.most * extra.iter().map(|dim| dim.size).product::<u64>() as f32;
                let text = format!("{op}({} {})", value.text, over(&extra));
                value = self.define(text, value.shape.without(&extra), most);
            }
        }
        if wanted.rows && !value.shape.rows {
            let row = self.find(|value| value.shape.kind == Kind::F32 && value.shape.rows).expect("something has rows");
            let dims = row.shape.dims.clone();
            let sum = if dims.is_empty() { row.text } else { format!("mean({} {})", row.text, over(&dims)) };
            let shape = Shape { rows: true, ..value.shape.clone() };
            value = self.define(format!("{} + {sum}", value.text), shape, value.most + row.most);
        }
        let lacks = missing(&value);
        if !lacks.is_empty() {
            let mut shape = value.shape.clone();
            shape.dims.extend(lacks.clone());
            let (text, most) = if !self.place.declares() {
                let terms: Vec<String> =
                    lacks.iter().map(|dim| format!("f32(positions(over {})) * 0.1", dim.axis)).collect();
                (format!("{} + {}", value.text, terms.join(" + ")), value.most + 2.0)
            } else {
                let param = self.param(&lacks);
                (format!("{} * {}", value.text, param.text), value.most * 1.5)
            };
            value = self.define(text, shape, most);
        }
        value
    }

    /// Something of this type, made of what was computed last.
    pub fn finish(&mut self, wanted: &Shape) -> Value {
        let last = self.values.len().saturating_sub(4);
        let some = self.values.len() - last;
        let pick = last + self.random().below(some);
        let value = self.values[pick].clone();
        self.coerced(value, wanted)
    }
}
