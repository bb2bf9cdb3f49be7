//! Forms that a body seldom needs: chance, what is repeated, and all tokens in some order.

use super::body::{Body, Dim, Kind, LARGEST_ROW, Place, Shape, Value};

impl Body<'_> {
    /// Chance, by a key of one number, or of one for each of a value's elements.
    pub fn chance(&mut self) -> Option<Value> {
        // The axes of what has a name are in scope.
        let named = |value: &Value| !value.text.starts_with('(');
        let of = self.find(|value| named(value) && value.shape.dims.iter().any(|dim| dim.axis != "K"))?;
        let dim = of.shape.dims.iter().find(|dim| dim.axis != "K")?.clone();
        let key = self.find(|value| {
            value.shape.kind == Kind::I32
                && value.shape.dim(&dim.axis).is_none()
                && value.shape.elements() * dim.size <= 60
        });
        let number = self.random().within(0, 1000);
        let (key, shape) = match key.filter(|_| self.random().percent(60)) {
            Some(key) => (key.text, key.shape),
            None => (number.to_string(), Shape { kind: Kind::I32, rows: false, dims: Vec::new() }),
        };
        let key = if self.random().percent(30) { format!("key({key}, {}, 3)", number % 7) } else { key };
        let shape = Shape { dims: [shape.dims, vec![dim.clone()]].concat(), ..shape };
        let (name, kind, most) = *self.random().pick(&[
            ("random_uniform", Kind::F32, 1.0),
            ("random_normal", Kind::F32, 6.0),
            ("random_gumbel", Kind::F32, 17.0),
            ("random_bits", Kind::I32, 2.2e9),
        ]);
        let shape = Shape { kind, ..shape };
        Some(self.define(format!("{name}({key} over {})", dim.axis), shape, most))
    }

    /// An expression of its own result.
    pub fn repeated(&mut self) -> Option<Value> {
        let x = self.find(|value| value.shape.kind == Kind::F32 && !value.shape.dims.is_empty())?;
        let dim = self.random().pick(&x.shape.dims).clone();
        let other = self.find(|value| value.shape.kind == Kind::F32 && value.shape.within(&x.shape))?;
        let (t, a, o, m) = (&x.text, &dim.axis, &other.text, x.most);
        // What it works on may be such an expression itself.
        let z = self.generator.name("z");
        let times = self.random().within(1, 5);
        // What is left out once it changes little looks at all elements, those of other tokens as well.
        let until = !x.shape.rows || self.place == Place::Tokens && self.generator.crosses;
        let until = if until && self.random().percent(50) { ", until = 1e-2" } else { "" };
        let (first, next, most) = match self.random().below(5) {
            0 => (t.clone(), format!("0.5 * {z}"), m),
            1 => (t.clone(), format!("tanh({z} + {o})"), 1.0f32.max(m)),
            2 => (format!("0.1 + abs({t})"), format!("normalise({z} over {a})"), 1.0f32.max(m)),
            3 => (t.clone(), format!("{z} - mean({z} over {a})"), 2.0 * m),
            _ => (format!("tanh({t})"), format!("{o} / (1.0 + square({z}))"), 1.0f32.max(other.most)),
        };
        Some(self.define(format!("(iterate {times} ({z} = {first}{until}) {{ {next} }})"), x.shape, most))
    }

    /// All tokens of a pass in the order of something.
    pub fn tokens_in_order(&mut self) -> Option<Value> {
        let x = self.find(|value| value.shape.rows && value.shape.kind == Kind::F32)?;
        let by = self.find(|value| value.shape.rows && value.shape.kind == Kind::F32 && value.shape.dims.is_empty());
        let (t, m) = (&x.text, x.most);
        let one_for_all = Shape { rows: false, ..x.shape.clone() };
        let most_of_them = format!("top_k({t}, ceil(size(S) * 2 / 3) over S)");
        let (text, shape, most) = match (self.random().below(5), by) {
            (0, Some(by)) => {
                let order = format!("rename(argsort({} over S), S as N)", by.text);
                (format!("rename(gather({t}, {order} over S), N as S)"), x.shape, m)
            }
            (1, Some(by)) => {
                let order = format!("argsort(f32(argsort({} over S)) over S)", by.text);
                (format!("f32({order})"), by.shape, 6.0)
            }
            (2, _) if x.shape.dim("K").is_none() => (format!("mean({most_of_them}.values over K)"), one_for_all, m),
            (3, _) if x.shape.dim("K").is_none() => {
                let shape = Shape { kind: Kind::I32, ..one_for_all };
                (format!("max({most_of_them}.indices over K)"), shape, 6.0)
            }
            _ if x.shape.dim("K").is_none() => (format!("sort({t} over S)"), x.shape, m),
            _ => return None,
        };
        Some(self.define(text, shape, most))
    }

    /// Every window of some neighbours along an axis.
    pub fn windows(&mut self) -> Option<Value> {
        let x = self.find(|value| value.shape.dims.iter().any(|dim| dim.size > 1 && dim.axis != "K"))?;
        let dims: Vec<Dim> = x.shape.dims.iter().filter(|dim| dim.size > 1 && dim.axis != "K").cloned().collect();
        let dim = self.random().pick(&dims).clone();
        let (window, step) = (self.random().within(1, dim.size.min(4)), self.random().within(1, 3));
        let places = self.generator.new_axis((dim.size - window) / step + 1);
        let taps = self.generator.new_axis(window);
        let mut shape = x.shape.clone();
        let at = shape.dims.iter().position(|other| *other == dim)?;
        shape.dims.splice(at..=at, [places.clone(), taps.clone()]);
        if shape.elements() > LARGEST_ROW {
            return None;
        }
        let step = if step == 1 { String::new() } else { format!(", step = {step}") };
        let (a, place, tap) = (&dim.axis, &places.axis, &taps.axis);
        Some(self.define(format!("unfold({}, {a} as ({place}, {tap} = {window}){step})", x.text), shape, x.most))
    }

    /// Sums at the places along an axis that an index names; what it names outside is left out.
    pub fn scattered(&mut self) -> Option<Value> {
        if self.place == Place::Scan {
            return None;
        }
        let named = |value: &Value| !value.text.starts_with('(');
        let index =
            self.find(|value| value.shape.kind == Kind::I32 && value.shape.dims.iter().any(|dim| dim.axis != "K"))?;
        let x = self.find(|value| value.shape.kind == Kind::F32 && index.shape.within(&value.shape))?;
        let from: Vec<Dim> = index.shape.dims.iter().filter(|dim| dim.axis != "K").cloned().collect();
        let from = self.random().pick(&from).clone();
        let into =
            self.find(|value| named(value) && value.shape.dims.iter().any(|dim| x.shape.dim(&dim.axis).is_none()))?;
        let into = into.shape.dims.iter().find(|dim| x.shape.dim(&dim.axis).is_none())?.clone();
        let mut shape = x.shape.clone();
        shape.dims.iter_mut().filter(|other| **other == from).for_each(|other| *other = into.clone());
        if shape.elements() > LARGEST_ROW {
            return None;
        }
        let text = format!("scatter_add({}, {}, ({}) as {})", x.text, index.text, from.axis, into.axis);
        Some(self.define(text, shape, x.most * from.size as f32))
    }

    /// Each token's expert, when none may have more than its share.
    pub fn assigned(&mut self) -> Option<Value> {
        let fits = |value: &Value| {
            let [dim] = &value.shape.dims[..] else { return false };
            value.shape.kind == Kind::F32 && value.shape.rows && dim.axis != "K" && dim.size <= 12
        };
        let x = self.find(fits)?;
        let dim = x.shape.dims[0].clone();
        let most = match self.random().below(3) {
            0 => "1".to_owned(),
            1 => format!("ceil(size(S) / {})", dim.size),
            _ => format!("{}", self.random().within(1, 6)),
        };
        let shape = Shape { kind: Kind::I32, rows: true, dims: Vec::new() };
        Some(self.define(format!("assign({}, {most} over (S, {}))", x.text, dim.axis), shape, dim.size as f32))
    }
}
