//! Verse from a model compiled into this program: `MOEC=path/to/moec cargo run -- "JULIET." 200`
//!
//! The model's vocabulary is bytes, so its tokens need no tokenizer.

use std::{error::Error, io::Write};

include!(concat!(env!("OUT_DIR"), "/qwen3_moe.rs"));

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or("ROMEO.".into());
    let wanted: usize = arguments.next().map_or(Ok(200), |count| count.parse())?;

    let model = qwen3_moe::Model::open(env!("QWEN3_MOE_WEIGHTS"))?;
    let mut session = model.session(prompt.len() + wanted)?;

    // The prompt at once, then token by token: the session remembers what was before.
    let mut next: Vec<i32> = prompt.bytes().map(i32::from).collect();
    let mut logits = vec![0.0; qwen3_moe::VOCAB];
    let mut out = std::io::stdout().lock();
    write!(out, "{prompt}")?;
    for _ in 0..wanted {
        session.step(&next, &mut logits)?;
        let token = likeliest(&logits);
        out.write_all(&[token as u8])?;
        out.flush()?;
        next = vec![token as i32];
    }
    writeln!(out)?;
    Ok(())
}

fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).reduce(|best, at| if logits[at] > logits[best] { at } else { best }).unwrap_or(0)
}
