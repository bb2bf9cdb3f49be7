//! Reads the pieces of the IR's text: values, parameters and their types, on top of what all texts share.

use std::collections::BTreeMap;

use moec_types::{ParseError, is_word};

use crate::{ParamId, RouteType, ValueType};

/// A place in the text, and the parameters by the name that the text gives them.
pub type Reader<'t> = moec_types::Reader<'t, BTreeMap<String, ParamId>>;

/// What only the model IR's text has.
pub(crate) trait ModelText<'t> {
    /// `%name`: the name, and where it stands.
    fn value_name(&mut self) -> Result<(&'t str, usize), ParseError>;
    /// `@layers[l].attn.q`, `@"any text"`, with `#2` behind it where several parameters share a path.
    fn param_name(&mut self) -> Result<(String, String), ParseError>;
    /// A parameter that was declared.
    fn param(&mut self) -> Result<ParamId, ParseError>;
    /// As [`ValueType`] prints.
    fn value_type(&mut self) -> Result<ValueType, ParseError>;
}

impl<'t> ModelText<'t> for Reader<'t> {
    fn value_name(&mut self) -> Result<(&'t str, usize), ParseError> {
        let at = self.here();
        self.expect("%")?;
        let rest = self.rest();
        let end = rest.find(|c: char| !is_word(c) && c != '.').unwrap_or(rest.len());
        if end == 0 {
            return Err(self.wanted("a value's name"));
        }
        self.advance(end);
        Ok((&rest[..end], at))
    }

    fn param_name(&mut self) -> Result<(String, String), ParseError> {
        self.expect("@")?;
        let path = if self.rest().starts_with('"') {
            self.string()?
        } else {
            let rest = self.rest();
            let end = rest.find(|c: char| !is_path(c)).unwrap_or(rest.len());
            self.advance(end);
            rest[..end].to_owned()
        };
        let mut name = path.clone();
        if self.rest().starts_with('#') {
            self.advance(1);
            name = format!("{path}#{}", self.integer::<u32>()?);
        }
        Ok((path, name))
    }

    fn param(&mut self) -> Result<ParamId, ParseError> {
        let at = self.here();
        let (_, name) = self.param_name()?;
        self.names.get(&name).copied().ok_or_else(|| self.error_at(at, format!("no parameter `@{name}`")))
    }

    fn value_type(&mut self) -> Result<ValueType, ParseError> {
        if !self.eats_word("route") {
            return Ok(self.tensor_type()?.into());
        }
        self.expect("[")?;
        let tokens = self.dim()?;
        self.expect(",")?;
        let choices = self.dim()?;
        self.expect("]")?;
        self.expect_word("of")?;
        Ok(ValueType::Route(RouteType { tokens, choices, experts: self.integer()? }))
    }
}

fn is_path(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '[' | ']')
}

/// Whether a path can stand without quotes.
pub(crate) fn is_plain_path(path: &str) -> bool {
    !path.is_empty() && path.chars().all(is_path)
}

/// Whether a value's name can stand after `%`, and is no number.
pub(crate) fn is_plain_name(name: &str) -> bool {
    name.chars().all(is_word) && name.starts_with(|c: char| !c.is_ascii_digit())
}
