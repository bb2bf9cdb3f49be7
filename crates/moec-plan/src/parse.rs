//! Reads what a plan prints. Steps have no source; everything else comes back as it was.

use moec_diag::Span;
use moec_types::{ParseError, Reader};

use crate::{
    Assign, Attention, Bin, Buffer, BufferId, Extent, Format, Gemm, Group, Home, Indirect, Layers, Layout, Literal,
    LiteralId, Local, LocalId, Lookup, Node, PackSource, PackedParam, ParamId, Plan, Port, ReduceOp, RowGroup, RowOp,
    RowProgram, Rows, Scan, Share, Source, Step, StepKind, Store, View, Work,
};

type Parsed<T> = Result<T, ParseError>;

/// A plan from text; it is not verified.
pub fn parse(text: &str) -> Result<Plan, ParseError> {
    let mut text: Reader = Reader::new(text);
    text.expect_word("plan")?;
    let name = text.string()?;
    let mut plan = Plan {
        name,
        inputs: ports(&mut text, "input")?,
        outputs: ports(&mut text, "output")?,
        params: Vec::new(),
        literals: Vec::new(),
        buffers: Vec::new(),
        body: Vec::new(),
        sources: Vec::new(),
    };
    while text.eats_word("buffer") {
        plan.buffers.push(buffer(&mut text)?);
    }
    while text.eats_word("literal") {
        let _number: u32 = text.integer()?;
        let dtype = text.dtype()?;
        plan.literals.push(Literal { dtype, data: text.list("[", "]", Reader::number)? });
    }
    while text.eats_word("param") {
        plan.params.push(param(&mut text)?);
    }
    while !text.at_end() {
        if text.eats_word("source") {
            plan.sources.push(Vec::new());
            continue;
        }
        let node = node(&mut text)?;
        plan.sources.last_mut().unwrap_or(&mut plan.body).push(node);
    }
    Ok(plan)
}

fn buffer_id(text: &mut Reader) -> Parsed<BufferId> {
    text.expect("%")?;
    Ok(BufferId(text.integer()?))
}

fn integers(text: &mut Reader) -> Parsed<Vec<u64>> {
    text.list("[", "]", Reader::integer)
}

fn ports(text: &mut Reader, word: &str) -> Parsed<Vec<Port>> {
    let mut ports = Vec::new();
    while text.eats_word(word) {
        let (name, buffer) = (text.string()?, buffer_id(text)?);
        let axes = text.list("[", "]", |text| {
            let axis = text.word()?.to_owned();
            text.expect("=")?;
            Ok((axis, text.integer()?))
        })?;
        let sequence = if text.eats_word("of") { text.integer()? } else { 0 };
        let index_limit = if text.eats_word("limit") { Some(text.integer()?) } else { None };
        ports.push(Port { name, buffer, sequence, axes, index_limit });
    }
    Ok(ports)
}

/// `(times, per, up)` behind the word `share`.
fn share(text: &mut Reader) -> Parsed<Share> {
    text.expect("(")?;
    let times = text.integer()?;
    text.expect(",")?;
    let per = text.integer()?;
    text.expect(",")?;
    let up = text.one_of("`up` or `down`", |word| match word {
        "up" => Some(true),
        "down" => Some(false),
        _ => None,
    })?;
    text.expect(")")?;
    Ok(Share { times, per, up })
}

fn extent(text: &mut Reader) -> Parsed<Extent> {
    if text.eats_word("tokens") {
        return Ok(Extent::Tokens);
    }
    if text.eats_word("share") {
        return Ok(Extent::Share(share(text)?));
    }
    Ok(Extent::Fixed(text.integer()?))
}

fn extents(text: &mut Reader) -> Parsed<Vec<Extent>> {
    text.list("[", "]", extent)
}

fn rows(text: &mut Reader) -> Parsed<Rows> {
    if text.eats_word("fixed") {
        text.expect("(")?;
        let rows = text.integer()?;
        text.expect(")")?;
        return Ok(Rows::Fixed(rows));
    }
    if text.eats_word("share") {
        return Ok(Rows::Share(share(text)?));
    }
    if text.eats_word("slots") {
        text.expect("(")?;
        let choices = text.integer()?;
        text.expect(")")?;
        return Ok(Rows::Slots { choices });
    }
    text.one_of("a row count", |word| match word {
        "tokens" => Some(Rows::Tokens),
        "outputs" => Some(Rows::Outputs),
        "positions" => Some(Rows::Positions),
        _ => None,
    })
}

