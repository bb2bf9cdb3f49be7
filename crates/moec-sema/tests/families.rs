//! The families that ship: each checks with its own defaults and with real configurations, and counts as published.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use miette::{GraphicalReportHandler, GraphicalTheme};
use moec_diag::{Problems, SourceMap};
use moec_ir::{Module, ops::Op};
use moec_sema::{Checked, Settings, check};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn render(sources: &SourceMap, problems: Problems) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    for problem in problems.into_vec() {
        let report = miette::Report::new_boxed(problem).with_source_code(sources.clone());
        handler.render_report(&mut text, report.as_ref()).expect("a report renders");
    }
    text
}

fn check_file(path: &str, config: Option<&str>) -> Checked {
    let mut sources = SourceMap::default();
    let text = fs::read_to_string(root().join(path)).expect("the example is there");
    let (file, problems) = moec_syntax::parse(&mut sources, path, &text);
    assert!(problems.is_empty(), "{}", render(&sources, problems));
    let config = config.map(|config| {
        let text =
            fs::read_to_string(root().join("tests/data/oracles").join(config)).expect("the configuration is there");
        serde_json::from_str(&text).expect("it is JSON")
    });
    let settings = Settings { config, ..Settings::default() };
    let (checked, problems) = check(&mut sources, &file.expect("a tree"), &settings);
    assert!(problems.is_empty(), "{}", render(&sources, problems));
    checked.expect("sound")
}

fn elements(module: &Module) -> u64 {
    module.params.iter().map(moec_ir::Param::elements).sum()
}

fn verified(checked: &Checked) -> &Module {
    if let Err(error) = moec_ir::verify(&checked.module) {
        panic!("{error}\n{}", moec_ir::print(&checked.module));
    }
    &checked.module
}

#[test]
fn parameters_count_as_published() {
    let counts = [
        ("examples/families/deepseek.moe", 16_375_728_128),
        ("examples/families/mixtral.moe", 46_702_792_704),
        ("examples/families/olmoe.moe", 6_919_161_856),
        ("examples/families/qwen2_moe.moe", 14_315_784_192),
    ];
    for (path, published) in counts {
        let checked = check_file(path, None);
        assert_eq!(elements(verified(&checked)), published, "{path}");
        // Without tied embeddings, every element comes from the checkpoint.
        let claims = &checked.weights.as_ref().expect("a weights section").claims;
        let claimed: u64 = claims.iter().map(|claim| checked.module.param(claim.param).ty.elements().unwrap()).sum();
        assert_eq!(claimed, published, "{path}");
    }
}

#[test]
fn real_configurations_check_and_every_tensor_is_claimed() {
    let oracles = [
        ("dbrx", "dbrx"),
        ("dbrx", "dbrx-p2"),
        ("deepseek_v2", "deepseek_v2"),
        ("deepseek_v2", "deepseek_v2-lite"),
        ("deepseek_v3", "deepseek_v3"),
        ("deepseek_v3", "deepseek_v3-fp8"),
        ("deepseek_v3", "deepseek_v3-fp8even"),
        ("deepseek_v3", "deepseek_v3-noq"),
        ("deepseek_v3", "deepseek_v3-lowered"),
        ("ernie4_5_moe", "ernie4_5_moe"),
        ("ernie4_5_moe", "ernie4_5_moe-plain"),
        ("glm4_moe", "glm4_moe"),
        ("glm4_moe", "glm4_moe-bias"),
        ("gpt_oss", "gpt_oss"),
        ("gpt_oss", "gpt_oss-mxfp4"),
        ("granitemoe", "granitemoe"),
        ("jetmoe", "jetmoe"),
        ("llama4_text", "llama4_text"),
        ("llama4_text", "llama4_text-k2"),
        ("mixtral", "mixtral"),
        ("mixtral", "mixtral-swa"),
        ("mixtral", "mixtral-tied"),
        ("olmoe", "olmoe"),
        ("olmoe", "olmoe-clip"),
        ("phimoe", "phimoe"),
        ("phimoe", "phimoe-longrope"),
        ("qwen2_moe", "qwen2_moe"),
        ("qwen2_moe", "qwen2_moe-swa"),
        ("qwen3_moe", "qwen3_moe"),
        ("qwen3_moe", "qwen3_moe-yarn"),
        ("switch_transformers", "switch_transformers"),
        ("switch_transformers", "switch_transformers-capacity"),
    ];
    for (family, oracle) in oracles {
        let folder = root().join("tests/data/oracles").join(oracle);
        for config in ["config.json", "config.legacy.json"].into_iter().filter(|config| folder.join(config).exists()) {
            let checked = check_file(&format!("examples/families/{family}.moe"), Some(&format!("{oracle}/{config}")));
            verified(&checked);
            let stored = tensors_of(oracle);
            let map =
                checked.weights.expect("a weights section").for_tensors(&stored.keys().map(String::as_str).collect());
            let own = map.claims.iter().filter(|claim| !claim.shared);
            let claimed: BTreeSet<&str> = own.clone().map(|claim| claim.tensor.as_str()).collect();
            // Scales belong to the tensors that they scale.
            let is_scale = |name: &str| map.scaled.iter().any(|scaling| name.ends_with(&scaling.scales.1));
            let wanted: BTreeSet<&str> =
                stored.keys().map(String::as_str).filter(|name| !is_scale(name) && !is_spare(oracle, name)).collect();
            assert_eq!(claimed, wanted, "{oracle}");
            for claim in own {
                let elements: u64 = claim.view.shape.iter().map(|(_, size)| size).product();
                let (kind, size) = &stored[&claim.tensor];
                assert!(kind == "U8" || elements == *size, "{oracle}: {}", claim.tensor);
            }
        }
    }
}

