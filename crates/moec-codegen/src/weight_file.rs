//! Writing the weight file (docs/weight-file.md): a header, a table for people and tools, and the packed data.

use std::{
    error::Error,
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use moec_plan::{Layout, PackedParam, Plan};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    Checksum,
    pack::{Instances, Misfit, pack},
    partial::{Partial, Place},
};

const MAGIC: &[u8; 8] = b"MOECWTS\0";
const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: u32 = 64;
const DATA_ALIGNMENT: u64 = 4096;

#[derive(Debug, Error, Diagnostic)]
pub enum WriteError {
    #[error("cannot write {}: {cause}", path.display())]
    #[diagnostic(code(moec::codegen::weights_unwritable), help("{}", help_for(cause, *total)))]
    Io { path: PathBuf, cause: io::Error, total: u64 },

    #[error("another process packs weights into {}", path.display())]
    #[diagnostic(
        code(moec::codegen::weights_busy),
        help("wait until it has ended, or build into another folder: `-o FOLDER`")
    )]
    Busy { path: PathBuf },

    #[error("interrupted after {done} of {total} bytes of weights")]
    #[diagnostic(code(moec::codegen::interrupted), help("{}", help_for_interrupted(kept.as_deref())))]
    Interrupted {
        done: u64,
        total: u64,
        /// What another call goes on with.
        kept: Option<PathBuf>,
    },

    #[error("cannot read the weights of `{path}`: {cause}")]
    #[diagnostic(code(moec::codegen::weights_unreadable))]
    Source { path: String, cause: Box<dyn Error + Send + Sync> },

    #[error(transparent)]
    #[diagnostic(transparent)]
    Misfit(#[from] Misfit),
}

fn help_for(cause: &io::Error, total: u64) -> String {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded => {
            format!("the file takes {total} bytes: make room, or build on another disk with `-o FOLDER`")
        }
        _ => "check the folder and its permissions, or build into another: `-o FOLDER`".into(),
    }
}

fn help_for_interrupted(kept: Option<&Path>) -> String {
    match kept {
        Some(partial) => format!("the same command goes on from there; {} holds what is done", partial.display()),
        None => "nothing is left of it: run the command again".into(),
    }
}

/// A number that tells apart packings of parameters: a weight file fits a library when both have the same.
pub fn fingerprint(plan: &Plan) -> u64 {
    Checksum::of(table(plan).as_bytes())
}

/// Packs all parameters into a file at `path`, which appears only once it is whole. `progress` is told the bytes of data
/// written so far and in all. At any time one packed instance is in memory, and what it is made of.
pub fn write_weights(
    plan: &Plan,
    source: &dyn Instances,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), WriteError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let place = Place { partial: Path::new(&name), origin: None };
    let mut progress = |done, total| {
        progress(done, total);
        ControlFlow::Continue(())
    };
    resume_weights(plan, source, path, &place, &mut progress).map(|_| ())
}

