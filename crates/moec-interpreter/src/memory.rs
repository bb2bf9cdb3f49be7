//! The memory of a session: workspace, caches and states as cells at byte addresses, inputs and outputs as rows.

use moec_plan::{BufferId, Home, PANEL, Plan, Rows};
use moec_types::DType;

use crate::scalar::Scalar;

#[derive(Clone, Debug)]
pub struct Memory {
    pub workspace: Vec<f64>,
    pub cache: Vec<f64>,
    pub states: Vec<f64>,
    pub inputs: Vec<Vec<f64>>,
    pub outputs: Vec<Vec<f64>>,
    pub chunk: u64,
    pub capacity: u64,
    pub past: u64,
}

enum Cell {
    Workspace(u64),
    Cache(u64),
    State(u64),
    Input(usize, u64),
    Output(usize, u64),
}

impl Memory {
    /// `chunk`: the most tokens of a pass; `capacity`: positions, rounded up to whole panels.
    pub fn new(plan: &Plan, chunk: u64, capacity: u64) -> Self {
        let capacity = capacity.next_multiple_of(PANEL);
        let (per_token, fixed) = plan.workspace_bytes();
        Memory {
            workspace: vec![f64::NAN; (per_token * chunk + fixed) as usize],
            cache: vec![f64::NAN; (plan.cache_bytes_per_position() * capacity) as usize],
            states: vec![f64::NAN; plan.state_bytes() as usize],
            inputs: vec![Vec::new(); plan.inputs.len()],
            outputs: vec![Vec::new(); plan.outputs.len()],
            chunk,
            capacity,
            past: 0,
        }
    }

    /// Where element `element` of row `row` is; rows of a cache count from the first new position.
    fn cell(&self, plan: &Plan, id: BufferId, row: u64, element: u64, rank: u64) -> Cell {
        let buffer = plan.buffer(id);
        let bytes = buffer.dtype.bytes();
        let row = if buffer.rows == Rows::ONE { 0 } else { row };
        match buffer.home {
            Home::Input(at) => Cell::Input(at as usize, row * buffer.row + element),
            Home::Output(at) => Cell::Output(at as usize, row * buffer.row + element),
            Home::Workspace { per_token, fixed } => {
                Cell::Workspace(per_token * self.chunk + fixed + (row * buffer.row + element) * bytes)
            }
            Home::Cache { instances, per_position, panels } => {
                let rank = if instances > 1 { rank } else { 0 };
                let start = (per_position + rank * buffer.row_bytes()) * self.capacity;
                let position = self.past + row;
                let place = if panels {
                    (position / PANEL) * PANEL * buffer.row + element * PANEL + position % PANEL
                } else {
                    position * buffer.row + element
                };
                Cell::Cache(start + place * bytes)
            }
            Home::State { instances, offset } => {
                let rank = if instances > 1 { rank } else { 0 };
                Cell::State(offset + rank * buffer.instance_bytes() + element * bytes)
            }
        }
    }

    pub fn read(&self, plan: &Plan, id: BufferId, row: u64, element: u64, rank: u64) -> Scalar {
        let value = match self.cell(plan, id, row, element, rank) {
            Cell::Workspace(at) => self.workspace[at as usize],
            Cell::Cache(at) => self.cache[at as usize],
            Cell::State(at) => self.states[at as usize],
            Cell::Input(port, at) => self.inputs[port][at as usize],
            Cell::Output(port, at) => self.outputs[port][at as usize],
        };
        Scalar { value, dtype: plan.buffer(id).dtype }
    }

    /// A cache's element at an absolute position.
    pub fn read_position(&self, plan: &Plan, id: BufferId, position: u64, element: u64, rank: u64) -> f64 {
        let at_start = Memory {
            past: 0,
            workspace: Vec::new(),
            cache: Vec::new(),
            states: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            ..*self
        };
        match at_start.cell(plan, id, position, element, rank) {
            Cell::Cache(at) => self.cache[at as usize],
            Cell::Workspace(_) | Cell::State(_) | Cell::Input(..) | Cell::Output(..) => {
                panic!("attention reads caches")
            }
        }
    }

    pub fn write(&mut self, plan: &Plan, id: BufferId, row: u64, element: u64, rank: u64, value: f64) {
        let dtype = plan.buffer(id).dtype;
        assert!(
            element < plan.buffer(id).row || dtype == DType::Bool || plan.buffer(id).rows != Rows::ONE,
            "write outside a row"
        );
        let value = Scalar::new(value, dtype).value;
        match self.cell(plan, id, row, element, rank) {
            Cell::Workspace(at) => self.workspace[at as usize] = value,
            Cell::Cache(at) => self.cache[at as usize] = value,
            Cell::State(at) => self.states[at as usize] = value,
            Cell::Input(..) => panic!("a step writes an input"),
            Cell::Output(port, at) => self.outputs[port][at as usize] = value,
        }
    }
}
