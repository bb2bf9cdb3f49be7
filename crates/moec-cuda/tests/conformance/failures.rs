//! What goes wrong on a device is an error that says what, nothing stays behind, and the process lives.

use std::ffi::{CString, c_char, c_int};

use moec_plan::{Layout, Rows, Source};
use moec_types::DType;

use crate::{
    build::{Building, arg, fixed, mul, row, rows, view},
    host::{Level, Library, Runtime, Session},
};

type Fail = unsafe extern "C" fn(*const c_char, c_int, c_int);
type Is = unsafe extern "C" fn(c_int);
type Live = unsafe extern "C" fn() -> c_int;

const OUT_OF_MEMORY: c_int = 2;
const LOST: c_int = 719;

impl Runtime {
    /// From its n-th time on, the driver's call gives this result.
    pub fn fails(&self, call: &str, after: c_int, result: c_int) {
        let call = CString::new(call).expect("a name");
        unsafe { self.double.get::<Fail>(b"double_fail").expect("the double's")(call.as_ptr(), after, result) }
    }

    fn live_blocks(&self) -> c_int {
        unsafe { self.double.get::<Live>(b"double_live_blocks").expect("the double's")() }
    }
}

fn scaled() -> Building {
    let mut b = Building::new(1);
    let x = b.input(DType::F32, Rows::Tokens, 8);
    let scale = b.param(Layout::Plain { elements: 8 }, DType::F32, 1, 1);
    let out = b.output(DType::F32, Rows::Tokens, 8);
    let args = vec![row(x, &[1]), view(Source::Param(scale), 0, &[1])];
    let (extents, expr, into) = (fixed(&[8]), mul(arg(0), arg(1)), row(out, &[1]));
    b.step(rows(Rows::Tokens, vec![moec_plan::RowOp::Map { extents, expr, args, into }]));
    b
}

#[test]
fn failures_are_errors_and_leave_nothing() {
    let mut b = scaled();
    let inputs = vec![b.values(16)];
    let library = Library::new(&b.plan, Level::Shim);
    let runtime = Runtime::take();
    let before = runtime.live_blocks();
    let attempt = |library: &Library| {
        let mut session = Session::new(&b.plan, &b.weights, 2, 16, 1);
        let given = session.run_on(&runtime, library, &inputs, 2, 0).map(|outputs| outputs.len());
        session.close(&runtime);
        assert_eq!(runtime.live_blocks(), before, "memory stays behind");
        given
    };
    // Every allocation, then every copy, launch and wait.
    for (call, result, word) in [
        ("cuMemAlloc_v2", OUT_OF_MEMORY, "out of memory"),
        ("cuMemcpyHtoDAsync_v2", LOST, "as the test asked"),
        ("cuMemcpyDtoHAsync_v2", LOST, "as the test asked"),
        ("cuLaunchKernel", LOST, "as the test asked"),
        ("cuStreamSynchronize", LOST, "as the test asked"),
        ("cuModuleGetFunction", 500, "as the test asked"),
        ("cuStreamCreate", LOST, "as the test asked"),
        ("cuDevicePrimaryCtxRetain", LOST, "as the test asked"),
        ("cuInit", 100, "as the test asked"),
    ] {
        let failed = (0..20).take_while(|after| {
            runtime.fails(call, *after, result);
            let given = attempt(&library);
            assert!(given.as_ref().err().is_none_or(|message| message.contains(word)), "{call}: {given:?}");
            given.is_err()
        });
        let failed = failed.count();
        assert!((1..20).contains(&failed), "{call} comes {failed} times");
    }
    runtime.fails("", 0, 0);

    let is = |major| unsafe { runtime.double.get::<Is>(b"double_is").expect("the double's")(major) };
    is(7);
    let other_part = attempt(&library).expect_err("kernels of another part");
    assert!(other_part.contains("compute capability 7.0"), "{other_part}");
    is(9);

    // The header's words.
    for (at, value) in (0..10).flat_map(|at| [(at, u64::MAX), (at, 1 << 62), (at, 1 << 20)]) {
        // Scratch of a mebibyte, and another offset of code for other parts, are nothing bad.
        if (at, value) == (6, 1 << 20) {
            continue;
        }
        let mut spoiled = library.copy();
        spoiled.image[at] = value;
        let message = attempt(&spoiled).expect_err("a corrupt image");
        assert!(message.contains("corrupt") || message.contains("could not"), "{at}: {message}");
    }
    let mut no_code = library.copy();
    let code = no_code.image[7] as usize / 8;
    no_code.image[code] = 0;
    let message = attempt(&no_code).expect_err("no code");
    assert!(message.contains("could not load the model's kernels: device kernel image is invalid"), "{message}");
    attempt(&library).expect("all is well again");
}
