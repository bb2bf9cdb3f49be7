//! Named tensors in, named tensors out, with parameters by their path; the numbers computed here by hand.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use crate::command::{folder, moec_in};

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
    let chosen = trace.tensor("route.0.rank.0.indices").expect("one route");
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
