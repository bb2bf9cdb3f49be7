//! The ways in which a step can be made, each for all rows of its tests whatever the run time would choose; passes of several
//! sessions; and passes that are launched again as graphs.

use std::ffi::{CStr, c_char, c_int};

use moec_cuda::Ways;
use moec_interpreter::Machine;
use moec_plan::{Format, Gemm, Layout, Rows, Source, StepKind};
use moec_types::DType;

use crate::{
    PassInput,
    attention::{Heads, attention, input_sizes},
    build::{Building, add, arg, view},
    compare,
    grouped::{Sizes, bank},
    host::{Arrays, Library, Runtime, Session, together, together_on},
};

type Count = unsafe extern "C" fn() -> c_int;
type Name = unsafe extern "C" fn() -> *const c_char;

impl Runtime {
    fn count(&self, of: &[u8]) -> c_int {
        unsafe { self.double.get::<Count>(of).expect("the double's")() }
    }

    fn last_launched(&self) -> String {
        let name = unsafe { self.double.get::<Name>(b"double_last_launched").expect("the double's")() };
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

/// Every way gives what the interpreter gives; left to the run time, the passes end with these kernels.
fn check_ways(building: &Building, passes: &[PassInput], ways: u64, tolerance: f64, kernels: &[&str]) {
    let plan = &building.plan;
    moec_plan::verify(plan).unwrap_or_else(|error| panic!("{error}"));
    let chunk = passes.iter().map(|pass| pass.tokens).max().expect("a pass");
    let capacity = passes.iter().map(|pass| pass.tokens).sum();
    let library = Library::of(plan, Ways::All);
    assert_eq!(library.ways(), ways);
    let mut machine = Machine::new(plan, building, chunk, capacity);
    let run = |pass: &PassInput| machine.run(pass.inputs.clone(), pass.tokens, pass.first_output).outputs;
    let expected: Vec<Arrays> = passes.iter().map(run).collect();
    for way in 0..ways {
        let library = library.in_way(way);
        let mut session = Session::new(plan, &building.weights, chunk, capacity, 1);
        for (at, (pass, expected)) in passes.iter().zip(&expected).enumerate() {
            let found = session.run(&library, &pass.inputs, pass.tokens, pass.first_output);
            for (output, (found, expected)) in found.iter().zip(expected).enumerate() {
                compare(found, expected, tolerance, &format!("way {way}, pass {at}, output {output}"));
            }
        }
    }
    let runtime = Runtime::take();
    let mut session = Session::new(plan, &building.weights, chunk, capacity, 1);
    let run = |pass: &PassInput| {
        session.run_on(&runtime, &library, &pass.inputs, pass.tokens, pass.first_output).expect("a pass");
        runtime.last_launched()
    };
    let launched: Vec<String> = passes.iter().map(run).collect();
    session.close(&runtime);
    drop(runtime);
    assert_eq!(launched, kernels);
}

/// One expert has most rows, one none; some choices are of no expert.
#[test]
fn experts_in_every_way() {
    // As in `experts_in_packed_formats`.
    let tolerance = 3e-2;
    for (storage, width, ways) in [(Format::Pairs, 256, 4), (Format::Int4 { group: 32 }, 64, 2)] {
        let mut b = bank(Sizes { experts: 3, choices: 2, width, hidden: 256, storage }, 3);
        let mut pass = |tokens: u64| {
            let indices = (0..2 * tokens).map(|at| [0.0, 2.0, 0.0, 0.0, -1.0][at as usize % 5]).collect();
            PassInput { tokens, first_output: 0, inputs: vec![b.values(tokens * width), indices, b.values(2 * tokens)] }
        };
        let passes = [pass(1), pass(70)];
        let second = if ways == 4 { "grouped_gemm_2_2_0" } else { "grouped_gemm_2" };
        check_ways(&b, &passes, ways, tolerance, &["grouped_gemm_2_0_0", second]);
    }
}

#[test]
fn a_matrix_in_every_way() {
    let (k, n) = (264, 250);
    let mut b = Building::new(3);
    let x = b.input(DType::F32, Rows::Tokens, k);
    let weights = b.param(Layout::Panels { k, n, branches: 1 }, Format::Pairs, 1, 1);
    let bias = b.param(Layout::Plain { elements: n }, DType::F32, 1, 1);
    let out = b.output(DType::F32, Rows::Tokens, n);
    let extras = vec![view(Source::Param(bias), 0, &[1])];
    let epilogue = add(arg(0), arg(1));
    b.step(StepKind::Gemm(Gemm { rows: Rows::Outputs, batch: 1, a: x, weights, epilogue, extras, out, group: None }));
    let mut pass = |tokens, first_output| PassInput { tokens, first_output, inputs: vec![b.values(tokens * k)] };
    let passes = [pass(3, 1), pass(140, 0)];
    check_ways(&b, &passes, 3, 6e-5, &["gemm_0_0_0", "gemm_0_1_0"]);
}

/// Keys of three pages and of one.
#[test]
fn attention_in_every_way() {
    let heads = attended(DType::F32);
    let mut b = attention(&heads);
    let mut pass = |tokens: u64, first_output| {
        let inputs = input_sizes(&heads).map(|size| b.values(tokens * size)).to_vec();
        PassInput { tokens, first_output, inputs }
    };
    let passes = [pass(37, 30), pass(290, 220), pass(1, 0)];
    check_ways(&b, &passes, 3, 2e-5, &["attention_1_0_1", "attention_1", "attention_1_0_1"]);
}

fn attended(storage: DType) -> Heads {
    Heads { groups: 2, queries: 3, width: 20, values: 20, storage, causal: true, window: None, sink: true }
}

/// What each of three sessions is given in each pass, and what it gets: alone, and with the others.
struct Stepping {
    heads: Heads,
    building: Building,
    /// By session: its positions of each pass.
    tokens: [Vec<u64>; 3],
}

impl Stepping {
    fn new(tokens: [Vec<u64>; 3]) -> Self {
        let heads = attended(DType::Bf16);
        Stepping { building: attention(&heads), heads, tokens }
    }

    /// By session and pass.
    fn inputs(&mut self) -> Vec<Vec<(Arrays, u64)>> {
        let Stepping { heads, building, tokens } = self;
        let mut pass = |tokens: &u64| (input_sizes(heads).map(|size| building.values(tokens * size)).to_vec(), *tokens);
        tokens.iter().map(|passes| passes.iter().map(&mut pass).collect()).collect()
    }

    fn session(&self) -> Session<'_> {
        let mut session = Session::new(&self.building.plan, &self.building.weights, 300, 512, 1);
        session.observed = false;
        session
    }
}

/// In every way, what a session gets does not depend on where the others are.
#[test]
fn a_session_gets_the_same_bits_with_others() {
    let mut stepping = Stepping::new([vec![130, 1, 1], vec![7, 3, 1], vec![1, 120, 30]]);
    let inputs = stepping.inputs();
    let library = Library::of(&stepping.building.plan, Ways::All);
    for way in 1..library.ways() {
        let library = library.in_way(way);
        let alone: Vec<Vec<Arrays>> = inputs
            .iter()
            .map(|passes| {
                let mut session = stepping.session();
                passes.iter().map(|(inputs, tokens)| session.run(&library, inputs, *tokens, 0)).collect()
            })
            .collect();
        let mut sessions = [(); 3].map(|()| stepping.session());
        for at in 0..3 {
            let given: Vec<(Arrays, u64)> = inputs.iter().map(|passes| passes[at].clone()).collect();
            let mut all: Vec<&mut Session> = sessions.iter_mut().collect();
            for (number, found) in together(&library, &mut all, &given, 0).iter().enumerate() {
                assert_eq!(format!("{found:?}"), format!("{:?}", alone[number][at]), "way {way}, session {number}");
            }
        }
    }
}

/// Sessions that decode together get the same bits from graphs as from launches, and where the driver refuses to capture.
#[test]
fn graphs_are_what_launches_are() {
    let mut stepping = Stepping::new([vec![1; 6], vec![1; 6], vec![1; 6]]);
    let inputs = stepping.inputs();
    let library = Library::of(&stepping.building.plan, Ways::All);
    let runtime = Runtime::take();
    let before = runtime.count(b"double_launched_graphs");
    let run = |observed: bool| {
        let mut sessions = [(); 3].map(|()| stepping.session());
        sessions[0].observed = observed;
        let mut found = Vec::new();
        for at in 0..6 {
            let given: Vec<(Arrays, u64)> = inputs.iter().map(|passes| passes[at].clone()).collect();
            let mut all: Vec<&mut Session> = sessions.iter_mut().collect();
            found.push(together_on(&runtime, &library, &mut all, &given, 0).expect("a pass"));
        }
        sessions.iter_mut().for_each(|session| session.close(&runtime));
        format!("{found:?}")
    };
    let launched = run(true);
    assert_eq!(runtime.count(b"double_launched_graphs"), before);
    assert_eq!(run(false), launched);
    // Noted, captured, and from then on launched again.
    assert_eq!(runtime.count(b"double_launched_graphs"), before + 5);
    for refused in ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"] {
        runtime.fails(refused, 0, 900);
        assert_eq!(run(false), launched, "{refused}");
    }
    runtime.fails("", 0, 0);
    assert_eq!(runtime.count(b"double_launched_graphs"), before + 5);
    assert_eq!(runtime.count(b"double_live_graphs"), 0);
}
