//! Writes a module as text that [`crate::parse`] reads back.
//!
//! ```text
//! module tiny
//! param @table: f32[V=8, D=4] stored bf16
//! model (ids %ids: i32[S]) {
//!   %table = param {@table} : f32[V=8, D=4]
//!   %h = gather %table, %ids {over V} : f32[S, D=4]
//!   give logits %h
//! }
//! ```

use std::{collections::BTreeMap, fmt::Write};

use moec_types::Axis;

use crate::{Module, OpId, Param, ParamId, RegionId, Role, ValueId, reader};

/// The module as text. Two modules that differ only in numbering and spans give the same text.
pub fn print(module: &Module) -> String {
    let mut printer = Printer { module, names: value_names(module), text: String::new() };
    printer.head();
    printer.model();
    printer.text
}

/// `@table`; `@path#2` for the second of several that share a path; quoted where it must be.
pub(crate) fn param_name(module: &Module, at: ParamId) -> String {
    let Param { path, .. } = module.param(at);
    let shared = module.params.iter().filter(|param| param.path == *path).count() > 1;
    let nth = module.params[..=at.index()].iter().filter(|param| param.path == *path).count();
    let mut name = match reader::is_plain_path(path) {
        true => format!("@{path}"),
        false => format!("@\"{}\"", escaped(path)),
    };
    if shared {
        write!(name, "#{nth}").expect("strings take everything");
    }
    name
}

/// `(A, B)`.
pub(crate) fn axes(axes: &[Axis]) -> String {
    format!("({})", axes.iter().map(Axis::name).collect::<Vec<_>>().join(", "))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A word as it is, anything else in quotes.
fn word_or_string(text: &str) -> String {
    if reader::is_plain_name(text) && !text.is_empty() { text.to_owned() } else { format!("\"{}\"", escaped(text)) }
}

/// `%h` where only one value has the name, `%h.2` for the second of several, `%7` for values without one.
fn value_names(module: &Module) -> BTreeMap<ValueId, String> {
    let mut values = Vec::new();
    collect_values(module, module.body, &mut values);
    let name_of = |value: ValueId| module.name_of(value).filter(|name| !name.is_empty() && reader::is_plain_name(name));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in values.iter().filter_map(|value| name_of(*value)) {
        *counts.entry(name).or_default() += 1;
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unnamed = 0..;
    let mut name = |value: ValueId| match name_of(value) {
        None => format!("%{}", unnamed.next().expect("endless")),
        Some(name) if counts[name] == 1 => format!("%{name}"),
        Some(name) => {
            let nth = seen.entry(name).or_default();
            *nth += 1;
            format!("%{name}.{nth}")
        }
    };
    values.into_iter().map(|value| (value, name(value))).collect()
}

fn collect_values(module: &Module, region: RegionId, values: &mut Vec<ValueId>) {
    let region = module.region(region);
    values.extend(&region.args);
    for at in &region.nodes {
        let node = module.node(*at);
        values.extend(&node.results);
        node.op.regions().into_iter().for_each(|inner| collect_values(module, inner, values));
    }
}

struct Printer<'m> {
    module: &'m Module,
    names: BTreeMap<ValueId, String>,
    text: String,
}

impl Printer<'_> {
    fn line(&mut self, indent: usize, line: &str) {
        writeln!(self.text, "{:1$}{line}", "", indent * 2).expect("strings take everything");
    }

    /// A value out of scope, which only a broken module has, shows as its number.
    fn value(&self, value: ValueId) -> String {
        self.names.get(&value).cloned().unwrap_or_else(|| format!("%undefined.{}", value.0))
    }

    fn values(&self, values: &[ValueId]) -> String {
        values.iter().map(|value| self.value(*value)).collect::<Vec<_>>().join(", ")
    }

    fn head(&mut self) {
        self.line(0, &format!("module {}", word_or_string(&self.module.name)));
        for (number, param) in self.module.params.iter().enumerate() {
            let mut line = format!("param {}: {}", param_name(self.module, ParamId(number as u32)), param.ty);
            write!(line, " stored {}", param.storage).expect("strings take everything");
            if let Some(layers) = &param.layers {
                let layers: Vec<_> = layers.iter().map(u32::to_string).collect();
                write!(line, " layers [{}]", layers.join(", ")).expect("strings take everything");
            }
            if let Some(experts) = param.experts {
                write!(line, " experts {}..{}", experts.first, experts.first + experts.count)
                    .expect("strings take everything");
            }
            match param.role {
                Role::Trained => {}
                Role::Buffer => line.push_str(" buffer"),
                Role::State { initial } => write!(line, " state {initial:?}").expect("strings take everything"),
            }
            self.line(0, &line);
        }
    }

    fn model(&mut self) {
        let input = |(name, value): (&String, ValueId)| {
            format!("{} {}: {}", word_or_string(name), self.value(value), self.module.ty(value))
        };
        let inputs: Vec<_> = self.module.inputs.iter().map(|one| input((&one.name, one.value))).collect();
        self.line(0, &format!("model ({}) {{", inputs.join(", ")));
        self.nodes(self.module.body, 1);
        let output = |(name, value): (&String, ValueId)| format!("{} {}", word_or_string(name), self.value(value));
        let outputs: Vec<_> = self.module.outputs.iter().map(|one| output((&one.name, one.value))).collect();
        self.line(1, format!("give {}", outputs.join(", ")).trim_end());
        self.line(0, "}");
    }

    fn nodes(&mut self, region: RegionId, indent: usize) {
        let module = self.module;
        for at in &module.region(region).nodes {
            self.node(*at, indent);
        }
    }

    fn node(&mut self, at: OpId, indent: usize) {
        let module = self.module;
        let node = module.node(at);
        let mut line = String::new();
        if !node.results.is_empty() {
            line = format!("{} = ", self.values(&node.results));
        }
        line += node.op.mnemonic();
        if !node.operands.is_empty() {
            line = format!("{line} {}", self.values(&node.operands));
        }
        let attributes = node.op.attributes(module);
        if !attributes.is_empty() {
            line = format!("{line} {{{attributes}}}");
        }
        if !node.results.is_empty() {
            let types: Vec<_> = node.results.iter().map(|value| module.ty(*value).to_string()).collect();
            line = format!("{line} : {}", types.join(", "));
        }
        self.line(indent, &line);
        for inner in node.op.regions() {
            let region = module.region(inner);
            let arg = |value: &ValueId| format!("{}: {}", self.value(*value), module.ty(*value));
            let args: Vec<_> = region.args.iter().map(arg).collect();
            self.line(indent + 1, &format!("region ({}) {{", args.join(", ")));
            self.nodes(inner, indent + 2);
            let give = format!("give {}", self.values(&region.results));
            self.line(indent + 2, give.trim_end());
            self.line(indent + 1, "}");
        }
    }
}
