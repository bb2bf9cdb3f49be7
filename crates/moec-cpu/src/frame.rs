//! What a step's code knows of the pass that it runs in: sizes, who of how many threads, where everything lies, and whose
//! the rows are.

use moec_plan::{Buffer, BufferId, Extent, Home, LiteralId, PAGE, PANEL, ParamId, Plan, Rows, Share};

use crate::{
    builder::{Builder, Cmp, Elem, I32, I64, PTR, Val},
    helping,
    level::Level,
};

/// Types of the arguments of every step and layer function: pass, thread, threads (i64 all), and the rank of the layer.
pub const ARGUMENTS: [crate::builder::Ty; 4] = [PTR, I64, I64, I64];

/// The fields of `moec_pass` (kernels/runtime/moec_pass.h), 8 bytes each, in order.
#[derive(Clone, Copy)]
enum Field {
    Tokens,
    FirstOutput,
    Chunk,
    Workspace,
    Weights,
    Inputs,
    Outputs,
    Scratch,
    ScratchBytes,
    Team,
    Trace,
    TraceUser,
    Positions,
    Pages,
    Segments,
    SegmentCount,
}

/// The fields of `moec_segment`, likewise.
#[derive(Clone, Copy)]
enum SegmentField {
    First,
    Tokens,
    Past,
    States,
    Pages,
    Pasts,
    Session,
}

const SEGMENT_BYTES: i64 = 8 * (SegmentField::Session as i64 + 1);

/// One session's rows of the pass: `first .. first + tokens`, after `past` positions.
#[derive(Clone, Copy)]
pub struct Segment {
    pub first: Val,
    pub tokens: Val,
    pub past: Val,
    pub states: Val,
    /// Of its caches.
    pub pages: Val,
    pasts: Val,
}

impl Segment {
    /// The position of a row within its sequence.
    pub fn position(&self, b: &Builder, row: Val) -> Val {
        b.add(self.past, b.sub(row, self.first))
    }

    /// How many positions a sequence of the model has.
    pub fn positions_of(&self, b: &Builder, sequence: u32) -> Val {
        b.load_constant(I64, b.offset_by(self.pasts, 8 * i64::from(sequence)))
    }
}

