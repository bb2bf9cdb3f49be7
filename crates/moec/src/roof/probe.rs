//! What the machine can do at this moment: bytes read from memory, and multiply-adds on registers alone, with all threads at
//! once. A shared machine swings from minute to minute, so it is asked again each time.

#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::{hint::black_box, sync::Barrier, time::Instant};

use moec_plan::{Format, RowFormat};

/// Bytes and operations a second, all threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    pub threads: usize,
    pub read: f64,
    /// Multiplications and additions of f32, of pairs of bf16, of 8-bit integers.
    pub f32: f64,
    pub bf16: f64,
    pub int8: f64,
    /// Else these are assumptions.
    pub measured: bool,
}

/// A core of a server of about 2023, where nothing is measured.
const ASSUMED_READ: f64 = 13e9;
const ASSUMED_F32: f64 = 150e9;

/// Twice what caches hold, and read in a few milliseconds: the shorter, the likelier it is that nobody interferes.
const READ_BYTES: usize = 64 << 20;
const REPEATS: usize = 12;

impl Machine {
    pub fn assumed(threads: usize) -> Machine {
        let all = threads as f64;
        let (read, f32) = (ASSUMED_READ * all, ASSUMED_F32 * all);
        Machine { threads, read, f32, bf16: 2.0 * f32, int8: 4.0 * f32, measured: false }
    }

    pub fn probe(threads: usize) -> Machine {
        let read = read(threads);
        let [f32, bf16, int8] = multiply_adds(threads);
        Machine { threads, read, f32, bf16, int8, measured: true }
    }

    /// What was the best of both: a probe can only be disturbed, never helped.
    pub fn best(self, other: Machine) -> Machine {
        Machine {
            read: self.read.max(other.read),
            f32: self.f32.max(other.f32),
            bf16: self.bf16.max(other.bf16),
            int8: self.int8.max(other.int8),
            ..self
        }
    }

    /// The fastest multiply-add for weights of a format.
    pub fn flops(&self, format: Format) -> f64 {
        match format.rows() {
            RowFormat::F32 => self.f32,
            RowFormat::Bf16 => self.bf16,
            RowFormat::Int8 => self.int8,
        }
    }
}

/// Seconds of the quickest of some turns that all threads take at once.
fn together(threads: usize, work: &(impl Fn(usize) + Sync)) -> f64 {
    let barrier = Barrier::new(threads);
    let turn = |thread: usize| {
        let mut best = f64::INFINITY;
        for _ in 0..REPEATS {
            barrier.wait();
            let started = Instant::now();
            work(thread);
            barrier.wait();
            best = best.min(started.elapsed().as_secs_f64());
        }
        best
    };
    std::thread::scope(|scope| {
        let turn = &turn;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || turn(thread))).collect();
        let joined = running.into_iter().map(|thread| thread.join().expect("a probe does not panic"));
        joined.fold(f64::INFINITY, f64::min)
    })
}

/// One stream a thread as the machine prefetches it, or eight that are prefetched by hand, whichever is faster: some machines
/// leave a third of what memory gives to one stream alone, others read one faster than several.
fn read(threads: usize) -> f64 {
    let data = in_huge_pages();
    let part = data.len() / threads;
    let seconds = |sum: fn(&[u64]) -> u64| {
        together(threads, &|thread| {
            black_box(sum(&data[thread * part..][..part]));
        })
    };
    (part * threads * 8) as f64 / seconds(sum_of_streams::<1>).min(seconds(sum_of_streams::<8>))
}

/// As weight files are.
fn in_huge_pages() -> Vec<u64> {
    let mut data = vec![0u64; READ_BYTES / 8];
    // SAFETY: advice about memory of ours, which nobody has touched; where there are no such pages, small ones do.
    unsafe { libc::madvise(data.as_mut_ptr().map_addr(|at| at & !4095).cast(), READ_BYTES, libc::MADV_HUGEPAGE) };
    data.fill(1);
    data
}

fn sum_of_streams<const STREAMS: usize>(data: &[u64]) -> u64 {
    const LINE: usize = 16;
    let length = data.len() / STREAMS / LINE * LINE;
    let streams: [&[u64]; STREAMS] = std::array::from_fn(|at| &data[at * length..][..length]);
    let mut sums = [0u64; LINE];
    for at in (0..length).step_by(LINE) {
        for stream in streams {
            if STREAMS > 1 {
                ahead(stream, at + AHEAD);
            }
            for (sum, value) in sums.iter_mut().zip(&stream[at..at + LINE]) {
                *sum ^= value;
            }
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

/// A kilobyte, in numbers of 8 bytes.
const AHEAD: usize = 128;

/// Into the second level: what is fetched into the first waits for the buffers that loads wait for, too.
#[cfg(target_arch = "x86_64")]
fn ahead(stream: &[u64], at: usize) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for line in [at, at + 8] {
        if let Some(next) = stream.get(line) {
            // SAFETY: the address is one of a slice's element.
            unsafe { _mm_prefetch::<_MM_HINT_T1>((next as *const u64).cast()) };
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn ahead(_: &[u64], _: usize) {}

#[cfg(target_arch = "x86_64")]
fn multiply_adds(threads: usize) -> [f64; 3] {
    use std::arch::is_x86_feature_detected as has;
    let rate = |operations: usize, run: &(dyn Fn() + Sync)| {
        (STEPS * CHAINS * operations * threads) as f64 / together(threads, &|_| run())
    };
    // SAFETY: each is run where the machine has what it needs.
    let f32 = if has!("avx512f") {
        rate(32, &|| unsafe { x86::f32_512() })
    } else if has!("fma") {
        rate(16, &|| unsafe { x86::f32_256() })
    } else {
        return [rate(8, &x86::f32_128); 3];
    };
    let bf16 = if has!("avx512bf16") { rate(64, &|| unsafe { x86::bf16() }) } else { f32 };
    let int8 = if has!("avx512vnni") { rate(128, &|| unsafe { x86::int8() }) } else { f32 };
    let [tiles_bf16, tiles_int8] = if tiles::usable() { tiles::rates(threads) } else { [0.0; 2] };
    [f32, bf16.max(f32).max(tiles_bf16), int8.max(f32).max(tiles_int8)]
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply_adds(threads: usize) -> [f64; 3] {
    [Machine::assumed(threads).f32; 3]
}

/// Independent sums, enough to hide how long one takes.
const CHAINS: usize = 16;
const STEPS: usize = 200_000;
