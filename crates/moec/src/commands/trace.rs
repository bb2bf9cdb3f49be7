//! `moec trace view`: what routes chose, as figures and as a page to look at.

mod figures;
mod page;

use std::collections::BTreeMap;

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    cli::{Trace, TraceCommand, TraceView},
    failure::Failure,
    files,
    native::NamedTensor,
    tensors,
};

#[derive(Debug, Error, Diagnostic)]
#[error("{file} is no trace: {reason}")]
#[diagnostic(code(moec::trace::no_trace), help("`moec run … --trace FILE` writes one"))]
struct NoTrace {
    file: String,
    reason: String,
}

pub fn run(arguments: &Trace) -> Result<(), Failure> {
    match &arguments.command {
        TraceCommand::View(view) => write(view),
    }
}

fn write(view: &TraceView) -> Result<(), Failure> {
    let given = tensors::read(&view.trace)?;
    let file = view.trace.display().to_string();
    let trace = Traced::of(&given).map_err(|reason| NoTrace { file, reason })?;
    let page = view.output.clone().unwrap_or_else(|| view.trace.with_extension("html"));
    let data = page.with_extension("json");
    let figures = figures::of(&trace);
    let json = figures::json(&trace, &figures);
    let title = view.trace.file_name().unwrap_or_default().to_string_lossy();
    files::write(&page, page::page(&title, &trace, &figures, &json).as_bytes())?;
    files::write(&data, format!("{json:#}\n").as_bytes())?;
    eprintln!("wrote {} and {}", page.display(), data.display());
    Ok(())
}

/// What a trace file holds.
pub struct Traced {
    pub routes: Vec<Route>,
    /// The text of each position, where it is known.
    pub pieces: Vec<String>,
}

/// What one route of one layer chose.
pub struct Route {
    /// Its number in the model's text, and which execution of its kind of layer it is.
    pub place: Option<(i32, i32)>,
    /// There are so many; where the trace does not say, as many as it shows.
    pub experts: usize,
    pub choices: usize,
    /// `[positions, choices]`; one outside the experts is no choice.
    pub indices: Vec<i32>,
    pub weights: Vec<f32>,
}

impl Route {
    pub fn positions(&self) -> usize {
        self.indices.len().checked_div(self.choices).unwrap_or(0)
    }

    /// Expert and weight of each choice of a position; no expert where there was no choice.
    pub fn chosen(&self, position: usize) -> impl Iterator<Item = (Option<usize>, f32)> {
        let range = position * self.choices..(position + 1) * self.choices;
        let expert = |index: i32| usize::try_from(index).ok().filter(|index| *index < self.experts);
        self.indices[range.clone()].iter().map(move |index| expert(*index)).zip(self.weights[range].iter().copied())
    }
}

/// A trace may be of any origin: more experts than this are not believed.
const MOST_EXPERTS: usize = 1 << 16;

impl Traced {
    /// The reason why these are no trace, otherwise.
    fn of(given: &BTreeMap<String, NamedTensor>) -> Result<Traced, String> {
        let mut routes = Vec::new();
        while let Some(indices) = given.get(&format!("route.{}.indices", routes.len())) {
            let name = |what: &str| format!("route.{}.{what}", routes.len());
            let [positions, choices] = indices.shape[..] else {
                return Err(format!("`{}` has not two axes", name("indices")));
            };
            let weights = given.get(&name("weights")).filter(|weights| weights.shape == [positions, choices]);
            let weights = weights.ok_or_else(|| format!("`{}` is missing, or of another shape", name("weights")))?;
            let place = given.get(&name("place")).map(integers);
            let indices = integers(indices);
            let shown = indices.iter().max().map_or(0, |most| usize::try_from(*most).map_or(0, |most| most + 1));
            let said = place.as_ref().and_then(|place| usize::try_from(*place.get(2)?).ok());
            let experts = said.unwrap_or(shown);
            if experts > MOST_EXPERTS {
                return Err(format!("`{}` speaks of {experts} experts", name("indices")));
            }
            let place = place.and_then(|place| Some((*place.first()?, *place.get(1)?)));
            routes.push(Route { place, experts, choices, indices, weights: floats(weights) });
        }
        if routes.is_empty() {
            return Err("it has no `route.0.indices`".into());
        }
        Ok(Traced { routes, pieces: pieces(given) })
    }
}

/// The text of each token; nothing where the trace is of no text, or its text makes no sense.
fn pieces(given: &BTreeMap<String, NamedTensor>) -> Vec<String> {
    let list = |name: &str| given.get(name).map(integers).unwrap_or_default();
    let bytes: Vec<u8> = list("text.utf8").into_iter().map(|byte| byte as u8).collect();
    let mut start = 0;
    let mut pieces = Vec::new();
    for end in list("text.ends") {
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        let Some(piece) = bytes.get(start..end) else { return Vec::new() };
        pieces.push(String::from_utf8_lossy(piece).into_owned());
        start = end;
    }
    pieces
}

fn integers(tensor: &NamedTensor) -> Vec<i32> {
    tensor.bytes.as_chunks().0.iter().map(|four| i32::from_le_bytes(*four)).collect()
}

fn floats(tensor: &NamedTensor) -> Vec<f32> {
    tensor.bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}
