//! Reads what [`crate::print`] wrote. Types are inferred again, and must be those of the text.

use std::collections::BTreeMap;

use moec_diag::Span;

use crate::{
    Experts, Input, Module, Op, Output, Param, ParseError, RegionId, Role, ValueId,
    reader::{ModelText, Reader},
};

/// A module from text. Its nodes have no source ([`Span::NONE`]).
pub fn parse(text: &str) -> Result<Module, ParseError> {
    let mut parser = Parser { reader: Reader::new(text), module: Module::new(""), scopes: vec![BTreeMap::new()] };
    parser.module()?;
    Ok(parser.module)
}

struct Parser<'t> {
    reader: Reader<'t>,
    module: Module,
    scopes: Vec<BTreeMap<&'t str, ValueId>>,
}

impl<'t> Parser<'t> {
    fn module(&mut self) -> Result<(), ParseError> {
        self.reader.expect_word("module")?;
        self.module.name = self.word_or_string()?;
        while self.reader.eats_word("param") {
            self.param()?;
        }
        self.reader.expect_word("model")?;
        self.model()?;
        match self.reader.at_end() {
            true => Ok(()),
            false => Err(self.reader.error("more text after the model")),
        }
    }

    fn word_or_string(&mut self) -> Result<String, ParseError> {
        if self.reader.sees("\"") { self.reader.string() } else { self.reader.word().map(str::to_owned) }
    }

    /// `param @layers[l].ffn.experts[e].up: f32[F=8, D=4] stored bf16 layers [1] experts 0..8`
    fn param(&mut self) -> Result<(), ParseError> {
        let at = self.reader.here();
        let (path, name) = self.reader.param_name()?;
        self.reader.expect(":")?;
        let ty = self.reader.tensor_type()?;
        if ty.elements().is_none() {
            return Err(self.reader.error_at(at, format!("a parameter has fixed sizes, found {ty}")));
        }
        self.reader.expect_word("stored")?;
        let storage = self.reader.dtype()?;
        let mut layers = None;
        if self.reader.eats_word("layers") {
            layers = Some(self.reader.list("[", "]", Reader::integer)?);
        }
        let mut experts = None;
        if self.reader.eats_word("experts") {
            let (first, count) = self.range()?;
            experts = Some(Experts { first, count });
        }
        let role = self.role()?;
        let id = self.module.add_param(Param { path, ty, layers, experts, storage, role, at: Span::NONE });
        match self.reader.names.insert(name.clone(), id) {
            None => Ok(()),
            Some(_) => Err(self.reader.error_at(at, format!("two parameters `@{name}`"))),
        }
    }

    /// `buffer`, `state 0.5`; nothing is a trained one.
    fn role(&mut self) -> Result<Role, ParseError> {
        if self.reader.eats_word("buffer") {
            return Ok(Role::Buffer);
        }
        if !self.reader.eats_word("state") {
            return Ok(Role::Trained);
        }
        Ok(Role::State { initial: self.reader.number()? as f32 })
    }

    fn range(&mut self) -> Result<(u32, u32), ParseError> {
        range(&mut self.reader)
    }

    fn model(&mut self) -> Result<(), ParseError> {
        let body = self.module.body;
        self.reader.expect("(")?;
        while !self.reader.eats(")") {
            if !self.module.inputs.is_empty() {
                self.reader.expect(",")?;
            }
            let name = self.word_or_string()?;
            let value = self.arg(body)?;
            self.module.inputs.push(Input { name, value });
        }
        self.reader.expect("{")?;
        self.nodes(body)?;
        while !self.reader.eats("}") {
            if !self.module.outputs.is_empty() {
                self.reader.expect(",")?;
            }
            let name = self.word_or_string()?;
            let value = self.use_value()?;
            self.module.outputs.push(Output { name, value });
            self.module.region_mut(body).results.push(value);
        }
        Ok(())
    }

    /// `%x: f32[S, D=4]`.
    fn arg(&mut self, region: RegionId) -> Result<ValueId, ParseError> {
        let (name, at) = self.reader.value_name()?;
        self.reader.expect(":")?;
        let ty = self.reader.value_type()?;
        let value = self.module.add_arg(region, ty);
        self.define(name, at, value)?;
        Ok(value)
    }

