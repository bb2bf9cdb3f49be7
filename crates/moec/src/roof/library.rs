//! A library that is built for this machine alone, and gone when it is closed.

use std::sync::Arc;

use moec_codegen::{Backend, Instances};
use moec_cpu::{Cpu, Level, Marks};
use moec_diag::SourceMap;
use moec_plan::Plan;
use tempfile::TempDir;

use crate::{
    cli, compile,
    failure::Failure,
    files,
    native::{Model, Options},
};

/// An opened model, and the folder that goes away with it.
pub struct Temporary {
    pub model: Arc<Model>,
    _folder: TempDir,
}

impl Temporary {
    pub fn build(
        plan: &Plan,
        weights: &dyn Instances,
        marks: Marks,
        levels: Vec<Level>,
        sources: &SourceMap,
    ) -> Result<Temporary, Failure> {
        let folder = tempfile::tempdir().map_err(|cause| files::CannotWrite { path: std::env::temp_dir(), cause })?;
        let cpu = Cpu { levels, image: None, marks };
        let objects = cpu.emit(plan).map_err(|unsupported| compile::refused(unsupported, sources))?;
        moec_codegen::link(&objects, &plan.name, folder.path())?;
        let file = folder.path().join("weights");
        moec_codegen::write_weights(plan, weights, &file, &mut |_, _| ())?;
        let library = folder.path().join(format!("lib{}.so", plan.name));
        let model = Model::open(&library, &plan.name, &file, Options::default())?;
        Ok(Temporary { model, _folder: folder })
    }
}

/// Whatever this machine may have.
pub fn all_levels(plan: &Plan) -> Vec<Level> {
    compile::levels(&cli::Code::default().cpu, plan)
}

/// The one of a plan that the run time takes where it takes `name` of another, and the one that every library has.
pub fn levels_at(plan: &Plan, name: &str) -> Vec<Level> {
    let all = all_levels(plan);
    let wanted = Level::ALL.into_iter().find(|level| level.name() == name);
    let best = all.iter().copied().filter(|level| Some(*level) <= wanted).max();
    all.into_iter().filter(|level| *level == Level::Scalar || Some(*level) == best).collect()
}
