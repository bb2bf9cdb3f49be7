//! Traces, and the pages that show them and models.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use crate::command::{built_bard, folder, moec_in, repository, run};

/// Two routes of four positions and two choices among five experts; the second has a position without any.
fn write_trace(path: &Path) {
    let numbers = |values: &[i32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let mut tensors: BTreeMap<&str, (Vec<usize>, Dtype, Vec<u8>)> = BTreeMap::new();
    let weights: Vec<u8> = [0.75f32, 0.25].repeat(4).into_iter().flat_map(f32::to_le_bytes).collect();
    for (number, indices) in [[0, 1, 0, 1, 2, 0, 0, 3], [1, 2, 1, 2, -1, -1, 1, 0]].iter().enumerate() {
        let name = |what: &str| -> &'static str { format!("route.{number}.{what}").leak() };
        tensors.insert(name("indices"), (vec![4, 2], Dtype::I32, numbers(indices)));
        tensors.insert(name("weights"), (vec![4, 2], Dtype::F32, weights.clone()));
        tensors.insert(name("place"), (vec![3], Dtype::I32, numbers(&[0, number as i32, 5])));
    }
    let utf8: Vec<i32> = "a<b>\ncd".bytes().map(i32::from).collect();
    tensors.insert("text.utf8", (vec![7], Dtype::I32, numbers(&utf8)));
    tensors.insert("text.ends", (vec![4], Dtype::I32, numbers(&[1, 4, 5, 7])));
    let views = tensors.iter().map(|(name, (shape, dtype, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("as many bytes as the shape says"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("sound")).expect("written");
}

#[test]
fn figures_are_those_counted_by_hand() {
    let folder = folder();
    let path = folder.path();
    write_trace(&path.join("t.safetensors"));
    moec_in(path, "trace view t.safetensors").fine();
    let text = fs::read_to_string(path.join("t.json")).expect("written");
    let data: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(data["pieces"], json!(["a", "<b>", "\n", "cd"]));
    let [first, second] = [&data["routes"][0], &data["routes"][1]];
    assert_eq!(first["load"], json!([4, 2, 1, 1, 0]));
    assert_eq!(first["dead"], json!([4]));
    assert_eq!(first["dropped"], 0);
    // Of 1/2, 1/4, 1/8, 1/8.
    assert_eq!(first["entropy_bits"], 1.75);
    // 4 of a mean of 8/5.
    assert_eq!(first["imbalance"], 2.5);
    assert_eq!(first["together"], json!([[0, 1, 2], [0, 2, 1], [0, 3, 1]]));
    // 0.75 + 0.75 + 0.25 + 0.75.
    assert_eq!(first["weight"][0], 2.5);
    assert_eq!(second["dropped"], 2);
    assert_eq!(second["load"], json!([1, 3, 2, 0, 0]));

    let page = fs::read_to_string(path.join("t.html")).expect("written");
    assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "text is text");
    assert!(!page.contains("http"), "the page asks for something from elsewhere");
    let within = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    assert_eq!(serde_json::from_str::<Value>(within).expect("JSON"), data);
}

#[test]
fn what_is_no_trace_is_refused() {
    let folder = folder();
    let path = folder.path();
    let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).expect("sound");
    fs::write(path.join("x.safetensors"), safetensors::serialize([("x", view)], None).expect("sound"))
        .expect("written");
    moec_in(path, "trace view x.safetensors").refused(1, &["x.safetensors is no trace", "--trace"]);
    moec_in(path, "trace view nowhere.safetensors").refused(1, &["nowhere.safetensors"]);
    assert!(!path.join("x.html").exists());
}

#[test]
fn a_text_is_traced_as_it_is_made() {
    let folder = built_bard();
    let path = folder.path();
    let plain = moec_in(path, "run build --prompt JULIET. --max-new 24").fine().stdout;
    let traced = moec_in(path, "run build --prompt JULIET. --max-new 24 --trace t.safetensors").fine().stdout;
    assert_eq!(traced, plain);
    moec_in(path, "trace view t.safetensors -o page.html").fine();
    let data: Value =
        serde_json::from_str(&fs::read_to_string(path.join("page.json")).expect("written")).expect("JSON");
    let pieces: String = data["pieces"].as_array().expect("pieces").iter().filter_map(|piece| piece.as_str()).collect();
    // The last token was drawn and not read.
    assert!(plain.starts_with(&pieces) && pieces.len() == "JULIET.".len() + 23, "{pieces}");
    let config: Value =
        serde_json::from_str(&fs::read_to_string(crate::command::bard().join("config.json")).expect("there"))
            .expect("JSON");
    let routes = data["routes"].as_array().expect("routes");
    assert_eq!(Value::from(routes.len()), config["num_hidden_layers"]);
    for route in routes {
        assert_eq!(route["experts"], config["num_local_experts"]);
        assert_eq!(route["positions"], pieces.len());
        let all: u64 = route["load"].as_array().expect("loads").iter().filter_map(Value::as_u64).sum();
        assert_eq!(all, pieces.len() as u64 * config["num_experts_per_tok"].as_u64().expect("a number"));
    }
}

/// A browser finds nothing to complain of, and something to show.
#[test]
fn pages_open_in_a_browser() {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let found = browsers.iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(browser) = found else {
        eprintln!("not run: no browser (apt-get install chromium)");
        return;
    };
    let folder = folder();
    let path = folder.path();
    write_trace(&path.join("trace.safetensors"));
    moec_in(path, "trace view trace.safetensors").fine();
    let spec = repository().join("examples/families/switch_transformers.moe");
    moec_in(path, &format!("explain {} --html model.html", spec.display())).fine();
    for page in ["trace", "model"] {
        let shot = path.join(format!("{page}.png"));
        let mut command = Command::new(browser);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
        command.arg("--window-size=1100,1600").arg(format!("--user-data-dir={}", path.join("profile").display()));
        command.arg(format!("--screenshot={}", shot.display()));
        let ended = run(command.arg(format!("file://{}", path.join(page).with_extension("html").display()))).fine();
        let complaints: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(complaints.is_empty(), "{page}: {complaints:#?}");
        // An empty page of this size is some 5 kB.
        assert!(fs::metadata(&shot).expect("a picture").len() > 15_000, "{page} is empty");
    }
}
