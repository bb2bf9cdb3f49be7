//! The domain models give the reference's choices and numbers, in one pass and in several: one of them, or with
//! `MOEC_CUDA_DOMAINS=all` each.

#[path = "../../../../tests/domains/domains.rs"]
mod reference;

use std::{cell::RefCell, env};

use moec_ir::{Input, Module};
use reference::Found;

use crate::{
    goldens::packed,
    host::{Level, Library, Session},
};

/// The model that runs here.
const USUAL: &str = "modern_decoder";

const ALL_VARIABLE: &str = "MOEC_CUDA_DOMAINS";

pub fn modules() -> Vec<(String, Module)> {
    let found = RefCell::new(Vec::new());
    reference::each(|case| {
        let name = case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        found.borrow_mut().push((format!("domain-{name}"), case.module()));
    });
    found.into_inner()
}

#[test]
fn domain_models_give_the_reference() {
    let all = env::var(ALL_VARIABLE).is_ok_and(|which| which == "all");
    let mut ran = RefCell::new(0);
    reference::each(|case| {
        if !all && !case.name.starts_with(USUAL) {
            return;
        }
        let module = case.module();
        let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
        let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let library = Library::new(&plan, Level::Shim);
        let weights = packed(&plan, &case.weights(&module));
        for passes in [vec![case.tokens], case.passes.clone()] {
            let mut session = Session::new(&plan, &weights, case.tokens as u64, case.tokens as u64, 1);
            let (mut found, mut first) = (Found::default(), 0);
            for tokens in &passes {
                let input = |input: &Input| case.input(&input.name, module.tensor(input.value), first, *tokens);
                let inputs = module.inputs.iter().map(input).collect();
                let outputs = session.run(&library, &inputs, *tokens as u64, 0);
                let routes = session.traced.drain(..).map(|traced| (traced.indices, traced.weights)).collect();
                case.extend(&mut found, Found { routes, outputs });
                first += tokens;
            }
            case.gave(&format!("passes of {passes:?}"), &found);
        }
        *ran.borrow_mut() += 1;
    });
    assert!(*ran.get_mut() > 0, "{USUAL} is there");
}