fn buffer(text: &mut Reader) -> Parsed<Buffer> {
    buffer_id(text)?;
    let (name, dtype, rows, row) = (text.string()?, text.dtype()?, rows(text)?, text.integer()?);
    let word = text.word()?;
    let home = match word {
        "input" => Home::Input(text.integer()?),
        "output" => Home::Output(text.integer()?),
        "workspace" => Home::Workspace { per_token: text.integer()?, fixed: text.integer()? },
        "cache" => {
            let panels = text.one_of("`panels` or `rows`", |word| match word {
                "panels" => Some(true),
                "rows" => Some(false),
                _ => None,
            })?;
            Home::Cache { instances: text.integer()?, per_position: text.integer()?, panels }
        }
        "state" => Home::State { instances: text.integer()?, offset: text.integer()? },
        _ => return Err(text.error(format!("a buffer's home is wanted, found `{word}`"))),
    };
    Ok(Buffer { name, dtype, rows, row, home })
}

fn param(text: &mut Reader) -> Parsed<PackedParam> {
    let _number: u32 = text.integer()?;
    let name = text.string()?;
    let layout = if text.eats_word("plain") {
        Layout::Plain { elements: text.integer()? }
    } else {
        text.expect_word("panels")?;
        Layout::Panels { k: text.integer()?, n: text.integer()?, branches: text.integer()? }
    };
    let storage: Format = text.one_of("a format of weights", |word| word.parse().ok())?;
    text.expect_word("layers")?;
    let layers = text.integer()?;
    let per_layer = text.eats_word("each");
    text.expect_word("experts")?;
    let experts = text.integer()?;
    text.expect_word("bytes")?;
    let instance_bytes = text.integer()?;
    text.expect_word("at")?;
    let offset = text.integer()?;
    let sources = block(text, |text| {
        let (param, path) = (text.integer()?, text.string()?);
        let words = |text: &mut Reader| text.list("[", "]", |text| text.word().map(str::to_owned));
        text.expect_word("rows")?;
        let rows = words(text)?;
        text.expect_word("columns")?;
        Ok(PackSource { param, path, rows, columns: words(text)? })
    })?;
    Ok(PackedParam { name, layout, storage, layers, per_layer, experts, instance_bytes, offset, sources })
}

/// `{ item item … }`.
fn block<T>(text: &mut Reader, mut item: impl FnMut(&mut Reader) -> Parsed<T>) -> Parsed<Vec<T>> {
    text.expect("{")?;
    let mut items = Vec::new();
    while !text.eats("}") {
        items.push(text.deeper(&mut item)?);
    }
    Ok(items)
}

fn node(text: &mut Reader) -> Parsed<Node> {
    if text.eats_word("layers") {
        let order = text.list("[", "]", Reader::integer)?;
        let kinds = block(text, |text| {
            text.expect_word("kind")?;
            block(text, node)
        })?;
        return Ok(Node::Layers(Layers { kinds, order }));
    }
    let at = text.here();
    let word = text.word()?;
    let label = text.string()?;
    let barrier = text.eats_word("barrier");
    let kind = match word {
        "rows" => {
            let rows = rows(text)?;
            let group = row_group(text)?;
            StepKind::Rows { rows, program: program(text)?, group }
        }
        "gemm" => StepKind::Gemm(gemm(text, false)?),
        "grouped_gemm" => StepKind::Gemm(gemm(text, true)?),
        "bin" => StepKind::Bin(bin(text)?),
        "attention" => StepKind::Attention(Box::new(attention(text)?)),
        "scan" => StepKind::Scan(Scan { parts: text.integer()?, start: program(text)?, program: program(text)? }),
        "assign" => StepKind::Assign(assign(text)?),
        _ => return Err(text.error_at(at, format!("no step `{word}`"))),
    };
    Ok(Node::Step(Step { kind, barrier, at: Span::NONE, label }))
}

