//! The typing rules, op by op: a node over a few inputs, and its types or what is wrong with it.

use moec_ir::{parse, print};

const INPUTS: &str = "x %x: f32[S, D=6], y %y: f32[S, E=4], w %w: f32[E=4, D=6], i %i: i32[S, K=2], \
                      c %c: bool[S], t %t: f32[T=past(S), D=6], v %v: f32[S, K=2], \
                      j %j: i32[N=5, K=2], u %u: f32[K=2], z %z: f32[N=5, D=6]";

/// The node's printed types, or the error's message.
fn typed(node: &str) -> Result<String, String> {
    // The parser wants the types in the text, so ask it with none and read what it says they are.
    let results = node.matches("top_k").count() + 1;
    let names = ["%r", "%r, %q"][results - 1];
    let untyped =
        format!("module m\nparam @p: f32[D=6] stored bf16\nmodel ({INPUTS}) {{\n{names} = {node}\ngive r %r\n}}");
    let error = parse(&untyped).expect_err("types are missing").message;
    let mnemonic = node.split(' ').next().unwrap_or_default();
    let Some(types) = error.strip_prefix(&format!("`{mnemonic}` gives ")) else { return Err(error) };
    let types = types.strip_suffix(", written is ").expect("nothing was written").to_owned();
    let module = parse(&untyped.replace(node, &format!("{node} : {types}"))).expect("with its types it parses");
    assert_eq!(print(&parse(&print(&module)).expect("it parses again")), print(&module), "{node}");
    Ok(types)
}

#[test]
fn every_op_has_the_type_it_promises() {
    let cases = [
        ("param {@p}", "f32[D=6]"),
        ("literal {f32[A=2] [1.0, -inf]}", "f32[A=2]"),
        ("literal {bool[] [1]}", "bool[]"),
        ("iota {T=past(S)}", "i32[T=past(S)]"),
        ("map %y, %c, %x {where($1, $0, f32(bf16($2)))}", "f32[S, E=4, D=6]"),
        ("contract %w, %x {over (D)}", "f32[E=4, S]"),
        ("contract %x, %t {over (D)}", "f32[S, T=past(S)]"),
        ("contract %y, %w {over ()}", "f32[S, E=4, D=6]"),
        ("linear %x, %w, %w, %y {over (D), branches 2, epilogue add(mul($0, $1), $2)}", "f32[S, E=4]"),
        ("reduce %x {mean over (S, D)}", "f32[]"),
        ("top_k %y {over E, choices K=2}", "f32[S, K=2], i32[S, K=2]"),
        ("top_k %v {over K, choices K=1}", "f32[S, K=1], i32[S, K=1]"),
        ("top_k %y {over S, choices K=S}", "f32[K=S, E=4], i32[K=S, E=4]"),
        ("top_k %y {over S, choices C=floor(S * 1 / 2)}", "f32[C=floor(S * 1 / 2), E=4], i32[C=floor(S * 1 / 2), E=4]"),
        ("cumsum %y {over S}", "f32[S, E=4]"),
        ("scatter_add %v, %i {(S, K) as N=5}", "f32[N=5]"),
        ("count {ceil(S * 5 / 4)}", "i32[]"),
        ("gather %w, %i {over E}", "f32[S, K=2, D=6]"),
        ("gather %y, %i {over E}", "f32[S, K=2]"),
        ("split %x {D as (A=2, D=3)}", "f32[S, A=2, D=3]"),
        ("merge %w {(D, E) as D}", "f32[D=24]"),
        ("rename %x {S as Q}", "f32[Q=S, D=6]"),
        ("slice %x {D 2..5}", "f32[S, D=3]"),
        ("slice %x {D 5..6, drop}", "f32[S]"),
        ("unfold %x {D as (D, T=3), step 2}", "f32[S, D=2, T=3]"),
        ("concat %x, %x, %x {over D}", "f32[S, D=18]"),
        ("past %x {S as P}", "f32[P=past(S), D=6]"),
        ("attention %x, %t, %t, %c {over (D), keys T, score where($1, $0, 0.0)}", "f32[S, D=6]"),
        ("route %i, %v {experts 4}", "route[S, K=2] of 4"),
        ("route %j, %u {experts 4, tokens N}", "route[N=5, K=2] of 4"),
    ];
    for (node, wanted) in cases {
        assert_eq!(typed(node).as_deref(), Ok(wanted), "{node}");
    }
}

