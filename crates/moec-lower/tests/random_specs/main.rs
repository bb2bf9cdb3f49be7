//! Random specs, from text to numbers: what the checker accepts means the same to the oracle before and after the passes, and
//! to the interpreted plan, whichever passes ran; mistyped specs are refused, never a panic.
//!
//! `MOEC_FUZZ_SEEDS=1000..2000` runs other seeds than the usual ones; a failure is then also made small. With
//! `MOEC_FUZZ_LOOK_INTO=reads` a verdict that says so counts as one.

mod across;
mod found;
#[path = "../../../../tests/from_oracle.rs"]
mod from_oracle;
mod judge;
#[path = "../../../../tests/random_specs/mutate.rs"]
mod mutate;
mod parts;
mod shrink;
#[path = "../../../../tests/random_specs/mod.rs"]
mod specs;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use judge::{Verdict, judge};
use specs::{generate, random::Random, session::check};

const USUAL: std::ops::Range<u64> = 0..100;

/// The seeds asked for, and whether that was done by hand.
fn seeds() -> (std::ops::Range<u64>, bool) {
    let Ok(asked) = std::env::var("MOEC_FUZZ_SEEDS") else { return (USUAL, false) };
    let range = asked.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    (range.unwrap_or_else(|| panic!("MOEC_FUZZ_SEEDS is `{asked}`, not like `0..100`")), true)
}

/// How a text fails: what it says, and in a form that is the same for alike failures.
fn failure(text: &str, seed: u64) -> Result<Verdict, (String, String)> {
    match catch_unwind(AssertUnwindSafe(|| judge(text, seed))) {
        Ok(Ok(verdict)) => match std::env::var("MOEC_FUZZ_LOOK_INTO") {
            Ok(look) if format!("{verdict:?}").contains(&look) => Err((format!("{verdict:?}"), look)),
            _ => Ok(verdict),
        },
        Ok(Err(fault)) => Err((fault.to_string(), fault.stage)),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()))
                .unwrap_or_default();
            let alike = said.chars().filter(|c| !c.is_ascii_digit()).take(40).collect();
            Err((format!("a panic: {said}"), alike))
        }
    }
}

