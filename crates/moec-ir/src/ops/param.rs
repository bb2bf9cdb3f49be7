//! A parameter's value.

use crate::ParamId;

/// `param @table`: the instance that belongs to the layer and the expert in which it stands.
///
/// *Types.*   the parameter's.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamRef {
    pub param: ParamId,
}