#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub plan: &'a Plan,
    pub level: Level,
    pub thread: Val,
    pub threads: Val,
    /// Of the layer, within its kind; 0 outside layers.
    pub rank: Val,
    pub tokens: Val,
    pub first_output: Val,
    /// Of the segment whose rows are computed; where nobody says which, the first's.
    states: Option<Val>,
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
        Frame {
            plan,
            level,
            thread,
            threads,
            rank,
            tokens: field(Field::Tokens, I64),
            first_output: field(Field::FirstOutput, I64),
            states: None,
            scratch: b.offset_by(before_scratch(b, pass, thread), helping::BYTES),
            pass,
        }
    }

    pub fn segment_count(&self, b: &Builder) -> Val {
        load_field(b, self.pass, Field::SegmentCount, I64)
    }

    pub fn segment(&self, b: &Builder, at: Val) -> Segment {
        let segments = load_field(b, self.pass, Field::Segments, PTR);
        let segment = b.offset(segments, b.mul(at, b.i64(SEGMENT_BYTES)));
        let field = |field: SegmentField, ty| b.load_constant(ty, b.offset_by(segment, 8 * field as i64));
        Segment {
            first: field(SegmentField::First, I64),
            tokens: field(SegmentField::Tokens, I64),
            past: field(SegmentField::Past, I64),
            states: field(SegmentField::States, PTR),
            pages: field(SegmentField::Pages, PTR),
            pasts: field(SegmentField::Pasts, PTR),
        }
    }

    /// For code that computes rows of one segment.
    pub fn of(&self, segment: &Segment) -> Self {
        Frame { states: Some(segment.states), ..*self }
    }

    /// The position of a row within its sequence.
    pub fn position(&self, b: &Builder, row: Val) -> Val {
        let positions = load_field(b, self.pass, Field::Positions, PTR);
        b.load_constant(I64, b.offset(positions, b.shl(row, 3)))
    }

    /// A cache's part of a page: row 0 is the page's first position.
    pub fn page(&self, b: &Builder, id: BufferId, pages: Val, number: Val) -> Matrix {
        let buffer = self.plan.buffer(id);
        let Home::Cache { instances, per_position, panels } = buffer.home else {
            unreachable!("only caches have pages")
        };
        let page = b.load_constant(PTR, b.offset(pages, b.shl(number, 3)));
        let start = b.offset_by(page, (per_position * PAGE) as i64);
        let base = match instances {
            0 | 1 => start,
            _ => b.offset(start, b.mul(self.rank, b.i64((buffer.row_bytes() * PAGE) as i64))),
        };
        Matrix { base, row: buffer.row, element_bytes: buffer.dtype.bytes(), panels }
    }

    /// Where row `row` of the pass is kept in a cache.
    fn kept(&self, b: &Builder, id: BufferId, row: Val) -> Val {
        let position = self.position(b, row);
        let pages = load_field(b, self.pass, Field::Pages, PTR);
        let pages = b.load_constant(PTR, b.offset(pages, b.shl(row, 3)));
        let page = self.page(b, id, pages, b.shr(position, PAGE.ilog2().into()));
        page.row(b, b.and(position, b.i64(PAGE as i64 - 1)))
    }

    /// Row 0 of a buffer of this layer. Of a cache, which lies in pages, see [`Frame::row`] and [`Frame::page`].
    pub fn buffer(&self, b: &Builder, id: BufferId) -> Matrix {
        let buffer = self.plan.buffer(id);
        let field = |field, ty| load_field(b, self.pass, field, ty);
        let base = match buffer.home {
            Home::Input(at) => b.load_constant(PTR, b.offset_by(field(Field::Inputs, PTR), 8 * i64::from(at))),
            Home::Output(at) => b.load_constant(PTR, b.offset_by(field(Field::Outputs, PTR), 8 * i64::from(at))),
            Home::Workspace { per_token, fixed } => {
                let bytes = b.mul(b.i64(per_token as i64), field(Field::Chunk, I64));
                b.offset_by(b.offset(field(Field::Workspace, PTR), bytes), fixed as i64)
            }
            Home::Cache { .. } => unreachable!("checked before: a cache is reached by its pages"),
            Home::State { instances, offset } => {
                let instance = if instances > 1 { self.rank } else { b.i64(0) };
                let states = self.states.unwrap_or_else(|| self.segment(b, b.i64(0)).states);
                let start = b.offset_by(states, offset as i64);
                b.offset(start, b.mul(instance, b.i64(buffer.instance_bytes() as i64)))
            }
        };
        Matrix { base, row: buffer.row, element_bytes: buffer.dtype.bytes(), panels: false }
    }

    /// Row `row` of the rows that a step over `rows` counts: where it starts.
    pub fn row(&self, b: &Builder, id: BufferId, row: Val) -> Val {
        match self.plan.buffer(id).home {
            Home::Cache { .. } => self.kept(b, id, row),
            Home::Input(_) | Home::Output(_) | Home::Workspace { .. } | Home::State { .. } => {
                let row = self.row_number(b, id, row);
                self.buffer(b, id).row(b, row)
            }
        }
    }

    /// The row of a buffer, which is no cache, that row `row` of a step means.
    pub fn row_number(&self, b: &Builder, id: BufferId, row: Val) -> Val {
        match self.plan.buffer(id).rows {
            Rows::ONE => b.i64(0),
            Rows::Fixed(_) | Rows::Tokens | Rows::Outputs | Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => {
                row
            }
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
            Rows::Positions => unreachable!("verified: no step computes all positions"),
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

    /// This thread's share of `0 .. count`: from, and up to. Shares are contiguous and cover all.
    pub fn share(&self, b: &Builder, count: Val) -> (Val, Val) {
        self.share_of(b, self.thread, count)
    }

    pub fn share_of(&self, b: &Builder, thread: Val, count: Val) -> (Val, Val) {
        let part = |thread: Val| b.div(b.mul(count, thread), self.threads);
        (part(thread), part(b.add(thread, b.i64(1))))
    }

    /// The [`helping::BYTES`] before a thread's scratch.
    pub fn before_scratch(&self, b: &Builder, thread: Val) -> Val {
        before_scratch(b, self.pass, thread)
    }

    /// Tells the observer, if there is one, what was routed.
    pub fn trace(&self, b: &Builder, route: u32, indices: Val, weights: Val, [tokens, choices]: [Val; 2]) {
        self.tell(b, route as i32, [indices, weights, tokens, choices]);
    }

    /// Thread 0 tells the observer that it has come here.
    pub fn mark(&self, b: &Builder, mark: i32) {
        b.when(b.cmp(Cmp::Eq, self.thread, b.i64(0)), |b| {
            let nowhere = load_field(b, self.pass, Field::TraceUser, PTR); // never read: there are no choices
            self.tell(b, mark, [nowhere, nowhere, self.tokens, b.i64(0)]);
        });
    }

    fn tell(&self, b: &Builder, route: i32, rest: [Val; 4]) {
        let function = load_field(b, self.pass, Field::Trace, PTR);
        let address = load_field(b, self.pass, Field::Trace, I64);
        b.when(b.cmp(Cmp::Ne, address, b.i64(0)), |b| {
            let user = load_field(b, self.pass, Field::TraceUser, PTR);
            let route = b.int(I32, i64::from(route));
            let rank = b.narrow(self.rank, Elem::I32);
            let [indices, weights, tokens, choices] = rest;
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

/// The [`helping::BYTES`] before a thread's scratch.
pub fn before_scratch(b: &Builder, pass: Val, thread: Val) -> Val {
    let bytes = load_field(b, pass, Field::ScratchBytes, I64);
    b.offset(load_field(b, pass, Field::Scratch, PTR), b.mul(thread, bytes))
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
    b.load_constant(ty, b.offset_by(pass, 8 * field as i64))
}