    fn define(&mut self, name: &'t str, at: usize, value: ValueId) -> Result<(), ParseError> {
        if self.scopes.iter().any(|scope| scope.contains_key(name)) {
            return Err(self.reader.error_at(at, format!("`%{name}` is defined twice")));
        }
        self.scopes.last_mut().expect("a scope is open").insert(name, value);
        let own = name.split('.').next().unwrap_or(name);
        if !own.starts_with(|c: char| c.is_ascii_digit()) {
            self.module.set_name(value, own);
        }
        Ok(())
    }

    fn use_value(&mut self) -> Result<ValueId, ParseError> {
        let (name, at) = self.reader.value_name()?;
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        found.copied().ok_or_else(|| self.reader.error_at(at, format!("`%{name}` is not defined here")))
    }

    /// Up to and including the word `give`.
    fn nodes(&mut self, region: RegionId) -> Result<(), ParseError> {
        while !self.reader.eats_word("give") {
            if self.reader.at_end() {
                return Err(self.reader.error("a region ends in `give`"));
            }
            self.node(region)?;
        }
        Ok(())
    }

    fn node(&mut self, region: RegionId) -> Result<(), ParseError> {
        let mut results = Vec::new();
        while self.reader.sees("%") {
            results.push(self.reader.value_name()?);
            if !self.reader.eats(",") {
                self.reader.expect("=")?;
                break;
            }
        }
        let at = self.reader.here();
        let mnemonic = self.reader.word()?;
        let mut operands = Vec::new();
        while self.reader.sees("%") {
            operands.push(self.use_value()?);
            if !self.reader.eats(",") {
                break;
            }
        }
        let braces = self.reader.eats("{");
        let Some(op) = Op::read(mnemonic, &mut self.reader) else {
            return Err(self.reader.error_at(at, format!("no op `{mnemonic}`")));
        };
        let mut op = op?;
        if braces {
            self.reader.expect("}")?;
        }
        let types_at = self.reader.here();
        let mut types = Vec::new();
        if self.reader.eats(":") {
            types.push(self.reader.value_type()?);
            while self.reader.eats(",") {
                types.push(self.reader.value_type()?);
            }
        }
        for inner in op.regions_mut() {
            *inner = self.region()?;
        }
        let node = self.module.create(op, operands, Span::NONE);
        let node = node.map_err(|error| self.reader.error_at(at, error.to_string()))?;
        let values = self.module.node(node).results.clone();
        let found: Vec<_> = values.iter().map(|value| self.module.ty(*value).clone()).collect();
        if found != types {
            let listed =
                |types: &[crate::ValueType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let message = format!("`{mnemonic}` gives {}, written is {}", listed(&found), listed(&types));
            return Err(self.reader.error_at(types_at, message));
        }
        if values.len() != results.len() {
            let message = format!("`{mnemonic}` has {} results, {} are named", values.len(), results.len());
            return Err(self.reader.error_at(at, message));
        }
        self.module.region_mut(region).nodes.push(node);
        for ((name, name_at), value) in results.into_iter().zip(values) {
            self.define(name, name_at, value)?;
        }
        Ok(())
    }

    /// `region (%x: f32[S]) { … give %y }`
    fn region(&mut self) -> Result<RegionId, ParseError> {
        self.reader.expect_word("region")?;
        let region = self.module.add_region();
        self.scopes.push(BTreeMap::new());
        self.reader.expect("(")?;
        while !self.reader.eats(")") {
            if !self.module.region(region).args.is_empty() {
                self.reader.expect(",")?;
            }
            self.arg(region)?;
        }
        self.reader.expect("{")?;
        self.nested_nodes(region)?;
        while !self.reader.eats("}") {
            if !self.module.region(region).results.is_empty() {
                self.reader.expect(",")?;
            }
            let value = self.use_value()?;
            self.module.region_mut(region).results.push(value);
        }
        self.scopes.pop();
        Ok(region)
    }

    fn nested_nodes(&mut self, region: RegionId) -> Result<(), ParseError> {
        // One level of text per region, counted where expressions are, so that neither exhausts the stack.
        if self.scopes.len() > 64 {
            return Err(self.reader.error("regions nested deeper than 64"));
        }
        self.nodes(region)
    }
}

/// `first..end` as first and count.
pub(crate) fn range(reader: &mut Reader) -> Result<(u32, u32), ParseError> {
    let at = reader.here();
    let first: u32 = reader.integer()?;
    reader.expect("..")?;
    let end: u32 = reader.integer()?;
    let count =
        end.checked_sub(first).ok_or_else(|| reader.error_at(at, format!("{first}..{end} ends before it starts")));
    count.map(|count| (first, count))
}
