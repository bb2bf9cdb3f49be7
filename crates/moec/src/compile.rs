//! The whole compiler: a checked module to objects.

use std::collections::BTreeSet;

use miette::{Diagnostic, LabeledSpan};
use moec_codegen::{Backend, Object};
use moec_cpu::{Cpu, Level, Marks};
use moec_diag::{SourceMap, Span};
use moec_ir::Module;
use moec_passes::Report;
use moec_plan::{Plan, RowFormat};
use thiserror::Error;

use crate::{cli, cuda, failure::Failure};

/// What a target, or the lowering, cannot do; the way round is the help.
#[derive(Debug, Error)]
#[error("{message}")]
struct Unsupported {
    message: String,
    way_round: String,
    at: Span,
}

impl Diagnostic for Unsupported {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new("moec::unsupported"))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(&self.way_round))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (self.at != Span::NONE).then(|| {
            let label = LabeledSpan::new_with_span(Some("this".into()), self.at);
            Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = _>>
        })
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("there is no pass `{name}`")]
#[diagnostic(code(moec::unknown_pass), help("the passes are {known}"))]
struct UnknownPass {
    name: String,
    known: String,
}

/// The module after all passes but those that are switched off.
pub fn fuse(module: Module, disabled: &[String]) -> Result<(Module, Report), Failure> {
    let known: Vec<&str> = moec_passes::pipeline().iter().map(|pass| pass.name).collect();
    if let Some(name) = disabled.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(UnknownPass { name: name.clone(), known: known.join(", ") }.into());
    }
    let disabled: BTreeSet<String> = disabled.iter().cloned().collect();
    Ok(moec_passes::run(module, &moec_passes::Options { disabled }))
}

pub fn plan(module: &Module, sources: &SourceMap) -> Result<Plan, Failure> {
    moec_lower::lower(module).map_err(|unsupported| {
        let message = unsupported.to_string();
        Failure::unsupported(Unsupported { message, way_round: unsupported.way_round, at: unsupported.at }, sources)
    })
}

pub fn objects(plan: &Plan, code: &cli::Code, sources: &SourceMap) -> Result<Vec<Object>, Failure> {
    let image = code.target.contains(&cli::Target::Cuda).then(|| cuda::image(plan, sources)).transpose()?;
    let cuda = image.is_some();
    let levels = if code.target.contains(&cli::Target::Cpu) { levels(&code.cpu, plan) } else { Vec::new() };
    let cpu = Cpu { levels, image, marks: Marks::Routes };
    let mut objects = cpu.emit(plan).map_err(|unsupported| refused(unsupported, sources))?;
    if cuda {
        objects.extend(moec_codegen::cuda_runtime());
    }
    Ok(objects)
}

/// What `NAME_level` may say of a library.
pub fn level_names(plan: &Plan, code: &cli::Code) -> Vec<String> {
    let of = |target: &cli::Target| match target {
        cli::Target::Cpu => levels(&code.cpu, plan).iter().map(|level| level.name().to_owned()).collect(),
        cli::Target::Cuda => vec!["cuda".to_owned()],
    };
    let mut targets = code.target.clone();
    targets.sort();
    targets.dedup();
    targets.iter().flat_map(of).collect()
}

/// What a backend cannot do, as a failure.
pub fn refused(unsupported: moec_codegen::Unsupported, sources: &SourceMap) -> Failure {
    let message = unsupported.to_string();
    Failure::unsupported(Unsupported { message, way_round: unsupported.way_round, at: unsupported.at }, sources)
}

/// The levels asked for that differ in this plan, and the scalar one, which every library has: the self-test compares with
/// it.
pub fn levels(asked: &[cli::Level], plan: &Plan) -> Vec<Level> {
    let mut asked: BTreeSet<cli::Level> = asked.iter().copied().collect();
    asked.insert(cli::Level::Scalar);
    let dots = plan.params.iter().any(|param| param.storage.rows() != RowFormat::F32);
    if !dots {
        // Nothing multiplies pairs or fours.
        let above = asked.split_off(&cli::Level::Avx512Dot);
        asked.extend((!above.is_empty()).then_some(cli::Level::Avx512));
    }
    asked.into_iter().map(level).collect()
}

fn level(level: cli::Level) -> Level {
    match level {
        cli::Level::Scalar => Level::Scalar,
        cli::Level::Avx2 => Level::Avx2,
        cli::Level::Avx512 => Level::Avx512,
        cli::Level::Avx512Dot => Level::Avx512Dot,
        cli::Level::Amx => Level::Amx,
    }
}
