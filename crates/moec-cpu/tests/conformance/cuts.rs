//! A position gives the same bits alone, in a batch and in a prefill, however that is cut.

use moec_plan::Format;
use moec_types::DType;

use crate::{
    attention::{Heads, attention, input_sizes},
    build::Building,
    grouped::{Sizes, bank},
    host::{Library, Session, levels_of},
};

/// The last output has the same bits however the positions are cut into passes.
fn check_cuts(building: &Building, inputs: &[Vec<f64>], cuts: &[&[u64]]) {
    let plan = &building.plan;
    let tokens: u64 = cuts[0].iter().sum();
    for level in levels_of(plan) {
        let library = Library::new(plan, level);
        let results = cuts.iter().map(|cut| {
            let mut session = Session::new(plan, &building.weights, tokens, tokens.next_multiple_of(16), 2);
            let mut done = 0;
            let mut result = Vec::new();
            for count in *cut {
                let of_pass = |input: &Vec<f64>| {
                    let row = input.len() / tokens as usize;
                    input[done as usize * row..(done + count) as usize * row].to_vec()
                };
                let inputs: Vec<Vec<f64>> = inputs.iter().map(of_pass).collect();
                result.extend(session.run(&library, &inputs, *count, 0).pop().expect("an output"));
                done += count;
            }
            format!("{result:?}")
        });
        let results: Vec<String> = results.collect();
        assert!(results.windows(2).all(|two| two[0] == two[1]), "{level:?}: what a row gives depends on the others");
    }
}

/// Narrow and wide, so that kernels of few and of many columns are among them.
#[test]
fn experts() {
    for storage in [Format::Each(DType::F32), Format::Pairs, Format::Int8, Format::Int4 { group: 32 }] {
        let mut b = bank(Sizes { experts: 3, choices: 2, width: 200, hidden: 24, storage }, 3);
        let inputs = [b.values(23 * 200), b.indices(2 * 23, 3), b.values(2 * 23)];
        check_cuts(&b, &inputs, &[&[23], &[1; 23], &[4, 1, 16, 2]]);
    }
}

/// More positions than a block of keys has.
#[test]
fn attended() {
    for (storage, window) in [(DType::F32, None), (DType::Bf16, Some(20))] {
        let heads = Heads { groups: 1, queries: 2, width: 12, values: 20, storage, causal: true, window, sink: true };
        let mut b = attention(&heads);
        let inputs = input_sizes(&heads).map(|size| b.values(150 * size));
        check_cuts(&b, &inputs, &[&[150], &[1; 150], &[3, 100, 1, 46]]);
    }
}
