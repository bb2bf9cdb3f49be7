//! A build: the library, its header, the packed weights, and what goes beside them.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moec_checkpoint::CheckpointError;
use moec_codegen::{Instances, WriteError};
use moec_plan::Plan;
use tempfile::TempDir;

use crate::{
    checkpoint,
    cli::{self, Emit},
    compile, emit,
    failure::Failure,
    files,
    interrupt::Watch,
    manifest::{self, Manifest},
    native::NamedTensor,
    quant,
    spec::{self, Loaded},
    weights::{self, FromCheckpoint, FromTensors, NonFinite, NotFinite},
};

/// Where the weights come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// None: a library alone.
    Nowhere,
    /// A folder with safetensors files.
    Checkpoint(&'a Path, NonFinite),
    /// Tensors named by the parameters' paths.
    Tensors(&'a BTreeMap<String, NamedTensor>),
}

/// What was written, in the order in which it is told.
pub struct Made {
    pub manifest: Manifest,
    pub files: Vec<PathBuf>,
}

/// What becomes of a build that is interrupted.
#[derive(Clone, Copy)]
enum Interrupted {
    /// Packed weights stay, and the next build goes on with them.
    Resumes,
    Vanishes,
}

/// Builds into `out`, which is made if missing. Nothing is there until everything is, but for weights that are packed when
/// the build is interrupted.
pub fn build(loaded: Loaded, source: Source, code: &cli::Code, emit: &[Emit], out: &Path) -> Result<Made, Failure> {
    make(loaded, source, code, emit, out, Interrupted::Resumes)
}

/// Builds into a folder that goes away after this run.
pub fn build_for_now(loaded: Loaded, source: Source, code: &cli::Code, folder: &Path) -> Result<Made, Failure> {
    make(loaded, source, code, &[], folder, Interrupted::Vanishes)
}

fn make(
    loaded: Loaded,
    source: Source,
    code: &cli::Code,
    emit: &[Emit],
    out: &Path,
    interrupted: Interrupted,
) -> Result<Made, Failure> {
    let Loaded { checked, sources, read } = loaded;
    let (mut module, map) = (checked.module, checked.weights);
    moec_codegen::check_name(&module.name)?;
    let matched = match source {
        Source::Checkpoint(dir, _) => Some(checkpoint::open(dir, map.as_ref(), &module, &sources)?),
        Source::Nowhere | Source::Tensors(_) => None,
    };
    if let Some(matched) = &matched {
        matched.keep_types(&mut module);
    }
    let from_tensors = match source {
        Source::Tensors(tensors) => {
            Some(FromTensors::new(&module, tensors).map_err(|problems| Failure::problems(problems, &sources))?)
        }
        Source::Nowhere | Source::Checkpoint(..) => None,
    };

    // Before the work, so that a wrong place is told at once.
    let place = Place::make(out)?;
    let (fused, _) = compile::fuse(module.clone(), &code.disable_pass)?;
    let mut plan = compile::plan(&fused, &sources)?;
    quant::apply(&mut plan, code.quant.quant, matched.as_ref());
    let objects = compile::objects(&plan, code, &sources)?;

    let folder = place.work.path();
    moec_codegen::link(&objects, &plan.name, folder)?;
    files::write(&folder.join(format!("{}.h", plan.name)), moec_codegen::header(&plan)?.as_bytes())?;
    for (name, text) in moec_codegen::package(&plan.name)? {
        files::write(&folder.join(name), text.as_bytes())?;
    }
    match (source, &matched, &from_tensors) {
        (Source::Checkpoint(_, non_finite), Some(matched), _) => {
            let mut from = FromCheckpoint::new(matched, &module, non_finite);
            if code.quant.quant == Some(cli::Quant::Stored) {
                from = from.keeping_codes(&plan);
            }
            let origin = match interrupted {
                Interrupted::Resumes => Some(from.origin()),
                Interrupted::Vanishes => None,
            };
            let partial = out.join(format!("{}.weights.partial", plan.name));
            let place = moec_codegen::Place { partial: &partial, origin };
            pack_checkpoint(&plan, &from, folder, &place)?;
        }
        (_, _, Some(tensors)) => pack(&plan, tensors, folder)?,
        (_, _, None) => {}
    }
    let config = copied_from_checkpoint(source, folder)?;
    let levels = compile::level_names(&plan, code);
    let manifest = manifest::of(&plan, levels, config.as_ref(), !matches!(source, Source::Nowhere));
    let parts =
        emit::Parts { module: &fused, plan: &plan, code, sources: &sources, read: &read, source, manifest: &manifest };
    for what in emit {
        emit::write(*what, &parts, folder)?;
    }
    // Last: who finds it finds all the rest.
    let files = move_all(folder, out)?;
    manifest::write(&manifest, out)?;
    place.keep();
    Ok(Made { manifest, files })
}

/// Writes other weights into the folder of a build of the same spec.
pub fn pack_again(loaded: Loaded, tensors: &BTreeMap<String, NamedTensor>, folder: &Path) -> Result<(), Failure> {
    let Loaded { checked, sources, .. } = loaded;
    let from = FromTensors::new(&checked.module, tensors).map_err(|problems| Failure::problems(problems, &sources))?;
    let (fused, _) = compile::fuse(checked.module.clone(), &[])?;
    pack(&compile::plan(&fused, &sources)?, &from, folder)
}

/// The folder to write to, with one inside it to work in. A folder made for a build that fails goes away again.
struct Place {
    work: TempDir,
    made: Option<PathBuf>,
}

impl Place {
    fn make(out: &Path) -> Result<Place, files::CannotWrite> {
        let made = (!out.exists()).then(|| out.to_owned());
        files::make_folder(out)?;
        sweep(out);
        let work = tempfile::Builder::new().prefix(&format!("{WORK}{}-", std::process::id())).tempdir_in(out);
        let work = work.map_err(|cause| files::CannotWrite { path: out.into(), cause })?;
        Ok(Place { work, made })
    }

    fn keep(mut self) {
        self.made = None;
    }
}

/// How folders to work in are called; the process that made it follows.
const WORK: &str = ".moec-build-";

/// Removes what builds left behind that were killed: their process is gone, and nothing has changed for a while. (Of a process
/// in another container, which this one cannot see, a while is all there is to go by.)
fn sweep(out: &Path) {
    const A_WHILE: Duration = Duration::from_secs(600);
    for entry in fs::read_dir(out).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(WORK)) else { continue };
        let process = rest.split('-').next().unwrap_or_default();
        let alive = !process.is_empty() && Path::new("/proc").join(process).exists();
        let age = entry.metadata().and_then(|about| about.modified()).map(|at| at.elapsed().unwrap_or_default());
        if !alive && age.is_ok_and(|age| age > A_WHILE) {
            // What cannot be removed stays, as it did before.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // What cannot be removed can stay: it is empty.
            let _ = fs::remove_dir_all(self.work.path()).and_then(|()| fs::remove_dir(made));
        }
    }
}

