//! A checkpoint fills a module, or every reason why not is reported.

use std::collections::BTreeMap;
use std::path::Path;

use moec_checkpoint::{Checkpoint, CheckpointWeights, match_checkpoint};
use moec_diag::Span;
use moec_ir::{Experts, Module, Param, ParamId};
use moec_oracle::{Tensor, Weights};
use moec_sema::{Claim, View, WeightMap};
use moec_syntax::tree::{PatternPiece, TensorPattern};
use moec_types::{Axis, DType, Dim, TensorType};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

type Stored = (Dtype, Vec<usize>, Vec<u8>);

fn f32s(shape: &[usize], values: &[f32]) -> Stored {
    (Dtype::F32, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn write(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("a sound tensor"))
    });
    safetensors::serialize_to_file(views, None, path).expect("written");
}

/// `o[D=2, Head=3, Dh=2]` once, `up[F=1, D=2]` for layer 4 and experts 0 and 1.
fn module() -> Module {
    let mut module = Module::new("test");
    let param = |path: &str, dims: &[(&str, u64)], layers, experts| Param {
        path: path.to_string(),
        ty: TensorType::new(DType::F32, dims.iter().map(|(name, size)| Dim::fixed(name, *size)).collect()),
        layers,
        experts,
        storage: DType::Bf16,
        role: moec_ir::Role::Trained,
        at: Span::new(9, 10),
    };
    module.add_param(param("o", &[("D", 2), ("Head", 3), ("Dh", 2)], None, None));
    let experts = Some(Experts { first: 0, count: 2 });
    module.add_param(param("layers[l].experts[e].up", &[("F", 1), ("D", 2)], Some(vec![4]), experts));
    module
}

fn claim(tensor: &str, param: u32, expert: u32, layout: &[&[&str]]) -> Claim {
    Claim {
        tensor: tensor.to_string(),
        param: ParamId(param),
        layer: 0,
        expert,
        view: view(param, layout),
        at: Span::new(param, param + 1),
        source: 0,
        shared: false,
    }
}

/// All of a tensor under a parameter's axes.
fn view(param: u32, layout: &[&[&str]]) -> View {
    let module = module();
    let size = |name: &&str| module.param(ParamId(param)).ty.dim(&Axis::new(name)).unwrap().size.fixed().unwrap();
    let shape = layout.iter().map(|axes| match axes {
        [axis] => (axis.to_string(), size(axis)),
        axes => (format!("({})", axes.join(", ")), axes.iter().map(size).product()),
    });
    let mut stride = 1;
    let mut axes: Vec<(Axis, u64, u64)> = Vec::new();
    for name in layout.iter().copied().flatten().rev() {
        axes.insert(0, (Axis::new(name), size(name), stride));
        stride *= size(name);
    }
    View { shape: shape.collect(), offset: 0, axes }
}

/// The tensor of `o` has its axes in the order `[(Head, Dh), D]`.
fn weights() -> WeightMap {
    WeightMap {
        claims: vec![
            claim("o.weight", 0, 0, &[&["Head", "Dh"], &["D"]]),
            claim("4.0.up", 1, 0, &[&["F"], &["D"]]),
            claim("4.1.up", 1, 1, &[&["F"], &["D"]]),
        ],
        ..WeightMap::default()
    }
}

fn tensors() -> BTreeMap<String, Stored> {
    let o: Vec<f32> = (0..12).map(|n| n as f32).collect();
    let half = [half::bf16::from_f32(1.5), half::bf16::from_f32(-2.0)].iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors = [
        ("o.weight", f32s(&[6, 2], &o)),
        ("4.0.up", f32s(&[1, 2], &[10.0, 11.0])),
        ("4.1.up", (Dtype::BF16, vec![1, 2], half)),
    ];
    tensors.map(|(name, tensor)| (name.to_string(), tensor)).into()
}

fn problems(tensors: &BTreeMap<String, Stored>, weights: &WeightMap) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("model.safetensors"), tensors);
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let problems = match_checkpoint(&checkpoint, weights, &module());
    let full = |problem: &moec_diag::Problem| match problem.help() {
        Some(help) => format!("{problem} ({help})"),
        None => problem.to_string(),
    };
    problems.iter().map(full).collect()
}

