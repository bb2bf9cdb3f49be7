//! `moec build`: a spec to a library that any program can link.

use std::time::Instant;

use crate::{
    artefact::{self, Source},
    cli::Build,
    commands::explain::short,
    failure::Failure,
    spec,
    weights::NonFinite,
};

pub fn run(arguments: &Build) -> Result<(), Failure> {
    let started = Instant::now();
    let loaded = spec::load(&arguments.spec.file, &arguments.spec.settings, arguments.weights.as_deref())?;
    let source = match &arguments.weights {
        Some(dir) => Source::Checkpoint(dir, NonFinite::allowed(arguments.allow_non_finite)),
        None => Source::Nowhere,
    };
    let made = artefact::build(loaded, source, &arguments.code, &arguments.emit, &arguments.output)?;
    for file in &made.files {
        let bytes = std::fs::metadata(file).map_or(0, |meta| meta.len());
        eprintln!("{:>10}  {}", short(bytes as f64, "B"), file.display());
    }
    eprintln!("built {} in {:.1} s", made.manifest.model, started.elapsed().as_secs_f64());
    if !made.manifest.weights {
        eprintln!("no weights: give `--weights DIR` for a model that runs");
    }
    Ok(())
}
