//! A model's structure as it is drawn: what stands before, in and behind the layers, those that are alike as one.

use std::collections::BTreeMap;

use moec_ir::{Module, Param, ParamId};
use moec_sema::{PlacedPart, Placement};

use crate::count::{self, Choice};

/// Parts that stand together: outside layers, or in all the layers that are alike.
pub struct Stage {
    /// `layers[l]`; empty outside layers.
    pub stack: String,
    /// Ascending; empty outside layers.
    pub layers: Vec<u32>,
    pub parts: Vec<Drawn>,
    /// Elements of all its layers, and those of them that one token meets.
    pub elements: Elements,
}

/// A part of one layer.
pub struct Drawn {
    /// `attn`, `ffn`: within its layer.
    pub name: String,
    pub part: PlacedPart,
    /// How many other parts it stands in.
    pub depth: usize,
    /// Of all layers of the stage.
    pub elements: Elements,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    pub total: u64,
    pub active: u64,
}

impl Stage {
    pub fn chooses(&self) -> bool {
        self.parts.iter().any(Drawn::chooses)
    }
}

impl Drawn {
    /// Experts are chosen there.
    pub fn chooses(&self) -> bool {
        self.part.chooses()
    }
}

/// In the text's order; layers stand where the first of them stands.
pub fn stages(module: &Module, placements: &[Placement]) -> Vec<Stage> {
    let counted = Counted { module, choices: count::choices(module) };
    gathered(placements).into_iter().map(|(layers, run)| stage(&counted, layers, &run)).collect()
}

/// The model's own parameters, which stand in no part.
pub fn own_parameters<'m>(module: &'m Module, placements: &[Placement]) -> Vec<&'m Param> {
    let own = |param: &&Param| !placements.iter().any(|one| within(&param.path, &one.path));
    module.params.iter().filter(own).collect()
}

/// Placements that stand together, those of layers with the same parts as one.
fn gathered(placements: &[Placement]) -> Vec<(Vec<u32>, Vec<&Placement>)> {
    let mut gathered: Vec<(Vec<u32>, Vec<&Placement>)> = Vec::new();
    for run in placements.chunk_by(|one, next| one.layer == next.layer) {
        let parts = |run: &[&Placement]| run.iter().map(|one| (one.path.clone(), one.part.clone())).collect::<Vec<_>>();
        let run: Vec<&Placement> = run.iter().collect();
        let layer = run[0].layer;
        let alike =
            |(layers, known): &&mut (Vec<u32>, Vec<&Placement>)| !layers.is_empty() && parts(known) == parts(&run);
        match (layer, gathered.iter_mut().find(alike)) {
            (Some(layer), Some((layers, _))) => layers.push(layer),
            (layer, _) => gathered.push((layer.into_iter().collect(), run)),
        }
    }
    gathered
}

fn stage(counted: &Counted, layers: Vec<u32>, run: &[&Placement]) -> Stage {
    let depth = |path: &str| run.iter().filter(|other| within(path, &other.path)).count();
    let parts: Vec<Drawn> = run
        .iter()
        .map(|one| Drawn {
            name: one.path.rsplit_once("].").map_or(one.path.as_str(), |(_, name)| name).to_owned(),
            part: one.part.clone(),
            depth: depth(&one.path),
            elements: counted.below(&one.path, &layers),
        })
        // Of what is inside others, what chooses is worth a line.
        .filter(|part| part.depth == 0 || part.chooses())
        .collect();
    let outermost = parts.iter().filter(|part| part.depth == 0);
    let elements = outermost.fold(Elements::default(), |sum, part| Elements {
        total: sum.total + part.elements.total,
        active: sum.active + part.elements.active,
    });
    let stack = run[0].path.split_inclusive(']').next().filter(|stack| stack.ends_with(']') && !layers.is_empty());
    Stage { stack: stack.unwrap_or_default().to_owned(), layers, parts, elements }
}

fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

struct Counted<'m> {
    module: &'m Module,
    choices: BTreeMap<ParamId, Choice>,
}

impl Counted<'_> {
    /// The elements of a part's parameters, in these layers where it stands in some.
    fn below(&self, path: &str, layers: &[u32]) -> Elements {
        let mut sum = Elements::default();
        for (at, param) in self.module.params.iter().enumerate().filter(|(_, param)| within(&param.path, path)) {
            let (here, all) = match &param.layers {
                Some(of) if !layers.is_empty() => (of.iter().filter(|layer| layers.contains(layer)).count(), of.len()),
                Some(_) | None => (1, 1),
            };
            let total = param.elements() / all.max(1) as u64 * here as u64;
            let choice = self.choices.get(&ParamId(at as u32));
            sum.total += total;
            sum.active += choice.map_or(total, |choice| count::active_share(total, *choice));
        }
        sum
    }
}
