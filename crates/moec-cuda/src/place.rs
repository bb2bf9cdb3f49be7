//! Where things lie, as C++: buffers, parameters, and the elements of views.
//!
//! Every printed function has `pass` (`const Pass &`) and `rank` (the layer's, within its kind) in sight.

use moec_plan::{BufferId, Extent, Home, PAGE, PANEL, ParamId, Plan, Rows, Share, Source, View};
use moec_types::DType;

use crate::expr::storage_type;

/// Where the row 0 of a buffer, which is no cache, is, as a `char *`. States are
/// those of the first of `pass.segments`.
pub fn base(plan: &Plan, id: BufferId) -> String {
    let buffer = plan.buffer(id);
    let instance = |instances: u32| if instances > 1 { "rank" } else { "0" };
    match buffer.home {
        Home::Input(at) => format!("pass.inputs[{at}]"),
        Home::Output(at) => format!("pass.outputs[{at}]"),
        Home::Workspace { per_token, fixed } => format!("(pass.workspace + {per_token}ll * pass.chunk + {fixed}ll)"),
        Home::Cache { .. } => unreachable!("checked before: a cache is reached by its pages"),
        Home::State { instances, offset } => {
            format!("(pass.segments->states + {offset}ll + {}ll * {})", buffer.instance_bytes(), instance(instances))
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
        Rows::Positions => unreachable!("verified: no step computes all positions"),
    }
}

/// Where a cache's instance of this layer begins in each page, in bytes.
pub fn start_in_page(plan: &Plan, id: BufferId) -> String {
    let buffer = plan.buffer(id);
    let Home::Cache { instances, per_position, .. } = buffer.home else { unreachable!("only caches have pages") };
    let (first, each) = (per_position * PAGE, buffer.row_bytes() * PAGE);
    if instances > 1 { format!("({first}ll + {each}ll * rank)") } else { format!("{first}ll") }
}

/// The element of a buffer at a place of a row; in a cache, that of the row's position.
pub fn of_row(plan: &Plan, id: BufferId, row: &str, element: &str) -> String {
    let buffer = plan.buffer(id);
    let (dtype, width) = (storage_type(buffer.dtype), buffer.row);
    let Home::Cache { panels, .. } = buffer.home else {
        return format!("{}[({row}) * {width}ll + ({element})]", elements(plan, id));
    };
    let page = format!("(({dtype} *)page_of(pass, {row}, {}))", start_in_page(plan, id));
    match panels {
        true => format!("{page}[panel_place_of(pass, {row}, {width}ll) + ({element}) * {PANEL}]"),
        false => format!("{page}[place_of(pass, {row}) * {width}ll + ({element})]"),
    }
}

/// What views are looked at from.
pub struct Seen<'a> {
    pub plan: &'a Plan,
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
            // What an index says of no row is not looked up.
            Source::Position => match view.index {
                None => format!("(int)pass.positions[{at}]"),
                Some(_) => format!("(int)pass.positions[least(most({at}, 0ll), pass.tokens - 1)]"),
            },
            Source::Count(extent) => format!("(int){}", self::extent(extent)),
        }
    }

    /// The row of the buffer that row `row` of the step means.
    fn row_of(&self, id: BufferId) -> &'static str {
        let buffer = self.plan.buffer(id);
        match (&buffer.home, buffer.rows) {
            (Home::Cache { .. }, _) => "row",
            (_, Rows::ONE) => "0ll",
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
