//! Writing the weight file (docs/weight-file.md): a header, a table for people and tools, and the packed data.

use std::{
    error::Error,
    fs::{File, Permissions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use moec_plan::{Layout, PackedParam, Plan};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    Checksum,
    pack::{Instances, Misfit, pack},
};

const MAGIC: &[u8; 8] = b"MOECWTS\0";
const VERSION: u32 = 1;
const HEADER_BYTES: u32 = 64;
const DATA_ALIGNMENT: u64 = 4096;

#[derive(Debug, Error, Diagnostic)]
pub enum WriteError {
    #[error("cannot write {}: {cause}", path.display())]
    #[diagnostic(code(moec::codegen::weights_unwritable))]
    Io { path: PathBuf, cause: io::Error },

    #[error("cannot read the weights of `{path}`: {cause}")]
    #[diagnostic(code(moec::codegen::weights_unreadable))]
    Source { path: String, cause: Box<dyn Error + Send + Sync> },

    #[error(transparent)]
    #[diagnostic(transparent)]
    Misfit(#[from] Misfit),
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
    let io = |cause| WriteError::Io { path: path.to_owned(), cause };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".moec-weights-")
        // As any new file: what the user's umask leaves of it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(io)?;
    let table = table(plan);
    let data_offset = (u64::from(HEADER_BYTES) + table.len() as u64).next_multiple_of(DATA_ALIGNMENT);
    let padding = data_offset - u64::from(HEADER_BYTES) - table.len() as u64;
    let out = file.as_file_mut();
    out.write_all(&[0; HEADER_BYTES as usize]).map_err(io)?;
    out.write_all(table.as_bytes()).map_err(io)?;
    out.write_all(&vec![b' '; padding as usize]).map_err(io)?;
    let mut data = Data { file: out, path, checksum: Checksum::default(), done: 0, total: plan.weight_bytes() };
    let mut params: Vec<&PackedParam> = plan.params.iter().collect();
    params.sort_by_key(|param| param.offset);
    for param in params {
        write_param(param, source, &mut data, progress)?;
    }
    data.zeros_up_to(plan.weight_bytes())?;
    let header = header_bytes(plan, data_offset, table.len() as u64, data.checksum.finish());
    out.seek(SeekFrom::Start(0)).map_err(io)?;
    out.write_all(&header).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

fn write_param(
    param: &PackedParam,
    source: &dyn Instances,
    data: &mut Data,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), WriteError> {
    data.zeros_up_to(param.offset)?;
    for layer in 0..param.layers {
        for expert in 0..param.experts {
            let load = |from: &moec_plan::PackSource| {
                let fail = |cause| WriteError::Source { path: from.path.clone(), cause };
                source.load(from.param, layer, expert).map_err(fail)
            };
            let instances = param.sources.iter().map(load).collect::<Result<Vec<_>, _>>()?;
            data.write(&pack(param, &instances)?)?;
            progress(data.done, data.total);
        }
    }
    Ok(())
}

/// The data as it is written.
struct Data<'a> {
    file: &'a mut File,
    path: &'a Path,
    checksum: Checksum,
    done: u64,
    total: u64,
}

impl Data<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(|cause| WriteError::Io { path: self.path.to_owned(), cause })?;
        self.checksum.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// # Panics
    /// Where parameters overlap, which a plan never has.
    fn zeros_up_to(&mut self, offset: u64) -> Result<(), WriteError> {
        let gap = offset.checked_sub(self.done).expect("packed parameters do not overlap");
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
        "storage": param.storage.name(),
        "layers": param.layers,
        "per_layer": param.per_layer,
        "experts": param.experts,
        "instance_bytes": param.instance_bytes,
        "offset": param.offset,
        "sources": param.sources.iter().map(source).collect::<Vec<_>>(),
    })
}
