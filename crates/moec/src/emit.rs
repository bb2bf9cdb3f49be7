//! What `--emit` writes beside a library: the stages of compilation as text, and what other programs use it by.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use moec_cpu::Stage;
use moec_diag::SourceMap;
use moec_ir::Module;
use moec_plan::Plan;
use moec_program::parts;
use thiserror::Error;

use crate::{
    artefact::Source,
    cli::{self, Emit},
    compile, cuda,
    failure::Failure,
    files,
    manifest::{self, Manifest},
};

/// What a build has made of its input by the time that its library is linked.
pub struct Parts<'a> {
    /// After all passes.
    pub module: &'a Module,
    pub plan: &'a Plan,
    pub code: &'a cli::Code,
    pub sources: &'a SourceMap,
    /// The files of the spec.
    pub read: &'a [PathBuf],
    pub source: Source<'a>,
    pub manifest: &'a Manifest,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} is missing: it is what a model is put into to make a program", path.display())]
#[diagnostic(code(moec::emit::no_program), help("install all of moec again: `moec-program` stands beside `moec`"))]
struct NoProgram {
    path: PathBuf,
}

/// Writes into `folder`, where the library is.
pub fn write(what: Emit, parts: &Parts, folder: &Path) -> Result<(), Failure> {
    match what {
        Emit::Ir => text(parts, folder, "ir", &moec_ir::print(parts.module)),
        Emit::Plan => text(parts, folder, "plan", &parts.plan.to_string()),
        Emit::Mlir => text(parts, folder, "mlir", &stage(parts, Stage::Mlir)?),
        Emit::Llvm => text(parts, folder, "ll", &stage(parts, Stage::Llvm)?),
        Emit::Asm => text(parts, folder, "s", &stage(parts, Stage::Asm)?),
        Emit::Cuda => text(parts, folder, "cu", &cuda::program(parts.plan, parts.sources)?.text),
        Emit::Rust => rust(parts.plan, folder),
        Emit::Exe => exe(parts.manifest, folder),
        Emit::Deps => text(parts, folder, "d", &deps(parts)?),
    }
}

fn text(parts: &Parts, folder: &Path, extension: &str, text: &str) -> Result<(), Failure> {
    Ok(files::write(&folder.join(format!("{}.{extension}", parts.plan.name)), text.as_bytes())?)
}

/// Code of the best level.
fn stage(parts: &Parts, stage: Stage) -> Result<String, Failure> {
    let best = compile::levels(&parts.code.cpu, parts.plan).last().copied().expect("there is always the scalar one");
    let locate = |at| parts.sources.position(at).map(|(file, line, column)| (file.to_owned(), line, column));
    moec_cpu::text(parts.plan, best, stage, &locate).map_err(|unsupported| compile::refused(unsupported, parts.sources))
}

/// A crate with a static library of its own, so that it can be moved.
fn rust(plan: &Plan, folder: &Path) -> Result<(), Failure> {
    let place = folder.join("rust");
    files::make_folder(&place.join("src"))?;
    for (path, text) in moec_codegen::rust_crate(plan)? {
        files::write(&place.join(path), text.as_bytes())?;
    }
    let archive = format!("lib{}.a", plan.name);
    let to = place.join(&archive);
    fs::copy(folder.join(&archive), &to).map_err(|cause| files::CannotWrite { path: to, cause })?;
    Ok(())
}

/// `moec-program` with the files of the folder inside.
fn exe(manifest: &Manifest, folder: &Path) -> Result<(), Failure> {
    let itself = std::env::current_exe().unwrap_or_default();
    let stem = files::parent(&itself).join("moec-program");
    if !stem.is_file() {
        return Err(NoProgram { path: stem }.into());
    }
    let described = folder.join(manifest::FILE);
    manifest::write(manifest, folder)?;
    let found = [
        (parts::LIBRARY, manifest.library(folder)),
        (parts::MANIFEST, described),
        (parts::TOKENIZER, folder.join("tokenizer.json")),
        (parts::WEIGHTS, manifest.weights(folder)),
    ];
    let found: Vec<_> = found.into_iter().filter(|(_, path)| path.exists()).collect();
    let path = folder.join(&manifest.model);
    let fail = |cause| files::CannotWrite { path: path.clone(), cause };
    let mut file = fs::File::create(&path).map_err(fail)?;
    parts::write(&mut file, &stem, &found).map_err(fail)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(fail)?;
    Ok(())
}

/// A rule as make reads it: the library, and every file that it and its weights came from.
fn deps(parts: &Parts) -> Result<String, Failure> {
    let mut read = parts.read.to_vec();
    if let Source::Checkpoint(dir, _) = parts.source {
        let fail = |cause| files::CannotRead { path: dir.into(), cause };
        let entries = fs::read_dir(dir).map_err(fail)?.filter_map(Result::ok).map(|entry| entry.path());
        let taken = |path: &PathBuf| {
            path.extension().is_some_and(|ending| ["json", "safetensors"].map(OsStr::new).contains(&ending))
        };
        let mut of_checkpoint: Vec<PathBuf> = entries.filter(taken).collect();
        of_checkpoint.sort();
        read.extend(of_checkpoint);
    }
    let mut rule = format!("lib{}.so:", parts.plan.name);
    for (at, path) in read.iter().enumerate() {
        if !read[..at].contains(path) {
            rule.push_str(" \\\n  ");
            rule.push_str(&path.to_string_lossy().replace('$', "$$").replace(' ', "\\ ").replace('#', "\\#"));
        }
    }
    Ok(rule + "\n")
}
