//! Specs of several files.

use std::fs;

use crate::command::{folder, moec_in};

const MODEL: &str = "use \"parts/gates.moe\"::best\nuse \"parts/experts.moe\"::doubled\n\
                     config { by = 2.0 }\nmodel m(x: f32[S, D = 8]) {\n  \
                     part ffn = moe { gate best; experts doubled × 4 }\n  out y: f32[S, D] = ffn(x)\n}\n";
const GATES: &str = "use \"scores.moe\"::score\ngate best {\n  param W[E, D]\n  \
                     let (v, i) = top_k(score(x · W), 1 over E)\n  route tokens(i, v)\n}\n";
const EXPERTS: &str = "use \"scores.moe\"::score\nexpert doubled { out score(x) }\n";
const SCORES: &str = "fn score(x) = by * x\n";

#[test]
fn files_of_ones_own_are_read_from_where_they_lie() {
    let at = folder();
    fs::create_dir(at.path().join("parts")).expect("a folder");
    let write = |name: &str, text: &str| fs::write(at.path().join(name), text).expect("written");
    write("model.moe", MODEL);
    write("parts/gates.moe", GATES);
    write("parts/experts.moe", EXPERTS);
    write("parts/scores.moe", SCORES);
    moec_in(at.path(), "check model.moe").fine();
    // What only defines is checked as well, by itself; but nothing can be built of it.
    moec_in(at.path(), "check parts/gates.moe").fine();
    moec_in(at.path(), "build parts/gates.moe").refused(1, &["no model"]);
    write("parts/slip.moe", "fn slip(x over A) = softmx(x over A)\n");
    moec_in(at.path(), "check parts/slip.moe").refused(1, &["parts/slip.moe:1", "did you mean `softmax`"]);
    let above = at.path().parent().expect("a folder above");
    let name = at.path().file_name().expect("a name").to_string_lossy();
    moec_in(above, &format!("build {name}/model.moe -o {name}/build")).fine();

    // Problems of all files at once, each in its own.
    write("parts/gates.moe", &GATES.replace("top_k(", "top_k(("));
    write("model.moe", &MODEL.replace("ffn(x)", "ffn(xx)"));
    moec_in(at.path(), "check model.moe").refused(1, &["parts/gates.moe:4", "model.moe:6", "2 problems"]);

    fs::remove_file(at.path().join("parts/experts.moe")).expect("removed");
    fs::create_dir(at.path().join("parts/experts.moe")).expect("a folder");
    moec_in(at.path(), "check model.moe").refused(1, &["`parts/experts.moe` cannot be opened", "is a directory"]);
}
