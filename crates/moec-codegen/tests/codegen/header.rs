use std::fs;

use moec_codegen::{check_name, functions, header};

use crate::{
    c::{STRICT, cc, run},
    plans::{empty, tiny},
};

/// The header alone is good C and C++, twice in one file, with names that C could not bear as they are.
#[test]
fn compiles_as_c_and_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let mut odd = tiny("odd");
    odd.inputs[0].name = "*/ @name@ é".into();
    odd.outputs[0].axes = vec![("a-b".into(), 7), ("a b".into(), 1)];
    let mut whole = tiny("whole");
    whole.outputs[0].buffer = whole.inputs[0].buffer;
    for plan in [tiny("tiny"), odd, whole, empty("empty")] {
        let text = header(&plan).unwrap();
        assert!(!text.contains('@'), "a placeholder is left in {text}");
        for (file, flags) in
            [("it.c", &STRICT[..]), ("it.cpp", &["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])]
        {
            fs::write(folder.path().join("it.h"), &text).unwrap();
            let name = &plan.name;
            let upper = name.to_ascii_uppercase();
            let source = format!(
                "#include \"it.h\"\n#include \"it.h\"\nint main(void) {{ {name}_options options = {upper}_OPTIONS_INIT; \
                 return (int)options.threads + (int)sizeof(&{name}_open) - (int)sizeof(void *) + (int){upper}_CACHE_BYTES(3); }}\n"
            );
            fs::write(folder.path().join(file), source).unwrap();
            run(cc().args(flags).args(["-c", "-o", "it.o", file]).current_dir(folder.path()));
        }
    }
}

#[test]
fn is_what_the_run_time_takes() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.h"), header(&tiny("tiny")).unwrap()).unwrap();
    run(cc().args(STRICT).arg("-c").arg(crate::c::tests().join("interface.c")).arg("-I.").current_dir(folder.path()));
}

/// Every function that an entry object defines is declared, and the other way round.
#[test]
fn declares_every_function() {
    for plan in [tiny("tiny"), empty("tiny")] {
        let text = header(&plan).unwrap();
        let declared: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("tiny_") && line.contains('(') && !line.starts_with([' ', '#', '/', '}']))
            .filter(|line| !line.starts_with("typedef"))
            .map(|line| line.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap())
            .collect();
        let mut defined: Vec<String> =
            functions(&plan).iter().map(|function| ["tiny_", function.suffix].concat()).collect();
        let mut declared: Vec<String> = declared.into_iter().map(str::to_owned).collect();
        declared.sort();
        defined.sort();
        assert_eq!(declared, defined);
    }
}

#[test]
fn names() {
    for good in ["olmoe", "qwen3_moe", "A"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    for bad in ["", "3d", "_x", "a-b", "é", "int", "class", "sem", "moec", "moec_x", &"x".repeat(65), "a b", "a;b"] {
        assert!(check_name(bad).is_err(), "{bad}");
        assert!(header(&tiny(bad)).is_err(), "{bad}");
    }
}