fn view(text: &mut Reader) -> Parsed<View> {
    let at = text.here();
    let word = text.word()?;
    let source = match word {
        "local" => Source::Local(LocalId(text.integer()?)),
        "row" => Source::Row(BufferId(text.integer()?)),
        "whole" => Source::Whole(BufferId(text.integer()?)),
        "param" => Source::Param(ParamId(text.integer()?)),
        "literal" => Source::Literal(LiteralId(text.integer()?)),
        "place" => Source::Place,
        "position" => Source::Position,
        "count" => Source::Count(extent(text)?),
        _ => return Err(text.error_at(at, format!("no source `{word}`"))),
    };
    let offset = if text.eats("+") { text.integer()? } else { 0 };
    let strides = integers(text)?;
    let row = if text.eats_word("each") { text.integer()? } else { 0 };
    let index = if text.eats_word("by") {
        let stride = text.integer()?;
        text.expect("*")?;
        text.expect("(")?;
        let inner = text.deeper(view)?;
        text.expect(")")?;
        Some(Box::new(Indirect { view: inner, stride }))
    } else {
        None
    };
    Ok(View { source, offset, strides, row, index })
}

fn views(text: &mut Reader) -> Parsed<Vec<View>> {
    text.list("(", ")", view)
}

fn program(text: &mut Reader) -> Parsed<RowProgram> {
    text.expect("{")?;
    let mut program = RowProgram { locals: Vec::new(), ops: Vec::new() };
    while text.eats_word("local") {
        let _number: u32 = text.integer()?;
        program.locals.push(Local { dtype: text.dtype()?, elements: text.integer()? });
    }
    while !text.eats("}") {
        program.ops.push(row_op(text)?);
    }
    Ok(program)
}

fn row_op(text: &mut Reader) -> Parsed<RowOp> {
    if text.eats_word("map") {
        let (extents, expr, args) = (extents(text)?, text.expr()?, views(text)?);
        text.expect("->")?;
        return Ok(RowOp::Map { extents, expr, args, into: view(text)? });
    }
    if text.eats_word("top_k") {
        let (extents, k) = (extents(text)?, extent(text)?);
        text.expect_word("of")?;
        let len = extent(text)?;
        text.expect("(")?;
        let arg = view(text)?;
        text.expect(")")?;
        text.expect("->")?;
        let values = view(text)?;
        text.expect(",")?;
        let indices = view(text)?;
        let work = if !text.eats_word("in") {
            None
        } else if text.eats_word("local") {
            Some(Work::Local(LocalId(text.integer()?)))
        } else {
            Some(Work::Buffer(buffer_id(text)?))
        };
        return Ok(RowOp::TopK { extents, len, k, arg, values, indices, work });
    }
    if text.eats_word("cumsum") {
        let extents = extents(text)?;
        text.expect_word("along")?;
        let (along, expr, args) = (extent(text)?, text.expr()?, views(text)?);
        text.expect("->")?;
        return Ok(RowOp::Cumsum { extents, along, expr, args, into: view(text)? });
    }
    if text.eats_word("scatter_add") {
        return scatter_add(text);
    }
    let op = text.one_of("a row op", |word| ReduceOp::ALL.into_iter().find(|op| op.name() == word))?;
    let kept = extents(text)?;
    text.expect_word("over")?;
    let (over, expr, args) = (extents(text)?, text.expr()?, views(text)?);
    text.expect("->")?;
    Ok(RowOp::Reduce { op, extents: kept, over, expr, args, into: view(text)? })
}

fn scatter_add(text: &mut Reader) -> Parsed<RowOp> {
    let kept = extents(text)?;
    text.expect_word("over")?;
    let over = extents(text)?;
    text.expect_word("to")?;
    let count = extent(text)?;
    text.expect_word("by")?;
    text.expect("(")?;
    let index = view(text)?;
    text.expect(")")?;
    let (expr, args) = (text.expr()?, views(text)?);
    text.expect("->")?;
    Ok(RowOp::ScatterAdd { extents: kept, over, count, index, expr, args, into: view(text)? })
}

