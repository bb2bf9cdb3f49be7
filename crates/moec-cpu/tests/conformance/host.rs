//! Compiles a plan, links it, and runs passes of it as the run time would.

use std::{
    ffi::c_void,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use moec_cpu::Level;
use moec_plan::{PAGE, Plan, RowFormat};

use crate::{
    amx,
    memory::{Memory, output_room, packed, read_ports, write_ports},
    symbols::undefined_symbols,
};

/// One session's rows; the same fields as `moec_segment`.
#[repr(C)]
struct Segment {
    first: i64,
    tokens: i64,
    past: i64,
    states: *mut u8,
    pages: *const *mut u8,
    pasts: *const i64,
    session: *const c_void,
}

/// What generated code is given; the same fields as `moec_pass`.
#[repr(C)]
struct Pass {
    tokens: i64,
    first_output: i64,
    chunk: i64,
    workspace: *mut u8,
    weights: *const u8,
    inputs: *const *mut u8,
    outputs: *const *mut u8,
    scratch: *mut u8,
    scratch_bytes: i64,
    team: *mut c_void,
    trace: Option<extern "C" fn(*mut c_void, i32, i32, *const i32, *const f32, i64, i64)>,
    trace_user: *mut c_void,
    positions: *const i64,
    pages: *const *const *mut u8,
    segments: *const Segment,
    segment_count: i64,
}

/// One call of the observer.
#[derive(Debug, PartialEq)]
pub struct Traced {
    pub route: i32,
    pub rank: i32,
    rows: usize,
    pub indices: Vec<i32>,
    pub weights: Vec<f32>,
}

impl Traced {
    /// Those of a segment's positions; of a fixed number of rows, all.
    fn of(&self, segment: &Segment, tokens: u64) -> Traced {
        let choices = self.indices.len() / self.rows.max(1);
        let rows = match self.rows as u64 == tokens {
            true => segment.first as usize..(segment.first + segment.tokens) as usize,
            false => 0..self.rows,
        };
        let choices = rows.start * choices..rows.end * choices;
        let (indices, weights) = (self.indices[choices.clone()].to_vec(), self.weights[choices].to_vec());
        Traced { rows: rows.len(), indices, weights, ..*self }
    }
}

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
    let indices = unsafe { std::slice::from_raw_parts(indices, (tokens * choices) as usize) };
    let weights = unsafe { std::slice::from_raw_parts(weights, (tokens * choices) as usize) };
    calls.push(Traced { route, rank, rows: tokens as usize, indices: indices.to_vec(), weights: weights.to_vec() });
}

pub fn has_dots() -> bool {
    is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni")
}

/// Levels that this machine can run.
pub fn levels() -> Vec<Level> {
    let runs = |level: &Level| match level {
        Level::Scalar => true,
        Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        Level::Avx512 => is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl"),
        Level::Avx512Dot => has_dots(),
        Level::Amx => has_dots() && amx::prepare(),
    };
    Level::ALL.into_iter().filter(runs).collect()
}

/// Those whose code differs for this plan; the one with tiles as well where they are emulated.
pub fn levels_of(plan: &Plan) -> Vec<Level> {
    if plan.params.iter().all(|param| param.storage.rows() == RowFormat::F32) {
        return levels().into_iter().filter(|level| *level <= Level::Avx512).collect();
    }
    let native = levels();
    let emulated = (has_dots() && !native.contains(&Level::Amx)).then_some(Level::Amx);
    native.into_iter().chain(emulated).collect()
}

/// A plan's code for one level, loaded.
pub struct Library {
    library: libloading::Library,
    name: String,
    _folder: tempfile::TempDir,
}

