//! Every family that ships is printed for CUDA, and compiled where NVRTC is there: no spills, shared memory within the limits.

use std::{fs, path::Path};

use moec_cuda::{Compiler, Program, program};
use moec_diag::SourceMap;
use moec_sema::{Settings, check};

/// The family whose kernels are compiled: windows, sinks, biases, grouped steps with several branches. All would take minutes.
const COMPILED: &str = "gpt_oss";

fn printed(path: &Path) -> Program {
    let mut sources = SourceMap::default();
    let text = fs::read_to_string(path).expect("an example");
    let (file, problems) = moec_syntax::parse(&mut sources, &path.display().to_string(), &text);
    assert!(problems.is_empty(), "{}", path.display());
    let (checked, _) = check(&mut sources, &file.expect("a tree"), &Settings::default());
    let (fused, _) = moec_passes::run(checked.expect("sound").module, &moec_passes::Options::default());
    let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    program(&plan).unwrap_or_else(|unsupported| panic!("{}: {unsupported}", path.display()))
}

#[test]
fn families_are_printed_and_compile() {
    let compiler = Compiler::find();
    if let Err(missing) = &compiler {
        eprintln!("printed only: {missing}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/families");
    let mut paths: Vec<_> = fs::read_dir(folder).expect("examples").map(|entry| entry.expect("one").path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "moe")) {
        let program = printed(path);
        let ways = program.launches.iter().flat_map(|launch| &launch.ways);
        let mut kernels = ways.flat_map(|way| &way.kernels);
        assert!(kernels.all(|name| program.text.contains(&format!("{name}_shape"))));
        let executions = program.passes.iter().flatten();
        assert!(executions.clone().count() > 0 && executions.clone().all(|one| one.launch < program.launches.len()));
        let name = path.file_stem().expect("a name").to_string_lossy();
        let Ok(compiler) = &compiler else { continue };
        if name == COMPILED {
            let compiled = compiler.compile(&program.text, "sm_90a").unwrap_or_else(|error| panic!("{name}: {error}"));
            let spills =
                compiled.log.lines().filter(|line| line.contains("spill") && !line.contains("0 bytes spill stores"));
            assert_eq!(spills.collect::<Vec<_>>(), [""; 0], "{name}: kernels whose registers do not suffice");
            assert!(compiled.code.starts_with(b"\x7fELF"), "{name}: no machine code");
        }
    }
}
