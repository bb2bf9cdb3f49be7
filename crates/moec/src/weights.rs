//! Where the numbers of a build come from: a checkpoint, or a file of named tensors.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::Arc,
};

use miette::Diagnostic;
use moec_checkpoint::{Checkpoint, StoredTensor, StoredType, find};
use moec_codegen::{Instance, Instances, Values};
use moec_diag::Problems;
use moec_ir::{Module, Param, ParamId};
use moec_sema::{Claim, WeightMap};
use moec_types::{Axis, DType, Dim};
use thiserror::Error;

use crate::{native::NamedTensor, tensors};

type Loaded<'a> = Result<Instance<'a>, Box<dyn Error + Send + Sync>>;

/// A matched checkpoint as a source of instances.
pub struct FromCheckpoint<'a> {
    checkpoint: &'a Checkpoint,
    map: &'a WeightMap,
    module: &'a Module,
    /// By parameter, layer and expert.
    claims: BTreeMap<(u32, u32, u32), &'a Claim>,
}

impl<'a> FromCheckpoint<'a> {
    pub fn new(checkpoint: &'a Checkpoint, map: &'a WeightMap, module: &'a Module) -> Self {
        let own = map.claims.iter().filter(|claim| !claim.shared);
        let claims = own.map(|claim| ((claim.param.0, claim.layer, claim.expert), claim)).collect();
        FromCheckpoint { checkpoint, map, module, claims }
    }
}

impl Instances for FromCheckpoint<'_> {
    fn load(&self, param: u32, layer: u32, expert: u32) -> Loaded<'_> {
        let Some(claim) = self.claims.get(&(param, layer, expert)) else {
            return initial(&self.module.params[param as usize]).ok_or_else(|| "no tensor is bound to it".into());
        };
        let tensor = find(self.checkpoint, self.map, &claim.tensor).ok_or("the checkpoint lost its tensor")?;
        let part = tensor.part(&claim.view).ok_or("its tensor has another shape")?;
        let stored = StoredTensor { dtype: &part.dtype, shape: &[], bytes: &part.bytes };
        let values = values(&stored).ok_or("its elements are of another type")?;
        let axes = part.axes.iter().map(|(axis, size)| (axis.name().to_owned(), *size)).collect();
        Ok(Instance { axes, values })
    }
}

/// A state that nothing was said of begins the same everywhere.
fn initial<'a>(param: &Param) -> Option<Instance<'a>> {
    let count = usize::try_from(param.ty.elements()?).ok()?;
    let values = Values::F32(Cow::Owned(vec![param.initial()?; count]));
    Some(Instance { axes: axes(param, param.ty.axes()), values })
}

fn axes<'a>(param: &Param, order: impl Iterator<Item = &'a Axis>) -> Vec<(String, u64)> {
    let size = |axis: &Axis| param.ty.dim(axis).and_then(|dim| dim.size.fixed()).unwrap_or(1);
    order.map(|axis| (axis.name().to_owned(), size(axis))).collect()
}

fn values(tensor: &StoredTensor) -> Option<Values<'static>> {
    let halves = || tensor.bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    match tensor.dtype {
        StoredType::Bf16 => Some(Values::Bf16(Cow::Owned(halves()))),
        StoredType::F16 => Some(Values::F16(Cow::Owned(halves()))),
        StoredType::F32 | StoredType::F64 | StoredType::F8E4M3 | StoredType::F8E8M0 => {
            Some(Values::F32(Cow::Owned(tensor.to_f32()?)))
        }
        StoredType::Bool => Some(Values::Bool(Cow::Owned(tensor.to_bool()?.into_iter().map(u8::from).collect()))),
        StoredType::I8
        | StoredType::U8
        | StoredType::I16
        | StoredType::U16
        | StoredType::I32
        | StoredType::U32
        | StoredType::I64
        | StoredType::U64 => Some(Values::I32(Cow::Owned(tensor.to_i32()?))),
        StoredType::Other(_) => None,
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("no tensor `{path}`")]
#[diagnostic(code(moec::weights::missing_parameter), help("{help}"))]
struct MissingParameter {
    path: String,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("tensor `{path}` is {found}, the parameter is {wants}")]
#[diagnostic(code(moec::weights::parameter_shape), help("axes stand in the order in which the spec declares them"))]
struct ParameterShape {
    path: String,
    found: String,
    wants: String,
}

/// Parameters named by their path in the spec, among other tensors of a file.
pub struct FromTensors<'a> {
    module: &'a Module,
    tensors: &'a BTreeMap<String, NamedTensor>,
}

impl<'a> FromTensors<'a> {
    /// The tensors that stand for parameters, each with the parameter's shape.
    pub fn new(module: &'a Module, tensors: &'a BTreeMap<String, NamedTensor>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let paths = |param| instances(param).map(move |(layer, expert)| path(param, layer, expert));
        let known: BTreeSet<String> = module.params.iter().flat_map(paths).collect();
        for param in &module.params {
            for (layer, expert) in instances(param) {
                check(param, &path(param, layer, expert), &known, tensors, &mut problems);
            }
        }
        if problems.is_empty() { Ok(FromTensors { module, tensors }) } else { Err(problems) }
    }
}

