//! The models of `examples/domains`: small whole models with what they must choose and give. `make_domains.py` writes the cases;
//! the tests of the oracle, of the plan and of the CPU code share this reader.

use std::path::{Path, PathBuf};

use moec_diag::SourceMap;
use moec_ir::{Module, ParamId};
use moec_oracle::{MemoryWeights, Tensor};
use moec_sema::{Also, Settings};
use moec_types::{Dim, TensorType};
use serde::Deserialize;

/// What f32 arithmetic may differ by from the f64 reference over a whole model, for numbers near 1.
const TOLERANCE: f64 = 1e-4;

#[derive(Debug, Deserialize)]
pub struct Domain {
    pub name: String,
    /// The file in `examples/domains`, without `.moe`.
    spec: String,
    pub tokens: usize,
    /// The same positions once more, in several passes.
    pub passes: Vec<usize>,
    set: Vec<(String, String)>,
    /// With these as further outputs.
    #[serde(default)]
    also: Vec<String>,
    inputs: Vec<Named>,
    params: Vec<Noise>,
    routes: Vec<Chosen>,
    outputs: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    values: Vec<f64>,
}

/// A parameter whose numbers are `offset + scale * u`, u in [-1, 1) from a hash of its path, layer, expert and place.
#[derive(Debug, Deserialize)]
struct Noise {
    path: String,
    /// In the order of the places, slowest first.
    axes: Vec<String>,
    scale: f64,
    offset: f64,
}

#[derive(Debug, Deserialize)]
struct Chosen {
    i: Vec<i32>,
    w: Vec<f64>,
}

/// What somebody computed: routes in the order in which they are run, and the outputs' elements.
#[derive(Debug, Default)]
pub struct Found {
    pub routes: Vec<(Vec<i32>, Vec<f32>)>,
    pub outputs: Vec<Vec<f64>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every case of every model.
pub fn cases() -> Vec<Domain> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("tests/domains"))
        .expect("the cases are there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    let read = |path: &PathBuf| -> Vec<Domain> {
        let text = std::fs::read_to_string(path).expect("readable");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    };
    files.iter().flat_map(read).collect()
}

/// Runs every case, also after one has failed, and then says which have.
pub fn each(run: impl Fn(&Domain)) {
    let mut failed = Vec::new();
    for case in cases() {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&case))).is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "these fail: {failed:#?}");
}

impl Domain {
    pub fn text(&self) -> String {
        let path = root().join(format!("examples/domains/{}.moe", self.spec));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The model, checked.
    pub fn module(&self) -> Module {
        let text = self.text();
        let mut sources = SourceMap::default();
        let (tree, problems) = moec_syntax::parse(&mut sources, &self.spec, &text);
        assert!(problems.is_empty(), "{}: {problems:?}", self.spec);
        let also = Also { aux: self.asks_for("aux"), state: self.asks_for("state"), trace: self.asks_for("trace") };
        let settings = Settings { also, overrides: self.set.clone(), ..Settings::default() };
        let (checked, problems) = moec_sema::check(&mut sources, &tree.expect("no problems"), &settings);
        assert!(problems.is_empty(), "{}: {problems:?}", self.spec);
        checked.expect("no problems").module
    }

    fn asks_for(&self, what: &str) -> bool {
        self.also.iter().any(|also| also == what)
    }

    /// The elements of an input for the positions from `first` on; all of them where it has no positions.
    pub fn input(&self, name: &str, ty: &TensorType, first: usize, tokens: usize) -> Vec<f64> {
        let found = self.inputs.iter().find(|input| input.name == name);
        let values = &found.unwrap_or_else(|| panic!("{}: no input `{name}`", self.name)).values;
        if ty.elements().is_some() {
            return values.clone();
        }
        let row = values.len() / self.tokens;
        values[first * row..][..tokens * row].to_vec()
    }

    /// All parameters of the module.
    pub fn weights(&self, module: &Module) -> MemoryWeights {
        let mut weights = MemoryWeights::default();
        for (number, param) in module.params.iter().enumerate() {
            let noise = self.params.iter().find(|noise| noise.path == param.path);
            let noise = noise.unwrap_or_else(|| panic!("{}: no values for `{}`", self.name, param.path));
            let size = |axis: &String| {
                let dim = param.ty.dims.iter().find(|dim: &&Dim| dim.axis.name() == axis);
                let dim = dim.unwrap_or_else(|| panic!("{}: `{}` has no axis {axis}", self.name, param.path));
                (dim.axis.clone(), dim.size.fixed().expect("parameters have fixed sizes") as usize)
            };
            let axes: Vec<_> = noise.axes.iter().map(size).collect();
            let count = axes.iter().map(|(_, size)| size).product();
            let layers = param.layers.clone().unwrap_or_else(|| vec![0]);
            let experts = param.experts.map_or(0..1, |experts| experts.first..experts.first + experts.count);
            for (rank, layer) in layers.iter().enumerate() {
                for (member, expert) in experts.clone().enumerate() {
                    let data = noise.instance(*layer, expert, count);
                    weights.insert(ParamId(number as u32), rank as u32, member as u32, Tensor::new(axes.clone(), data));
                }
            }
        }
        weights
    }

    /// What a later pass gives, behind what earlier ones gave: rows of later positions. What has no positions comes again.
    pub fn extend(&self, found: &mut Found, later: Found) {
        if found.outputs.is_empty() {
            *found = later;
            return;
        }
        for ((found, later), wanted) in found.routes.iter_mut().zip(later.routes).zip(&self.routes) {
            if later.0.len() == wanted.i.len() {
                *found = later;
            } else {
                found.0.extend(later.0);
                found.1.extend(later.1);
            }
        }
        found.outputs.iter_mut().zip(later.outputs).for_each(|(found, later)| found.extend(later));
    }

    /// Compares the routes: choices exactly, weights nearly; then the outputs.
    pub fn gave(&self, who: &str, found: &Found) {
        let name = &self.name;
        assert_eq!(found.routes.len(), self.routes.len(), "{name}, {who}: routes");
        for (at, ((indices, weights), wanted)) in found.routes.iter().zip(&self.routes).enumerate() {
            assert_eq!(*indices, wanted.i, "{name}, {who}, route {at}: choices");
            let weights: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
            near(&weights, &wanted.w, || format!("{name}, {who}, route {at}: weights"));
        }
        assert_eq!(found.outputs.len(), self.outputs.len(), "{name}, {who}: outputs");
        for (found, wanted) in found.outputs.iter().zip(&self.outputs) {
            near(found, &wanted.values, || format!("{name}, {who}, `{}`", wanted.name));
        }
    }
}

impl Noise {
    /// splitmix64 of the path's hash (FNV-1a) and the place, 24 bits each, as `reference.py` has it.
    fn instance(&self, layer: u32, expert: u32, count: usize) -> Vec<f32> {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let seed = self.path.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
        let number = |place: u64| {
            let place = (u64::from(layer) << 48).wrapping_add(u64::from(expert) << 32).wrapping_add(place);
            let mut z = seed.wrapping_add(place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let unit = (z >> 40) as f64 / f64::from(1 << 23) - 1.0;
            (self.offset + self.scale * unit) as f32
        };
        (0..count as u64).map(number).collect()
    }
}

fn near(found: &[f64], wanted: &[f64], what: impl Fn() -> String) {
    assert_eq!(found.len(), wanted.len(), "{}", what());
    for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let close = (found - wanted).abs() <= TOLERANCE * wanted.abs().max(1.0);
        assert!(close, "{}, element {at}: {wanted} is wanted, found {found}", what());
    }
}