fn pack(plan: &Plan, source: &dyn Instances, folder: &Path) -> Result<(), Failure> {
    let path = weights_in(folder, plan);
    Ok(moec_codegen::write_weights(plan, source, &path, &mut |_, _| ())?)
}

fn weights_in(folder: &Path, plan: &Plan) -> PathBuf {
    folder.join(format!("{}.weights", plan.name))
}

/// Packs what may be large: with progress, and so that it can be interrupted.
fn pack_checkpoint(
    plan: &Plan,
    source: &FromCheckpoint,
    folder: &Path,
    place: &moec_codegen::Place,
) -> Result<(), Failure> {
    let bar = progress_bar("packing weights");
    let watch = Watch::begin();
    let packed = moec_codegen::resume_weights(plan, source, &weights_in(folder, plan), place, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        // Shown only where it takes long enough to be looked at.
        if bar.is_hidden() && bar.elapsed() > Duration::from_secs(1) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if watch.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(watch);
    bar.finish_and_clear();
    match packed {
        Ok(resumed) => {
            source.unchanged()?;
            weights::warn(&source.accepted());
            if resumed > 0 {
                eprintln!("{resumed} of {} bytes of weights were packed already", plan.weight_bytes());
            }
            Ok(())
        }
        Err(interrupted @ WriteError::Interrupted { .. }) => Err(Failure::interrupted(interrupted)),
        Err(WriteError::Source { path, cause }) => Err(unreadable(source, path, cause)),
        Err(error) => Err(error.into()),
    }
}

/// What keeps an instance from being read, in the words of who found it.
fn unreadable(source: &FromCheckpoint, path: String, cause: Box<dyn Error + Send + Sync>) -> Failure {
    if cause.is::<NotFinite>() {
        // It is seldom the only one.
        return Failure::problems(weights::problems(source.not_finite()), &moec_diag::SourceMap::default());
    }
    match cause.downcast::<CheckpointError>() {
        Ok(error) => (*error).into(),
        Err(cause) => WriteError::Source { path, cause }.into(),
    }
}

fn progress_bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    let style = style.expect("a fixed template").progress_chars("=> ");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style).with_message(what)
}

/// What a checkpoint says about text.
const TEXT_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// Takes the tokenizer along, and returns the configuration, in which the settings for generating win.
fn copied_from_checkpoint(source: Source, folder: &Path) -> Result<Option<serde_json::Value>, Failure> {
    let Source::Checkpoint(dir, _) = source else { return Ok(None) };
    for name in TEXT_FILES {
        let path = dir.join(name);
        if path.exists() {
            files::write(&folder.join(name), &files::read(&path, 256 << 20)?)?;
        }
    }
    let mut config: Option<serde_json::Value> = None;
    for name in ["config.json", "generation_config.json"] {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let more = spec::read_config(&path)?;
        match (&mut config, more) {
            (Some(serde_json::Value::Object(config)), serde_json::Value::Object(more)) => config.extend(more),
            (_, more) => config = Some(more),
        }
    }
    Ok(config)
}

/// Renames everything from `folder` into `out`, in the order of names.
fn move_all(folder: &Path, out: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |path: &Path, cause| files::CannotWrite { path: path.into(), cause };
    let entries = fs::read_dir(folder).map_err(|cause| fail(folder, cause))?;
    let mut names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    names.sort();
    let mut moved = Vec::new();
    for name in names {
        let to = out.join(&name);
        if to.is_dir() {
            // A folder can be put only where none is; the old one goes away with the place of work.
            fs::rename(&to, folder.join(format!("{}.old", name.display()))).map_err(|cause| fail(&to, cause))?;
        }
        fs::rename(folder.join(&name), &to).map_err(|cause| fail(&to, cause))?;
        moved.push(to);
    }
    Ok(moved)
}
