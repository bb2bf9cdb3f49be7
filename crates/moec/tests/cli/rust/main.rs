//! Classifies the images of `images.f32` by the crate of a build, and prints the scores' bits, once all else holds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use images::{ErrorKind, Inputs, Level, Model, Options, Outputs, Session};

fn shared_between_threads<T: Send + Sync>() {}

fn main() {
    shared_between_threads::<Model>();
    shared_between_threads::<Session>();
    let floats = std::fs::read("images.f32").expect("there");
    let image: Vec<f32> = floats.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    let inputs = Inputs { image: &image };

    let missing = Model::open("nowhere.weights").expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(missing.to_string().contains("nowhere.weights"), "{missing}");

    let model = Model::open_with("build/images.weights", Options { threads: 2, ..Options::default() }).expect("opens");
    assert_eq!(model.threads(), 2);
    let half = model.run(&Inputs { image: &image[1..] }).expect_err("no whole image");
    assert_eq!(half.kind(), ErrorKind::BadArgument);
    assert!(half.to_string().contains("`image`"), "{half}");

    let mut session = model.session(image.len() / 784).expect("fits");
    let at_once = model.run(&inputs).expect("runs");
    // What a session needs of the model stays until it goes.
    drop(model);
    assert_eq!(session.run(&inputs).expect("runs"), at_once);
    assert_eq!(session.run(&inputs).expect_err("it is full").kind(), ErrorKind::ContextOverrun);

    let mut seen = Vec::new();
    let mut traced = Outputs::default();
    session.reset();
    session.run_traced(&inputs, &mut traced, |routed| seen.push((routed.rank, routed.indices.len()))).expect("runs");
    assert_eq!(traced, at_once);
    assert_eq!(seen.len(), 2, "a route in each of two layers: {seen:?}");
    assert!(seen.iter().all(|(_, indices)| *indices == image.len() / 784 * 2), "{seen:?}");

    session.reset();
    let told = catch_unwind(AssertUnwindSafe(|| session.run_traced(&inputs, &mut traced, |_| panic!("told"))));
    assert_eq!(told.expect_err("the panic comes through").downcast_ref::<&str>(), Some(&"told"));
    assert_eq!(session.position(), image.len() / 784);

    let scalar = Options { level: Level::Scalar, ..Options::default() };
    assert_eq!(Model::open_with("build/images.weights", scalar).expect("opens").level(), "scalar");
    let bits: Vec<String> = at_once.scores.iter().map(|score| format!("{:08x}", score.to_bits())).collect();
    println!("{}", bits.join(" "));
}
