//! Sessions of `bard` that step together, forks of them, and a budget for their caches; prints what was said.

use bard::{ErrorKind, Model, Options, Session, Turn, VOCAB};

const NEW: usize = 12;

fn likeliest(logits: &[f32]) -> i32 {
    (0..logits.len()).reduce(|best, at| if logits[at] > logits[best] { at } else { best }).expect("a vocabulary") as i32
}

fn main() {
    let model = Model::open("build/bard.weights").expect("opens");
    let prompts = ["JULIET.", "But soft, what light through yonder window", "K"];
    let mut next: Vec<Vec<i32>> = prompts.iter().map(|prompt| prompt.bytes().map(i32::from).collect()).collect();
    let mut sessions: Vec<Session> = prompts.iter().map(|_| model.session(64).expect("fits")).collect();
    let mut said = vec![String::new(); prompts.len()];
    for _ in 0..NEW {
        let mut logits = vec![0.0; prompts.len() * VOCAB];
        let rows = sessions.iter_mut().zip(&next).zip(logits.chunks_mut(VOCAB));
        let mut turns: Vec<Turn> =
            rows.map(|((session, ids), logits)| Turn { session, ids, logits: Some(logits) }).collect();
        model.step_together(&mut turns).expect("steps");
        for ((row, next), said) in logits.chunks(VOCAB).zip(&mut next).zip(&mut said) {
            *next = vec![likeliest(row)];
            said.push(char::from(next[0] as u8));
        }
    }
    said.iter().for_each(|text| println!("{text:?}"));

    // A fork goes on as who was given the same; what is shared is there once.
    let before = model.cache_bytes();
    let mut fork = sessions[1].fork(9).expect("earlier");
    assert_eq!((fork.position(), model.cache_bytes()), (9, before));
    let (mut again, mut alone) = (vec![0.0; VOCAB], vec![0.0; VOCAB]);
    let ids: Vec<i32> = prompts[1].bytes().map(i32::from).collect();
    fork.step(&ids[9..], &mut again).expect("steps");
    let mut whole = model.session(64).expect("fits");
    whole.step(&ids[..9], &mut alone).and_then(|()| whole.step(&ids[9..], &mut alone)).expect("steps");
    assert_eq!(again, alone);
    assert_eq!(sessions[1].fork(99).expect_err("later").kind(), ErrorKind::BadArgument);

    let mut short = vec![0.0; VOCAB - 1];
    let turn = Turn { session: &mut fork, ids: &[1], logits: Some(&mut short) };
    assert_eq!(model.step_together(&mut [turn]).expect_err("no room").kind(), ErrorKind::BadArgument);
    let other = Model::open_with("build/bard.weights", Options { cache_mib: 1, ..Options::default() }).expect("opens");
    let turn = Turn { session: &mut fork, ids: &[1], logits: None };
    assert_eq!(other.step_together(&mut [turn]).expect_err("of another").kind(), ErrorKind::BadArgument);
    let mut many = Vec::new();
    let full = loop {
        let mut session = other.session(64).expect("nothing is taken yet");
        let turn = Turn { session: &mut session, ids: &[1], logits: None };
        if let Err(error) = other.step_together(&mut [turn]) {
            break error;
        }
        many.push(session);
    };
    assert_eq!(full.kind(), ErrorKind::CacheFull);
    assert!(!many.is_empty() && other.cache_bytes() <= 1 << 20);
}
