//! The domain models in use: decoding with and without a cache, alone and beside others; beam search; a state over ten steps; a
//! frozen model under adapters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use moec_ir::ParamId;
use moec_oracle::{Data, Tensor, Weights};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{cc, folder, moec_in, repository, run};

#[path = "../../../../tests/domains/domains.rs"]
#[expect(dead_code, reason = "what compares outputs, other tests use")]
mod reference;

use reference::Domain;

fn case(name: &str) -> Domain {
    reference::cases().into_iter().find(|case| case.name == name).expect("a case")
}

/// What else was computed of a case: the tokens with which it goes on, its states after ten steps.
fn recorded(model: &str, name: &str, what: &str) -> Vec<f32> {
    let path = repository().join("tests/domains").join(model).with_extension("json");
    let cases: Value = serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON");
    let case = cases.as_array().and_then(|cases| cases.iter().find(|case| case["name"] == name)).expect("a case");
    let numbers = case[what].as_array().expect("a list");
    numbers.iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

/// Parameters by their paths, and inputs.
fn tensors(case: &Domain) -> BTreeMap<String, Tensor> {
    let module = case.module();
    let weights = case.weights(&module);
    let mut tensors = BTreeMap::new();
    for (number, param) in module.params.iter().enumerate() {
        let layers = param.layers.as_ref().map_or(1, Vec::len) as u32;
        let experts = param.experts.map_or(1, |experts| experts.count);
        for (layer, expert) in (0..layers).flat_map(|layer| (0..experts).map(move |expert| (layer, expert))) {
            let value = weights.instance(ParamId(number as u32), layer, expert).expect("all have values");
            let value = value.arranged(param.ty.axes()).into_owned();
            tensors.insert(param.instance_path(layer, expert), value);
        }
    }
    for input in &module.inputs {
        let ty = module.tensor(input.value);
        let values = case.input(&input.name, ty, 0, case.tokens).into_iter().map(|value| value as i32).collect();
        let size = |size: Option<u64>| size.map_or(case.tokens, |size| size as usize);
        let axes = ty.dims.iter().map(|dim| (dim.axis.clone(), size(dim.size.fixed()))).collect();
        tensors.insert(input.name.clone(), Tensor::new(axes, Data::I32(values)));
    }
    tensors
}

fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let bytes = |tensor: &Tensor| -> (Dtype, Vec<u8>) {
        match tensor.data() {
            Data::F32(values) => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Data::I32(values) => (Dtype::I32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Data::Bool(values) => (Dtype::BOOL, values.iter().map(|value| u8::from(*value)).collect()),
        }
    };
    let bytes: Vec<_> = tensors.values().map(bytes).collect();
    let mut views = Vec::new();
    for ((name, tensor), (dtype, bytes)) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(*dtype, tensor.sizes(), bytes).expect("as many bytes as its shape says");
        views.push((name.clone(), view));
    }
    fs::write(path, safetensors::serialize(views, None).expect("serialised")).expect("written");
}

/// `build/` with the model and the case's weights, which its spec finds by their paths.
fn built(case: &Domain, name: &str) -> TempDir {
    let at = folder();
    let path = at.path();
    let checkpoint = path.join("checkpoint");
    fs::create_dir(&checkpoint).expect("made");
    let mut params = tensors(case);
    let module = case.module();
    params.retain(|name, _| module.inputs.iter().all(|input| input.name != *name));
    write(&checkpoint.join("model.safetensors"), &params);
    // Kinds of layers share paths.
    let mut rules = BTreeSet::new();
    for param in &module.params {
        let rest = param.path.strip_prefix("layers[").and_then(|rest| rest.split_once(']'));
        let tensor = match rest {
            Some(("l", rest)) => format!("layers[{{l}}]{rest}"),
            Some((stack, rest)) => format!("layers[{stack}={{{stack}}}]{rest}"),
            None => param.path.clone(),
        };
        let axes: Vec<&str> = param.ty.axes().map(|axis| axis.name()).collect();
        let tensor = tensor.replace("[e]", "[{e}]");
        rules.insert(format!("  {} = \"{tensor}\" as [{}]\n", param.path, axes.join(", ")));
    }
    let rules = String::from_iter(rules);
    let spec = format!("{}\nweights by_path {{\n{rules}}}\n", case.text());
    fs::write(path.join(format!("{name}.moe")), spec).expect("written");
    moec_in(path, &format!("build {name}.moe --weights checkpoint --cpu avx2")).fine();
    at
}