/// As [`write_weights`], but it goes on with what a call for the same place, plan and origin left when it was interrupted or
/// killed; whatever else is there is written over. It stops where `progress` breaks, and leaves then what it has done.
/// After any other error nothing is left.
///
/// Returns the bytes of data that were there already. They are read again and have their checksum, or are not believed.
pub fn resume_weights(
    plan: &Plan,
    source: &dyn Instances,
    path: &Path,
    place: &Place,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<u64, WriteError> {
    let total = plan.weight_bytes();
    let io = |cause: io::Error| match cause.kind() {
        io::ErrorKind::WouldBlock => WriteError::Busy { path: path.to_owned() },
        _ => WriteError::Io { path: path.to_owned(), cause, total },
    };
    let table = table(plan);
    let data_offset = (u64::from(HEADER_BYTES) + table.len() as u64).next_multiple_of(DATA_ALIGNMENT);
    let partial = Partial::open(place, Checksum::of(table.as_bytes()), data_offset, total).map_err(io)?;
    let resumed = partial.done();
    let mut data = Data { partial, path, total };
    let packed = pack_all(plan, source, &mut data, &table, progress);
    let mut partial = data.partial;
    let kept = place.origin.map(|_| place.partial.to_owned());
    let whole = packed.and_then(|flow| match flow {
        ControlFlow::Continue(()) => {
            let finish = |partial: &mut Partial| {
                let header = header_bytes(plan, data_offset, table.len() as u64, partial.checksum()?);
                partial.finish(&header)
            };
            finish(&mut partial).and_then(|()| fs::rename(place.partial, path)).map_err(io)
        }
        ControlFlow::Break(()) if kept.is_some() => {
            let done = partial.done();
            partial.suspend().map_err(io)?;
            Err(WriteError::Interrupted { done, total, kept: kept.clone() })
        }
        ControlFlow::Break(()) => Err(WriteError::Interrupted { done: partial.done(), total, kept: None }),
    });
    if let Err(error) = &whole
        && !matches!(error, WriteError::Interrupted { kept: Some(_), .. })
    {
        // The error tells more than what comes of this.
        let _ = fs::remove_file(place.partial);
    }
    whole.map(|()| resumed)
}

fn pack_all(
    plan: &Plan,
    source: &dyn Instances,
    data: &mut Data,
    table: &str,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, WriteError> {
    data.check(|partial| partial.write_head(table.as_bytes()))?;
    let mut params: Vec<&PackedParam> = plan.params.iter().collect();
    params.sort_by_key(|param| param.offset);
    for param in params {
        if write_param(param, source, data, progress)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    data.zeros_up_to(data.total)?;
    Ok(ControlFlow::Continue(()))
}

fn write_param(
    param: &PackedParam,
    source: &dyn Instances,
    data: &mut Data,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, WriteError> {
    let ranks = (0..param.layers).flat_map(|layer| (0..param.experts).map(move |expert| (layer, expert)));
    for (rank, (layer, expert)) in (0..).zip(ranks) {
        let begin = param.offset + rank * param.instance_bytes;
        // It was there already.
        if begin + param.instance_bytes <= data.partial.done() {
            continue;
        }
        data.zeros_up_to(begin)?;
        let load = |from: &moec_plan::PackSource| {
            let fail = |cause| WriteError::Source { path: from.path.clone(), cause };
            source.load(from.param, layer, expert).map_err(fail)
        };
        let instances = param.sources.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        data.write(&pack(param, &instances)?)?;
        if progress(data.partial.done(), data.total).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The data as it is written.
struct Data<'a> {
    partial: Partial,
    path: &'a Path,
    total: u64,
}

impl Data<'_> {
    fn check(&mut self, act: impl FnOnce(&mut Partial) -> io::Result<()>) -> Result<(), WriteError> {
        act(&mut self.partial).map_err(|cause| WriteError::Io { path: self.path.to_owned(), cause, total: self.total })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.check(|partial| partial.append(bytes))
    }

    /// # Panics
    /// Where parameters overlap, which a plan never has.
    fn zeros_up_to(&mut self, offset: u64) -> Result<(), WriteError> {
        let gap = offset.checked_sub(self.partial.done()).expect("packed parameters do not overlap");
        if gap == 0 { Ok(()) } else { self.write(&vec![0; gap as usize]) }
    }
}

fn header_bytes(plan: &Plan, data_offset: u64, table_bytes: u64, data_checksum: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&HEADER_BYTES.to_le_bytes());
    for word in [data_offset, plan.weight_bytes(), fingerprint(plan), data_checksum, table_bytes] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    header.extend_from_slice(&Checksum::of(&header).to_le_bytes());
    header
}

/// What stands where, as JSON. The fingerprint is made of it, so it says all that matters to who reads the data.
fn table(plan: &Plan) -> String {
    let parameters: Vec<Value> = plan.params.iter().map(describe).collect();
    let table = json!({ "format": "moec weights", "model": plan.name, "parameters": parameters });
    format!("{table:#}\n")
}

fn describe(param: &PackedParam) -> Value {
    let layout = match param.layout {
        Layout::Plain { elements } => json!({ "plain": { "elements": elements } }),
        Layout::Panels { k, n, branches } => json!({ "panels": { "k": k, "n": n, "branches": branches } }),
    };
    let source =
        |from: &moec_plan::PackSource| json!({ "path": from.path, "rows": from.rows, "columns": from.columns });
    json!({
        "name": param.name,
        "layout": layout,
        "storage": param.storage.to_string(),
        "layers": param.layers,
        "per_layer": param.per_layer,
        "experts": param.experts,
        "instance_bytes": param.instance_bytes,
        "offset": param.offset,
        "sources": param.sources.iter().map(source).collect::<Vec<_>>(),
    })
}