/// A tensor that a family's file says it has no need of.
fn is_spare(oracle: &str, name: &str) -> bool {
    oracle == "switch_transformers-capacity" && name == "shared.weight"
}

/// Whatever a configuration says is read or refused: under a name that nobody knows, every key that was read is missed.
#[test]
fn no_key_is_lost_in_silence() {
    let path = root().join("tests/data/oracles/olmoe/config.json");
    let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).expect("there")).expect("JSON");
    let text = fs::read_to_string(root().join("examples/families/olmoe.moe")).expect("there");
    let mut sources = SourceMap::default();
    let (file, _) = moec_syntax::parse(&mut sources, "olmoe.moe", &text);
    let file = file.expect("a tree");
    let keys = config.as_object().expect("an object").iter().filter(|(_, value)| !value.is_null());
    let mut refused = Vec::new();
    for (key, value) in keys {
        let mut renamed = config.clone();
        let entries = renamed.as_object_mut().expect("an object");
        entries.shift_remove(key);
        entries.insert(format!("{key}_x"), value.clone());
        let settings = Settings { config: Some(renamed), ..Settings::default() };
        let (_, problems) = check(&mut sources, &file, &settings);
        let said = render(&sources, problems);
        assert!(said.contains(&format!("\"{key}_x")) && said.contains("says nothing"), "{key}: {said}");
        refused.extend(said.contains(&format!("did you mean \"{key}")).then_some(key.as_str()));
    }
    let near: BTreeSet<&str> = refused.into_iter().collect();
    assert!(near.contains("num_experts_per_tok") && near.contains("rms_norm_eps"), "{near:?}");
}

/// Element types and sizes by name, from the head of a safetensors file.
fn tensors_of(oracle: &str) -> BTreeMap<String, (String, u64)> {
    let path = root().join("tests/data/oracles").join(oracle).join("model.safetensors");
    let bytes = fs::read(path).expect("the checkpoint is there");
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let head: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a head");
    let tensors = head.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    tensors
        .map(|(name, tensor)| {
            let shape = tensor["shape"].as_array().unwrap();
            let elements = shape.iter().map(|size| size.as_u64().unwrap()).product();
            (name.clone(), (tensor["dtype"].as_str().unwrap().to_owned(), elements))
        })
        .collect()
}

#[test]
fn layers_that_are_alike_are_one_kind() {
    let order_of = |path: &str, config: Option<&str>| {
        let checked = check_file(path, config);
        let body = checked.module.region(checked.module.body);
        let layers = body.nodes.iter().find_map(|at| match &checked.module.node(*at).op {
            Op::Layers(layers) => Some(layers.order.clone()),
            _ => None,
        });
        layers.expect("a stack of layers")
    };
    assert_eq!(order_of("examples/families/mixtral.moe", None), vec![0; 32]);
    // mlp_only_layers = [1]
    assert_eq!(order_of("examples/families/qwen2_moe.moe", Some("qwen2_moe/config.json")), [0, 1, 0, 0]);
}
