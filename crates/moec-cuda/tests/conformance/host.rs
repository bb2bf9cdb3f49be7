//! Prints a plan's kernels, compiles them for this machine's CPU, and runs passes of them by the run time's device code on a
//! stand-in for the driver (tests/driver/libcuda.c).

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    path::{Path, PathBuf},
    process::Command,
    ptr,
    rc::Rc,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use moec_codegen::{PortRows, port_rows};
use moec_cuda::{Program, Ways, image, program_in};
use moec_plan::{PAGE, Plan, Port, Rows};

use crate::memory::{Memory, output_room, packed, read_ports, write_ports};

/// `moec_segment` of kernels/runtime/moec_pass.h.
#[repr(C)]
struct Segment {
    first: i64,
    tokens: i64,
    past: i64,
    states: *mut c_void,
    pages: *const *mut u8,
    pasts: *const i64,
    session: *const c_void,
}

/// `moec_pass`, likewise.
#[repr(C)]
struct Pass {
    tokens: i64,
    first_output: i64,
    chunk: i64,
    workspace: *mut c_void,
    weights: *const c_void,
    inputs: *const *mut u8,
    outputs: *const *mut u8,
    scratch: *mut c_void,
    scratch_bytes: i64,
    team: *mut c_void,
    trace: Option<extern "C" fn(*mut c_void, i32, i32, *const i32, *const f32, i64, i64)>,
    trace_user: *mut c_void,
    positions: *const i64,
    pages: *const *const *mut u8,
    segments: *const Segment,
    segment_count: i64,
}

/// `moec_port` of kernels/runtime/moec_model.h.
#[repr(C)]
struct DescribedPort {
    name: *const c_char,
    axes: *const c_void,
    row_elements: i64,
    row_bytes: i64,
    index_limit: i64,
    axis_count: i32,
    dtype: i32,
    rows: i32,
    sequence: i32,
}

/// `moec_description`, likewise.
#[repr(C)]
struct Description {
    name: *const c_char,
    version: *const c_char,
    fingerprint: u64,
    weight_bytes: i64,
    workspace_bytes_per_token: i64,
    workspace_bytes_fixed: i64,
    cache_bytes_per_position: i64,
    state_bytes: i64,
    scratch_bytes: i64,
    least_tokens: [i64; 4],
    levels: *const c_void,
    inputs: *const DescribedPort,
    outputs: *const DescribedPort,
    level_count: i32,
    input_count: i32,
    output_count: i32,
    whole_pass: i32,
    sequence_count: i32,
    row_bits: i32,
    device: *const c_void,
}

type Error = *mut c_void;
type Open =
    unsafe extern "C" fn(*const Description, *const u8, usize, *const u8, *mut *mut c_void, *mut Error) -> c_int;
type RoomNew = unsafe extern "C" fn(*mut c_void, i64, *mut *mut c_void, *mut Error) -> c_int;
type Take = unsafe extern "C" fn(*mut c_void, usize) -> *mut u8;
type Give = unsafe extern "C" fn(*mut c_void, *mut u8);
type Run = unsafe extern "C" fn(*mut c_void, i32, *const Pass, *mut Error) -> c_int;
type Free = unsafe extern "C" fn(*mut c_void);
type Message = unsafe extern "C" fn(Error) -> *const c_char;

/// The run time's device code and the driver's double, one at a time.
pub struct Runtime {
    library: libloading::Library,
    pub double: libloading::Library,
}

impl Runtime {
    pub fn take() -> MutexGuard<'static, Runtime> {
        static RUNTIME: OnceLock<Mutex<Runtime>> = OnceLock::new();
        RUNTIME.get_or_init(|| Mutex::new(Runtime::new())).lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new() -> Runtime {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().expect("a folder").keep();
        let compile = |made: &str, sources: &[&str], options: &[&str]| -> PathBuf {
            let made = folder.join(made);
            let mut cc = Command::new("cc");
            cc.args(["-std=gnu11", "-O1", "-fPIC", "-shared"]).args(options).arg("-o").arg(&made);
            cc.args(sources.iter().map(|source| root.join(source))).arg("-ldl");
            assert!(cc.status().expect("a C compiler").success());
            made
        };
        let double = compile("libcuda.so.1", &["tests/driver/libcuda.c"], &["-Wl,-soname,libcuda.so.1"]);
        let sources = ["cuda/cuda.c", "cuda/cuda_run.c", "error.c"].map(|name| format!("../../kernels/runtime/{name}"));
        let sources = sources.each_ref().map(String::as_str);
        let runtime = compile("runtime.so", &sources, &[]);
        // Who asks for libcuda.so.1 gets what is loaded under that name.
        let [double, library] =
            [double, runtime].map(|path| unsafe { libloading::Library::new(path) }.expect("a library"));
        Runtime { library, double }
    }

