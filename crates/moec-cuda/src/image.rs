//! What the run time needs of a plan on a device, as bytes inside the library: launches, their order, and code. The reader is
//! kernels/runtime/cuda/cuda.c, which believes nothing of it.
//!
//! 64-bit words, little-endian: a header of 8, 14 for each launch, for each sequence where its executions begin and how many they
//! are, then two for each execution; then names that end in a zero, and code.

use moec_plan::{BufferId, Home, Plan, Rows};

use crate::{Launch, Program};

const MAGIC: u64 = u64::from_le_bytes(*b"MOECCUDA");
const VERSION: u64 = 1;
const HEADER_WORDS: usize = 8;

/// The image. `machine_code` is a cubin for sm_90a; `portable_code`, where there is some, PTX for other parts.
pub fn image(plan: &Plan, program: &Program, machine_code: &[u8], portable_code: Option<&[u8]>) -> Vec<u8> {
    let executions: usize = program.passes.iter().map(Vec::len).sum();
    let words = HEADER_WORDS + 14 * program.launches.len() + 2 * program.passes.len() + 2 * executions;
    let mut blobs = Vec::new();
    let mut put = |bytes: &[u8], alignment: usize| -> u64 {
        blobs.resize(blobs.len().next_multiple_of(alignment), 0);
        let at = words * 8 + blobs.len();
        blobs.extend_from_slice(bytes);
        blobs.push(0);
        at as u64
    };
    let names: Vec<u64> = program.launches.iter().map(|launch| put(launch.name.as_bytes(), 1)).collect();
    let machine = put(machine_code, 64);
    let portable = portable_code.map_or(0, |code| put(code, 64));
    blobs.resize(blobs.len().next_multiple_of(8), 0);
    let counts = [program.launches.len(), program.passes.len()].map(|count| count as u64);
    let bytes = (words * 8 + blobs.len()) as u64;
    let mut all = vec![MAGIC, VERSION, counts[0], counts[1], program.scratch_bytes, machine, portable, bytes];
    for (launch, name) in program.launches.iter().zip(names) {
        all.push(name);
        all.extend(counted(launch));
        all.extend(traced(plan, launch));
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

/// Kind, times, per, up, each.
fn counted(launch: &Launch) -> [u64; 5] {
    let each = launch.counted.each;
    match launch.counted.rows {
        Rows::Fixed(rows) => [0, rows, 1, 0, each],
        Rows::Tokens => [1, 0, 1, 0, each],
        Rows::Outputs => [2, 0, 1, 0, each],
        Rows::Slots { choices } => [3, choices, 1, 0, each],
        Rows::Share(share) => [3, share.times, share.per, u64::from(share.up), each],
        Rows::Positions => unreachable!("verified: no step computes all positions"),
    }
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
