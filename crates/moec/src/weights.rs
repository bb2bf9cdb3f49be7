//! Where the numbers of a build come from: a checkpoint, or a file of named tensors.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::PathBuf,
    sync::Arc,
};

use miette::Diagnostic;
use moec_checkpoint::{Checkpoint, CheckpointError, Codes, StoredTensor, StoredType, find};
use moec_codegen::{Checksum, CodeKind, Coded, Instance, Instances, Values};
use moec_diag::Problems;
use moec_ir::{Module, Param, ParamId};
use moec_plan::{Format, Plan};
use moec_sema::{Claim, Encoding, WeightMap};
use moec_types::{Axis, DType, Dim};
use thiserror::Error;

use crate::{checkpoint::Matched, native::NamedTensor, tensors};

type Loaded<'a> = Result<Instance<'a>, Box<dyn Error + Send + Sync>>;

/// Whether weights may be infinite or NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonFinite {
    Refused,
    Accepted,
}

impl NonFinite {
    pub fn allowed(allowed: bool) -> Self {
        if allowed { NonFinite::Accepted } else { NonFinite::Refused }
    }
}

#[derive(Clone, Debug, Error, Diagnostic)]
#[error("tensor `{tensor}` of {} has {value} at {at:?}{}", file.display(), and_others(*.others))]
#[diagnostic(
    code(moec::weights::not_finite),
    help("is the checkpoint damaged? `--allow-non-finite` takes such weights as they are")
)]
pub struct NotFinite {
    pub tensor: String,
    pub file: PathBuf,
    pub value: f32,
    /// Its place in the tensor, slowest axis first.
    pub at: Vec<u64>,
    /// Elements of the same parameter's instance that are not finite either.
    pub others: usize,
}

fn and_others(others: usize) -> String {
    if others == 0 { String::new() } else { format!(", and {others} more elements are not finite") }
}

/// The first of them as problems: who has a thousand such tensors learns nothing from the rest.
pub fn problems(found: Vec<NotFinite>) -> Problems {
    let mut problems = Problems::default();
    found.into_iter().take(10).for_each(|one| problems.report(one));
    problems
}

/// Says on standard error what was taken though it is not finite.
pub fn warn(found: &[NotFinite]) {
    found.iter().take(10).for_each(|one| eprintln!("warning: {one}"));
    if found.len() > 10 {
        eprintln!("warning: and {} more tensors are so", found.len() - 10);
    }
}

/// Bytes that are read before the memory that they take is given back.
const READ_AT_ONCE: usize = 64 << 20;

/// A matched checkpoint as a source of instances.
pub struct FromCheckpoint<'a> {
    checkpoint: &'a Checkpoint,
    map: &'a WeightMap,
    module: &'a Module,
    /// By parameter, layer and expert.
    claims: BTreeMap<(u32, u32, u32), &'a Claim>,
    /// Parameters whose codes are kept as they are.
    coded: BTreeSet<u32>,
    non_finite: NonFinite,
    /// Those that were accepted so far.
    accepted: RefCell<Vec<NotFinite>>,
    /// Bytes read since memory was given back.
    read: Cell<usize>,
}

impl<'a> FromCheckpoint<'a> {
    pub fn new(matched: &'a Matched, module: &'a Module, non_finite: NonFinite) -> Self {
        let Matched { tensors: checkpoint, map } = matched;
        let own = map.claims.iter().filter(|claim| !claim.shared);
        let claims = own.map(|claim| ((claim.param.0, claim.layer, claim.expert), claim)).collect();
        let (accepted, read) = (RefCell::default(), Cell::new(0));
        FromCheckpoint { checkpoint, map, module, claims, coded: BTreeSet::new(), non_finite, accepted, read }
    }

    /// What the checkpoint has as codes comes as codes where the plan may store it so.
    pub fn keeping_codes(mut self, plan: &Plan) -> Self {
        let small = plan.params.iter().filter(|param| matches!(param.storage, Format::Mxfp4 | Format::Fp8 { .. }));
        self.coded = small.flat_map(|param| param.sources.iter().map(|source| source.param)).collect();
        self
    }

    /// Tells apart what is packed: two with the same number have the same instances.
    pub fn origin(&self) -> u64 {
        let mut told = format!("{}\n{}", env!("CARGO_PKG_VERSION"), self.checkpoint.identity());
        for claim in self.claims.values() {
            let Claim { param, layer, expert, tensor, view, .. } = claim;
            told += &format!("{} {layer} {expert} {tensor} {view:?}\n", param.0);
        }
        told += &format!("{:?}", self.map.scaled);
        Checksum::of(told.as_bytes())
    }

    /// What was accepted though it is not finite.
    pub fn accepted(&self) -> Vec<NotFinite> {
        self.accepted.borrow().clone()
    }

