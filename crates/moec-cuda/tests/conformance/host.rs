//! Prints a plan's kernels, compiles them for this machine's CPU, and launches passes of them as the run time would.

use std::{
    ffi::{c_int, c_uint, c_void},
    path::Path,
    process::Command,
};

use moec_cuda::{Counted, Program};
use moec_plan::{BufferId, Home, Plan, Rows};

use crate::memory::{Memory, output_room, packed, read_ports, write_ports};

/// What kernels are given; the same fields as in kernels/cuda/pass.cuh.
#[repr(C)]
struct Pass {
    tokens: i64,
    past: i64,
    first_output: i64,
    chunk: i64,
    capacity: i64,
    workspace: *mut u8,
    cache: *mut u8,
    states: *mut u8,
    weights: *const u8,
    inputs: *const *mut u8,
    outputs: *const *mut u8,
    scratch: *mut u8,
    pasts: *const i64,
}

type Kernel = unsafe extern "C" fn(*const c_void, c_int);
type Launch = unsafe extern "C" fn(Kernel, c_uint, c_uint, c_uint, *const c_void, c_int) -> c_int;

/// A plan's kernels, loaded.
pub struct Library {
    program: Program,
    library: libloading::Library,
    _folder: tempfile::TempDir,
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

impl Library {
    pub fn new(plan: &Plan, _: Level) -> Library {
        let program = moec_cuda::program(plan).expect("a supported plan");
        let folder = tempfile::tempdir().expect("a folder");
        let [text, library] = ["plan.cpp", "plan.so"].map(|name| folder.path().join(name));
        std::fs::write(&text, &program.text).expect("written");
        let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/cuda/tests/shim.h");
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
        let library = unsafe { libloading::Library::new(library) }.expect("a library");
        Library { program, library, _folder: folder }
    }

    /// How a kernel is launched for so many: blocks, threads, and bytes of shared memory.
    fn shape(&self, name: &str, count: u64) -> (u64, u64, u64) {
        let symbol = [name, "_shape"].concat();
        let shape: libloading::Symbol<*const [i32; 6]> =
            unsafe { self.library.get(symbol.as_bytes()) }.expect("a shape");
        let [threads, rows, more, times, shared_bytes, most] = unsafe { **shape }.map(|number| number as u64);
        let of_rows = if rows == 0 { 0 } else { count.div_ceil(rows) };
        let blocks = ((of_rows + more) * times).max(1);
        (if most == 0 { blocks } else { blocks.min(most) }, threads, shared_bytes)
    }
}

/// The part of the text that is this plan's own.
fn printed(program: &Program) -> &str {
    program.text.split("using namespace moec;").nth(1).unwrap_or(&program.text)
}

/// What a pass takes and gives: one row-major array for each input or output.
pub type Arrays = Vec<Vec<f64>>;

/// A session: memory that lasts over passes.
pub struct Session<'a> {
    plan: &'a Plan,
    chunk: u64,
    capacity: u64,
    pasts: Vec<i64>,
    workspace: Memory,
    cache: Memory,
    states: Memory,
    weights: Memory,
    pub traced: Vec<Traced>,
}