    fn call<T>(&self, name: &str) -> libloading::Symbol<'_, T> {
        unsafe { self.library.get(name.as_bytes()) }.expect("a function of the run time")
    }

    fn message(&self, error: Error) -> String {
        unsafe {
            let text = CStr::from_ptr(self.call::<Message>("moec_error_message")(error)).to_string_lossy().into_owned();
            self.call::<Free>("moec_error_free")(error);
            text
        }
    }
}

/// Where the text runs: here, on the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Shim,
}

/// What tests that are shared with the CPU backend run on.
pub fn levels() -> Vec<Level> {
    vec![Level::Shim]
}

/// One bin's choices.
#[derive(Debug, PartialEq)]
pub struct Traced {
    pub route: i32,
    pub rank: i32,
    pub indices: Vec<i32>,
    pub weights: Vec<f32>,
}

/// A plan's kernels, compiled, in an image whose code is where they lie.
pub struct Library {
    pub image: Vec<u64>,
    _folder: Rc<tempfile::TempDir>,
}

impl Library {
    /// The most ways that a step can be made in.
    pub fn ways(&self) -> u64 {
        self.launches().map(|launch| self.image[launch + 7]).max().unwrap_or(1)
    }

    /// The same, but that every step is made in this one of its ways, or in its last.
    pub fn in_way(&self, wanted: u64) -> Library {
        let mut made = self.copy();
        let first = 10 + 2 * self.image[2] as usize;
        for launch in self.launches() {
            let (way, count) = (self.image[launch + 6], self.image[launch + 7]);
            for at in 0..count {
                let least = if at == wanted { 0 } else { i64::MAX as u64 };
                let word = first + 5 * (way + at) as usize;
                made.image[word..word + 3].copy_from_slice(&[least, i64::MAX as u64, 0]);
            }
        }
        made
    }

    /// Where the words of each launch are (crates/moec-cuda/src/image.rs).
    fn launches(&self) -> impl Iterator<Item = usize> {
        let first = 10 + 2 * self.image[2] as usize + 5 * self.image[3] as usize;
        (0..self.image[4] as usize).map(move |launch| first + 16 * launch)
    }

    /// The same, to be spoiled.
    pub fn copy(&self) -> Library {
        Library { image: self.image.clone(), _folder: self._folder.clone() }
    }

    /// With the way for any rows of each step; others have tests of their own, since compiling is what tests take long for.
    pub fn new(plan: &Plan, _: Level) -> Library {
        Library::of(plan, Ways::Last)
    }

    pub fn of(plan: &Plan, ways: Ways) -> Library {
        let program = program_in(plan, ways).expect("a supported plan");
        let folder = tempfile::tempdir().expect("a folder");
        let [text, library] = ["plan.cpp", "plan.so"].map(|name| folder.path().join(name));
        std::fs::write(&text, &program.text).expect("written");
        let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/cuda/tests/shim.h");
        // Libraries of several plans are there at once: what is inline in all is each one's own.
        let compiled = Command::new("c++")
            .args(["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-fno-gnu-unique", "-x", "c++", "-include"])
            .arg(shim)
            .arg(&text)
            .arg("-o")
            .arg(&library)
            .output()
            .expect("a C++ compiler");
        let problems = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{problems}\n{}", printed(&program));
        let path = library.to_str().expect("a plain path");
        let image = image(plan, &program, path.as_bytes(), None);
        let words = image.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
        Library { image: words.collect(), _folder: Rc::new(folder) }
    }
}

/// The part of the text that is this plan's own.
fn printed(program: &Program) -> &str {
    program.text.split("using namespace moec;").nth(1).unwrap_or(&program.text)
}

/// A session: memory that lasts over passes. It is opened by its first pass.
pub struct Session<'a> {
    plan: &'a Plan,
    chunk: u64,
    capacity: u64,
    pasts: Vec<i64>,
    weights: Memory,
    inputs: Vec<DescribedPort>,
    outputs: Vec<DescribedPort>,
    description: Option<Box<Description>>,
    opened: Option<Opened>,
    pub traced: Vec<Traced>,
    /// Whether its passes are traced; such are never captured.
    pub observed: bool,
}

/// A model on its device, what passes need there, and what the session has there.
#[derive(Clone)]
struct Opened {
    device: *mut c_void,
    room: *mut c_void,
    states: *mut u8,
    pages: Vec<*mut u8>,
}

/// Random specs whose sessions step together.
pub const SPECS_TOGETHER: u32 = 3;

