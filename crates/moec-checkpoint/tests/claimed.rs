//! Rules as they are written, tensors as they lie in files, and the parameters that come of it.

use std::collections::BTreeMap;

use moec_checkpoint::{Checkpoint, CheckpointWeights, match_checkpoint};
use moec_diag::SourceMap;
use moec_ir::{Module, ParamId};
use moec_oracle::Weights;
use moec_sema::{Settings, WeightMap};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const SPEC: &str = r#"
config { L = 1 }
gate first {
  param W[E, D]
  let (v, i) = top_k(x · W, 1 over E)
  route tokens(i, v)
}
expert product(F) {
  param gate[F, D]
  param up[F, D]
  param down[D, F]
  out ((x · gate) * (x · up)) · down over F
}
model parts(x: f32[S, D = 2]) {
  param a[A = 3, D]
  param b[B = 1, D]
  param w[R = 3, C = 5]
  param m[P = 1, Q = 4]
  part ffn = moe { gate first; experts product(3) × 2 }
  let y = ffn(x) + sum(a over A) + sum(b over B) + sum(w over (R, C)) + sum(m over (P, Q))
  out z: f32[S, D] = y
}
weights hf inside "lm." {
  (a, b)     = "ab" as [(A | B), D] | "single.{a,b}"
  w          = "w"  as [R, C]
  m          = "m_blocks" as [P, Q]
  ffn.gate.W = "router" as [E, D]
  ffn.experts[e].(gate, up) = "gate_up" as [e, D, (F, (1 | 1))]
  ffn.experts[e].down       = "down" as [(e, F), D]
  scaled "{any}_blocks" as f4e2m1 by "{any}_scales" as e8m0 in [4]
  scaled "{any}" by "{any}_scale_inv" in [2, 4]
  ignore "layers.{l >= L}.{any}"
}
"#;

fn checked(text: &str) -> (Module, WeightMap) {
    let mut sources = SourceMap::default();
    let (file, problems) = moec_syntax::parse(&mut sources, "spec.moe", text);
    assert!(problems.is_empty(), "{:?}", problems.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (checked, problems) = moec_sema::check(&mut sources, &file.expect("a tree"), &Settings::default());
    assert!(problems.is_empty(), "{:?}", problems.iter().map(ToString::to_string).collect::<Vec<_>>());
    let checked = checked.expect("sound");
    (checked.module, checked.weights.expect("a section"))
}

type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// 0, 1, 2, …
fn counted(shape: &[usize]) -> Stored {
    floats(shape, &(0..shape.iter().product::<usize>()).map(|at| at as f32).collect::<Vec<_>>())
}

fn floats(shape: &[usize], values: &[f32]) -> Stored {
    (Dtype::F32, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn tensors() -> BTreeMap<String, Stored> {
    let tensors = [
        ("ab", counted(&[4, 2])),
        ("w", (Dtype::F8_E4M3, vec![3, 5], vec![0x38; 15])),
        ("w_scale_inv", floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0])),
        ("m_blocks", (Dtype::U8, vec![1, 1, 2], vec![0x21, 0xf7])),
        ("m_scales", (Dtype::U8, vec![1, 1], vec![128])),
        ("router", counted(&[2, 2])),
        ("gate_up", counted(&[2, 2, 6])),
        ("down", counted(&[6, 2])),
        ("layers.1.x", counted(&[1])),
    ];
    tensors.map(|(name, tensor)| (name.to_string(), tensor)).into()
}

/// The parameters' values by path, or what is wrong.
fn read(tensors: &BTreeMap<String, Stored>) -> Result<BTreeMap<String, Vec<f32>>, Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("a sound tensor"))
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).expect("written");
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let (module, map) = checked(SPEC);
    let map = map.for_tensors(&checkpoint.names().collect());
    let problems = match_checkpoint(&checkpoint, &map, &module);
    if !problems.is_empty() {
        return Err(problems.iter().map(ToString::to_string).collect());
    }
    let weights = CheckpointWeights::new(&checkpoint, &map, &module);
    let mut values = BTreeMap::new();
    for (number, param) in module.params.iter().enumerate() {
        for expert in 0..param.experts.map_or(1, |experts| experts.count) {
            let tensor = weights.instance(ParamId(number as u32), 0, expert).expect("it matched");
            values.insert(param.path.replace("[e]", &format!("[{expert}]")), tensor.f32().to_vec());
        }
    }
    Ok(values)
}

