//! Plans of tests/c/tiny_model.h, and their weights.

use std::{borrow::Cow, error::Error, path::Path};

use moec_codegen::{Instance, Instances, Values, write_weights};
use moec_plan::{Buffer, BufferId, Home, Layout, PackSource, PackedParam, Plan, Port, Rows};
use moec_types::DType;

/// The plan that tiny_model.h is written after, under any name.
pub fn tiny(name: &str) -> Plan {
    let buffer = |name: &str, dtype, rows, row, home| Buffer { name: name.into(), dtype, rows, row, home };
    let workspace = Home::Workspace { per_token: 0, fixed: 0 };
    let cache = Home::Cache { instances: 1, per_position: 0, panels: false };
    Plan {
        name: name.into(),
        inputs: vec![Port {
            name: "ids".into(),
            buffer: BufferId(0),
            sequence: 0,
            axes: vec![],
            index_limit: Some(10),
        }],
        outputs: vec![Port {
            name: "logits".into(),
            buffer: BufferId(1),
            sequence: 0,
            axes: vec![("V".into(), 7)],
            index_limit: None,
        }],
        params: vec![PackedParam {
            name: "table".into(),
            layout: Layout::Plain { elements: 70 },
            storage: DType::F32.into(),
            layers: 1,
            per_layer: false,
            experts: 1,
            instance_bytes: 320,
            offset: 0,
            sources: vec![PackSource {
                param: 0,
                path: "table".into(),
                rows: vec!["I".into(), "V".into()],
                columns: vec![],
            }],
        }],
        literals: vec![],
        buffers: vec![
            buffer("ids", DType::I32, Rows::Tokens, 1, Home::Input(0)),
            buffer("logits", DType::F32, Rows::Outputs, 7, Home::Output(0)),
            buffer("moved", DType::F32, Rows::Tokens, 16, workspace),
            buffer("cache", DType::F32, Rows::Tokens, 16, cache),
        ],
        body: vec![],
        sources: Vec::new(),
    }
}

/// A plan without parameters, inputs or outputs.
pub fn empty(name: &str) -> Plan {
    let (inputs, outputs, params, literals, buffers, body) = Default::default();
    Plan { name: name.into(), inputs, outputs, params, literals, buffers, body, sources: Vec::new() }
}

/// `table[i, v] = (7 i + v) / 2 - 8`.
pub struct Table;

impl Instances for Table {
    fn load(&self, param: u32, layer: u32, expert: u32) -> Result<Instance<'_>, Box<dyn Error + Send + Sync>> {
        assert_eq!((param, layer, expert), (0, 0, 0));
        let values = (0..70).map(|at| at as f32 * 0.5 - 8.0).collect();
        Ok(Instance { axes: vec![("I".into(), 10), ("V".into(), 7)], values: Values::F32(Cow::Owned(values)) })
    }
}

pub fn write(plan: &Plan, path: &Path) {
    write_weights(plan, &Table, path, &mut |_, _| ()).expect("the tiny model's weights");
}
