//! What the tree says: precedence, `over`, spans, documentation, patterns.

mod common;

use common::rendered;
use moec_diag::{SourceMap, Span};
use moec_syntax::tree::*;
use moec_syntax::{parse, parse_expr};

fn read(text: &str) -> (SourceMap, File) {
    let mut sources = SourceMap::default();
    sources.add("before.moe", "// Spans are not offsets.");
    let (file, problems) = parse(&mut sources, "file.moe", text);
    assert!(problems.is_empty(), "{}", rendered(&sources, problems));
    (sources, file.unwrap())
}

/// The expression with a pair of parentheses for every operator.
fn grouped(text: &str) -> String {
    let mut sources = SourceMap::default();
    let (expr, problems) = parse_expr(&mut sources, "test", text);
    assert!(problems.is_empty(), "{text}: {}", rendered(&sources, problems));
    show(&expr.unwrap())
}

fn joined<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn names(names: &[Name]) -> String {
    joined(names, |name| name.text.clone())
}

fn over(axes: &[Name]) -> String {
    if axes.is_empty() { String::new() } else { format!(" over {}", names(axes)) }
}

fn axis(axis: &AxisExpr) -> String {
    axis.size.as_ref().map_or(axis.name.text.clone(), |size| format!("{} = {}", axis.name.text, show(size)))
}

fn show(expr: &Expr) -> String {
    match &*expr.kind {
        ExprKind::Int(value) => value.to_string(),
        ExprKind::Float(value) => format!("{value:?}"),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Text(text) => format!("{text:?}"),
        ExprKind::List(items) => format!("[{}]", joined(items, show)),
        ExprKind::Tuple(items) => format!("tuple({})", joined(items, show)),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Unary(Unary::Negate, of) => format!("(-{})", show(of)),
        ExprKind::Unary(Unary::Not, of) => format!("(not {})", show(of)),
        ExprKind::Binary(operator, left, right) => format!("({} {operator:?} {})", show(left), show(right)),
        ExprKind::Contract { left, right, over: axes } => format!("({} · {}{})", show(left), show(right), over(axes)),
        ExprKind::Call { function, arguments, over: axes } => {
            format!("{}({}{})", function.text, joined(arguments, argument), over(axes))
        }
        ExprKind::Field { of, field } => format!("{}.{}", show(of), field.text),
        ExprKind::Index { of, axis, from, to } => {
            let to = to.as_ref().map_or(String::new(), |to| format!("..{}", show(to)));
            format!("{}[{} = {}{to}]", show(of), axis.text, show(from))
        }
        ExprKind::If { condition, yes, no } => {
            let no = no.as_ref().map_or(String::new(), |no| format!(" else {}", show(no)));
            format!("if {} then {}{no}", show(condition), show(yes))
        }
        ExprKind::Iterate { steps, name, initial, until, body } => {
            let until = until.as_ref().map_or(String::new(), |until| format!(" until {}", show(until)));
            format!("iterate {} ({} = {}{until}) {}", show(steps), name.text, show(initial), show(body))
        }
        ExprKind::Moe(moe) => {
            format!("moe({}; {}; {})", show(&moe.gate), joined(&moe.experts, member), joined(&moe.always, show))
        }
        ExprKind::Bank(members) => format!("bank({})", joined(members, member)),
        ExprKind::Scan { over, body } => format!("scan {}({})", over.text, joined(body, statement)),
    }
}

fn statement(statement: &Statement) -> String {
    match &statement.kind {
        StatementKind::State { name, axes, initial, next: _ } => {
            format!("state {}[{}] = {}", name.text, joined(axes, axis), show(initial))
        }
        StatementKind::Let { pattern: Pattern::Name(name), value } => format!("let {} = {}", name.text, show(value)),
        StatementKind::Assign { name, value } => format!("{} = {}", name.text, show(value)),
        StatementKind::Out { value, .. } => format!("out {}", show(value)),
        other => panic!("not in a scan of these tests: {other:?}"),
    }
}

fn member(member: &BankMember) -> String {
    let count = member.count.as_ref().map_or(String::new(), |count| format!(" × {}", show(count)));
    show(&member.expert) + &count
}

