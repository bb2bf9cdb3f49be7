//! The library as a C program meets it.

use std::{fs, path::Path, process::Command};

use crate::command::{Ended, built_bard, cc, moec_in, repository, run};

const CLIENT: &str = "examples/clients/c/generate.c";

fn generate(program: &Path, folder: &Path) -> Ended {
    let weights = folder.join("build/bard.weights");
    run(Command::new(program).arg(weights).args(["JULIET.", "24"]).env("LD_LIBRARY_PATH", folder.join("build")))
}

#[test]
fn a_c_program_says_what_moec_says_and_is_clean() {
    let folder = built_bard();
    let path = folder.path();
    let client = repository().join(CLIENT);
    let said = moec_in(path, "run build --prompt JULIET. --max-new 24 --greedy").fine().stdout;

    cc(path, &format!("{} -Ibuild -Lbuild -lbard -lm -o shared", client.display())).fine();
    assert_eq!(generate(&path.join("shared"), path).fine().stdout, said);

    let sanitize = "-fsanitize=address,undefined -fno-sanitize-recover=all";
    cc(path, &format!("{} -Ibuild build/libbard.a -lm -lpthread {sanitize} -o sanitized", client.display())).fine();
    assert_eq!(generate(&path.join("sanitized"), path).fine().stdout, said);

    let valgrind = Command::new("valgrind").arg("--version").output();
    if valgrind.is_err() {
        eprintln!("not run under valgrind: it is not installed (apt-get install valgrind)");
        return;
    }
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]).arg(path.join("shared"));
    command.arg(path.join("build/bard.weights")).args(["JULIET.", "4"]).env("LD_LIBRARY_PATH", path.join("build"));
    let ended = run(&mut command).fine();
    assert!(said.starts_with(ended.stdout.trim_end_matches('\n')), "{ended:#?}");
}

#[test]
fn pkg_config_finds_the_library() {
    let folder = built_bard();
    let path = folder.path();
    let mut command = Command::new("pkg-config");
    let said = run(command.args(["--cflags", "--libs", "bard"]).env("PKG_CONFIG_PATH", path.join("build"))).fine();
    let client = repository().join(CLIENT);
    cc(path, &format!("{} {} -o found", client.display(), said.stdout.trim())).fine();
    generate(&path.join("found"), path).fine();
}

/// Through CMake, from C++, shared and static.
#[test]
fn two_models_in_one_program() {
    let folder = built_bard();
    let path = folder.path();
    let spec = fs::read_to_string(path.join("bard.moe")).expect("a spec");
    fs::write(path.join("second.moe"), spec.replace("model bard(", "model second(")).expect("written");
    let bard = crate::command::bard();
    moec_in(path, &format!("build second.moe --weights {} --cpu avx2 -o second", bard.display())).fine();
    let source = repository().join("examples/clients/cpp");
    let prefixes = format!("-DCMAKE_PREFIX_PATH={0}/build;{0}/second", path.display());
    let cmake = |arguments: &[&str]| run(Command::new("cmake").current_dir(path).args(arguments)).fine();
    cmake(&["-S", &source.display().to_string(), "-B", "duet", &prefixes]);
    cmake(&["--build", "duet"]);
    let told = |program: &str| {
        let weights = ["build/bard.weights", "second/second.weights"];
        let mut command = Command::new(path.join("duet").join(program));
        run(command.current_dir(path).args(weights).args(["JULIET.", "2"])).fine().stdout
    };
    // The first turn is what one model alone says; the second was made with the same weights.
    let alone = moec_in(path, "run build --prompt JULIET. --max-new 24 --greedy").fine().stdout;
    let together = told("duet");
    assert!(together.starts_with(alone.trim_end_matches('\n')), "{together}");
    assert_eq!(together.trim_end_matches('\n').len(), "JULIET.".len() + 48, "{together}");
    assert_eq!(told("duet_static"), together);
}

#[test]
fn eight_threads_with_sessions_of_their_own_agree_to_the_bit() {
    let folder = built_bard();
    let path = folder.path();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/threads.c");
    cc(path, &format!("{} -Ibuild build/libbard.a -lm -lpthread -o threads", source.display())).fine();
    let ended = run(Command::new(path.join("threads")).arg(path.join("build/bard.weights")));
    assert_eq!(ended.fine().stdout, "equal\n");
}

/// The weights, the workspace of a pass and the caches, as `moec explain` states them, and little besides: the code itself, and
/// what a thread works in: for one session of 2048 positions as for several with as many.
#[test]
fn a_filled_context_takes_the_memory_that_is_stated() {
    let folder = built_bard();
    let path = folder.path();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/memory.c");
    cc(path, &format!("{} -Ibuild build/libbard.a -lm -lpthread -o memory", source.display())).fine();
    let taken = |more: &[&str]| -> f64 {
        let ended = run(Command::new(path.join("memory")).arg(path.join("build/bard.weights")).args(more)).fine();
        ended.stdout.trim().parse().expect("a number")
    };
    let explained = moec_in(path, &format!("explain bard.moe --weights {} --json", crate::command::bard().display()));
    let plan = &serde_json::from_str::<serde_json::Value>(&explained.fine().stdout).expect("JSON")["plan"];
    let stated = |what: &str| plan[what].as_f64().expect("a number");
    // Passes of at most 512 positions, in a context of 2048.
    let workspace = stated("workspace_bytes_per_token") * 512.0 + stated("workspace_bytes_fixed");
    let kept = stated("cache_bytes_per_position") * 2048.0 + stated("state_bytes");
    let all = stated("weight_bytes") + workspace + kept;
    for taken in [taken(&[]), taken(&["several"])] {
        assert!((0.9 * all..all + 1e6).contains(&taken), "{taken} bytes taken, {all} stated: {plan}");
    }
}

