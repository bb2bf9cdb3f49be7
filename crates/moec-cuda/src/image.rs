//! What the run time needs of a plan on a device, as bytes inside the library: launches, their order, and code. The reader is
//! kernels/runtime/cuda/cuda.c, which believes nothing of it.
//!
//! 64-bit words, little-endian: a header of 10; two for each kernel; five for each way, whose kernels stand one behind the other;
//! 16 for each launch, likewise of its ways; for each sequence where its executions begin and how many they are; two for each
//! execution; then names that end in a zero, and code.

use moec_plan::{BufferId, Home, Plan, Rows};

use crate::{Launch, Program, Sessions, Way};

const MAGIC: u64 = u64::from_le_bytes(*b"MOECCUDA");
const VERSION: u64 = 2;
const HEADER_WORDS: usize = 10;

/// The image. `machine_code` is a cubin for sm_90a; `portable_code`, where there is some, PTX for other parts.
pub fn image(plan: &Plan, program: &Program, machine_code: &[u8], portable_code: Option<&[u8]>) -> Vec<u8> {
    let executions: usize = program.passes.iter().map(Vec::len).sum();
    let ways: Vec<&Way> = program.launches.iter().flat_map(|launch| &launch.ways).collect();
    let kernels: Vec<(&str, bool)> =
        ways.iter().flat_map(|way| way.kernels.iter().map(|kernel| (kernel.as_str(), way.hopper))).collect();
    let words = HEADER_WORDS
        + 2 * kernels.len()
        + 5 * ways.len()
        + 16 * program.launches.len()
        + 2 * program.passes.len()
        + 2 * executions;
    let mut blobs = Vec::new();
    let mut put = |bytes: &[u8], alignment: usize| -> u64 {
        blobs.resize(blobs.len().next_multiple_of(alignment), 0);
        let at = words * 8 + blobs.len();
        blobs.extend_from_slice(bytes);
        blobs.push(0);
        at as u64
    };
    let names: Vec<u64> = kernels.iter().map(|(name, _)| put(name.as_bytes(), 1)).collect();
    let machine = put(machine_code, 64);
    let portable = portable_code.map_or(0, |code| put(code, 64));
    blobs.resize(blobs.len().next_multiple_of(8), 0);
    let counts = [kernels.len(), ways.len(), program.launches.len(), program.passes.len()].map(|count| count as u64);
    let bytes = (words * 8 + blobs.len()) as u64;
    let mut all = vec![MAGIC, VERSION];
    all.extend(counts);
    all.extend([program.scratch_bytes, machine, portable, bytes]);
    for ((_, hopper), name) in kernels.iter().zip(names) {
        all.extend([name, u64::from(*hopper)]);
    }
    let mut first = 0;
    for way in &ways {
        let taken = way.taken;
        let count = way.kernels.len() as u64;
        all.extend([taken.least, taken.most.min(i64::MAX as u64), u64::from(taken.of_session), first, count]);
        first += count;
    }
    first = 0;
    for launch in &program.launches {
        let count = launch.ways.len() as u64;
        all.extend(counted(launch));
        all.extend([first, count]);
        all.extend(traced(plan, launch));
        first += count;
    }
    let mut first = 0;
    for pass in &program.passes {
        all.extend([first, pass.len() as u64]);
        first += pass.len() as u64;
    }
    all.extend(program.passes.iter().flatten().flat_map(|one| [one.launch as u64, u64::from(one.rank)]));
    debug_assert_eq!(all.len(), words);
    let mut image: Vec<u8> = all.into_iter().flat_map(u64::to_le_bytes).collect();
    image.append(&mut blobs);
    image
}

/// Kind, times, per, up, each, sessions.
fn counted(launch: &Launch) -> [u64; 6] {
    let sessions = match launch.counted.sessions {
        Sessions::Alike => 0,
        Sessions::Apart => 1,
        Sessions::Each => 2,
    };
    let [kind, times, per, up] = match launch.counted.rows {
        Rows::Fixed(rows) => [0, rows, 1, 0],
        Rows::Tokens => [1, 0, 1, 0],
        Rows::Outputs => [2, 0, 1, 0],
        Rows::Slots { choices } => [3, choices, 1, 0],
        Rows::Share(share) => [3, share.times, share.per, u64::from(share.up)],
        Rows::Positions => unreachable!("verified: no step computes all positions"),
    };
    [kind, times, per, up, launch.counted.each, sessions]
}

/// Route, choices, and where indices and weights are.
fn traced(plan: &Plan, launch: &Launch) -> [u64; 8] {
    const NOTHING: [u64; 8] = [u64::MAX, 0, 0, 0, 0, 0, 0, 0];
    let Some(traced) = &launch.traced else { return NOTHING };
    let [indices, weights] = [traced.indices, traced.weights].map(|id| place(plan, id));
    let (Some([a, b, c]), Some([d, e, f])) = (indices, weights) else { return NOTHING };
    [u64::from(traced.route), traced.choices, a, b, c, d, e, f]
}

/// `None`: in a cache, which holds no routes.
fn place(plan: &Plan, id: BufferId) -> Option<[u64; 3]> {
    let buffer = plan.buffer(id);
    match buffer.home {
        Home::Workspace { per_token, fixed } => Some([0, per_token, fixed]),
        Home::State { instances, offset } => Some([1, offset, if instances > 1 { buffer.instance_bytes() } else { 0 }]),
        Home::Input(at) => Some([2, u64::from(at), 0]),
        Home::Output(at) => Some([3, u64::from(at), 0]),
        Home::Cache { .. } => None,
    }
}