fn argument(argument: &Argument) -> String {
    match argument {
        Argument::Value(value) => show(value),
        Argument::Named(name, value) => format!("{} = {}", name.text, show(value)),
        Argument::Regroup { from, to, .. } => format!("{} as {}", names(from), joined(to, axis)),
    }
}

#[test]
fn operators_bind_by_their_precedence() {
    for (text, expected) in [
        ("a or b and c", "(a Or (b And c))"),
        ("not a == b and c", "((not (a Eq b)) And c)"),
        ("a == b + c * d", "(a Eq (b Add (c Mul d)))"),
        ("a - b - c", "((a Sub b) Sub c)"),
        ("a / b % c * d", "(((a Div b) Mod c) Mul d)"),
        ("2 * a · b", "(2 Mul (a · b))"),
        ("a · b · c", "((a · b) · c)"),
        ("-a · b", "((-a) · b)"),
        ("-a ^ 2", "(-(a Pow 2))"),
        ("a ^ -b ^ c", "(a Pow (-(b Pow c)))"),
        ("a ^ b ^ c * d", "((a Pow (b Pow c)) Mul d)"),
        ("a · b ^ 2", "(a · (b Pow 2))"),
        ("(a + b) * c", "((a Add b) Mul c)"),
        ("l in dense or (l + 1) % step != 0", "((l In dense) Or (((l Add 1) Mod step) Ne 0))"),
        ("a @ b", "(a · b)"),
        ("1_000 + 1e-6 + 1E4 + 0.5", "(((1000 Add 1e-6) Add 10000.0) Add 0.5)"),
    ] {
        assert_eq!(grouped(text), expected, "{text}");
    }
}

#[test]
fn a_scan_is_an_expression_with_statements_in_it() {
    for (text, expected) in [
        ("scan over S { out x }", "scan S(out x)"),
        (
            "f(2 * scan over S { state h[D, F = 2] = 0.0; let g = h · x over D h = g out h } + y)",
            "f(((2 Mul scan S(state h[D, F = 2] = 0.0, let g = (h · x over D), h = g, out h)) Add y))",
        ),
        ("scan over S { state n = 1 out n }[D = 0]", "scan S(state n[] = 1, out n)[D = 0]"),
    ] {
        assert_eq!(grouped(text), expected, "{text}");
    }
}

#[test]
fn over_belongs_to_the_nearest_contraction_or_to_the_call() {
    for (text, expected) in [
        ("a · b over D", "(a · b over D)"),
        ("a · b over D · c over (E, F)", "((a · b over D) · c over E, F)"),
        ("a · b ^ 2 over D + c", "((a · (b Pow 2) over D) Add c)"),
        ("x + a · b over D", "(x Add (a · b over D))"),
        ("softmax(x · W over E)", "softmax((x · W) over E)"),
        ("softmax((x · W over D) over E)", "softmax((x · W over D) over E)"),
        ("sum(x over (E, G))", "sum(x over E, G)"),
        ("f(x · W over D, k)", "f((x · W over D), k)"),
        ("f(x · W over D + b over E)", "f(((x · W over D) Add b) over E)"),
        ("f(k = x · W over (D, E) over F)", "f(k = (x · W over D, E) over F)"),
        ("rms_norm(over D)", "rms_norm( over D)"),
        ("f((a · b over D), c)", "f((a · b over D), c)"),
    ] {
        assert_eq!(grouped(text), expected, "{text}");
    }
}

#[test]
fn calls_choices_and_banks_keep_their_parts() {
    for (text, expected) in [
        (
            "f(a, k = 2, Head as (KV, Rep = 2), (KV, Rep) as Head, S as T over E)",
            "f(a, k = 2, Head as KV, Rep = 2, KV, Rep as Head, S as T over E)",
        ),
        ("top_k(p, 2 over E).values[K = 0]", "top_k(p, 2 over E).values[K = 0]"),
        ("x[Half = 0..n / 2]", "x[Half = 0..(n Div 2)]"),
        ("if a { b }", "if a then b"),
        ("if a { b } else if c { d } else { e }", "if a then b else if c then d else e"),
        ("if a { b } else if c { d }", "if a then b else if c then d"),
        ("moe { gate g(2); experts a(F) × 8, b × 1; always c(F) }", "moe(g(2); a(F) × 8, b × 1; c(F))"),
        ("moe { always c experts a times E - 1 gate g }", "moe(g; a × (E Sub 1); c)"),
        ("(a, (b))", "tuple(a, b)"),
        ("[]", "[]"),
    ] {
        assert_eq!(grouped(text), expected, "{text}");
    }
}