#[test]
fn every_instance_has_its_tensor_in_the_parameters_order() {
    assert_eq!(problems(&tensors(), &weights()), Vec::<String>::new());
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("model.safetensors"), &tensors());
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let (module, weights) = (module(), weights());
    let weights = CheckpointWeights::new(&checkpoint, &weights, &module);
    let o = weights.instance(ParamId(0), 0, 0).expect("bound");
    let transposed = vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 1.0, 3.0, 5.0, 7.0, 9.0, 11.0f32];
    assert_eq!(*o, Tensor::named(&[("D", 2), ("Head", 3), ("Dh", 2)], transposed));
    let up = weights.instance(ParamId(1), 0, 1).expect("bound");
    assert_eq!(*up, Tensor::named(&[("F", 1), ("D", 2)], vec![1.5, -2.0f32]));
    assert!(weights.instance(ParamId(1), 1, 0).is_none());
}

#[test]
fn what_is_missing_extra_or_misshapen_is_reported_once_for_each_rule() {
    let mut missing = tensors();
    let o = missing.remove("o.weight").expect("there");
    missing.insert("o.weights".to_string(), o);
    missing.remove("4.0.up");
    missing.remove("4.1.up");
    assert_eq!(
        problems(&missing, &weights()),
        [
            "the checkpoint has no tensor `o.weight` (did you mean `o.weights`?)",
            "the checkpoint has no tensor `4.0.up` (and 1 more of this rule) \
             (is this the checkpoint of another model?)",
            "no rule claims 1 of the checkpoint's tensors: `o.weights` \
             (bind them in the `weights` section, or say that they are not needed: ignore \"o.weights\")"
        ]
    );

    let mut turned = tensors();
    turned.insert("o.weight".to_string(), f32s(&[2, 6], &[0.0; 12]));
    turned.insert("4.0.up".to_string(), f32s(&[3, 2], &[0.0; 6]));
    turned.insert("4.1.up".to_string(), (Dtype::U8, vec![1, 2], vec![0; 2]));
    assert_eq!(
        problems(&turned, &weights()),
        [
            "tensor `o.weight` is [2, 6] in the checkpoint, [(Head, Dh)=6, D=2] here \
             (the checkpoint holds it transposed; write `as [D, (Head, Dh)]`)",
            "tensor `4.0.up` is [3, 2] in the checkpoint, [F=1, D=2] here \
             (sizes come from the `config` section: is this the checkpoint's own config.json?)",
            "tensor `4.1.up` holds U8; `layers[4].experts[1].up` is f32 (convert the checkpoint to bf16, f16 or f32)"
        ]
    );
}

#[test]
fn ignored_and_shared_tensors_may_be_there_and_extra_ones_are_counted() {
    let mut extra = tensors();
    for number in 0..12 {
        extra.insert(format!("mtp.{number}.w"), f32s(&[1], &[0.0]));
    }
    extra.insert("head".to_string(), f32s(&[7], &[0.0; 7]));
    let mut weights = weights();
    weights.claims.push(Claim { shared: true, ..claim("head", 0, 0, &[&["D"], &["Head", "Dh"]]) });
    let listed = problems(&extra, &weights);
    assert!(listed[0].starts_with("no rule claims 12 of the checkpoint's tensors: `mtp.0.w`, "), "{}", listed[0]);
    assert!(listed[0].contains("`mtp.7.w` and 2 more"), "{}", listed[0]);
    let pieces = vec![PatternPiece::Text("mtp.".to_string()), PatternPiece::Any];
    weights.ignored.push(TensorPattern { pieces, at: Span::NONE });
    assert_eq!(problems(&extra, &weights), Vec::<String>::new());
    extra.remove("head");
    assert_eq!(problems(&extra, &weights), Vec::<String>::new());
}

#[test]
fn a_tensor_with_two_claims_and_a_parameter_with_none_are_reported() {
    let mut weights = weights();
    weights.claims[2].tensor = "4.0.up".to_string();
    weights.claims.remove(0);
    let mut tensors = tensors();
    tensors.remove("4.1.up");
    tensors.remove("o.weight");
    assert_eq!(
        problems(&tensors, &weights),
        [
            "no rule says where `o` comes from (bind it in the `weights` section: o = \"name of its tensor\")",
            "tensor `4.0.up` is claimed twice (each tensor belongs to one parameter; drop one of the two rules)"
        ]
    );
}
