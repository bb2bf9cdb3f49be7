//! Objects and the run time, made into the two libraries of an artefact.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use miette::Diagnostic;
use thiserror::Error;

use crate::{BadName, Object, check_name};

/// The objects of kernels/runtime, compiled by build.rs: their names and bytes.
const RUNTIME: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/runtime_objects.rs"));

/// Those of kernels/runtime/cuda, likewise.
const CUDA_RUNTIME: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/cuda_objects.rs"));

/// What runs an image for CUDA: to be linked beside an entry that has one, and nowhere else.
pub fn cuda_runtime() -> Vec<Object> {
    let object = |(name, bytes): &(&str, &[u8])| Object { name: (*name).to_owned(), bytes: bytes.to_vec() };
    CUDA_RUNTIME.iter().map(object).collect()
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artefact {
    /// `libNAME.so`
    pub shared: PathBuf,
    /// `libNAME.a`
    pub archive: PathBuf,
}

#[derive(Debug, Error, Diagnostic)]
pub enum LinkError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    BadName(#[from] BadName),

    #[error("`{tool}` is needed to link the library, and is not there")]
    #[diagnostic(code(moec::codegen::missing_tool), help("on Debian and Ubuntu: apt-get install {package}"))]
    MissingTool { tool: &'static str, package: &'static str },

    #[error("`{tool}` could not link the library ({status})\n{output}")]
    #[diagnostic(code(moec::codegen::tool_failed))]
    ToolFailed { tool: &'static str, status: String, output: String },

    #[error("cannot write {}: {cause}", path.display())]
    #[diagnostic(code(moec::codegen::library_unwritable))]
    Io { path: PathBuf, cause: io::Error },
}

/// Links `objects` and the run time into `out/libNAME.so` and `out/libNAME.a`, whose only public symbols are those
/// that begin with `NAME_`. The same objects give the same bytes. Each library appears only once it is whole.
pub fn link(objects: &[Object], name: &str, out: &Path) -> Result<Artefact, LinkError> {
    check_name(name)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |cause| LinkError::Io { path, cause }
    };
    let work = tempfile::Builder::new().prefix(".moec-link-").tempdir_in(out).map_err(io(out))?;
    let work = work.path();
    let mut names = Vec::new();
    let parts =
        objects.iter().map(|object| (object.name.as_str(), object.bytes.as_slice())).chain(RUNTIME.iter().copied());
    for (number, (part, bytes)) in parts.enumerate() {
        // Numbered, since backends may name two objects alike; a name from outside must not leave the folder.
        let plain = |char: char| if char.is_ascii_alphanumeric() || char == '_' { char } else { '-' };
        let file = format!("{number:03}-{}.o", part.trim_end_matches(".o").chars().map(plain).collect::<String>());
        fs::write(work.join(&file), bytes).map_err(io(&work.join(&file)))?;
        names.push(file);
    }
    let (whole, shared, archive) = (format!("{name}.o"), format!("lib{name}.so"), format!("lib{name}.a"));
    let inputs = names.iter().map(String::as_str);
    run(LD, ["-r", "-o", &whole].into_iter().chain(inputs), work)?;
    // Inside one object, what backend and run time say to each other has been settled: made local, it cannot meet that of
    // another model in the same program.
    let public = format!("--keep-global-symbol={name}_*");
    run(OBJCOPY, ["--wildcard", &public, &whole], work)?;
    run(AR, ["rcsD", &archive, &whole], work)?;
    let soname = format!("-Wl,-soname,{shared}");
    let options =
        ["-Wl,-z,defs", "-Wl,-z,noexecstack", "-Wl,-z,relro,-z,now", "-Wl,--build-id=none", "-Wl,--as-needed"];
    let shared_line =
        ["-shared", "-o", &shared, &whole, &soname].into_iter().chain(options).chain(["-lm", "-lpthread", "-ldl"]);
    run(CC, shared_line, work)?;
    let made = Artefact { shared: out.join(&shared), archive: out.join(&archive) };
    fs::rename(work.join(&archive), &made.archive).map_err(io(&made.archive))?;
    fs::rename(work.join(&shared), &made.shared).map_err(io(&made.shared))?;
    Ok(made)
}

/// A program, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    pub name: &'static str,
    pub package: &'static str,
}

/// All programs that linking runs.
pub const TOOLS: [Tool; 4] = [LD, OBJCOPY, AR, CC];

const LD: Tool = Tool { name: "ld", package: "binutils" };
const OBJCOPY: Tool = Tool { name: "objcopy", package: "binutils" };
const AR: Tool = Tool { name: "ar", package: "binutils" };
const CC: Tool = Tool { name: "cc", package: "gcc libc6-dev" };

fn run<'a>(tool: Tool, arguments: impl IntoIterator<Item = &'a str>, folder: &Path) -> Result<(), LinkError> {
    let output = Command::new(tool.name).args(arguments).current_dir(folder).env("LC_ALL", "C").output();
    let Output { status, stdout, stderr } = output.map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => LinkError::MissingTool { tool: tool.name, package: tool.package },
        _ => LinkError::Io { path: folder.join(tool.name), cause },
    })?;
    if status.success() {
        return Ok(());
    }
    let output = [stderr, stdout].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).join("\n");
    Err(LinkError::ToolFailed { tool: tool.name, status: status.to_string(), output: output.trim().to_owned() })
}