    /// Whether the files are still what they were: to be asked when all is read.
    pub fn unchanged(&self) -> Result<(), CheckpointError> {
        self.claims.values().try_for_each(|claim| self.checkpoint.unchanged(&claim.tensor))
    }

    /// Everything that is not finite, in the order of the parameters.
    pub fn not_finite(&self) -> Vec<NotFinite> {
        let each = self.claims.values().filter_map(|claim| {
            let instance = self.read(claim).ok()?;
            self.said_of(claim, instance.values.not_finite()?)
        });
        each.collect()
    }

    fn read(&self, claim: &Claim) -> Loaded<'a> {
        self.checkpoint.unchanged(&claim.tensor)?;
        let tensor = find(self.checkpoint, self.map, &claim.tensor).ok_or("the checkpoint lost its tensor")?;
        if self.coded.contains(&claim.param.0)
            && let Some(coded) = tensor.codes(&claim.view).and_then(coded)
        {
            let axes = claim.view.axes.iter().map(|(axis, size, _)| (axis.name().to_owned(), *size)).collect();
            return Ok(Instance { axes, values: Values::Coded(coded) });
        }
        let part = tensor.part(&claim.view).ok_or("its tensor has another shape")?;
        // What was read before is in use no longer, or is read again.
        let read = self.read.get() + part.bytes.len();
        self.read.set(if read > READ_AT_ONCE { 0 } else { read });
        if read > READ_AT_ONCE {
            self.checkpoint.release();
        }
        let axes = part.axes.iter().map(|(axis, size)| (axis.name().to_owned(), *size)).collect();
        let values = values(part.dtype, part.bytes).ok_or("its elements are of another type")?;
        Ok(Instance { axes, values })
    }

    fn said_of(&self, claim: &Claim, found: moec_codegen::NotFinite) -> Option<NotFinite> {
        let file = self.checkpoint.file_of(&claim.tensor)?.to_owned();
        let at = claim.view.place(found.first as u64);
        Some(NotFinite { tensor: claim.tensor.clone(), file, value: found.value, at, others: found.count - 1 })
    }
}

impl Instances for FromCheckpoint<'_> {
    fn load(&self, param: u32, layer: u32, expert: u32) -> Loaded<'_> {
        let Some(claim) = self.claims.get(&(param, layer, expert)) else {
            return initial(&self.module.params[param as usize]).ok_or_else(|| "no tensor is bound to it".into());
        };
        let instance = self.read(claim)?;
        if let Some(found) = instance.values.not_finite().and_then(|found| self.said_of(claim, found)) {
            match self.non_finite {
                NonFinite::Refused => return Err(found.into()),
                NonFinite::Accepted => self.accepted.borrow_mut().push(found),
            }
        }
        Ok(instance)
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

/// Codes of formats that weights can be stored in.
fn coded(codes: Codes) -> Option<Coded> {
    let kind = match codes.encoding {
        Encoding::F4E2M1 => CodeKind::E2m1,
        Encoding::F8E4M3 => CodeKind::E4m3,
        Encoding::E8M0 => return None,
    };
    Some(Coded { kind, codes: codes.codes, scales: codes.scales })
}

/// Elements in place where they lie so that they can be read there.
fn values(dtype: StoredType, bytes: Cow<'_, [u8]>) -> Option<Values<'_>> {
    let tensor = StoredTensor { dtype: &dtype, shape: &[], bytes: &bytes };
    match dtype {
        StoredType::Bf16 => Some(Values::Bf16(halves(bytes))),
        StoredType::F16 => Some(Values::F16(halves(bytes))),
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

fn halves(bytes: Cow<'_, [u8]>) -> Cow<'_, [u16]> {
    const { assert!(cfg!(target_endian = "little"), "checkpoints are little-endian") };
    if let Cow::Borrowed(bytes) = bytes {
        // SAFETY: any two bytes are a number.
        if let ([], halves, []) = unsafe { bytes.align_to::<u16>() } {
            return Cow::Borrowed(halves);
        }
    }
    Cow::Owned(bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
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
        let paths = |param| instances(param).map(move |(layer, expert)| param.instance_path(layer, expert));
        let known: BTreeSet<String> = module.params.iter().flat_map(paths).collect();
        for param in &module.params {
            for (layer, expert) in instances(param) {
                check(param, &param.instance_path(layer, expert), &known, tensors, &mut problems);
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

impl Instances for FromTensors<'_> {
    fn load(&self, param: u32, layer: u32, expert: u32) -> Loaded<'_> {
        let param = &self.module.params[param as usize];
        let Some(tensor) = self.tensors.get(&param.instance_path(layer, expert)) else {
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
        oracle_tensor(self.tensors.get(&param.instance_path(layer, expert))?, &param.ty.dims).map(Arc::new)
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