impl<'a> Session<'a> {
    /// Tests that are shared say how many threads there are, which is nothing to a device.
    pub fn new(plan: &'a Plan, weights: &[Vec<f64>], chunk: u64, capacity: u64, _threads: usize) -> Session<'a> {
        let (per_token, fixed) = plan.workspace_bytes();
        Session {
            plan,
            chunk,
            capacity,
            pasts: vec![0; plan.passes().count()],
            workspace: Memory::new(per_token * chunk + fixed),
            cache: Memory::new(plan.cache_bytes_per_position() * capacity),
            states: Memory::new(plan.state_bytes()),
            weights: packed(plan, weights),
            traced: Vec::new(),
        }
    }

    /// A pass over `tokens` positions; outputs have rows of all tokens, poisoned before `first_output`.
    pub fn run(&mut self, library: &Library, inputs: &Arrays, tokens: u64, first_output: u64) -> Arrays {
        let plan = self.plan;
        let mut input_memory = write_ports(plan, inputs, tokens);
        let mut output_memory = output_room(plan, tokens);
        let mut scratch = Memory::new(library.program.scratch_bytes);
        let input_pointers: Vec<*mut u8> = input_memory.iter_mut().map(Memory::pointer).collect();
        let output_pointers: Vec<*mut u8> = output_memory.iter_mut().map(Memory::pointer).collect();
        let pass = Pass {
            tokens: tokens as i64,
            past: self.pasts[0],
            first_output: first_output as i64,
            chunk: self.chunk as i64,
            capacity: self.capacity as i64,
            workspace: self.workspace.pointer(),
            cache: self.cache.pointer(),
            states: self.states.pointer(),
            weights: self.weights.pointer(),
            inputs: input_pointers.as_ptr(),
            outputs: output_pointers.as_ptr(),
            scratch: scratch.pointer(),
            pasts: self.pasts.as_ptr(),
        };
        for execution in &library.program.passes[0] {
            let launch = &library.program.launches[execution.launch];
            let count = rows(launch.counted, tokens, first_output);
            let (blocks, threads, shared_bytes) = library.shape(&launch.name, count);
            assert!((1..=1024).contains(&threads) && threads.is_power_of_two() && shared_bytes <= 227 << 10);
            let failed = unsafe {
                let run: libloading::Symbol<Launch> = library.library.get(b"moec_shim_launch").expect("the shim");
                let kernel: libloading::Symbol<Kernel> = library.library.get(launch.name.as_bytes()).expect("a kernel");
                let of = [blocks, threads, shared_bytes].map(|number| number as c_uint);
                run(*kernel, of[0], of[1], of[2], (&raw const pass).cast(), execution.rank as c_int)
            };
            assert_eq!(failed, 0, "{}: the shim says no", launch.name);
            if let Some(traced) = &launch.traced {
                let count = (count * traced.choices) as usize;
                let inputs = Places { plan, pass: &pass, rank: execution.rank };
                self.traced.push(Traced {
                    route: traced.route as i32,
                    rank: execution.rank as i32,
                    indices: inputs.read(traced.indices, count),
                    weights: inputs.read(traced.weights, count),
                });
            }
        }
        self.pasts[0] += tokens as i64;
        let all = output_memory.iter().chain([&self.workspace, &self.cache, &self.states, &scratch]);
        all.for_each(Memory::check_ends);
        read_ports(plan, &output_memory, 0, tokens)
    }
}

/// Where buffers are in a pass.
struct Places<'a> {
    plan: &'a Plan,
    pass: &'a Pass,
    rank: u32,
}

impl Places<'_> {
    /// The first elements of a buffer.
    fn read<T: Copy>(&self, id: BufferId, count: usize) -> Vec<T> {
        let buffer = self.plan.buffer(id);
        let instance = |instances: u32| if instances > 1 { u64::from(self.rank) } else { 0 };
        let start = unsafe {
            match buffer.home {
                Home::Input(at) => *self.pass.inputs.add(at as usize),
                Home::Output(at) => *self.pass.outputs.add(at as usize),
                Home::Workspace { per_token, fixed } => {
                    self.pass.workspace.add((per_token * self.pass.chunk as u64 + fixed) as usize)
                }
                Home::State { instances, offset } => {
                    self.pass.states.add((offset + instance(instances) * buffer.instance_bytes()) as usize)
                }
                Home::Cache { .. } => panic!("a bin reads a cache"),
            }
        };
        unsafe { std::slice::from_raw_parts(start.cast::<T>(), count) }.to_vec()
    }
}

/// What a launch's blocks are counted from, in this pass.
fn rows(counted: Counted, tokens: u64, first_output: u64) -> u64 {
    let rows = match counted.rows {
        Rows::Fixed(rows) => rows,
        Rows::Tokens => tokens,
        Rows::Outputs => tokens - first_output,
        Rows::Slots { choices } => tokens * choices,
        Rows::Share(share) => share.of(tokens),
        Rows::Positions => panic!("no step computes all positions"),
    };
    rows * counted.each
}