/// The numbers that a C program of this folder says of the built model, given numbers.
fn said_by(source: &str, name: &str, at: &TempDir, given: &[f64]) -> Vec<f32> {
    let path = at.path();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(source);
    let sanitize = "-fsanitize=address,undefined -fno-sanitize-recover=all";
    cc(path, &format!("{} -Ibuild build/lib{name}.a -lm -lpthread {sanitize} -o client", source.display())).fine();
    let given = given.iter().map(|number| number.to_string());
    let weights = path.join(format!("build/{name}.weights"));
    let said = run(Command::new(path.join("client")).arg(weights).args(given)).fine().stdout;
    said.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

/// M01: 32 tokens, the likeliest each time.
#[test]
fn a_decoder_says_the_same_with_and_without_a_cache_alone_and_beside_others() {
    let case = case("byte_decoder-cached");
    let at = built(&case, "byte_decoder");
    let module = case.module();
    let ids = case.input("ids", module.tensor(module.inputs[0].value), 0, case.tokens);
    assert_eq!(
        said_by("greedy.c", "byte_decoder", &at, &ids),
        recorded("byte_decoder", "byte_decoder-cached", "goes_on")
    );
}

/// M03: four texts are kept.
#[test]
fn beam_search_finds_the_references_translation() {
    let case = case("translation-cached");
    let at = built(&case, "translation");
    let module = case.module();
    let input = |number: usize, tokens| {
        let input = &module.inputs[number];
        case.input(&input.name, module.tensor(input.value), 0, tokens)
    };
    let given = [input(0, case.tokens), input(1, 4)].concat();
    assert_eq!(said_by("beam.c", "translation", &at, &given), recorded("translation", "translation-cached", "goes_on"));
}

fn floats(path: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(path).expect("written");
    let found = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = found.tensor(name).unwrap_or_else(|_| panic!("no `{name}`"));
    tensor.data().as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// M02: the biases that even out the load, to the bit.
#[test]
fn ten_steps_move_the_bias_as_in_the_reference() {
    let case = case("modern_decoder-step");
    let at = folder();
    fs::write(at.path().join("modern.moe"), case.text()).expect("written");
    write(&at.path().join("in.safetensors"), &tensors(&case));
    for backend in ["oracle", "cpu"] {
        let line = "run modern.moe --inputs in.safetensors --outputs out.safetensors --steps 10 --backend";
        moec_in(at.path(), &format!("{line} {backend}")).fine();
        let found = floats(&at.path().join("out.safetensors"), "layers.ffn.gate.bias");
        assert_eq!(found, recorded("modern_decoder", "modern_decoder-step", "after_ten"), "{backend}");
    }
}

/// M10: with one expert for each token, whose weight is 1, adapters that have learnt nothing leave the frozen model as it is, to
/// the bit. (Weights of two add up to 1 only as nearly as f32 has it.)
#[test]
fn adapters_that_have_learnt_nothing_change_nothing() {
    let case = case("adapters-untrained");
    let at = folder();
    let text = case.text();
    let adapted = "moe { gate top_k_softmax(K); experts adapted(gate, up, down) × E }";
    assert!(text.contains(adapted));
    let frozen = "expert frozen(gate, up, down) { out (silu(x · gate) * (x · up)) · down over F }\n";
    fs::write(at.path().join("adapted.moe"), &text).expect("written");
    fs::write(at.path().join("frozen.moe"), text.replace(adapted, "frozen(gate, up, down)") + frozen).expect("written");
    let all = tensors(&case);
    write(&at.path().join("adapted.safetensors"), &all);
    let base = all.into_iter().filter(|(name, _)| !name.contains(".ffn.")).collect();
    write(&at.path().join("frozen.safetensors"), &base);
    for backend in ["oracle", "cpu"] {
        let logits = |model: &str, sets: &str| {
            let line = format!("run {model}.moe {sets} --inputs {model}.safetensors --outputs {model}.out");
            moec_in(at.path(), &format!("{line} --backend {backend}")).fine();
            floats(&at.path().join(format!("{model}.out")), "logits")
        };
        assert_eq!(logits("adapted", "--set K=1"), logits("frozen", ""), "{backend}");
    }
}
