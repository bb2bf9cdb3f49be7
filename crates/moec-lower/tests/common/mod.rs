//! What several tests of lowering set up.

#[path = "../../../../tests/from_oracle.rs"]
mod from_oracle;

use moec_diag::SourceMap;
use moec_ir::Module;
use moec_sema::Settings;

pub use from_oracle::FromOracle;

/// The model of a text without problems.
pub fn module(text: &str) -> Module {
    let mut sources = SourceMap::default();
    let (tree, problems) = moec_syntax::parse(&mut sources, "test.moe", text);
    assert!(problems.is_empty(), "{problems:?}");
    let (checked, problems) = moec_sema::check(&mut sources, &tree.expect("no problems"), &Settings::default());
    assert!(problems.is_empty(), "{problems:?}");
    checked.expect("no problems").module
}