impl Library {
    pub fn new(plan: &Plan, level: Level) -> Library {
        let object = moec_cpu::object(plan, level, &|_| None).expect("a supported plan");
        for symbol in undefined_symbols(&object.bytes) {
            assert!(KNOWN.contains(&symbol.as_str()), "undefined: {symbol}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file(&object.name), &object.bytes).expect("written");
        let [team, assign] = runtime();
        cc(&["-shared", "-pthread", "-Wl,-z,defs"], &file("library.so"), &[&file(&object.name), assign, team]);
        let library = unsafe { libloading::Library::new(file("library.so")) }.expect("a library");
        Library { library, name: format!("moec_pass_{}", level.name()), _folder: folder }
    }
}

/// An object asks for nothing but libm, the run time's functions, and memory functions.
const KNOWN: [&str; 13] = [
    "moec_barrier",
    "moec_assign",
    "memcpy",
    "memset",
    "sinf",
    "cosf",
    "sincosf",
    "powf",
    "fmodf",
    "floorf",
    "ceilf",
    "rintf",
    "exp2f",
];

/// The parts of the run time that every library needs, compiled once in a process.
fn runtime() -> &'static [PathBuf; 2] {
    static RUNTIME: OnceLock<[PathBuf; 2]> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        ["tests/conformance/team.c", "../../kernels/runtime/assign.c"].map(|source| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
            let name = source.file_stem().expect("a file").to_string_lossy().into_owned();
            let file = |name: String| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name + ".o");
            let (object, new) = (file(name.clone()), file(format!("{name}-{}", std::process::id())));
            cc(&["-c", "-fPIC", "-O1"], &new, &[&source]);
            // Other processes may be at it as well: it appears whole.
            std::fs::rename(&new, &object).expect("renamed");
            object
        })
    })
}

fn cc(options: &[&str], made: &Path, of: &[&Path]) {
    let status = Command::new("cc").args(options).arg("-o").arg(made).args(of).arg("-lm").status();
    assert!(status.expect("a C compiler").success());
}

/// A session: memory that lasts over passes.
pub struct Session<'a> {
    plan: &'a Plan,
    chunk: u64,
    past: u64,
    pub threads: usize,
    workspace: Memory,
    /// Of the caches.
    pages: Vec<Memory>,
    states: Memory,
    weights: Memory,
    pub traced: Vec<Traced>,
    seconds: f64,
}

/// Random specs whose sessions step together.
pub const SPECS_TOGETHER: u32 = 12;

/// What a pass takes and gives: one row-major array for each input or output.
pub type Arrays = Vec<Vec<f64>>;

