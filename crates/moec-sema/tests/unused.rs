//! Definitions that nothing uses are checked for what no use of them could mend.

mod common;

use common::{problems_of, rendered, settings_of};

const MODEL: &str = "\nmodel m(x: f32[S, D = 8]) { out y = x }\n";

fn report(definitions: &str) -> String {
    let text = format!("{definitions}{MODEL}");
    let (sources, problems) = problems_of("unused.moe", &text, &settings_of(&text, None));
    rendered(&sources, problems)
}

/// The library has all kinds of definitions, and nothing here uses them.
#[test]
fn what_some_use_could_be_right_with_is_left_alone() {
    let wrong: Vec<String> =
        moec_sema::library().map(|(_, text)| report(text)).filter(|text| !text.is_empty()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What only a use tells: sizes, whatever divides them; axes and settings of the file that uses it; what its arguments choose.
#[test]
fn what_a_use_could_mend_is_left_alone() {
    let cases = [
        "block b { param w[A, B, C, D]  out split(x, D as (Head = 53760, Dh)) + sum(w over (A, B, C)) }",
        "block b { param w[D]  out x * w[D = 26881] }",
        "gate g(k) { param b[E]  let (w, i) = top_k(b, k * 9999 over E)  route tokens(i, w) }",
        "block b(mode = \"none\") { out if mode == \"none\" { fail(\"say which\") } else { x } }",
        "block b { param w[D]  out x * w * Heads }",
    ];
    for text in cases {
        let found = report(text);
        assert!(found.is_empty(), "{text}\n{found}");
    }
}

#[test]
fn what_no_use_could_be_right_with_is_reported() {
    let cases = [
        ("expert e(F) { param up[F, D]  param down[D, F]  out relu(x · up) · down over Q }", "`Q`"),
        ("expert e(F) { param up[F, D]  out x · upp }", "`upp`"),
        ("gate g { param W[E, D]  let (w, i) = top_k(x · W, 2 over Expert)  route tokens(i, w) }", "an axis `Expert`"),
        ("gate g(k) { param W[E, D]  out x · W }", "route"),
        ("block b { param w[D] }", "gives nothing"),
        ("fn f(x) = softmx(x over D)", "did you mean `softmax`"),
        ("fn f(x over A) = softmax(x, 3 over A)", "takes one argument"),
    ];
    for (text, wanted) in cases {
        let found = report(text);
        assert!(found.contains(wanted), "{text}: {wanted} is wanted, found\n{found}");
    }
}
