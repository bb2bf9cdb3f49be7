//! What a step's code knows of the pass that it runs in: sizes, who of how many threads, and where everything lies.

use moec_plan::{Buffer, BufferId, Extent, Home, LiteralId, PANEL, ParamId, Plan, Rows, Share};

use crate::{
    builder::{Builder, Cmp, Elem, I32, I64, PTR, Val},
    level::Level,
};

/// Types of the arguments of every step and layer function: pass, thread, threads (i64 all), and the rank of the layer.
pub const ARGUMENTS: [crate::builder::Ty; 4] = [PTR, I64, I64, I64];

/// The fields of `moec_pass` (kernels/runtime/moec_pass.h), 8 bytes each, in order.
#[derive(Clone, Copy)]
enum Field {
    Tokens,
    Past,
    FirstOutput,
    Chunk,
    Capacity,
    Workspace,
    Cache,
    States,
    Weights,
    Inputs,
    Outputs,
    Scratch,
    ScratchBytes,
    Team,
    Trace,
    TraceUser,
    Pasts,
}

pub struct Frame<'a> {
    pub plan: &'a Plan,
    pub level: Level,
    pub thread: Val,
    pub threads: Val,
    /// Of the layer, within its kind; 0 outside layers.
    pub rank: Val,
    pub tokens: Val,
    pub past: Val,
    pub first_output: Val,
    /// This thread's own.
    pub scratch: Val,
    pass: Val,
}

/// A matrix in memory: row 0, and how rows and elements follow.
#[derive(Clone, Copy)]
pub struct Matrix {
    pub base: Val,
    /// Elements in a row.
    pub row: u64,
    pub element_bytes: u64,
    /// In blocks of 16 rows, element by element.
    pub panels: bool,
}

impl Matrix {
    /// Where a row starts.
    pub fn row(&self, b: &Builder, row: Val) -> Val {
        let bytes = (self.row * self.element_bytes) as i64;
        if !self.panels {
            return b.offset(self.base, b.mul(row, b.i64(bytes)));
        }
        let within = b.and(row, b.i64(PANEL as i64 - 1));
        let block = b.sub(row, within);
        let start = b.add(b.mul(block, b.i64(bytes)), b.mul(within, b.i64(self.element_bytes as i64)));
        b.offset(self.base, start)
    }
}

impl<'a> Frame<'a> {
    pub fn new(b: &Builder, plan: &'a Plan, level: Level, arguments: &[Val]) -> Self {
        let [pass, thread, threads, rank] = [0, 1, 2, 3].map(|at| arguments[at]);
        let field = |field, ty| load_field(b, pass, field, ty);
        let scratch = field(Field::Scratch, PTR);
        let own = b.mul(thread, field(Field::ScratchBytes, I64));
        Frame {
            plan,
            level,
            thread,
            threads,
            rank,
            tokens: field(Field::Tokens, I64),
            past: field(Field::Past, I64),
            first_output: field(Field::FirstOutput, I64),
            scratch: b.offset(scratch, own),
            pass,
        }
    }

    /// Row 0 of a buffer of this layer; of a cache, position 0.
    pub fn buffer(&self, b: &Builder, id: BufferId) -> Matrix {
        let buffer = self.plan.buffer(id);
        let field = |field, ty| load_field(b, self.pass, field, ty);
        let scaled = |base: Field, factor: Val, scale: Field, fixed: u64| {
            let bytes = b.mul(factor, field(scale, I64));
            b.offset_by(b.offset(field(base, PTR), bytes), fixed as i64)
        };
        let (base, panels) = match buffer.home {
            Home::Input(at) => (b.load(PTR, b.offset_by(field(Field::Inputs, PTR), 8 * i64::from(at))), false),
            Home::Output(at) => (b.load(PTR, b.offset_by(field(Field::Outputs, PTR), 8 * i64::from(at))), false),
            Home::Workspace { per_token, fixed } => {
                (scaled(Field::Workspace, b.i64(per_token as i64), Field::Chunk, fixed), false)
            }
            Home::Cache { instances, per_position, panels } => {
                let instance = if instances > 1 { self.rank } else { b.i64(0) };
                let instance = b.mul(instance, b.i64(buffer.row_bytes() as i64));
                let per_position = b.add(b.i64(per_position as i64), instance);
                (scaled(Field::Cache, per_position, Field::Capacity, 0), panels)
            }
            Home::State { instances, offset } => {
                let instance = if instances > 1 { self.rank } else { b.i64(0) };
                let start = b.offset_by(field(Field::States, PTR), offset as i64);
                (b.offset(start, b.mul(instance, b.i64(buffer.instance_bytes() as i64))), false)
            }
        };
        Matrix { base, row: buffer.row, element_bytes: buffer.dtype.bytes(), panels }
    }

    /// Row `row` of the rows that a step over `rows` counts: where it starts.
    pub fn row(&self, b: &Builder, id: BufferId, rows: Rows, row: Val) -> Val {
        let row = self.row_number(b, id, rows, row);
        self.buffer(b, id).row(b, row)
    }