impl<'a> Session<'a> {
    /// `weights` has the values of each parameter: instance by instance, source by source, `[n, k]` each.
    pub fn new(plan: &'a Plan, weights: &[Vec<f64>], chunk: u64, capacity: u64, threads: usize) -> Session<'a> {
        let (per_token, fixed) = plan.workspace_bytes();
        let packed = packed(plan, weights);
        Session {
            plan,
            chunk,
            past: 0,
            threads,
            workspace: Memory::new(per_token * chunk + fixed),
            pages: (0..capacity.div_ceil(PAGE)).map(|_| Memory::new(plan.cache_bytes_per_position() * PAGE)).collect(),
            states: Memory::new(plan.state_bytes()),
            weights: packed,
            traced: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Forgets all positions.
    pub fn rewind(&mut self) {
        self.past = 0;
    }

    /// Seconds that a pass takes.
    pub fn time(&mut self, library: &Library, inputs: &Arrays, tokens: u64, first_output: u64) -> f64 {
        self.run(library, inputs, tokens, first_output);
        self.seconds
    }

    /// A pass over `tokens` positions; outputs have rows of all tokens, poisoned before `first_output`.
    pub fn run(&mut self, library: &Library, inputs: &Arrays, tokens: u64, first_output: u64) -> Arrays {
        let mut found = together(library, &mut [self], &[(inputs.clone(), tokens)], first_output);
        found.pop().expect("one session's")
    }
}

/// One pass over new positions of several sessions of a plan, each with its inputs and how many they are; what each would get
/// alone, its rows of what was traced among it. The first lends its workspace and its threads.
pub fn together(
    library: &Library,
    sessions: &mut [&mut Session],
    given: &[(Arrays, u64)],
    first_output: u64,
) -> Vec<Arrays> {
    let plan = sessions[0].plan;
    let tokens: u64 = given.iter().map(|(_, tokens)| tokens).sum();
    let joined = |number: usize| given.iter().flat_map(|(inputs, _)| inputs[number].iter().copied()).collect();
    let inputs: Vec<Vec<f64>> = (0..plan.inputs.len()).map(joined).collect();
    let mut input_memory = write_ports(plan, &inputs, tokens);
    let mut output_memory = output_room(plan, tokens);
    let threads = sessions[0].threads;
    let scratch_bytes = moec_cpu::scratch_bytes(plan);
    let mut traced: Vec<Traced> = Vec::new();
    let mut scratch = Memory::new(scratch_bytes * threads as u64);
    let input_pointers: Vec<*mut u8> = input_memory.iter_mut().map(Memory::pointer).collect();
    let output_pointers: Vec<*mut u8> = output_memory.iter_mut().map(Memory::pointer).collect();
    let page_tables: Vec<Vec<*mut u8>> =
        sessions.iter_mut().map(|session| session.pages.iter_mut().map(Memory::pointer).collect()).collect();
    let pasts: Vec<i64> = sessions.iter().map(|session| session.past as i64).collect();
    let (mut positions, mut pages_of_rows, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (_, tokens)) in given.iter().enumerate() {
        segments.push(Segment {
            first: positions.len() as i64,
            tokens: *tokens as i64,
            past: pasts[at],
            states: sessions[at].states.pointer(),
            pages: page_tables[at].as_ptr(),
            pasts: &raw const pasts[at],
            session: std::ptr::null(),
        });
        positions.extend((0..*tokens as i64).map(|token| pasts[at] + token));
        pages_of_rows.extend((0..*tokens).map(|_| page_tables[at].as_ptr()));
    }
    unsafe {
        let team_new: libloading::Symbol<unsafe extern "C" fn(u32) -> *mut c_void> =
            library.library.get(b"test_team_new").expect("a symbol");
        let team_free: libloading::Symbol<unsafe extern "C" fn(*mut c_void)> =
            library.library.get(b"test_team_free").expect("a symbol");
        let function: libloading::Symbol<unsafe extern "C" fn(*const Pass, i32, i32)> =
            library.library.get(library.name.as_bytes()).expect("a symbol");
        let pass = Pass {
            tokens: tokens as i64,
            first_output: first_output as i64,
            chunk: sessions[0].chunk as i64,
            workspace: sessions[0].workspace.pointer(),
            weights: sessions[0].weights.pointer(),
            inputs: input_pointers.as_ptr(),
            outputs: output_pointers.as_ptr(),
            scratch: scratch.pointer(),
            scratch_bytes: scratch_bytes as i64,
            team: team_new(threads as u32),
            trace: Some(trace),
            trace_user: &raw mut traced as *mut c_void,
            positions: positions.as_ptr(),
            pages: pages_of_rows.as_ptr(),
            segments: segments.as_ptr(),
            segment_count: segments.len() as i64,
        };
        let address = &raw const pass as usize;
        let threads = threads as i32;
        let function = *function;
        let start = std::time::Instant::now();
        std::thread::scope(|scope| {
            for thread in 1..threads {
                scope.spawn(move || function(address as *const Pass, thread, threads));
            }
            function(address as *const Pass, 0, threads);
        });
        sessions[0].seconds = start.elapsed().as_secs_f64();
        team_free(pass.team);
    }
    let kept =
        sessions.iter().flat_map(|session| [&session.workspace, &session.states].into_iter().chain(&session.pages));
    output_memory.iter().chain([&scratch]).chain(kept).for_each(Memory::check_ends);
    for (session, segment) in sessions.iter_mut().zip(&segments) {
        session.past += segment.tokens as u64;
        session.traced.extend(traced.iter().map(|traced| traced.of(segment, tokens)));
    }
    let own = |segment: &Segment| read_ports(plan, &output_memory, segment.first as u64, segment.tokens as u64);
    segments.iter().map(own).collect()
}
