//! The IR's text reads back as it was written, and wrong text says where it is wrong.

use moec_ir::{parse, print, verify};

fn decoder() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/ir/decoder.ir"))
        .expect("the file is there")
}

#[test]
fn reads_back_what_it_prints() {
    let module = parse(&decoder()).expect("the decoder parses");
    verify(&module).expect("and is sound");
    let printed = print(&module);
    let again = parse(&printed).expect("what is printed parses");
    assert_eq!(print(&again), printed);
    assert_eq!(again, parse(&print(&again)).expect("and parses again"));
    let dense = module.clone().without_dead();
    verify(&dense).expect("nothing live was dropped");
    assert_eq!(dense.walk().len(), module.walk().len(), "nothing here is dead");
}

/// A change to the decoder's text, and what is said of it.
#[test]
fn says_where_text_is_wrong() {
    let cases = [
        ("{over V}", "{over W}", "no axis `W` in f32[V=16, D=8]"),
        ("gather %table, %ids", "gather %table, %idz", "`%idz` is not defined here"),
        ("%q = contract %x", "%q = contrast %x", "no op `contrast`"),
        ("{mul($0, $0)}", "{mull($0, $0)}", "no scalar operation `mull`"),
        ("{mul($0, $0)}", "{mul($0)}", "`mul` does not take 1 operands"),
        ("{mul($0, $0)}", "{mul($0, $3)}", "speaks of 4 operands and has 1"),
        (": f32[S, Head=4, Dh=8]", ": f32[S, Head=5, Dh=8]", "written is f32[S, Head=5, Dh=8]"),
        ("  give logits %logits_out\n}", "", "a region ends in `give`"),
        ("choices K=2}", "choices K=5}", "top-5 over `E`, which has 4"),
        ("param {@norm.w}", "param {@norm.v}", "no parameter `@norm.v`"),
        ("bank (0..4)", "bank (0..3)", "chooses among 4 experts, the bank holds 3"),
        ("kinds 2, order [0, 1]", "kinds 2, order [0, 2]", "layer kind 2 of 2"),
    ];
    for (from, to, expected) in cases {
        let text = decoder().replacen(from, to, 1);
        assert_ne!(text, decoder(), "{from} occurs");
        let error = parse(&text).expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn no_prefix_and_no_hole_panics() {
    let text = decoder();
    for cut in (0..text.len()).step_by(53).filter(|cut| text.is_char_boundary(*cut)) {
        assert!(parse(&text[..cut]).is_err(), "cut at {cut}");
        let without: String = text[..cut].chars().chain(text[(cut + 5).min(text.len())..].chars()).collect();
        let _ = parse(&without);
    }
    let deep = format!(
        "module m\nmodel (x %x: f32[]) {{\n %y = map %x {{{}$0{}}} : f32[]\n give y %y }}",
        "neg(".repeat(5000),
        ")".repeat(5000)
    );
    assert!(parse(&deep).expect_err("too deep").message.contains("nested deeper"));
}

#[test]
fn text_that_parses_may_still_break_a_rule() {
    let row = |body: &str| {
        format!(
            "module m\nmodel (x %x: f32[S, D=4], y %y: f32[S, D=4]) {{ %r = rows %x : f32[S, D=4] region (%a: f32[S, D=4]) {{ {body} give %b }} give r %r }}"
        )
    };
    let cases = [
        (row("%b = map %a, %y {add($0, $1)} : f32[S, D=4]"), "`rows` reads value 1 past its operands"),
        (row("%b = rows %a : f32[S, D=4] region (%c: f32[S, D=4]) { give %c }"), "`rows` within `rows`"),
        ("module m model (x %x: f32[D=4, D=4]) { give x %x }".into(), "has the axis `D` twice"),
        ("module m model (x %x: f32[T=past(S)]) { give x %x }".into(), "an input has the axis T=past(S)"),
        (
            "module m param @p: f32[D=2] stored f32 layers [3, 1] model () { %p = param {@p} : f32[D=2] give p %p }"
                .into(),
            "the layers of parameter `p` do not ascend",
        ),
    ];
    for (text, expected) in cases {
        let error = verify(&parse(&text).expect(expected)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_pass_may_break_is_found() {
    let module = parse(&decoder()).expect("the decoder parses");
    let body = module.body;
    let mut swapped = module.clone();
    swapped.region_mut(body).nodes.swap(0, 1);
    assert!(verify(&swapped).expect_err("order").message.contains("before it is there"));
    let mut twice = module.clone();
    let first = twice.region(body).nodes[0];
    twice.region_mut(body).nodes.push(first);
    assert!(verify(&twice).expect_err("twice").message.contains("stands in two places"));
    let mut other = module.clone();
    let gather = other.region(body).nodes[1];
    other.node_mut(gather).operands.swap(0, 1);
    assert!(verify(&other).expect_err("operands").message.contains("no axis `V`"));
    let mut lost = module;
    lost.outputs.clear();
    assert!(verify(&lost).expect_err("outputs").message.contains("the outputs"));
}