    /// The row of the buffer that row `row` of a step over `rows` means.
    pub fn row_number(&self, b: &Builder, id: BufferId, rows: Rows, row: Val) -> Val {
        let buffer = self.plan.buffer(id);
        let is_cache = matches!(buffer.home, Home::Cache { .. });
        match (is_cache, rows, buffer.rows) {
            (true, Rows::Tokens | Rows::Outputs, _) => b.add(row, self.past),
            (false, _, Rows::ONE) => b.i64(0),
            _ => row,
        }
    }

    /// Elements from one element of a buffer's row to the next.
    pub fn buffer_stride(&self, id: BufferId) -> u64 {
        element_stride(self.plan.buffer(id))
    }

    /// The instance of a parameter for this layer, and for an expert of it (counted from 0 within the parameter).
    pub fn param(&self, b: &Builder, id: ParamId, expert: Option<Val>) -> Val {
        let param = self.plan.param(id);
        let base = b.offset_by(load_field(b, self.pass, Field::Weights, PTR), param.offset as i64);
        let layer = if param.per_layer { self.rank } else { b.i64(0) };
        let mut instance = b.mul(layer, b.i64(i64::from(param.experts)));
        if let (Some(expert), true) = (expert, param.experts > 1) {
            instance = b.add(instance, expert);
        }
        b.offset(base, b.mul(instance, b.i64(param.instance_bytes as i64)))
    }

    pub fn literal(&self, b: &Builder, id: LiteralId) -> Val {
        b.address_of(&literal_name(id))
    }

    /// The rows that a step over `rows` works on: from, and up to.
    pub fn rows(&self, b: &Builder, rows: Rows) -> (Val, Val) {
        let zero = b.i64(0);
        match rows {
            Rows::Fixed(rows) => (zero, b.i64(rows as i64)),
            Rows::Share(share) => (zero, self.portion(b, share)),
            Rows::Tokens => (zero, self.tokens),
            Rows::Outputs => (self.first_output, self.tokens),
            Rows::Slots { choices } => (zero, b.mul(self.tokens, b.i64(choices as i64))),
            Rows::Positions => (zero, b.add(self.past, self.tokens)),
        }
    }

    /// How many turns a loop takes.
    pub fn extent(&self, b: &Builder, extent: Extent) -> Val {
        match extent {
            Extent::Fixed(size) => b.i64(size as i64),
            Extent::Tokens => self.tokens,
            Extent::Share(share) => self.portion(b, share),
        }
    }

    fn portion(&self, b: &Builder, share: Share) -> Val {
        let product = b.mul(self.tokens, b.i64(share.times as i64));
        if share.per == 1 {
            return product;
        }
        let product = if share.up { b.add(product, b.i64(share.per as i64 - 1)) } else { product };
        b.div(product, b.i64(share.per as i64))
    }

    /// How many positions another sequence has.
    pub fn positions_of(&self, b: &Builder, sequence: u32) -> Val {
        b.load(I64, b.offset_by(load_field(b, self.pass, Field::Pasts, PTR), 8 * i64::from(sequence)))
    }

    /// This thread's share of `0 .. count`: from, and up to. Shares are contiguous and cover all.
    pub fn share(&self, b: &Builder, count: Val) -> (Val, Val) {
        let part = |thread: Val| b.div(b.mul(count, thread), self.threads);
        (part(self.thread), part(b.add(self.thread, b.i64(1))))
    }

    /// Tells the observer, if there is one, what was routed.
    pub fn trace(&self, b: &Builder, route: u32, indices: Val, weights: Val, [tokens, choices]: [Val; 2]) {
        let function = load_field(b, self.pass, Field::Trace, PTR);
        let address = load_field(b, self.pass, Field::Trace, I64);
        b.when(b.cmp(Cmp::Ne, address, b.i64(0)), |b| {
            let user = load_field(b, self.pass, Field::TraceUser, PTR);
            let route = b.int(I32, i64::from(route));
            let rank = b.narrow(self.rank, Elem::I32);
            b.call_pointer(function, &[user, route, rank, indices, weights, tokens, choices]);
        });
    }
}

/// Elements from one element of a row to the next.
pub fn element_stride(buffer: &Buffer) -> u64 {
    match buffer.home {
        Home::Cache { panels: true, .. } => PANEL,
        Home::Cache { panels: false, .. }
        | Home::State { .. }
        | Home::Input(_)
        | Home::Output(_)
        | Home::Workspace { .. } => 1,
    }
}

/// All threads meet.
pub fn barrier(b: &Builder, pass: Val) {
    let team = load_field(b, pass, Field::Team, PTR);
    b.call("moec_barrier", &[team], &[]);
}

pub fn literal_name(id: LiteralId) -> String {
    ["literal_", &id.0.to_string()].concat()
}

fn load_field(b: &Builder, pass: Val, field: Field, ty: crate::builder::Ty) -> Val {
    b.load(ty, b.offset_by(pass, 8 * field as i64))
}
