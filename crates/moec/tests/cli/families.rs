//! docs/families.md: the families that ship, what each is made of, and how near to its references it comes.
//!
//! `MOEC_ORACLES=FOLDER MOEC_BLESS=1 cargo test -p moec --test cli families` measures again and writes the page.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::command::{family, moec, repository};

/// Families and the checkpoints that each is judged by.
pub const JUDGED: [(&str, &[&str]); 15] = [
    ("dbrx", &["dbrx", "dbrx-p2"]),
    ("deepseek_v2", &["deepseek_v2", "deepseek_v2-lite"]),
    (
        "deepseek_v3",
        &["deepseek_v3", "deepseek_v3-fp8", "deepseek_v3-fp8even", "deepseek_v3-noq", "deepseek_v3-lowered"],
    ),
    ("ernie4_5_moe", &["ernie4_5_moe", "ernie4_5_moe-plain"]),
    ("glm4_moe", &["glm4_moe", "glm4_moe-bias"]),
    ("gpt_oss", &["gpt_oss", "gpt_oss-mxfp4"]),
    ("granitemoe", &["granitemoe"]),
    ("jetmoe", &["jetmoe"]),
    ("llama4_text", &["llama4_text", "llama4_text-k2", "llama4_text-nested"]),
    ("mixtral", &["mixtral", "mixtral-swa", "mixtral-tied"]),
    ("olmoe", &["olmoe", "olmoe-clip"]),
    ("phimoe", &["phimoe", "phimoe-longrope"]),
    ("qwen2_moe", &["qwen2_moe", "qwen2_moe-swa"]),
    ("qwen3_moe", &["qwen3_moe", "qwen3_moe-yarn"]),
    ("switch_transformers", &["switch_transformers", "switch_transformers-capacity", "switch_transformers-gated"]),
];

const HEAD: &str = "\
# Model families

What `moec import` recognises. A family is a file of `examples/families`; to add one takes no Rust
([guide](guides/add-a-family.md)).

| family | serves | attention | gate | experts | also in its file |
|---|---|---|---|---|---|
";

const MEASURED: &str = "
## Against the references

Each tiny checkpoint of `make_oracle.py` (random weights through the family's real `transformers` class, float32) by both
backends: the largest distance of any logit, in the scored pass and in greedy decoding with the cache, to the reference; chosen
experts and greedy tokens that are the same; and the time that the passes take, in a debug build. 1e-4 and no other expert or
token are allowed. [verify.md](verify.md) shows that a mistake would be seen.

| checkpoint | oracle | cpu | experts | tokens | oracle, s | cpu, s |
|---|---|---|---|---|---|---|
";

fn page() -> PathBuf {
    repository().join("docs/families.md")
}

/// The names in `use std::path::{a, b}` or `use std::path::a`.
fn used(text: &str, path: &str) -> Vec<String> {
    let text = text.replace('\n', " ");
    let mut found = Vec::new();
    for rest in text.split(&format!("use std::{path}::")).skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(several) => several.split('}').next().unwrap_or_default(),
            None => rest.split_whitespace().next().unwrap_or_default(),
        };
        found.extend(names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
    }
    found
}

/// The definitions of a kind in the file itself.
fn own(text: &str, kind: &str) -> Vec<String> {
    let heads = text.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    let name = |head: &str| head.split(['(', ' ']).next().unwrap_or_default().to_owned();
    heads.map(name).collect()
}

fn cell(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The row of the first table.
fn features(name: &str) -> String {
    let text = fs::read_to_string(family(name)).expect("the family is there");
    let serves = text.lines().find_map(|line| line.strip_prefix("serves ")).unwrap_or_default();
    let serves: Vec<String> = serves.split(',').map(|one| one.trim().trim_matches('"').to_owned()).collect();
    let [gates, experts] =
        [("gate", "gate"), ("expert", "expert")].map(|(path, kind)| [used(&text, path), own(&text, kind)].concat());
    let cells = [serves, used(&text, "attention"), gates, experts, own(&text, "block")].map(|names| cell(&names));
    format!("| [{name}](../examples/families/{name}.moe) | {} |", cells.join(" | "))
}

/// The row of the second table.
fn measured(family_name: &str, checkpoint: &Path) -> String {
    let verdicts = ["oracle", "cpu"].map(|backend| verdict(family_name, checkpoint, backend));
    let error = |verdict: &Value| {
        let of = |key: &str| verdict[key].as_f64().expect("a number");
        format!("{:.1e}", of("logits_max_error").max(of("step_logits_max_error")))
    };
    let equal = |key: &str| {
        let cells = verdicts.each_ref().map(|verdict| verdict.as_ref().map(|verdict| verdict[key].clone()));
        assert!(cells[1].is_none() || cells[0] == cells[1], "{family_name}");
        let cell = cells[0].as_ref().expect("the oracle runs everything");
        format!("{}/{}", cell["equal"], cell["total"])
    };
    let of = |at: usize, cell: &dyn Fn(&Value) -> String| verdicts[at].as_ref().map_or("not yet".to_owned(), cell);
    let seconds = |verdict: &Value| format!("{:.2}", verdict["seconds"].as_f64().expect("a number"));
    let cells = [of(0, &error), of(1, &error), equal("experts"), equal("tokens"), of(0, &seconds), of(1, &seconds)];
    let name = checkpoint.file_name().expect("a name").to_string_lossy();
    format!("| `{name}` | {} |", cells.join(" | "))
}

/// `None` where a backend cannot run the family.
fn verdict(family_name: &str, checkpoint: &Path, backend: &str) -> Option<Value> {
    const UNSUPPORTED: i32 = 3;
    let (spec, reference) = (family(family_name), checkpoint.join("oracle.safetensors"));
    let text = |path: &Path| path.display().to_string();
    let [spec, checkpoint, reference] = [&spec, checkpoint, &reference].map(text);
    let arguments = ["verify", &spec, "--weights", &checkpoint, "--oracle", &reference, "--backend", backend, "--json"];
    let ended = moec(&arguments);
    if ended.code == UNSUPPORTED {
        return None;
    }
    let verdicts: Value = serde_json::from_str(&ended.fine().stdout).expect("verdicts");
    Some(verdicts[0].clone())
}

#[test]
fn the_table_of_families_is_in_step() {
    if let (Some(_), Some(folder)) = (std::env::var_os("MOEC_BLESS"), std::env::var_os("MOEC_ORACLES")) {
        let mut text = HEAD.to_owned();
        for (name, _) in JUDGED {
            writeln!(text, "{}", features(name)).expect("a String takes everything");
        }
        text.push_str(MEASURED);
        for (name, checkpoints) in JUDGED {
            for checkpoint in checkpoints.iter().map(|one| Path::new(&folder).join(one)).filter(|path| path.exists()) {
                writeln!(text, "{}", measured(name, &checkpoint)).expect("a String takes everything");
            }
        }
        fs::write(page(), text).expect("written");
    }
    let text = fs::read_to_string(page()).expect("docs/families.md is there");
    for (name, checkpoints) in JUDGED {
        let row = features(name);
        assert!(text.contains(&row), "MOEC_ORACLES=… MOEC_BLESS=1 writes docs/families.md; it lacks {row}");
        for checkpoint in checkpoints {
            assert!(text.contains(&format!("| `{checkpoint}` |")), "docs/families.md lacks {checkpoint}");
        }
    }
    // Every file is judged, but for the one family whose class `transformers` does not have.
    for entry in fs::read_dir(repository().join("examples/families")).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(name == "deepseek" || JUDGED.iter().any(|(judged, _)| *judged == name), "{name} has no reference");
    }
}
