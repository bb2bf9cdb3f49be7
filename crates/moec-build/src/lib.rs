//! Compiles `.moe` specs from a build script: `cargo build` of a program makes its models, too.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), moec_build::Error> {
//!     moec_build::Model::new("models/poet.moe").weights("models/poet").build()
//! }
//! ```
//!
//! ```text
//! // src/main.rs
//! include!(concat!(env!("OUT_DIR"), "/poet.rs"));              // pub mod poet
//! let model = poet::Model::open(env!("POET_WEIGHTS"))?;
//! ```
//!
//! It runs `moec`: the program that the environment variable `MOEC` names, else the one on the path. The static library is
//! linked into the program; the weight file stays in `OUT_DIR`, to be shipped beside it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// A spec, and how it is to be compiled. Paths are relative to the package's folder.
#[derive(Clone, Debug)]
pub struct Model {
    spec: PathBuf,
    weights: Option<PathBuf>,
    arguments: Vec<OsString>,
}

/// Why there is no model. Its debug form is for people too: it is what cargo shows of a build script that returns it.
pub enum Error {
    /// `moec` is not there, or does not start.
    NoCompiler { program: OsString, cause: io::Error },
    /// `moec` has said why, on standard error.
    Refused { spec: PathBuf, status: String },
    /// A file of the build cannot be read or written.
    Io { path: PathBuf, cause: io::Error },
    /// This is no build script.
    NoCargo { variable: &'static str },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoCompiler { program, cause } => write!(
                f,
                "`{}` does not start: {cause}\nput moec on the PATH, or its path into the environment variable MOEC",
                program.display()
            ),
            Error::Refused { spec, status } => write!(f, "moec did not build {} ({status})", spec.display()),
            Error::Io { path, cause } => write!(f, "{}: {cause}", path.display()),
            Error::NoCargo { variable } => write!(f, "{variable} is not set: call this from a build script"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl Model {
    pub fn new(spec: impl Into<PathBuf>) -> Model {
        Model { spec: spec.into(), weights: None, arguments: Vec::new() }
    }

    /// The checkpoint's folder. Without it there is code, and no weights.
    pub fn weights(mut self, folder: impl Into<PathBuf>) -> Model {
        self.weights = Some(folder.into());
        self
    }

    /// A configuration value: `.set("L", "4")`.
    pub fn set(self, name: &str, value: &str) -> Model {
        self.arguments(["--set".into(), format!("{name}={value}")])
    }

    /// Whatever else `moec build --help` has.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Model {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Builds the model into `OUT_DIR`, writes `OUT_DIR/NAME.rs`, and tells cargo what to link and when to build again.
    pub fn build(&self) -> Result<(), Error> {
        let out = PathBuf::from(variable("OUT_DIR")?);
        let stem = self.spec.file_stem().unwrap_or(OsStr::new("model"));
        let folder = out.join(stem);
        let program = env::var_os("MOEC").unwrap_or_else(|| "moec".into());
        println!("cargo:rerun-if-env-changed=MOEC");
        println!("cargo:rerun-if-changed={}", self.spec.display());

        let mut command = Command::new(&program);
        command.arg("build").arg(&self.spec).args(["--emit", "rust,deps"]).arg("-o").arg(&folder);
        if let Some(weights) = &self.weights {
            command.arg("--weights").arg(weights);
        }
        let status = command.args(&self.arguments).status();
        let status = status.map_err(|cause| Error::NoCompiler { program: program.clone(), cause })?;
        if !status.success() {
            return Err(Error::Refused { spec: self.spec.clone(), status: status.to_string() });
        }

        let name = model_name(&folder)?;
        for file in files_of(&read(&folder.join(format!("{name}.d")))?) {
            println!("cargo:rerun-if-changed={file}");
        }
        if Path::new(&program).is_absolute() {
            println!("cargo:rerun-if-changed={}", Path::new(&program).display());
        }
        println!("cargo:rustc-link-search=native={}", folder.display());
        println!("cargo:rustc-link-lib=static={name}");
        println!("cargo:rustc-link-lib=m");
        let weights = folder.join(format!("{name}.weights"));
        println!("cargo:rustc-env={}_WEIGHTS={}", name.to_uppercase(), weights.display());
        let source = folder.join("rust/src/model.rs");
        let module = format!("#[allow(dead_code)]\n#[path = {:?}]\npub mod {};\n", source, module_name(&name));
        let path = out.join(format!("{name}.rs"));
        fs::write(&path, module).map_err(|cause| Error::Io { path, cause })
    }
}

fn variable(variable: &'static str) -> Result<OsString, Error> {
    env::var_os(variable).ok_or(Error::NoCargo { variable })
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|cause| Error::Io { path: path.into(), cause })
}

/// The model's name, which its spec says: that of the rule file.
fn model_name(folder: &Path) -> Result<String, Error> {
    let fail = |cause| Error::Io { path: folder.into(), cause };
    let mut names: Vec<String> = fs::read_dir(folder)
        .map_err(fail)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".d").map(str::to_owned))
        .collect();
    // One that was called otherwise earlier may have left its own; the newest rules.
    let age = |name: &String| {
        fs::metadata(folder.join(format!("{name}.d")))
            .and_then(|about| about.modified())
            .map(|at| at.elapsed().ok())
            .ok()
    };
    names.sort_by_key(|name| age(name).flatten());
    names.into_iter().next().ok_or_else(|| fail(io::ErrorKind::NotFound.into()))
}

/// What a rule of make depends on.
fn files_of(rule: &str) -> Vec<String> {
    let Some((_, files)) = rule.split_once(": ") else { return Vec::new() };
    files.replace("\\ ", "\0").split([' ', '\n']).filter(|word| !word.is_empty() && *word != "\\").map(plain).collect()
}

fn plain(word: &str) -> String {
    word.replace('\0', " ").replace("\\#", "#").replace("$$", "$")
}

/// As a module of Rust: a raw identifier may be a keyword, but for these.
fn module_name(name: &str) -> String {
    if ["crate", "self", "super"].contains(&name) { format!("{name}_model") } else { format!("r#{name}") }
}

#[cfg(test)]
mod tests {
    use super::files_of;

    #[test]
    fn a_rule_names_its_files() {
        let rule = "libx.so: \\\n  a.moe \\\n  with\\ space.moe \\\n  $$5\\#.json\n";
        assert_eq!(files_of(rule), ["a.moe", "with space.moe", "$5#.json"]);
    }
}