#[test]
fn spans_show_what_was_written() {
    let (sources, file) = read("// é\nblock b {\n  let y = -(a + 1)  · w over D // end\n  part p = f ( x )\n}\n");
    let [Item::Definition(block)] = &file.items[..] else { panic!("one block: {file:?}") };
    let text = |at: Span| sources.text(at).to_owned();
    let [
        Statement { kind: StatementKind::Let { value, .. }, at },
        Statement { kind: StatementKind::Part { value: call, .. }, .. },
    ] = &block.body[..]
    else {
        panic!("two statements: {block:?}")
    };
    assert_eq!(text(*at), "let y = -(a + 1)  · w over D");
    assert_eq!(text(value.at), "-(a + 1)  · w over D");
    let ExprKind::Contract { left, right, over } = &*value.kind else { panic!("{value:?}") };
    assert_eq!([text(left.at), text(right.at), text(over[0].at)], ["-(a + 1)", "w", "D"]);
    assert_eq!([text(block.name.at), text(call.at)], ["b", "f ( x )"]);
    assert_eq!(sources.position(block.name.at), Some(("file.moe", 2, 7)));
}

#[test]
fn documentation_goes_with_what_it_precedes() {
    let (_, file) = read(
        "//! Head.\n//!\n//!  Two.\nserves \"A\"\nuse std::norm::{a, b} use c::d::e use \"x/y.moe\"::f\nconfig {\n  /// Width.\n  D = 1 from \"d\" | \"e\"\n  E = 2\n}\n\
         /// One.\n// no\n/// Two.\nfn f(x) = x\n/// Model.\nmodel m() { /// nothing\n out 1 }\n",
    );
    assert_eq!(file.doc, ["Head.", "", " Two."]);
    assert_eq!(file.serves[0].text, "A");
    let uses: Vec<String> =
        file.uses.iter().map(|used| format!("{}: {}", names(&used.path), names(&used.names))).collect();
    assert_eq!(uses, ["std, norm: a, b", "c, d: e", ": f"]);
    assert_eq!(file.uses[2].file.as_ref().map(|file| file.text.as_str()), Some("x/y.moe"));
    let [Item::Config(config), Item::Definition(f), Item::Model(m)] = &file.items[..] else { panic!("{file:?}") };
    assert_eq!(config.entries[0].doc, ["Width."]);
    assert!(config.entries[1].doc.is_empty());
    assert_eq!(joined(&config.entries[0].keys, |key| key.text.clone()), "d, e");
    assert_eq!(f.doc, ["One.", "Two."]);
    assert!(matches!(&f.body[..], [Statement { kind: StatementKind::Out { name: None, ty: None, .. }, .. }]));
    assert_eq!(m.doc, ["Model."]);
}

#[test]
fn weight_patterns_have_their_holes() {
    let (_, file) = read(
        "weights hf {\n  layers[l].attn.{q,k}_norm.w = \"m.{l}.{q,k}_n{,x}\" as [(H, D), E]\n  ignore \"{any}.b\"\n}\n",
    );
    let [Item::Weights(weights)] = &file.items[..] else { panic!("{file:?}") };
    let [WeightRule::Bind(bind), WeightRule::Ignore(ignored)] = &weights.rules[..] else { panic!("{weights:?}") };
    let text = |text: &str| PatternPiece::Text(text.into());
    let alternatives = |words: [&str; 2]| PatternPiece::Alternatives(words.map(String::from).to_vec());
    let segments: Vec<_> = bind.target.segments.iter().map(|segment| segment.pieces.clone()).collect();
    let expected =
        [vec![text("layers")], vec![text("attn")], vec![alternatives(["q", "k"]), text("_norm")], vec![text("w")]];
    assert_eq!(segments, expected);
    assert_eq!(bind.target.segments[0].index.as_ref().map(|name| name.text.as_str()), Some("l"));
    let l = PatternPiece::Index("l".into());
    let tensor = [text("m."), l, text("."), alternatives(["q", "k"]), text("_n"), alternatives(["", "x"])];
    let [source] = &bind.sources[..] else { panic!("{bind:?}") };
    assert_eq!(source.tensor.pieces, tensor);
    let layout: Vec<String> = source.layout.iter().flatten().map(lane).collect();
    assert_eq!(layout, ["(H, D)", "E"]);
    assert_eq!(ignored.pieces, [PatternPiece::Any, text(".b")]);
}

