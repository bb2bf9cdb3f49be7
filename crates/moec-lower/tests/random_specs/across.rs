//! Specs that work across tokens, and from token to token: the oracle and the plan agree, whichever passes ran.

use crate::{
    judge::{Verdict, judge},
    specs::{across::ACROSS, scans::SCANS},
};

#[test]
fn across_tokens_the_plan_gives_the_oracles_numbers() {
    for (name, text) in ACROSS.iter().chain(SCANS) {
        for seed in 0..6 {
            match judge(text, seed) {
                Ok(verdict) => assert_eq!(verdict, Verdict::Sound, "{name}, seed {seed}"),
                Err(fault) => panic!("{name}, seed {seed}: {fault}"),
            }
        }
    }
}
