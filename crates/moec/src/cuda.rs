//! The part of a library for GPUs: kernels compiled for them, with word of what takes so long.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moec_codegen::Image;
use moec_cuda::{Cache, Compiled, Compiler, NvrtcError, Program};
use moec_diag::SourceMap;
use moec_plan::Plan;

use crate::{compile, failure::Failure};

/// Machine code for one part, and what the driver of any other since Ampere makes its own of.
const MACHINE: &str = "sm_90a";
const PORTABLE: &str = "compute_80";

/// The calls of kernels/runtime/cuda/device.c.
const CALLS: &str = "moec_cuda_calls";

/// The plan's kernels as CUDA C++ and their launches.
pub fn program(plan: &Plan, sources: &SourceMap) -> Result<Program, Failure> {
    moec_cuda::program(plan).map_err(|unsupported| compile::refused(unsupported, sources))
}

/// What a library of the plan has for GPUs. Says what was compiled.
pub fn image(plan: &Plan, sources: &SourceMap) -> Result<Image, Failure> {
    let program = program(plan, sources)?;
    let compiler = Compiler::find()?;
    let started = Instant::now();
    let (machine, portable) = both(&compiler, &program)?;
    let kept = if machine.1 && portable.1 { ", kept from before" } else { "" };
    eprintln!(
        "{} CUDA kernels for {MACHINE} and, to be finished by the driver, {PORTABLE} by NVRTC {} in {:.1} s{kept}",
        program.launches.len(),
        compiler.version(),
        started.elapsed().as_secs_f64(),
    );
    let bytes = moec_cuda::image(plan, &program, &machine.0.code, Some(&portable.0.code));
    Ok(Image { calls: CALLS, bytes })
}

type Kept = (Compiled, bool);

/// For both parts at once, while a line says so where it takes more than a moment.
fn both(compiler: &Compiler, program: &Program) -> Result<(Kept, Kept), NvrtcError> {
    let style = ProgressStyle::with_template("{msg} {spinner} {elapsed}").expect("a fixed template");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
    bar.set_message(format!("compiling {} CUDA kernels", program.launches.len()));
    let cache = Cache::of_user();
    let made = std::thread::scope(|scope| {
        let [machine, portable] = [MACHINE, PORTABLE].map(|architecture| {
            let (cache, text) = (&cache, &program.text);
            scope.spawn(move || cache.compile(compiler, text, architecture))
        });
        while !(machine.is_finished() && portable.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if bar.elapsed() > Duration::from_secs(1) {
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.tick();
            }
        }
        [machine, portable].map(|thread| thread.join().unwrap_or_else(|bug| std::panic::resume_unwind(bug)))
    });
    bar.finish_and_clear();
    let [machine, portable] = made;
    Ok((machine?, portable?))
}
