//! Packed parameters: how weights lie in the weight file.

use moec_types::DType;

use crate::Format;

/// Columns of a panel: one 512-bit register of f32.
pub const PANEL: u64 = 16;

/// Positions of a page of the caches: `MOEC_PAGE` of kernels/runtime/moec_pass.h.
pub const PAGE: u64 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub u32);

/// One parameter, or several of equal shape woven together, with an instance for each layer of a kind and each expert of a
/// bank member. Instance `(layer, expert)` starts at `offset + (layer * experts + expert) * instance_bytes`.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedParam {
    pub name: String,
    pub layout: Layout,
    /// `Each` where the layout is `Plain`.
    pub storage: Format,
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
    /// For GEMMs `c[n] = sum over k of a[k] * w[n, k]`: blocks of 16 columns n, the last filled with zeros. What is stored
    /// `Each` stands, within a block, for each k, for each branch, 16 weights side by side: element `(branch, n, k)` at
    /// `((n / 16 * k_size + k) * branches + branch) * 16 + n % 16`. The other formats are in docs/weight-file.md.
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

    /// The type of the elements that row programs read.
    ///
    /// # Panics
    /// Where it is no plain parameter.
    pub fn dtype(&self) -> DType {
        self.storage.each().expect("plain parameters are stored each by itself")
    }

    /// Elements from one instance of a plain parameter to the next.
    pub fn instance_stride(&self) -> u64 {
        self.instance_bytes / self.dtype().bytes()
    }

    /// Bytes that an instance takes: `instance_bytes` is the next multiple of 64.
    pub fn needed_bytes(&self) -> u64 {
        match self.layout {
            Layout::Plain { elements } => elements * self.dtype().bytes(),
            Layout::Panels { k, n, branches } => n.div_ceil(PANEL) * self.storage.panel(k, branches).all(),
        }
    }

    /// Weights of one instance, without what fills panels and groups.
    pub fn weights(&self) -> u64 {
        match self.layout {
            Layout::Plain { elements } => elements,
            Layout::Panels { k, n, branches } => k * n * u64::from(branches),
        }
    }
}
