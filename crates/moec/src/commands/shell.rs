//! `moec completions` and `moec man`: what is made of the command line's own description.

use clap::CommandFactory;

use crate::{
    cli::{Cli, Completions, Man},
    failure::Failure,
    files,
};

pub fn completions(arguments: &Completions) -> Result<(), Failure> {
    clap_complete::generate(arguments.shell, &mut Cli::command(), "moec", &mut std::io::stdout());
    Ok(())
}

pub fn man(arguments: &Man) -> Result<(), Failure> {
    files::make_folder(&arguments.folder)?;
    clap_mangen::generate_to(Cli::command(), &arguments.folder)
        .map_err(|cause| files::CannotWrite { path: arguments.folder.clone(), cause })?;
    Ok(())
}