/// What a pass takes and gives: one row-major array for each input or output.
pub type Arrays = Vec<Vec<f64>>;

extern "C" fn trace(
    user: *mut c_void,
    route: i32,
    rank: i32,
    indices: *const i32,
    weights: *const f32,
    tokens: i64,
    choices: i64,
) {
    let calls = unsafe { &mut *(user as *mut Vec<Traced>) };
    let count = (tokens * choices) as usize;
    let (indices, weights) =
        unsafe { (std::slice::from_raw_parts(indices, count), std::slice::from_raw_parts(weights, count)) };
    calls.push(Traced { route, rank, indices: indices.to_vec(), weights: weights.to_vec() });
}

fn described(plan: &Plan, port: &Port) -> DescribedPort {
    let buffer = plan.buffer(port.buffer);
    // Rows of the port in each of those that the run time counts.
    let each = match buffer.rows {
        Rows::Fixed(rows) => rows,
        Rows::Slots { choices } => choices,
        Rows::Tokens | Rows::Outputs | Rows::Share(_) | Rows::Positions => 1,
    };
    DescribedPort {
        name: ptr::null(),
        axes: ptr::null(),
        row_elements: buffer.row as i64,
        row_bytes: buffer.row_bytes() as i64 * each as i64,
        index_limit: -1,
        axis_count: 0,
        dtype: 0,
        rows: port_rows(plan, port).unwrap_or(PortRows::Tokens) as i32,
        sequence: port.sequence as i32,
    }
}

