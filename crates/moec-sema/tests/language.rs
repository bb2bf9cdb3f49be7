//! Every example of `docs/language.md` is sound. One that is a part of something stands after a comment of the page's source,
//! `<!-- checked with … -->`, which has the rest of the file.

mod common;

use common::{problems_of, rendered};
use moec_sema::{Also, Settings};

#[test]
fn examples_of_the_language_reference_are_sound() {
    let page = include_str!("../../../docs/language.md");
    let mut wrong = Vec::new();
    let pieces: Vec<&str> = page.split("```").collect();
    let examples: Vec<(&str, &str)> =
        pieces.windows(2).step_by(2).filter_map(|pair| Some((pair[0], pair[1].strip_prefix("moe\n")?))).collect();
    assert!(examples.len() >= 15, "{} examples", examples.len());
    let everything = Settings { also: Also { aux: true, trace: true, state: true }, ..Settings::default() };
    for (before, example) in examples {
        let rest = before.trim_end().strip_suffix("-->").and_then(|before| before.rsplit_once("<!-- checked with\n"));
        let text = format!("{example}\n{}", rest.map_or("", |(_, rest)| rest));
        for settings in [Settings::default(), everything.clone()] {
            let (sources, problems) = problems_of("language.md", &text, &settings);
            if !problems.is_empty() {
                wrong.push(rendered(&sources, problems));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