#[test]
fn what_does_not_fit_is_said_in_the_authors_words() {
    let cases = [
        ("literal {f32[A=2] [1.0]}", "1 values for f32[A=2], which has 2"),
        ("literal {f32[S] []}", "a constant needs sizes that are known, found f32[S]"),
        ("map %x, %c {add($0, $1)}", "`add` wants two numbers of one type, found f32 and bool"),
        ("contract %x, %y {over (D)}", "no axis `D` in f32[S, E=4]"),
        ("contract %x, %i {over (S)}", "a product wants f32, found i32[S, K=2]"),
        (
            "linear %x, %w, %t {over (D), branches 1, epilogue $1}",
            "the epilogue's f32[T=past(S), D=6] has an axis `T` that f32[S, E=4] lacks",
        ),
        ("reduce %x {any over (D)}", "`any` wants bool, found f32[S, D=6]"),
        ("reduce %x {sum over ()}", "`sum` over no axis"),
        ("reduce %x {sum over (D, D)}", "axis `D` is named twice"),
        ("top_k %y {over E, choices S=1}", "f32[S, E=4] already has an axis `S`"),
        ("top_k %y {over E, choices K=9}", "top-9 over `E`, which has 4"),
        ("top_k %y {over S, choices K=floor(S * 3 / 2)}", "top-floor(S * 3 / 2) over `S`, which has S"),
        ("cumsum %c {over S}", "`cumsum` wants f32 or i32, found bool[S]"),
        ("cumsum %y {over D}", "no axis `D` in f32[S, E=4]"),
        ("scatter_add %v, %y {(S) as N=5}", "an index wants i32, found f32[S, E=4]"),
        ("scatter_add %v, %i {(S, D) as N=5}", "no axis `D` in f32[S, K=2]"),
        ("count {4}", "`count` of 4"),
        ("route %j, %u {experts 4}", "a route's choices are i32[tokens, choices], found i32[N=5, K=2]"),
        ("route %i, %v {experts 4, tokens K}", "a route's choices are i32[tokens, choices], found i32[S, K=2]"),
        ("gather %x, %y {over D}", "an index wants i32, found f32[S, E=4]"),
        ("split %x {D as (A=4, B=2)}", "`D` has 6 and cannot be split as (A=4, B=2)"),
        ("split %x {S as (A=4, B=2)}", "`split` wants an axis of known size, and `S` is known only at run time"),
        ("merge %x {(S, D) as E}", "`merge` wants an axis of known size, and `S` is known only at run time"),
        ("rename %x {D as S}", "f32[S, D=6] already has an axis `S`"),
        ("slice %x {D 4..7}", "3 positions of `D` from 4 on, and it has 6"),
        ("slice %x {D 4..6, drop}", "a part of `D` with 2 positions cannot drop the axis"),
        ("unfold %x {D as (P, T=7), step 1}", "windows of 7, 1 apart, along `D`, which has 6"),
        ("unfold %x {D as (S, T=3), step 1}", "f32[S, D=6] already has an axis `S`"),
        (
            "unfold %x {S as (P, T=3), step 1}",
            "`unfold` wants an axis of known size, and `S` is known only at run time",
        ),
        ("concat %x, %y {over D}", "no axis `D` in f32[S, E=4]"),
        ("past %t {T as P}", "`past` along `T`, which is not a sequence of the input"),
        ("attention %x, %x, %t {over (D), keys T, score $0}", "no axis `T` in f32[S, D=6]"),
        ("route %i, %y {experts 4}", "weights f32[S, E=4] have an axis `E` that the choices i32[S, K=2] lack"),
        ("dispatch %x, %y {as Slot}", "f32[S, E=4] where a route is wanted"),
    ];
    for (node, wanted) in cases {
        assert_eq!(typed(node), Err(wanted.to_owned()), "{node}");
    }
}
