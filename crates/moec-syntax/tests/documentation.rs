//! Every example of `docs/language.md` is read without a problem.

mod common;

use common::rendered;
use moec_diag::SourceMap;

#[test]
fn examples_of_the_language_reference_are_read() {
    let page = include_str!("../../../docs/language.md");
    let examples: Vec<&str> =
        page.split("```moe\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(examples.len() >= 9, "{} examples", examples.len());
    for example in examples {
        let mut sources = SourceMap::default();
        let (file, problems) = moec_syntax::parse(&mut sources, "language.md", example);
        assert!(problems.is_empty(), "{}", rendered(&sources, problems));
        assert_ne!(file, Some(Default::default()), "nothing in {example}");
    }
}
