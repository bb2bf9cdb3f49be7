//! Models of several sequences: a pass along each, and what the one keeps of its own is all that the other knows of it.

mod common;

use common::{FromOracle, module};
use moec_interpreter::{Machine, Packing};
use moec_ir::Module;
use moec_oracle::{RandomWeights, Session, Tensor};
use moec_plan::{Home, Plan};

/// Layers of the decoder that differ, words that see each other, a preference for distances, capacities in both.
const TRANSLATOR: &str = "
use std::attention::t5_bucket
use std::capacity::first_come
use std::expert::copy
config { D = 8  V = 11  H = 2  Dh = 4  E = 3 }
block whole(near) {
  param q[Head = H, Dh, D]  param k[Head = H, Dh, D]  param o[D, Head = H, Dh]
  let dots = (x · q) · past(x · k, Word as Other) over Dh
  let s    = dots + gather(near, t5_bucket(Other - Word, 8, 6) over Bucket)
  out (softmax(s over Other) · past(x · k, Word as Other) over Other) · o over (Head, Dh)
}
block earlier(near) {
  param q[Head = H, Dh, D]  param k[Head = H, Dh, D]  param o[D, Head = H, Dh]
  let dots = (x · q) · past(x · k, S as T) over Dh
  let s    = where(T <= S, dots + gather(near, t5_bucket(T - S, 8, 6, both = false) over Bucket), -inf)
  out (softmax(s over T) · past(x · k, S as T) over T) · o over (Head, Dh)
}
block across(words) {
  param q[Head = H, Dh, D]  param k[Head = H, Dh, D]  param v[Head = H, Dh, D]  param o[D, Head = H, Dh]
  let ks = past(words · k, Word as Read)
  let vs = past(words · v, Word as Read)
  let s  = (x · q) · ks over Dh
  out (softmax(s over Read) · vs over Read) · o over (Head, Dh)
}
model translator(source: i32[Word], ids: i32[S]) across Word {
  param table[V, D]
  param near[Head = H, Bucket = 8]
  let words = gather(table, source over V)
  layers e in 0..2 {
    part attn = whole(near)
    part ffn  = moe { gate first_come(1, 1.0 over Word); experts copy × E }
    words = words + attn(words)
    words = words + ffn(words)
  }
  let h = gather(table, ids over V)
  layers d in 0..3 {
    part attn  = earlier(near)
    part cross = if d % 2 == 0 { across(words) } else { same }
    h = h + attn(h)
    h = h + cross(h)
  }
  out y: f32[S, D] = h
}
block same { out x }
";

fn lowered(module: &Module) -> Plan {
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
    let again = moec_ir::parse(&moec_ir::print(&fused)).expect("a module's text reads back");
    assert_eq!(moec_ir::print(&again), moec_ir::print(&fused));
    moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn words_are_read_once_and_every_token_looks_at_them() {
    let module = module(TRANSLATOR);
    let plan = lowered(&module);
    assert_eq!(moec_plan::parse(&plan.to_string()).expect("a plan's text reads back").to_string(), plan.to_string());
    let weights = RandomWeights::new(&module, 5);
    let from_oracle = FromOracle(&weights);
    let packing = Packing { plan: &plan, instances: &from_oracle };
    let (mut session, mut machine) = (Session::new(&module, &weights), Machine::new(&plan, &packing, 8, 32));
    let source = vec![3, 1, 4, 1, 5, 9, 2];
    let ids = |axis: &str, ids: &[i32]| Tensor::named(&[(axis, ids.len())], ids.to_vec());
    let rows = |ids: &[i32]| ids.iter().map(|id| f64::from(*id)).collect::<Vec<f64>>();
    let inputs = [("source", ids("Word", &source)), ("ids", ids("S", &[]))];
    session.run(&inputs, None).expect("the oracle runs");
    machine.run_along(1, vec![rows(&source), Vec::new()], source.len() as u64, 0);
    for tokens in [&[7, 0, 10][..], &[2], &[6, 6]] {
        let inputs = [("source", ids("Word", &[])), ("ids", ids("S", tokens))];
        let wanted = session.run(&inputs, None).expect("the oracle runs");
        let found = machine.run(vec![Vec::new(), rows(tokens)], tokens.len() as u64, 0);
        for (wanted, found) in wanted[0].1.f32().iter().zip(&found.outputs[0]) {
            let near = (f64::from(*wanted) - found).abs() <= 2e-5 * (1.0 + f64::from(wanted.abs()));
            assert!(near, "{wanted} is wanted, found {found}\n{plan}");
        }
    }
}

#[test]
fn a_pass_computes_what_its_own_sequence_needs() {
    let plan = lowered(&module(TRANSLATOR));
    assert_eq!(plan.sources.len(), 1, "one other sequence\n{plan}");
    let caches = plan.buffers.iter().filter_map(|buffer| match buffer.home {
        Home::Cache { instances, .. } => Some(instances),
        _ => None,
    });
    let mut caches: Vec<u32> = caches.collect();
    caches.sort_unstable();
    // Keys and values: of the encoder's two layers, of two decoder layers' words, of all three of its own (two kinds).
    assert_eq!(caches, [1, 1, 2, 2, 2, 2, 2, 2], "{plan}");
}

#[test]
fn what_nothing_keeps_of_another_sequence_is_refused() {
    let module = module(
        "config { D = 4 }
         model m(words: f32[Word, D], x: f32[S, D]) {
           out y: f32[S, D] = x + max(words over Word)
         }",
    );
    let error = moec_lower::lower(&module).expect_err("no pass has both");
    assert!(error.reason.contains("but those that were kept"), "{error}");
}

#[test]
fn positions_are_counted_in_passes_of_their_own() {
    let read = |kept: &str, y: &str| {
        module(&format!(
            "config {{ D = 4 }}
             model m(words: f32[Word, D], x: f32[S, D]) across Word {{
               let kept = {kept}
               let p = softmax((x · past(kept, Word as Read) over D) over Read)
               out y: f32[S, D] = {y} * (p · past(kept, Word as Read) over Read)
             }}"
        ))
    };
    lowered(&read("words / f32(size(Word))", "1.0"));
    let (fused, _) = moec_passes::run(read("words", "f32(size(Word))"), &moec_passes::Options::default());
    let error = moec_lower::lower(&fused).expect_err("words do not come with every token");
    assert!(error.reason.contains("no new positions of `Word`"), "{error}");
}
