//! Packed parameters: how weights lie in the weight file.

use moec_types::DType;

/// Columns of a panel: one 512-bit register of f32.
pub const PANEL: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub u32);

/// One parameter, or several of equal shape woven together, with an instance for each layer of a kind and each expert of a
/// bank member. Instance `(layer, expert)` starts at `offset + (layer * experts + expert) * instance_bytes`.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedParam {
    pub name: String,
    pub layout: Layout,
    pub storage: DType,
    /// Instances; `per_layer` says whether the layer's rank selects one (else there is one for all).
    pub layers: u32,
    pub per_layer: bool,
    pub experts: u32,
    /// A multiple of 64.
    pub instance_bytes: u64,
    /// From the start of the weights' data; a multiple of 64.
    pub offset: u64,
    /// What is packed: one source, or one for each branch of `Panels`.
    pub sources: Vec<PackSource>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Layout {
    /// Row-major, in the order of the source's `rows` (its `columns` are empty).
    Plain { elements: u64 },
    /// For GEMMs `c[n] = sum over k of a[k] * w[n, k]`: blocks of 16 columns n, the last filled with zeros; within a block,
    /// for each k, for each branch, the 16 weights. Element `(branch, n, k)` stands at
    /// `((n / 16 * k_size + k) * branches + branch) * 16 + n % 16`.
    Panels { k: u64, n: u64, branches: u32 },
}

/// A parameter of the model IR and how its axes become the matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct PackSource {
    /// Its number in the module.
    pub param: u32,
    pub path: String,
    /// The axes that make up n (or everything, for `Plain`), slowest first.
    pub rows: Vec<String>,
    /// The axes that make up k, slowest first.
    pub columns: Vec<String>,
}

impl PackedParam {
    pub fn bytes(&self) -> u64 {
        self.instance_bytes * u64::from(self.layers) * u64::from(self.experts)
    }

    /// Elements from one instance to the next.
    pub fn instance_stride(&self) -> u64 {
        self.instance_bytes / self.storage.bytes()
    }

    /// Elements of one instance, padding included.
    pub fn instance_elements(&self) -> u64 {
        match self.layout {
            Layout::Plain { elements } => elements,
            Layout::Panels { k, n, branches } => n.next_multiple_of(PANEL) * k * u64::from(branches),
        }
    }
}