fn row_group(text: &mut Reader) -> Parsed<Option<RowGroup>> {
    if !text.eats_word("group") {
        return Ok(None);
    }
    let offsets = buffer_id(text)?;
    text.expect_word("first")?;
    let first = text.integer()?;
    text.expect_word("count")?;
    Ok(Some(RowGroup { offsets, first, count: text.integer()? }))
}

fn gemm(text: &mut Reader, grouped: bool) -> Parsed<Gemm> {
    let rows = rows(text)?;
    let batch = if text.eats_word("batch") { text.integer()? } else { 1 };
    let a = buffer_id(text)?;
    text.expect_word("param")?;
    let weights = ParamId(text.integer()?);
    let (epilogue, extras) = (text.expr()?, views(text)?);
    text.expect("->")?;
    let out = buffer_id(text)?;
    let group = if grouped { Some(group(text)?) } else { None };
    Ok(Gemm { rows, batch, a, weights, epilogue, extras, out, group })
}

fn group(text: &mut Reader) -> Parsed<Group> {
    text.expect_word("group")?;
    let (offsets, order) = (buffer_id(text)?, buffer_id(text)?);
    text.expect_word("choices")?;
    let choices = text.integer()?;
    text.expect_word("first")?;
    let first = text.integer()?;
    let gather = text.eats_word("gather");
    let store = if text.eats_word("weighed") {
        Store::Choices { weights: buffer_id(text)? }
    } else {
        text.expect_word("slots")?;
        Store::Slots
    };
    Ok(Group { offsets, order, choices, first, gather, store })
}

fn bin(text: &mut Reader) -> Parsed<Bin> {
    let tokens = rows(text)?;
    text.expect_word("route")?;
    let route = text.integer()?;
    let (indices, weights) = (buffer_id(text)?, buffer_id(text)?);
    text.expect_word("experts")?;
    let experts = text.integer()?;
    text.expect_word("choices")?;
    let choices = text.integer()?;
    text.expect("->")?;
    let (offsets, order) = (buffer_id(text)?, buffer_id(text)?);
    let slot_of = if text.eats_word("inverse") { Some(buffer_id(text)?) } else { None };
    Ok(Bin { tokens, indices, weights, experts, choices, offsets, order, slot_of, route })
}

fn assign(text: &mut Reader) -> Parsed<Assign> {
    let (tokens, score) = (rows(text)?, buffer_id(text)?);
    text.expect_word("experts")?;
    let experts = text.integer()?;
    text.expect_word("most")?;
    let most = extent(text)?;
    text.expect_word("in")?;
    let room = buffer_id(text)?;
    text.expect("->")?;
    Ok(Assign { tokens, score, experts, most, out: buffer_id(text)?, room })
}

fn attention(text: &mut Reader) -> Parsed<Attention> {
    let rows = rows(text)?;
    let (q, k, v) = (buffer_id(text)?, buffer_id(text)?, buffer_id(text)?);
    let at = text.here();
    let [groups, queries, width, values] = integers(text)?[..] else {
        return Err(text.error_at(at, "`[groups, queries, width, values]` is wanted"));
    };
    let (score, extras) = (text.expr()?, views(text)?);
    let sink = if text.eats_word("sink") { Some(text.expr()?) } else { None };
    let mut lookups = Vec::new();
    while text.eats_word("lookup") {
        let index = text.expr()?;
        let at = text.here();
        let [stride, places] = integers(text)?[..] else {
            return Err(text.error_at(at, "`[stride, places]` is wanted"));
        };
        let [view] = &views(text)?[..] else { return Err(text.error_at(at, "one view is wanted")) };
        lookups.push(Lookup { view: view.clone(), stride, places, index });
    }
    let keys_of = if text.eats_word("of") { Some(text.integer()?) } else { None };
    let causal = text.eats_word("causal");
    let window = if text.eats_word("window") { Some(text.integer()?) } else { None };
    text.expect("->")?;
    let out = buffer_id(text)?;
    Ok(Attention {
        rows,
        q,
        k,
        v,
        out,
        groups,
        queries,
        width,
        values,
        score,
        extras,
        sink,
        lookups,
        keys_of,
        causal,
        window,
    })
}
