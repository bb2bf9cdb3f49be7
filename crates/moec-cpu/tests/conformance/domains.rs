//! The domain models, compiled, give the reference's choices and numbers on the best level, in one pass and in several.

#[path = "../../../../tests/domains/domains.rs"]
mod reference;

use moec_ir::Input;
use reference::Found;

use crate::{
    goldens::packed,
    host::{Library, Session, levels},
};

#[test]
fn compiled_models_give_the_reference() {
    let level = *levels().last().expect("one runs everywhere");
    reference::each(|case| {
        let module = case.module();
        let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
        let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let library = Library::new(&plan, level);
        let weights = packed(&plan, &case.weights(&module));
        let (chunk, capacity) = (case.tokens as u64, case.tokens.next_multiple_of(16) as u64);
        for (threads, passes) in [(1, vec![case.tokens]), (3, case.passes.clone())] {
            let mut session = Session::new(&plan, &weights, chunk, capacity, threads);
            let (mut all, mut first) = (Found::default(), 0);
            for tokens in &passes {
                let input = |input: &Input| case.input(&input.name, module.tensor(input.value), first, *tokens);
                let inputs = module.inputs.iter().map(input).collect();
                let outputs = session.run(&library, &inputs, *tokens as u64, 0);
                let routes = session.traced.drain(..).map(|traced| (traced.indices, traced.weights)).collect();
                case.extend(&mut all, Found { routes, outputs });
                first += tokens;
            }
            case.gave(&format!("{level:?}, {threads} threads, passes of {passes:?}"), &all);
        }
    });
}