impl<'a> Session<'a> {
    /// Tests that are shared say how many threads there are, which is nothing to a device.
    pub fn new(plan: &'a Plan, weights: &[Vec<f64>], chunk: u64, capacity: u64, _threads: usize) -> Session<'a> {
        let ports = |ports: &[Port]| ports.iter().map(|port| described(plan, port)).collect();
        Session {
            plan,
            chunk,
            capacity: capacity.next_multiple_of(16),
            pasts: vec![0; plan.passes().count()],
            weights: packed(plan, weights),
            inputs: ports(&plan.inputs),
            outputs: ports(&plan.outputs),
            description: None,
            opened: None,
            traced: Vec::new(),
            observed: true,
        }
    }

    /// Opens the model and a session; the run time's message where it cannot.
    fn open(&mut self, runtime: &Runtime, library: &Library) -> Result<Opened, String> {
        if let Some(opened) = &self.opened {
            return Ok(opened.clone());
        }
        let (plan, (per_token, fixed)) = (self.plan, self.plan.workspace_bytes());
        let description = self.description.insert(Box::new(Description {
            name: ptr::null(),
            version: ptr::null(),
            fingerprint: 0,
            weight_bytes: plan.weight_bytes() as i64,
            workspace_bytes_per_token: per_token as i64,
            workspace_bytes_fixed: fixed as i64,
            cache_bytes_per_position: plan.cache_bytes_per_position() as i64,
            state_bytes: plan.state_bytes() as i64,
            scratch_bytes: 0,
            least_tokens: [1; 4],
            levels: ptr::null(),
            inputs: self.inputs.as_ptr(),
            outputs: self.outputs.as_ptr(),
            level_count: 0,
            input_count: self.inputs.len() as i32,
            output_count: self.outputs.len() as i32,
            whole_pass: 1,
            sequence_count: self.pasts.len() as i32,
            row_bits: 24,
            device: ptr::null(),
        }));
        let (mut device, mut room, mut error) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        unsafe {
            let bytes = (library.image.as_ptr().cast(), library.image.len() * 8);
            let open = runtime.call::<Open>("moec_cuda_open");
            if open(&**description, bytes.0, bytes.1, self.weights.pointer(), &mut device, &mut error) != 0 {
                return Err(runtime.message(error));
            }
            let new = runtime.call::<RoomNew>("moec_cuda_room_new");
            if new(device, self.chunk as i64, &mut room, &mut error) != 0 {
                runtime.call::<Free>("moec_cuda_close")(device);
                return Err(runtime.message(error));
            }
            let take = |bytes: u64| runtime.call::<Take>("moec_cuda_take")(device, bytes as usize);
            let pages = (0..self.capacity.div_ceil(PAGE)).map(|_| take(plan.cache_bytes_per_position() * PAGE));
            let opened = Opened { device, room, states: take(plan.state_bytes()), pages: pages.collect() };
            let all = opened.pages.iter().chain([&opened.states]).all(|at| !at.is_null());
            self.opened = Some(opened.clone());
            if !all {
                self.close(runtime);
                return Err("out of memory".to_owned());
            }
            Ok(opened)
        }
    }

    /// Gives everything back to the driver.
    pub fn close(&mut self, runtime: &Runtime) {
        let Some(Opened { device, room, states, pages }) = self.opened.take() else { return };
        unsafe {
            pages.iter().chain([&states]).for_each(|at| runtime.call::<Give>("moec_cuda_give")(device, *at));
            runtime.call::<Free>("moec_cuda_room_free")(room);
            runtime.call::<Free>("moec_cuda_close")(device);
        }
    }

    /// A pass over `tokens` positions; outputs have rows of all tokens, poisoned before `first_output`.
    pub fn run(&mut self, library: &Library, inputs: &Arrays, tokens: u64, first_output: u64) -> Arrays {
        let runtime = Runtime::take();
        self.run_on(&runtime, library, inputs, tokens, first_output).unwrap_or_else(|message| panic!("{message}"))
    }

    /// The same; the run time's message where it fails.
    pub fn run_on(
        &mut self,
        runtime: &Runtime,
        library: &Library,
        inputs: &Arrays,
        tokens: u64,
        first_output: u64,
    ) -> Result<Arrays, String> {
        let mut found = together_on(runtime, library, &mut [self], &[(inputs.clone(), tokens)], first_output)?;
        Ok(found.pop().expect("one session's"))
    }
}

/// One pass over new positions of several sessions of a plan, each with its inputs and how many they are; what each would get
/// alone. The first lends its model, its room and its trace: pages and states are anywhere on the device.
pub fn together(
    library: &Library,
    sessions: &mut [&mut Session],
    given: &[(Arrays, u64)],
    first_output: u64,
) -> Vec<Arrays> {
    let runtime = Runtime::take();
    together_on(&runtime, library, sessions, given, first_output).unwrap_or_else(|message| panic!("{message}"))
}

pub fn together_on(
    runtime: &Runtime,
    library: &Library,
    sessions: &mut [&mut Session],
    given: &[(Arrays, u64)],
    first_output: u64,
) -> Result<Vec<Arrays>, String> {
    let plan = sessions[0].plan;
    let opened = sessions.iter_mut().map(|session| session.open(runtime, library)).collect::<Result<Vec<_>, _>>()?;
    let tokens: u64 = given.iter().map(|(_, tokens)| tokens).sum();
    let joined = |number: usize| given.iter().flat_map(|(inputs, _)| inputs[number].iter().copied()).collect();
    let inputs: Vec<Vec<f64>> = (0..plan.inputs.len()).map(joined).collect();
    let mut input_memory = write_ports(plan, &inputs, tokens);
    let mut output_memory = output_room(plan, tokens);
    let input_pointers: Vec<*mut u8> = input_memory.iter_mut().map(Memory::pointer).collect();
    let output_pointers: Vec<*mut u8> = output_memory.iter_mut().map(Memory::pointer).collect();
    let (mut positions, mut segments): (Vec<i64>, Vec<Segment>) = (Vec::new(), Vec::new());
    for ((session, opened), (_, tokens)) in sessions.iter().zip(&opened).zip(given) {
        let past = session.pasts[0];
        segments.push(Segment {
            first: positions.len() as i64,
            tokens: *tokens as i64,
            past,
            states: opened.states.cast(),
            pages: opened.pages.as_ptr(),
            pasts: session.pasts.as_ptr(),
            session: ptr::null(),
        });
        positions.extend((0..*tokens as i64).map(|token| past + token));
    }
    let pass = Pass {
        tokens: tokens as i64,
        first_output: first_output as i64,
        chunk: 0,
        workspace: ptr::null_mut(),
        weights: ptr::null(),
        inputs: input_pointers.as_ptr(),
        outputs: output_pointers.as_ptr(),
        scratch: ptr::null_mut(),
        scratch_bytes: 0,
        team: ptr::null_mut(),
        trace: sessions[0].observed.then_some(trace),
        trace_user: &raw mut sessions[0].traced as *mut c_void,
        positions: positions.as_ptr(),
        pages: ptr::null(),
        segments: segments.as_ptr(),
        segment_count: segments.len() as i64,
    };
    let mut error = ptr::null_mut();
    if unsafe { runtime.call::<Run>("moec_cuda_run")(opened[0].room, 0, &pass, &mut error) } != 0 {
        return Err(runtime.message(error));
    }
    for (session, (_, tokens)) in sessions.iter_mut().zip(given) {
        session.pasts[0] += *tokens as i64;
    }
    output_memory.iter().for_each(Memory::check_ends);
    let own = |segment: &Segment| read_ports(plan, &output_memory, segment.first as u64, segment.tokens as u64);
    Ok(segments.iter().map(own).collect())
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.opened.is_some() {
            self.close(&Runtime::take());
        }
    }
}
