//! Named tensors in, named tensors out, with parameters by their path; the numbers computed here by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{folder, moec_in, repository};

const D: usize = 4;
const F: usize = 3;
const E: usize = 5;
const K: usize = 2;
const SIZES: &str = "--set D=4 --set F=3 --set E=5 --set K=2";

type Floats = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Numbers in -1 .. 1 that look like nothing in particular.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|at| (((at + 1) * (seed * 37 + 11) * 2_654_435) % 2000) as f32 / 1000.0 - 1.0).collect()
}

/// Parameters of the `layer` template, and five rows.
fn inputs() -> Floats {
    let mut tensors = Floats::new();
    let mut add = |name: String, shape: Vec<usize>, seed| {
        let values = numbers(shape.iter().product(), seed);
        tensors.insert(name, (shape, values));
    };
    add("x".into(), vec![5, D], 1);
    add("ffn.gate.W".into(), vec![E, D], 2);
    for expert in 0..E {
        add(format!("ffn.experts[{expert}].gate"), vec![F, D], 10 + expert);
        add(format!("ffn.experts[{expert}].up"), vec![F, D], 20 + expert);
        add(format!("ffn.experts[{expert}].down"), vec![D, F], 30 + expert);
    }
    tensors
}

fn write(path: &Path, tensors: &Floats) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).expect("as many bytes as the shape says"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("serialised")).expect("written");
}

/// A folder with the template as `layer.moe`, and its inputs.
fn prepared(inputs: &Floats) -> TempDir {
    let folder = folder();
    moec_in(folder.path(), "new layer --template layer").fine();
    write(&folder.path().join("in.safetensors"), inputs);
    folder
}

/// `w` [rows, columns] times a vector.
fn times(w: &[f32], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect()
}

/// What the template says, for one row: the result and the chosen experts.
fn expected(tensors: &Floats, x: &[f32]) -> (Vec<f64>, Vec<usize>) {
    let tensor = |name: &str| tensors[name].1.as_slice();
    let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let scores = times(tensor("ffn.gate.W"), &x);
    let mut order: Vec<usize> = (0..E).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(K);
    let powers: Vec<f64> = order.iter().map(|at| (scores[*at] - scores[order[0]]).exp()).collect();
    let mut y = x.clone();
    for (expert, power) in order.iter().zip(&powers) {
        let of = |name: &str| tensor(&format!("ffn.experts[{expert}].{name}")).to_vec();
        let (gate, up) = (times(&of("gate"), &x), times(&of("up"), &x));
        let inner: Vec<f64> = gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
        for (y, down) in y.iter_mut().zip(times(&of("down"), &inner)) {
            *y += power / powers.iter().sum::<f64>() * down;
        }
    }
    (y, order)
}

#[test]
fn a_layer_computes_what_its_text_says() {
    let tensors = inputs();
    let folder = prepared(&tensors);
    let line =
        format!("run layer.moe {SIZES} --inputs in.safetensors --outputs out.safetensors --trace trace.safetensors");
    moec_in(folder.path(), &line).fine();
    let out = fs::read(folder.path().join("out.safetensors")).expect("the outputs");
    let out = SafeTensors::deserialize(&out).expect("sound");
    let y = out.tensor("y").expect("y");
    assert_eq!(y.shape(), [5, D]);
    let y: Vec<f32> = y.data().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect();
    let trace = fs::read(folder.path().join("trace.safetensors")).expect("the trace");
    let trace = SafeTensors::deserialize(&trace).expect("sound");
    let chosen = trace.tensor("route.0.indices").expect("one route");
    assert_eq!(chosen.shape(), [5, K]);
    let chosen: Vec<i32> =
        chosen.data().chunks_exact(4).map(|four| i32::from_le_bytes(four.try_into().expect("four"))).collect();
    for (row, x) in tensors["x"].1.chunks(D).enumerate() {
        let (wanted, experts) = expected(&tensors, x);
        let experts: Vec<i32> = experts.into_iter().map(|expert| expert as i32).collect();
        assert_eq!(chosen[row * K..][..K], experts, "experts of row {row}");
        for (at, wanted) in wanted.iter().enumerate() {
            let found = f64::from(y[row * D + at]);
            assert!((found - wanted).abs() < 1e-5, "row {row}, {at}: {found}, not {wanted}");
        }
    }
}

#[test]
fn no_rows_are_no_trouble() {
    let mut tensors = inputs();
    tensors.insert("x".into(), (vec![0, D], Vec::new()));
    let folder = prepared(&tensors);
    let ended =
        moec_in(folder.path(), &format!("run layer.moe {SIZES} --inputs in.safetensors --outputs out.safetensors"));
    assert!(ended.code == 0 || ended.code == 1, "{ended:#?}");
}

