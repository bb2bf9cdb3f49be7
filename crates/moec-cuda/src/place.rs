//! Where things lie, as C++: buffers, parameters, and the elements of views.
//!
//! Every printed function has `pass` (`const Pass &`) and `rank` (the layer's, within its kind) in sight.

use moec_plan::{Buffer, BufferId, Extent, Home, PANEL, ParamId, Plan, Rows, Share, Source, View};
use moec_types::DType;

use crate::expr::storage_type;

/// Where the buffer's row 0 is (of a cache: position 0), as a `char *`.
pub fn base(plan: &Plan, id: BufferId) -> String {
    let buffer = plan.buffer(id);
    let instance = |instances: u32| if instances > 1 { "rank" } else { "0" };
    match buffer.home {
        Home::Input(at) => format!("pass.inputs[{at}]"),
        Home::Output(at) => format!("pass.outputs[{at}]"),
        Home::Workspace { per_token, fixed } => format!("(pass.workspace + {per_token}ll * pass.chunk + {fixed}ll)"),
        Home::Cache { instances, per_position, panels: _ } => {
            let (row, instance) = (buffer.row_bytes(), instance(instances));
            format!("(pass.cache + ({per_position}ll + {row}ll * {instance}) * pass.capacity)")
        }
        Home::State { instances, offset } => {
            format!("(pass.states + {offset}ll + {}ll * {})", buffer.instance_bytes(), instance(instances))
        }
    }
}

/// The same as a pointer to its elements.
pub fn elements(plan: &Plan, id: BufferId) -> String {
    format!("(({} *){})", storage_type(plan.buffer(id).dtype), base(plan, id))
}

/// Where an instance of a parameter is, as a `const char *`; `expert` is counted from the parameter's first.
pub fn param(plan: &Plan, id: ParamId, expert: Option<&str>) -> String {
    let param = plan.param(id);
    let mut instance = if param.per_layer { format!("(i64)rank * {}", param.experts) } else { "0ll".to_owned() };
    if let (Some(expert), true) = (expert, param.experts > 1) {
        instance = format!("{instance} + {expert}");
    }
    format!("(pass.weights + {}ll + ({instance}) * {}ll)", param.offset, param.instance_bytes)
}

/// How many turns a loop takes.
pub fn extent(extent: Extent) -> String {
    match extent {
        Extent::Fixed(size) => format!("{size}ll"),
        Extent::Tokens => "pass.tokens".to_owned(),
        Extent::Share(share) => self::share(share),
    }
}

fn share(share: Share) -> String {
    format!("share(pass, {}, {}, {})", share.times, share.per, share.up)
}

/// The rows that a step over `rows` works on: from, and up to.
pub fn range(rows: Rows) -> [String; 2] {
    let zero = || "0ll".to_owned();
    match rows {
        Rows::Fixed(rows) => [zero(), format!("{rows}ll")],
        Rows::Share(share) => [zero(), self::share(share)],
        Rows::Tokens => [zero(), "pass.tokens".to_owned()],
        Rows::Outputs => ["pass.first_output".to_owned(), "pass.tokens".to_owned()],
        Rows::Slots { choices } => [zero(), format!("(pass.tokens * {choices})")],
        Rows::Positions => [zero(), "(pass.past + pass.tokens)".to_owned()],
    }
}

fn in_panels(buffer: &Buffer) -> bool {
    matches!(buffer.home, Home::Cache { panels: true, .. })
}

/// The element of a buffer at a place of a row, that is a position of a cache.
pub fn of_row(plan: &Plan, id: BufferId, row: &str, element: &str) -> String {
    let buffer = plan.buffer(id);
    let (pointer, width) = (elements(plan, id), buffer.row);
    if in_panels(buffer) {
        let start = format!("({row}) / {PANEL} * {} + ({row}) % {PANEL}", PANEL * width);
        return format!("{pointer}[{start} + ({element}) * {PANEL}]");
    }
    format!("{pointer}[({row}) * {width}ll + ({element})]")
}

/// What views are looked at from.
pub struct Seen<'a> {
    pub plan: &'a Plan,
    /// The rows of the step.
    pub rows: Rows,
    /// What `View::row` counts: the row, or a scan's part.
    pub part: &'static str,
    /// For parameters with an instance for each expert.
    pub expert: Option<&'static str>,
    /// The type of each local; they are there as `local_0` and so on.
    pub locals: &'a [DType],
}

impl Seen<'_> {
    pub fn dtype(&self, source: Source) -> DType {
        match source {
            Source::Local(id) => self.locals[id.0 as usize],
            Source::Row(id) | Source::Whole(id) => self.plan.buffer(id).dtype,
            Source::Param(id) => self.plan.param(id).dtype(),
            Source::Literal(id) => self.plan.literal(id).dtype,
            Source::Place | Source::Position | Source::Count(_) => DType::I32,
        }
    }

    /// The element at the loops' `ivs`, as an lvalue or a constant; the row is `row`.
    fn element(&self, view: &View, ivs: &[String]) -> String {
        let at = self.place(view, ivs);
        match view.source {
            Source::Local(id) => format!("local_{}[{at}]", id.0),
            Source::Row(id) => of_row(self.plan, id, self.row_of(id), &at),
            Source::Whole(id) => format!("{}[{at}]", elements(self.plan, id)),
            Source::Param(id) => {
                let pointer = param(self.plan, id, self.expert);
                format!("((const {} *){pointer})[{at}]", storage_type(self.plan.param(id).dtype()))
            }
            Source::Literal(id) => format!("literal_{}[{at}]", id.0),
            Source::Place => format!("(int)({at})"),
            Source::Position => format!("(int)(pass.past + {at})"),
            Source::Count(extent) => format!("(int){}", self::extent(extent)),
        }
    }

    /// The row of the buffer that row `row` of the step means.
    fn row_of(&self, id: BufferId) -> &'static str {
        let buffer = self.plan.buffer(id);
        let is_cache = matches!(buffer.home, Home::Cache { .. });
        match (is_cache, self.rows, buffer.rows) {
            (true, Rows::Tokens | Rows::Outputs, _) => "pass.past + row",
            (false, _, Rows::ONE) => "0ll",
            _ => "row",
        }
    }

    /// Elements from element 0.
    fn place(&self, view: &View, ivs: &[String]) -> String {
        let mut terms = vec![format!("{}ll", view.offset)];
        if view.row != 0 {
            terms.push(format!("{} * {}ll", self.part, view.row));
        }
        let strided = |(stride, iv): (&u64, &String)| match stride {
            0 => None,
            1 => Some(iv.clone()),
            stride => Some(format!("{iv} * {stride}ll")),
        };
        terms.extend(view.strides.iter().zip(ivs).filter_map(strided));
        if let Some(index) = &view.index {
            terms.push(format!("(i64){} * {}ll", self.read(&index.view, ivs), index.stride));
        }
        if terms.len() > 1 && view.offset == 0 {
            terms.remove(0);
        }
        terms.join(" + ")
    }

    /// The value of an element.
    pub fn read(&self, view: &View, ivs: &[String]) -> String {
        let element = self.element(view, ivs);
        match view.source {
            Source::Place | Source::Position | Source::Count(_) => element,
            Source::Local(_) | Source::Row(_) | Source::Whole(_) | Source::Param(_) | Source::Literal(_) => {
                format!("read({element})")
            }
        }
    }

    pub fn write(&self, view: &View, ivs: &[String], value: &str) -> String {
        format!("write({}, {value});", self.element(view, ivs))
    }
}
