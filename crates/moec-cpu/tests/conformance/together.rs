//! Sessions that step together, at positions of their own: random specs, where no position sees others but by attention and
//! scans, give each session what the oracle gives it alone.

use moec_codegen::{PortRows, port_rows, sees_later_positions};
use moec_oracle::RandomWeights;

use crate::{
    host::{Library, SPECS_TOGETHER, Session, levels, together},
    random_specs::{
        ROUNDING, packed,
        specs::{
            generate,
            random::Random,
            scans::SCANS,
            session::{Found, Passes, check, same},
        },
    },
};

/// What goes wrong with a spec; `None` where sessions of it cannot step together.
fn faults_together(text: &str, seed: u64) -> Option<Vec<String>> {
    const SESSIONS: u64 = 3;
    let module = check(text).ok()?.without_dead();
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
    let plan = moec_lower::lower(&fused).ok()?;
    let rows = |port| matches!(port_rows(&plan, port), Some(PortRows::Tokens | PortRows::Outputs));
    if sees_later_positions(&plan) || plan.passes().count() > 1 || !plan.inputs.iter().chain(&plan.outputs).all(rows) {
        return None;
    }
    let weights = RandomWeights::new(&module, seed);
    let each = |number: u64| {
        let mut passes = Passes::random(&mut Random::new(seed ^ number << 8), &module);
        passes.passes.iter_mut().for_each(|pass| pass.first = 0);
        passes
    };
    let all: Vec<Passes> = (0..SESSIONS).map(each).collect();
    let expected: Vec<Vec<Found>> =
        all.iter().map(|passes| passes.oracle(&module, &weights).expect("it runs")).collect();
    let packed = packed(&plan, &weights);
    let mut faults = Vec::new();
    let all_levels = levels();
    for level in &all_levels[seed as usize % all_levels.len()..][..1] {
        let library = Library::new(&plan, *level);
        for threads in [1, 3] {
            let mut sessions: Vec<Session> =
                all.iter().map(|_| Session::new(&plan, &packed, 18, 32, threads)).collect();
            let mut found: Vec<Vec<Found>> = vec![Vec::new(); all.len()];
            let turns = all.iter().map(|passes| passes.passes.len()).max().unwrap_or(0);
            for turn in 0..turns {
                let going: Vec<usize> = (0..all.len()).filter(|at| turn < all[*at].passes.len()).collect();
                let pass_of = |at: usize| &all[at].passes[turn];
                let given: Vec<_> =
                    going.iter().map(|at| (pass_of(*at).rows(&module), pass_of(*at).tokens as u64)).collect();
                let mut taking: Vec<&mut Session> =
                    sessions.iter_mut().enumerate().filter(|(at, _)| going.contains(at)).map(|(_, s)| s).collect();
                let all_outputs = together(&library, &mut taking, &given, 0);
                for (at, outputs) in going.iter().zip(all_outputs) {
                    let given = |(number, values)| pass_of(*at).given(&module, number, values);
                    let outputs = outputs.into_iter().enumerate().map(given).collect();
                    let routes = sessions[*at].traced.drain(..).map(|traced| (traced.indices, traced.weights));
                    found[*at].push(Found { outputs, routes: routes.collect() });
                }
            }
            for ((passes, expected), found) in all.iter().zip(&expected).zip(&found) {
                if let Err(what) = same(expected, found)
                    && !passes.unsteady(&module, &weights, expected, ROUNDING)
                {
                    faults.push(format!("{level:?}, {threads} threads: {what}"));
                }
            }
        }
    }
    Some(faults)
}

#[test]
fn sessions_that_step_together_get_what_they_get_alone() {
    let mut judged = 0;
    let drawn: Vec<(String, String)> = (0..40).map(|seed| (format!("seed {seed}"), generate(seed))).collect();
    let scans = SCANS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    for (seed, (name, text)) in (0..).zip(scans.chain(drawn)) {
        let Some(faults) = faults_together(&text, seed) else { continue };
        assert!(faults.is_empty(), "{name}: {}\n{text}", faults.join("\n"));
        judged += 1;
        if judged == SPECS_TOGETHER {
            return;
        }
    }
    panic!("only {judged} specs whose sessions can step together");
}