/// `known` are all paths of the module.
fn check(
    param: &Param,
    path: &str,
    known: &BTreeSet<String>,
    tensors: &BTreeMap<String, NamedTensor>,
    problems: &mut Problems,
) {
    let Some(tensor) = tensors.get(path) else {
        if param.initial().is_some() {
            return;
        }
        // Other parameters are spelled like it, and right: whoever is looked for belongs to nobody.
        let strays = tensors.keys().filter(|name| !known.contains(*name));
        let near = strays.map(|name| (strsim::normalized_levenshtein(name, path), name));
        let near = near.filter(|(likeness, _)| *likeness > 0.6).max_by(|a, b| a.0.total_cmp(&b.0));
        let help = match near {
            Some((_, name)) => format!("did you mean `{name}`?"),
            None => "parameters are given among the inputs by their path in the spec, or with `--weights DIR`".into(),
        };
        return problems.report(MissingParameter { path: path.into(), help });
    };
    let sizes: Vec<usize> = param.ty.dims.iter().filter_map(|dim| Some(dim.size.fixed()? as usize)).collect();
    let fits = tensor.dtype == param.ty.dtype || (tensor.dtype.is_float() && param.ty.dtype.is_float());
    if !fits || tensor.shape != sizes {
        let found = format!("{}{:?}", tensor.dtype, tensor.shape);
        problems.report(ParameterShape { path: path.into(), found, wants: param.ty.to_string() });
    }
}

/// Ranks of all instances.
fn instances(param: &Param) -> impl Iterator<Item = (u32, u32)> + use<> {
    let layers = param.layers.as_ref().map_or(1, |layers| layers.len() as u32);
    let experts = param.experts.map_or(1, |experts| experts.count);
    (0..layers).flat_map(move |layer| (0..experts).map(move |expert| (layer, expert)))
}

/// `layers[3].ffn.experts[1].up`: the path with the numbers of one instance.
pub fn path(param: &Param, layer: u32, expert: u32) -> String {
    let layer = param.layers.as_ref().and_then(|layers| layers.get(layer as usize));
    let path = layer.map_or(param.path.clone(), |layer| param.path.replace("[l]", &format!("[{layer}]")));
    match param.experts {
        Some(experts) => path.replace("[e]", &format!("[{}]", experts.first + expert)),
        None => path,
    }
}

impl Instances for FromTensors<'_> {
    fn load(&self, param: u32, layer: u32, expert: u32) -> Loaded<'_> {
        let param = &self.module.params[param as usize];
        let Some(tensor) = self.tensors.get(&path(param, layer, expert)) else {
            return initial(param).ok_or_else(|| "it was there a moment ago".into());
        };
        let values = match tensor.dtype {
            DType::F32 | DType::Bf16 | DType::F16 => {
                Values::F32(Cow::Owned(tensors::floats(tensor).ok_or("its elements are no floats")?))
            }
            DType::I32 => {
                let fours = tensor.bytes.as_chunks::<4>().0;
                Values::I32(Cow::Owned(fours.iter().map(|four| i32::from_le_bytes(*four)).collect()))
            }
            DType::Bool => Values::Bool(Cow::Borrowed(&tensor.bytes)),
        };
        Ok(Instance { axes: axes(param, param.ty.axes()), values })
    }
}

impl moec_oracle::Weights for FromTensors<'_> {
    fn instance(&self, param: ParamId, layer: u32, expert: u32) -> Option<Arc<moec_oracle::Tensor>> {
        let param = self.module.param(param);
        oracle_tensor(self.tensors.get(&path(param, layer, expert))?, &param.ty.dims).map(Arc::new)
    }
}

/// A tensor of a file under these axes, for the oracle. `None` where it has not as many.
pub fn oracle_tensor(tensor: &NamedTensor, dims: &[Dim]) -> Option<moec_oracle::Tensor> {
    if dims.len() != tensor.shape.len() {
        return None;
    }
    let axes = dims.iter().map(|dim| dim.axis.clone()).zip(tensor.shape.iter().copied()).collect();
    let fours = || tensor.bytes.as_chunks::<4>().0;
    let data = match tensor.dtype {
        DType::F32 | DType::Bf16 | DType::F16 => moec_oracle::Data::F32(tensors::floats(tensor)?),
        DType::I32 => moec_oracle::Data::I32(fours().iter().map(|four| i32::from_le_bytes(*four)).collect()),
        DType::Bool => moec_oracle::Data::Bool(tensor.bytes.iter().map(|byte| *byte != 0).collect()),
    };
    Some(moec_oracle::Tensor::new(axes, data))
}
