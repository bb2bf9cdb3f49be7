//! Which parameters are packed, and how: one entry for each way in which a parameter is read.

use moec_ir::{Module, ParamId as ModelParam};
use moec_plan::{Layout, PackSource, PackedParam, ParamId};
use moec_types::{Axis, DType};

/// The packed parameters so far, in order of first use (the order in which a pass streams them).
#[derive(Debug, Default)]
pub struct Packing {
    params: Vec<PackedParam>,
}

impl Packing {
    /// A parameter that row programs read, in its own order of axes.
    pub fn plain(&mut self, module: &Module, param: ModelParam) -> ParamId {
        let ty = &module.param(param).ty;
        let axes: Vec<Axis> = ty.axes().cloned().collect();
        let elements = ty.elements().expect("parameters have fixed sizes");
        self.add(module, &[param], Layout::Plain { elements }, &axes, &[])
    }

    /// Elements from an expert's instance to the next one's.
    pub fn instance_stride(&self, param: ParamId) -> u64 {
        self.params[param.0 as usize].instance_stride()
    }

    /// Parameters of equal shape that GEMMs read together.
    pub fn panels(&mut self, module: &Module, branches: &[ModelParam], rows: &[Axis], columns: &[Axis]) -> ParamId {
        let ty = &module.param(branches[0]).ty;
        let product = |axes: &[Axis]| -> u64 {
            axes.iter()
                .map(|axis| ty.dim(axis).and_then(|dim| dim.size.fixed()).expect("verified axes of fixed size"))
                .product()
        };
        let layout = Layout::Panels { k: product(columns), n: product(rows), branches: branches.len() as u32 };
        self.add(module, branches, layout, rows, columns)
    }

    fn add(
        &mut self,
        module: &Module,
        params: &[ModelParam],
        layout: Layout,
        rows: &[Axis],
        columns: &[Axis],
    ) -> ParamId {
        let names = |axes: &[Axis]| axes.iter().map(|axis| axis.name().to_owned()).collect::<Vec<_>>();
        let sources: Vec<PackSource> = params
            .iter()
            .map(|param| PackSource {
                param: param.0,
                path: module.param(*param).path.clone(),
                rows: names(rows),
                columns: names(columns),
            })
            .collect();
        if let Some(at) = self.params.iter().position(|other| other.layout == layout && other.sources == sources) {
            return ParamId(at as u32);
        }
        let first = module.param(params[0]);
        let same = params.iter().all(|param| module.param(*param).storage == first.storage);
        let mut packed = PackedParam {
            name: sources.iter().map(|source| source.path.as_str()).collect::<Vec<_>>().join(" + "),
            layout,
            storage: if same { first.storage } else { DType::F32 }.into(),
            layers: first.layers.as_ref().map_or(1, |layers| layers.len() as u32),
            per_layer: first.layers.is_some(),
            experts: first.experts.map_or(1, |experts| experts.count),
            instance_bytes: 0,
            offset: 0,
            sources,
        };
        packed.instance_bytes = packed.needed_bytes().next_multiple_of(64);
        packed.offset = self.params.last().map_or(0, |last| last.offset + last.bytes());
        self.params.push(packed);
        ParamId(self.params.len() as u32 - 1)
    }

    pub fn finish(self) -> Vec<PackedParam> {
        self.params
    }
}