/// Each seed by `one`, on all processors; in the order of the seeds.
fn for_each<R: Send>(seeds: std::ops::Range<u64>, one: impl Fn(u64) -> R + Sync) -> Vec<(u64, R)> {
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < seeds.end) {
                    let result = one(seed);
                    done.lock().expect("no seed panics").push((seed, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no seed panics");
    done.sort_by_key(|(seed, _)| *seed);
    done
}

#[test]
fn random_specs_mean_the_same_all_the_way_down() {
    let (seeds, by_hand) = seeds();
    let total = seeds.end.saturating_sub(seeds.start);
    let mut others: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let results = for_each(seeds, |seed| {
        let text = generate(seed);
        assert_eq!(text, generate(seed), "the generator is deterministic");
        failure(&text, seed).map_err(|(said, alike)| {
            let small = match by_hand {
                true => shrink::shrunk(&text, |text| failure(text, seed).err().map(|(_, alike)| alike)),
                false => text,
            };
            println!("seed {seed}: {said}\n{small}\n");
            alike
        })
    });
    for (seed, result) in results {
        let what = match result {
            Ok(Verdict::Sound) => continue,
            Ok(Verdict::Problems(problems)) => format!("problems: {problems}"),
            Ok(Verdict::Unsupported(why)) => format!("unsupported: {why}"),
            Ok(Verdict::Unsteady) => "unsteady".to_owned(),
            Err(alike) => format!("FAILED {alike}"),
        };
        others.entry(what).or_default().push(seed);
    }
    let count = |stem: &str| {
        others.iter().filter(|(what, _)| what.starts_with(stem)).map(|(_, seeds)| seeds.len()).sum::<usize>() as u64
    };
    for (what, seeds) in &others {
        println!("{} of {total}: {what} (seeds {:?})", seeds.len(), &seeds[..seeds.len().min(8)]);
    }
    assert_eq!(count("FAILED"), 0, "seeds that failed");
    assert!(count("problems") * 20 <= total, "the generator writes too many ill-typed specs");
    assert!(count("unsteady") * 20 <= total, "too many specs say nothing");
    assert!(count("unsupported") * 5 <= total, "too many specs are not supported");
}

/// Larger models are only checked and lowered.
const MOST_ELEMENTS: u64 = 50_000;

/// Whether a text is sound; `Err` where something panics on the way to its plan, or where the plan of a small model gives
/// other numbers.
fn sound(text: &str, seed: u64) -> Result<bool, String> {
    let lowered = catch_unwind(AssertUnwindSafe(|| {
        let Ok(module) = check(text) else { return (false, false) };
        let small = module.params.iter().map(moec_ir::Param::elements).sum::<u64>() <= MOST_ELEMENTS;
        let (fused, _) = moec_passes::run(module, &moec_passes::Options::default());
        if let Ok(plan) = moec_lower::lower(&fused) {
            moec_plan::verify(&plan).expect("lowering makes sound plans");
            return (true, small && plan.workspace_bytes().0 <= MOST_ELEMENTS);
        }
        (true, false)
    }));
    match lowered {
        Ok((true, true)) => match failure(text, seed) {
            // An index may be out of range now, which the oracle says.
            Err((_, alike)) if alike == "oracle" => Ok(true),
            Err((said, _)) => Err(said),
            Ok(_) => Ok(true),
        },
        Ok((sound, _)) => Ok(sound),
        Err(_) => Err("a panic".to_owned()),
    }
}

/// How many of some mistyped forms of a text are sound.
fn mistyped(text: &str, seed: u64, forms: usize) -> usize {
    let mut random = Random::new(seed ^ 0x77);
    let mut clean = 0;
    for _ in 0..forms {
        let mistyped = mutate::mutated(text, &mut random);
        match sound(&mistyped, seed) {
            Ok(sound) => clean += usize::from(sound),
            Err(said) => {
                let small = shrink::shrunk(&mistyped, |text| sound(text, seed).is_err().then(String::new));
                panic!("seed {seed}: {said}\n{small}");
            }
        }
    }
    clean
}

#[test]
fn mistyped_specs_are_refused_or_clean() {
    let (seeds, by_hand) = seeds();
    let forms = if by_hand { 6 } else { 2 };
    let clean = for_each(seeds, |seed| mistyped(&generate(seed), seed, forms));
    println!("{} mistyped specs are sound", clean.iter().map(|(_, clean)| clean).sum::<usize>());
}

#[test]
fn mistyped_examples_are_refused_or_clean() {
    let mut texts = Vec::new();
    for folder in ["catalogue", "families", "gates"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(folder);
        for entry in std::fs::read_dir(folder).expect("the examples are there") {
            let path = entry.expect("a readable folder").path();
            texts.push((path.clone(), std::fs::read_to_string(path).expect("a readable file")));
        }
    }
    texts.sort();
    let (seeds, by_hand) = seeds();
    let range = if by_hand { seeds } else { 0..texts.len() as u64 };
    for_each(range, |seed| mistyped(&texts[seed as usize % texts.len()].1, seed, 3));
}

/// Prints the specs of the seeds asked for.
#[test]
#[ignore = "to look at specs: MOEC_FUZZ_SEEDS=7..8 cargo test -p moec-lower --test random_specs -- --ignored --nocapture"]
fn specs() {
    if let Ok(path) = std::env::var("MOEC_FUZZ_SPEC") {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let module = check(&text).unwrap_or_else(|problems| panic!("{problems}"));
        println!("{}", moec_ir::print(&module));
        let (fused, _) = moec_passes::run(module, &moec_passes::Options::default());
        println!("{}", moec_ir::print(&fused));
        match moec_lower::lower(&fused) {
            Ok(plan) => println!("{plan}"),
            Err(error) => println!("{error}"),
        }
        println!("{:?}", (1..40).map(|seed| failure(&text, seed)).find(|found| *found != Ok(Verdict::Sound)));
        return;
    }
    for seed in seeds().0 {
        println!("{}", generate(seed));
    }
}
