//! `moec new`: a spec that builds, to be changed.

use std::path::PathBuf;

use crate::{
    cli::{New, Template},
    commands::import::model_name,
    failure::Failure,
    files,
};

pub fn run(arguments: &New) -> Result<(), Failure> {
    let name = arguments.name.strip_suffix(".moe").unwrap_or(&arguments.name);
    let path = PathBuf::from(format!("{name}.moe"));
    let name = model_name(&path)?;
    if path.exists() && !arguments.force {
        return Err(files::Exists { path }.into());
    }
    files::write(&path, text(arguments.template, &name).as_bytes())?;
    eprintln!("{}: try `moec explain {0}`, then `moec build {0}`", path.display());
    Ok(())
}

fn text(template: Template, name: &str) -> String {
    let text = match template {
        Template::Layer => include_str!("../../templates/layer.moe"),
        Template::Decoder => include_str!("../../templates/decoder.moe"),
    };
    text.replace("model my_model(", &format!("model {name}("))
}