#[test]
fn parts_of_tensors_are_found_where_the_layout_says() {
    let values = read(&tensors()).expect("it matches");
    assert_eq!(values["a"], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(values["b"], [6.0, 7.0]);
    // gate[f, d] of expert e stands at 12 e + 6 d + 2 f, up one further.
    assert_eq!(values["ffn.experts[1].gate"], [12.0, 18.0, 14.0, 20.0, 16.0, 22.0]);
    assert_eq!(values["ffn.experts[0].up"], [1.0, 7.0, 3.0, 9.0, 5.0, 11.0]);
    assert_eq!(values["ffn.experts[1].down"], [6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
}

#[test]
fn small_numbers_are_multiplied_by_the_scale_of_their_block() {
    let values = read(&tensors()).expect("it matches");
    // Blocks of 2 by 4 on 3 by 5: the last of each is a part of one.
    assert_eq!(values["w"], [1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 4.0]);
    assert_eq!(values["m"], [1.0, 2.0, 12.0, -12.0]);
}

#[test]
fn the_checkpoint_decides_among_sources_and_may_nest_all_of_them() {
    let mut nested = tensors();
    nested.remove("ab");
    nested.insert("single.a".to_string(), counted(&[3, 2]));
    nested.insert("single.b".to_string(), counted(&[1, 2]));
    let nested: BTreeMap<String, Stored> =
        nested.into_iter().map(|(name, tensor)| (format!("lm.{name}"), tensor)).collect();
    let values = read(&nested).expect("it matches");
    assert_eq!(values["a"], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(values["b"], [0.0, 1.0]);
    assert_eq!(values["m"], [1.0, 2.0, 12.0, -12.0]);
}

#[test]
fn what_does_not_fit_is_told_by_tensor() {
    let told = |change: &dyn Fn(&mut BTreeMap<String, Stored>)| {
        let mut tensors = tensors();
        change(&mut tensors);
        read(&tensors).expect_err("it does not fit")
    };
    let wrong = told(&|tensors| drop(tensors.insert("gate_up".into(), counted(&[2, 6, 2]))));
    assert_eq!(
        wrong,
        ["tensor `gate_up` is [2, 6, 2] in the checkpoint (and 3 more of this rule), \
                        [e=2, D=2, (F, (1 | 1))=6] here"]
    );
    let wrong = told(&|tensors| drop(tensors.insert("w_scale_inv".into(), floats(&[1, 2], &[1.0, 2.0]))));
    assert_eq!(
        wrong,
        ["tensor `w` cannot be scaled as the rule says: in such blocks its scales are [2, 2], \
                        the checkpoint has [1, 2]"]
    );
    let wrong = told(&|tensors| drop(tensors.insert("m_blocks".into(), (Dtype::I8, vec![1, 1, 2], vec![1, 2]))));
    assert_eq!(
        wrong,
        ["tensor `m_blocks` cannot be scaled as the rule says: its elements are I8, and the rule does \
                        not say what those stand for"]
    );
    let wrong = told(&|tensors| drop(tensors.remove("m_scales")));
    assert_eq!(
        wrong,
        ["tensor `m_blocks` is [1, 1, 2] in the checkpoint, [P=1, Q=4] here", "tensor `m_blocks` holds U8; `m` is f32"]
    );
    let wrong = told(&|tensors| drop(tensors.insert("layers.0.x".into(), counted(&[1]))));
    assert_eq!(wrong, ["no rule claims 1 of the checkpoint's tensors: `layers.0.x`"]);
}