#[test]
fn wrong_tensors_are_named() {
    let run = |tensors: &Floats| {
        let folder = prepared(tensors);
        moec_in(folder.path(), &format!("run layer.moe {SIZES} --inputs in.safetensors --outputs out.safetensors"))
    };
    let mut tensors = inputs();
    let up = tensors.remove("ffn.experts[3].up").expect("there");
    tensors.insert("ffn.expert[3].up".into(), up.clone());
    run(&tensors).refused(1, &["no tensor `ffn.experts[3].up`", "did you mean `ffn.expert[3].up`"]);

    tensors.insert("ffn.experts[3].up".into(), (vec![D, F], up.1));
    run(&tensors).refused(1, &["ffn.experts[3].up", "[4, 3]"]);

    let mut tensors = inputs();
    tensors.remove("x");
    run(&tensors).refused(1, &["input `x` is missing"]);

    let mut tensors = inputs();
    tensors.insert("x".into(), (vec![5, D + 1], numbers(5 * (D + 1), 1)));
    run(&tensors).refused(1, &["x"]);
}

/// Every gate of the examples, compiled, against the oracle: the same choices, the same numbers.
#[test]
fn gates_of_the_examples_compute_what_the_oracle_says() {
    let mut gates: Vec<_> = fs::read_dir(repository().join("examples/gates"))
        .expect("examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "moe"))
        .collect();
    gates.sort();
    assert!(!gates.is_empty());
    for gate in gates {
        let folder = folder();
        let path = folder.path();
        fs::copy(&gate, path.join("gate.moe")).expect("copied");
        let explained = moec_in(path, "explain gate.moe --json").fine().stdout;
        let explained: Value = serde_json::from_str(&explained).expect("JSON");
        let mut tensors = Floats::new();
        for (seed, param) in explained["parameters"]["each"].as_array().expect("a list").iter().enumerate() {
            add_instances(&mut tensors, param, seed);
        }
        for input in explained["inputs"].as_array().expect("a list") {
            assert_eq!(input["dtype"], "f32", "the gates of the examples take rows");
            let axes = input["axes"].as_array().expect("a list").iter();
            let shape: Vec<usize> = axes.map(|axis| axis[1].as_u64().unwrap_or(23) as usize).collect();
            let values = numbers(shape.iter().product(), 3);
            tensors.insert(input["name"].as_str().expect("a name").into(), (shape, values));
        }
        write(&path.join("in.safetensors"), &tensors);
        for backend in ["cpu", "oracle"] {
            let line = format!(
                "run gate.moe --inputs in.safetensors --outputs {backend}.safetensors --trace {backend}-trace.safetensors --backend {backend}"
            );
            moec_in(path, &line).fine();
        }
        assert_near(&path.join("cpu.safetensors"), &path.join("oracle.safetensors"), 2e-5);
        assert_near(&path.join("cpu-trace.safetensors"), &path.join("oracle-trace.safetensors"), 1e-5);
    }
}

/// All instances of a parameter that `explain --json` lists, with numbers that keep activations in bounds.
fn add_instances(tensors: &mut Floats, param: &Value, seed: usize) {
    let path = param["path"].as_str().expect("a path");
    let axes = param["axes"].as_array().expect("a list").iter();
    let shape: Vec<usize> = axes.map(|axis| axis[1].as_u64().expect("a size") as usize).collect();
    let layers: Vec<u64> =
        param["layers"].as_array().map_or(vec![0], |of| of.iter().filter_map(Value::as_u64).collect());
    let experts = match param["experts"].as_array() {
        Some(range) => range[0].as_u64().expect("a number")..range[1].as_u64().expect("a number"),
        None => 0..1,
    };
    let scale = (*shape.last().unwrap_or(&1) as f32).powf(-0.5);
    for layer in layers {
        for expert in experts.clone() {
            let name = path.replace("[l]", &format!("[{layer}]")).replace("[e]", &format!("[{expert}]"));
            let values = numbers(shape.iter().product(), seed * 1000 + (layer * 100 + expert) as usize);
            tensors.insert(name, (shape.clone(), values.into_iter().map(|value| value * scale).collect()));
        }
    }
}

/// The same tensors: integers equal, floats within `tolerance`.
fn assert_near(one: &Path, other: &Path, tolerance: f32) {
    let (one, other) = (fs::read(one).expect("written"), fs::read(other).expect("written"));
    let (one, other) =
        (SafeTensors::deserialize(&one).expect("sound"), SafeTensors::deserialize(&other).expect("sound"));
    // Where in the model a route stands, only the library tells.
    let names = |file: &SafeTensors| -> BTreeSet<String> {
        file.names().into_iter().filter(|name| !name.ends_with(".place")).map(str::to_owned).collect()
    };
    assert_eq!(names(&one), names(&other));
    assert!(!one.is_empty());
    for name in names(&one) {
        let (name, a) = (name.as_str(), one.tensor(&name).expect("it has this name"));
        let b = other.tensor(name).expect("the names are the same");
        assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{name}");
        if a.dtype() != Dtype::F32 {
            assert!(a.data() == b.data(), "{name} differs");
            continue;
        }
        let floats = |view: &TensorView| -> Vec<f32> {
            view.data().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect()
        };
        for (at, (a, b)) in floats(&a).into_iter().zip(floats(&b)).enumerate() {
            assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{name} at {at}: {a}, the oracle says {b}");
        }
    }
}

/// A state of each layer, handed in again: after three steps, the sums of what came before.
#[test]
fn states_go_from_step_to_step() {
    let spec = "
        block counted { state seen[D] = 0.5 on step seen + mean(x over S)  out x + seen }
        model kept(x: f32[S, D = 2]) {
          let h = x
          layers l in 0..3 { part step = counted  h = step(h) }
          aux size(0.5) = sum(h over (S, D))
          out y: f32[S, D] = h
        }";
    let folder = folder();
    fs::write(folder.path().join("kept.moe"), spec).expect("written");
    let x = [[1.0f32, 2.0], [3.0, 4.0]];
    write(&folder.path().join("in.safetensors"), &[("x".to_owned(), (vec![2, 2], x.concat()))].into());
    let (mut states, mut y) = ([[0.5f32; 2]; 3], x);
    for _ in 0..3 {
        y = x;
        for state in &mut states {
            let before = *state;
            for d in 0..2 {
                state[d] += (y[0][d] + y[1][d]) / 2.0;
                y.iter_mut().for_each(|row| row[d] += before[d]);
            }
        }
    }
    let run = "run kept.moe --inputs in.safetensors --outputs out.safetensors --also aux --steps 3 --backend";
    for backend in ["oracle", "cpu"] {
        moec_in(folder.path(), &format!("{run} {backend}")).fine();
        let bytes = fs::read(folder.path().join("out.safetensors")).expect("written");
        let found = SafeTensors::deserialize(&bytes).expect("safetensors");
        let floats = |name: &str| -> Vec<f32> {
            let tensor = found.tensor(name).unwrap_or_else(|_| panic!("no `{name}`"));
            tensor.data().as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
        };
        assert_eq!(floats("layers.step.seen"), states.concat(), "{backend}");
        assert_eq!(floats("y"), y.concat(), "{backend}");
        assert_eq!(floats("aux"), [y.concat().iter().sum::<f32>() / 2.0], "{backend}");
    }
    let without = spec.replace("on step seen + mean(x over S)", "");
    fs::write(folder.path().join("kept.moe"), without).expect("written");
    let failed = moec_in(folder.path(), &format!("{run} oracle"));
    assert!(failed.stderr.contains("moec::run::no_state"), "{}", failed.stderr);
}

/// Of a pass's positions no more can be chosen than there are.
#[test]
fn a_pass_has_as_many_positions_as_are_chosen() {
    let at = folder();
    let text = "model best(x: f32[S, D = 2]) { out y: f32[D] = sum(top_k(x, 3 over S).values over K) }\n";
    fs::write(at.path().join("best.moe"), text).expect("written");
    let run = |rows: usize| {
        let values: Vec<f32> = (0..2 * rows).map(|at| at as f32).collect();
        write(&at.path().join("in.safetensors"), &Floats::from([("x".to_owned(), (vec![rows, 2], values))]));
        moec_in(at.path(), "run best.moe --inputs in.safetensors --outputs out.safetensors")
    };
    run(4).fine();
    run(2).refused(1, &["at least 3 positions", "2 are given"]);

    // Along another sequence, too.
    let text = "model best(words: f32[Word, D = 2], x: f32[S, D]) across Word {
        let kept = words + sum(top_k(words, 3 over Word).values over K)
        let p = softmax((x · past(kept, Word as Read) over D) over Read)
        out y: f32[S, D] = p · past(kept, Word as Read) over Read
    }\n";
    fs::write(at.path().join("best.moe"), text).expect("written");
    let run = |rows: usize| {
        let given =
            [("x", 1), ("words", rows)].map(|(name, rows)| (name.to_owned(), (vec![rows, 2], vec![1.0; 2 * rows])));
        write(&at.path().join("in.safetensors"), &Floats::from(given));
        moec_in(at.path(), "run best.moe --inputs in.safetensors --outputs out.safetensors")
    };
    run(4).fine();
    run(2).refused(1, &["at least 3 positions", "2 are given"]);
}