/// A few times; `MOEC_RELOADS=1000` is the long form of it.
#[test]
fn a_library_can_be_unloaded_and_loaded_again() {
    let folder = built_bard();
    let path = folder.path();
    let source = repository().join("crates/moec/tests/cli/reload.c");
    cc(path, &format!("{} -Ibuild -ldl -o reload", source.display())).fine();
    let wanted: u32 = std::env::var("MOEC_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(60);
    let files = [path.join("build/libbard.so"), path.join("build/bard.weights")];
    let reload = |command: &mut Command, rounds: u32, steady: u32| {
        run(command.args(&files).args([rounds, steady].map(|count| count.to_string()))).fine().stdout
    };
    // Memory is what it will be after some rounds.
    print!("{}", reload(&mut Command::new(path.join("reload")), wanted.max(40), 20));
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("not run under valgrind: it is not installed (apt-get install valgrind)");
        return;
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--keep-debuginfo=yes"]);
    reload(valgrind.arg(path.join("reload")), 2, 2);
}

#[test]
fn the_library_needs_libc_alone_and_shows_its_own_names_only() {
    let folder = built_bard();
    let library = folder.path().join("build/libbard.so");
    let needed = run(Command::new("objdump").arg("-p").arg(&library)).fine().stdout;
    for line in needed.lines().filter(|line| line.contains("NEEDED")) {
        let name = line.split_whitespace().last().unwrap_or("");
        assert!(["libc.so.6", "libm.so.6", "libpthread.so.0"].contains(&name), "{line}");
    }
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library)).fine().stdout;
    for line in symbols.lines() {
        assert!(line.split_whitespace().last().is_some_and(|name| name.starts_with("bard_")), "{line}");
    }
    let archive = folder.path().join("build/libbard.a");
    let symbols = run(Command::new("nm").args(["-g", "--defined-only"]).arg(&archive)).fine().stdout;
    for name in symbols.lines().filter_map(|line| line.split_whitespace().nth(2)) {
        assert!(name.starts_with("bard_"), "{name} is visible");
    }
}

/// A build that was killed leaves its folder; a later one removes it, but not that of one which is at work.
#[test]
fn what_killed_builds_left_is_swept() {
    let folder = built_bard();
    let build = folder.path().join("build");
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let leave = |name: &str, old: bool| {
        let place = build.join(name);
        fs::create_dir(&place).and_then(|()| fs::write(place.join("half"), "half")).expect("made");
        if old {
            fs::File::open(&place).and_then(|place| place.set_modified(hour_ago)).expect("an older time");
        }
        place
    };
    // No process has so high a number; this one's own is at work.
    let (dead, fresh) = (leave(".moec-build-4194999-a", true), leave(".moec-build-4194999-b", false));
    let busy = leave(&format!(".moec-build-{}-c", std::process::id()), true);
    let foreign = leave(".moec-builder", true);
    moec_in(folder.path(), "build bard.moe --cpu scalar -o build").fine();
    assert!(!dead.exists(), "it is old, and its process is gone");
    assert!(fresh.exists() && busy.exists() && foreign.exists());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = built_bard();
    let path = folder.path();
    let bard = crate::command::bard();
    moec_in(path, &format!("build bard.moe --weights {} -o again", bard.display())).fine();
    for file in [
        "libbard.so",
        "libbard.a",
        "bard.h",
        "bard.pc",
        "bardConfig.cmake",
        "bard.weights",
        "build.json",
        "tokenizer.json",
    ] {
        let (first, second) = (fs::read(path.join("build").join(file)), fs::read(path.join("again").join(file)));
        assert!(first.expect("built") == second.expect("built"), "{file} differs");
    }
}

#[test]
fn every_stage_can_be_seen() {
    let folder = built_bard();
    let path = folder.path();
    moec_in(path, "build bard.moe --emit ir,plan,mlir,llvm,asm --cpu avx2 -o stages").fine();
    for (file, word) in [
        ("bard.ir", "layers"),
        ("bard.plan", "gemm"),
        ("bard.mlir", "func.func"),
        ("bard.ll", "define"),
        ("bard.s", ".text"),
    ] {
        let text = fs::read_to_string(path.join("stages").join(file)).expect("written");
        assert!(text.contains(word), "no `{word}` in {file}");
    }
}

#[test]
fn a_level_can_be_left_out() {
    let folder = built_bard();
    let path = folder.path();
    let bard = crate::command::bard();
    moec_in(path, &format!("build bard.moe --weights {} --cpu scalar -o plain", bard.display())).fine();
    let plain = moec_in(path, "run plain --prompt JULIET. --max-new 24 --greedy").fine();
    assert!(plain.stderr.contains("scalar"), "{plain:#?}");
    let best = moec_in(path, "run build --prompt JULIET. --max-new 24 --greedy").fine();
    assert_eq!(plain.stdout, best.stdout);
    moec_in(path, "bench build --rounds 1 --tokens 4 --steps 4 --json").fine();
}