fn lane(lane: &Lane) -> String {
    let each = |lanes: &[Lane], between| lanes.iter().map(self::lane).collect::<Vec<_>>().join(between);
    match lane {
        Lane::Axis(name) => name.text.clone(),
        Lane::One(_) => "1".into(),
        Lane::Product(lanes) => format!("({})", each(lanes, ", ")),
        Lane::Beside(lanes, _) => format!("({})", each(lanes, " | ")),
    }
}

#[test]
fn tensors_that_lie_side_by_side_have_their_order() {
    let (_, file) = read(
        "config inside \"text\" { D = 1 }\n\
         weights hf inside \"lm.\" {\n  experts[e].(gate, up) = \"a\" as [e, ((F, 1) | F), D]\n    | \"b.{e}.{gate,up}\"\n  \
         ignore \"m.{l >= L}.{any}\"\n  scaled \"{any}_b\" as f4 by \"{any}_s\" as e8 in [1, 32]\n  w.x = \"c\"\n}\n",
    );
    let [Item::Config(config), Item::Weights(weights)] = &file.items[..] else { panic!("{file:?}") };
    assert_eq!(config.inside.as_ref().map(|text| text.text.as_str()), Some("text"));
    assert_eq!(weights.inside.as_ref().map(|text| text.text.as_str()), Some("lm."));
    let [WeightRule::Bind(bind), WeightRule::Ignore(ignored), WeightRule::Scaled(scaled), WeightRule::Bind(_)] =
        &weights.rules[..]
    else {
        panic!("{weights:?}")
    };
    assert_eq!(bind.target.segments[1].pieces, [PatternPiece::Several(vec!["gate".into(), "up".into()])]);
    let [stacked, single] = &bind.sources[..] else { panic!("{bind:?}") };
    let layout: Vec<String> = stacked.layout.iter().flatten().map(lane).collect();
    assert_eq!(layout, ["e", "((F, 1) | F)", "D"]);
    assert_eq!(single.layout, None);
    assert_eq!(ignored.pieces[1], PatternPiece::AtLeast { index: "l".into(), least: "L".into() });
    let formats = [&scaled.elements, &scaled.scale_elements].map(|name| name.as_ref().map(|name| name.text.as_str()));
    assert_eq!((formats, scaled.blocks.len()), ([Some("f4"), Some("e8")], 2));
}

/// What is sound is in the tree, whatever else is wrong.
#[test]
fn a_broken_statement_does_not_take_the_others_with_it() {
    let text = "config { D = 1 E = = 2 F = 3 }\nblock b {\n  let a = (x\n  layers l in 0..2 {\n    let c = +\n    a = 1\n  }\n  out a\n}\n\
                gate 3 { }\nfn f(x) = x\n";
    let mut sources = SourceMap::default();
    let (file, problems) = parse(&mut sources, "file.moe", text);
    assert_eq!(problems.len(), 4, "{}", rendered(&sources, problems));
    let file = file.unwrap();
    let [Item::Config(config), Item::Definition(b), Item::Definition(f)] = &file.items[..] else { panic!("{file:?}") };
    assert_eq!(joined(&config.entries, |entry| entry.name.text.clone()), "D, F");
    assert_eq!(f.name.text, "f");
    let [Statement { kind: StatementKind::Layers { body, .. }, .. }, Statement { kind: StatementKind::Out { .. }, .. }] =
        &b.body[..]
    else {
        panic!("{:?}", b.body)
    };
    assert!(matches!(&body[..], [Statement { kind: StatementKind::Assign { .. }, .. }]), "{body:?}");
}
