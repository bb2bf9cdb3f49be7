//! Whatever is wrong is explained, with the right exit code; nothing panics, hangs or is half written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::command::{Ended, copy_of, family, folder, moec, moec_in, oracle, run};

fn build(checkpoint: &Path) -> (Ended, PathBuf, tempfile::TempDir) {
    let out = folder();
    let target = out.path().join("build");
    let line =
        format!("build {} --weights {} -o {}", family("mixtral").display(), checkpoint.display(), target.display());
    (moec(&line.split(' ').collect::<Vec<_>>()), target, out)
}

/// Refused, and nothing was written.
#[track_caller]
fn refused(checkpoint: &Path, words: &[&str]) {
    let (ended, target, _out) = build(checkpoint);
    ended.refused(1, words);
    assert!(!target.join("mixtral.weights").exists() && !target.join("build.json").exists());
}

/// A checkpoint's tensors: type, shape, bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A copy of the tiny Mixtral with its tensors changed.
fn changed(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let copy = copy_of(&oracle("mixtral"));
    let path = copy.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("there");
    let file = SafeTensors::deserialize(&bytes).expect("sound");
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| (name.into(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("consistent"))
    });
    fs::write(&path, safetensors::serialize(views, None).expect("serialised")).expect("written");
    copy
}

const NORM: &str = "model.layers.1.input_layernorm.weight";
const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn truncated_weights() {
    let copy = copy_of(&oracle("mixtral"));
    let path = copy.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("there");
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("written");
        refused(copy.path(), &["model.safetensors"]);
    }
}

#[test]
fn corrupt_weights() {
    let copy = copy_of(&oracle("mixtral"));
    let path = copy.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("there");
    for (at, byte) in [(0, 0xff), (7, 0xff), (8, b'['), (40, 0), (200, 0x80)] {
        let mut damaged = bytes.clone();
        damaged[at] = byte;
        fs::write(&path, &damaged).expect("written");
        let (ended, ..) = build(copy.path());
        // A flipped byte may leave a sound file; it never makes a panic.
        assert!(ended.code == 0 || ended.code == 1, "byte {at}: {ended:#?}");
    }
}

#[test]
fn a_missing_tensor() {
    let copy = changed(|tensors| _ = tensors.remove(NORM));
    refused(copy.path(), &[NORM]);
}

#[test]
fn a_misspelt_tensor() {
    let copy = changed(|tensors| {
        let tensor = tensors.remove(NORM).expect("there");
        tensors.insert("model.layers.1.input_layer_norm.weight".into(), tensor);
    });
    refused(copy.path(), &[NORM, "did you mean `model.layers.1.input_layer_norm.weight`?"]);
}

#[test]
fn a_tensor_that_nobody_claims() {
    let copy = changed(|tensors| {
        tensors.insert("model.extra.weight".into(), (Dtype::F32, vec![2], vec![0; 8]));
    });
    refused(copy.path(), &["model.extra.weight"]);
}

#[test]
fn a_transposed_tensor() {
    let copy = changed(|tensors| tensors.get_mut(QUERY).expect("there").1.reverse());
    refused(copy.path(), &[QUERY, "[32, 96]"]);
}

#[test]
fn weights_that_are_no_numbers() {
    // `down` of an expert, [32, 48]: what is reported is the place in the checkpoint's tensor.
    const DOWN: &str = "model.layers.0.block_sparse_moe.experts.3.w2.weight";
    let set = |tensors: &mut Tensors, name: &str, at: usize, value: f32| {
        tensors.get_mut(name).expect("there").2[4 * at..][..4].copy_from_slice(&value.to_le_bytes());
    };
    let copy = changed(|tensors| {
        let columns = tensors[DOWN].1[1];
        set(tensors, DOWN, 5 * columns + 7, f32::NAN);
        set(tensors, DOWN, 6 * columns, f32::INFINITY);
        set(tensors, NORM, 2, f32::NEG_INFINITY);
    });
    let words = [DOWN, "has NaN at [5, 7], and 1 more", NORM, "has -inf", "at [2]", "`--allow-non-finite`"];
    refused(copy.path(), &words);
    let (spec, out) = (family("mixtral"), folder());
    let line = |more: &str| format!("{} --weights {} {more}", spec.display(), copy.path().display());
    let reference = oracle("mixtral").join("oracle.safetensors");
    let verify = format!("verify {}", line(&format!("--oracle {} --backend oracle", reference.display())));
    moec_in(out.path(), &verify).refused(1, &words);
    let built = moec_in(out.path(), &format!("build {}", line("--allow-non-finite"))).fine();
    assert!(built.stderr.contains("warning: tensor `") && built.stderr.contains(NORM), "{built:#?}");
}

/// A disk that is full stands for every write that fails: the limit on a file's size makes one without being root.
#[test]
fn weights_that_do_not_fit_on_the_disk() {
    let out = folder();
    let copy = changed(|tensors| {
        // Larger than anything else that a build writes.
        for name in ["model.embed_tokens.weight", "lm_head.weight"] {
            let (_, shape, bytes) = tensors.get_mut(name).expect("there");
            shape[0] *= 1000;
            *bytes = bytes.repeat(1000);
        }
    });
    let vocabulary = "--set V=96000";
    let command = format!(
        "ulimit -f 20000; exec \"$0\" build {} --weights {} {vocabulary} -o out --cpu scalar",
        family("mixtral").display(),
        copy.path().display()
    );
    let ended = run(std::process::Command::new("sh").current_dir(out.path()).args([
        "-c",
        &command,
        env!("CARGO_BIN_EXE_moec"),
    ]));
    ended.refused(1, &["mixtral.weights", "make room"]);
    assert!(!out.path().join("out").exists());
}

/// The shape cannot tell; the numbers do.
#[test]
fn a_transposed_square_tensor_fails_verification() {
    let copy = changed(|tensors| {
        let square = tensors.values_mut().find(|(_, shape, _)| shape.len() == 2 && shape[0] == shape[1]);
        let Some((_, shape, bytes)) = square else {
            // No square one in this checkpoint: turn a factor of the query projection, which is as wrong.
            let (_, shape, bytes) = tensors.get_mut(QUERY).expect("there");
            let columns = shape[1];
            return transpose(&mut bytes[..columns * columns * 4], columns);
        };
        transpose(bytes, shape[0]);
    });
    let line = format!(
        "verify {} --weights {} --oracle {} --backend oracle",
        family("mixtral").display(),
        copy.path().display(),
        oracle("mixtral").join("oracle.safetensors").display()
    );
    moec(&line.split(' ').collect::<Vec<_>>()).refused(1, &["logits differ"]);
}

fn transpose(bytes: &mut [u8], size: usize) {
    let old = bytes.to_vec();
    for row in 0..size {
        for column in 0..size {
            let (from, to) = ((row * size + column) * 4, (column * size + row) * 4);
            bytes[to..to + 4].copy_from_slice(&old[from..from + 4]);
        }
    }
}

#[test]
fn a_type_that_is_no_number() {
    let copy = changed(|tensors| {
        let (dtype, _, bytes) = tensors.get_mut(NORM).expect("there");
        *dtype = Dtype::I32;
        bytes.fill(1);
    });
    refused(copy.path(), &[NORM, "I32"]);
}

/// Two files under an index, each with half of the tensors.
fn sharded() -> tempfile::TempDir {
    let copy = copy_of(&oracle("mixtral"));
    let whole = copy.path().join("model.safetensors");
    let bytes = fs::read(&whole).expect("there");
    let file = SafeTensors::deserialize(&bytes).expect("sound");
    let mut places = serde_json::Map::new();
    for (number, name) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let half: Vec<_> = file.iter().filter(|(tensor, _)| tensor.len() % 2 == number).collect();
        places.extend(half.iter().map(|(tensor, _)| (tensor.to_string(), name.into())));
        fs::write(copy.path().join(name), safetensors::serialize(half, None).expect("serialised")).expect("written");
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": places });
    fs::write(copy.path().join("model.safetensors.index.json"), index.to_string()).expect("written");
    fs::remove_file(whole).expect("removed");
    copy
}

#[test]
fn shards_that_are_missing_cut_or_disagree() {
    let copy = sharded();
    let at = |name: &str| copy.path().join(name);
    build(copy.path()).0.fine();
    let (a, b) = (fs::read(at("a.safetensors")).expect("there"), fs::read(at("b.safetensors")).expect("there"));
    fs::write(at("b.safetensors"), &b[..b.len() - 1000]).expect("written");
    refused(copy.path(), &["b.safetensors", "the file holds", "downloaded or written completely?"]);
    fs::write(at("b.safetensors"), &a).expect("written");
    refused(copy.path(), &["is in two files", "a.safetensors", "b.safetensors"]);
    fs::remove_file(at("b.safetensors")).expect("removed");
    refused(copy.path(), &["1 files that", "are not there: b.safetensors", "put them into the same folder"]);
}

#[test]
fn a_folder_without_weights() {
    let empty = folder();
    refused(empty.path(), &["safetensors"]);
    refused(&empty.path().join("nothing"), &["nothing"]);
}

#[test]
fn wrong_configs() {
    let copy = copy_of(&oracle("mixtral"));
    let path = copy.path().join("config.json");
    let config = fs::read_to_string(&path).expect("there");
    for (from, to, words) in [
        ("\"num_local_experts\": 8", "\"num_local_experts\": 6", &["experts"][..]),
        ("\"num_local_experts\": 8", "\"num_local_experts\": 1", &["top-2"]),
        ("\"hidden_size\": 32", "\"hidden_size\": \"32\"", &["hidden_size"]),
        ("\"hidden_size\": 32", "\"hidden_size\": -32", &["-32"]),
        ("\"hidden_size\": 32", "\"hidden_size\": 1e300", &["hidden_size"]),
        ("\"hidden_act\": \"silu\"", "\"hidden_act\": \"swoosh\"", &["activation"]),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", &["rope_type", "yarn"]),
        ("MixtralForCausalLM", "OtherForCausalLM", &["OtherForCausalLM"]),
        ("{", "", &["config.json", "JSON"]),
    ] {
        assert!(config.contains(from), "{from}");
        fs::write(&path, config.replacen(from, to, 1)).expect("written");
        refused(copy.path(), words);
    }
    fs::write(&path, "[1, 2]").expect("written");
    refused(copy.path(), &["config.json", "a list"]);
}

#[test]
fn import_of_what_it_does_not_know() {
    let copy = copy_of(&oracle("mixtral"));
    let path = copy.path().join("config.json");
    let config = fs::read_to_string(&path).expect("there");
    fs::write(&path, config.replace("MixtralForCausalLM", "OtherForCausalLM")).expect("written");
    moec_in(copy.path(), "import . -o x.moe")
        .refused(1, &["OtherForCausalLM", "`MixtralForCausalLM`", "`OlmoeForCausalLM`"]);
    fs::write(&path, config.replace("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"")).expect("written");
    moec_in(copy.path(), "import . -o x.moe").refused(1, &["rope_type"]);
    fs::write(&path, "{}").expect("written");
    moec_in(copy.path(), "import . -o x.moe").refused(1, &["architecture"]);
    fs::write(&path, &config).expect("written");
    moec_in(copy.path(), "import . -o 8x7.moe").refused(1, &["8x7"]);
    moec_in(copy.path(), "import . -o no/such/folder.moe").refused(1, &["no/such/folder.moe"]);
    moec_in(copy.path(), "import nowhere").refused(1, &["nowhere"]);
    moec_in(copy.path(), "import . -o x.moe").fine();
    moec_in(copy.path(), "import . -o x.moe").refused(1, &["--force"]);
    moec_in(copy.path(), "check x.moe").fine();
}

#[test]
fn keys_that_the_spec_says_nothing_of() {
    let copy = copy_of(&oracle("mixtral"));
    let path = copy.path().join("config.json");
    let config = fs::read_to_string(&path).expect("there");
    let more = config.replacen('{', "{ \"logits_scale\": 0.5, \"extra\": {\"b\": 1, \"c\": 2}, ", 1);
    fs::write(&path, more).expect("written");
    let words = ["\"logits_scale\": 0.5", "\"extra\": {\"b\":1,\"c\":2}", "`ignore \"extra\"`"];
    moec_in(copy.path(), "import . -o x.moe").refused(1, &words);
    assert!(!copy.path().join("x.moe").exists());
    refused(copy.path(), &words);
    moec_in(copy.path(), "import . -o x.moe --ignore extra").refused(1, &words[..1]);
    let told = moec_in(copy.path(), "import . -o x.moe --ignore extra --ignore logits_scale").fine().stderr;
    assert!(told.contains("all other") && !told.contains("leaves out"), "{told}");
    let written = fs::read_to_string(copy.path().join("x.moe")).expect("written");
    assert!(written.contains("  ignore \"extra\", \"logits_scale\"\n}"), "{written}");
    moec_in(copy.path(), "check x.moe --config config.json").fine();
    moec_in(copy.path(), "fmt --check x.moe").fine();
    assert_eq!(moec_in(copy.path(), "import . --ignore a\"b").code, 2);

    let strange = config.replace("\"hidden_act\": \"silu\"", "\"hidden_act\": \"si\\rlu\"");
    fs::write(&path, strange).expect("written");
    moec_in(copy.path(), "import . -o y.moe").refused(1, &["hidden_act"]);
}

#[test]
fn import_says_which_tensors_it_leaves_out() {
    let copy = changed(|tensors| {
        for layer in 0..2 {
            let name = format!("model.layers.{layer}.self_attn.rotary_emb.inv_freq");
            tensors.insert(name, (Dtype::F32, vec![2], vec![0; 8]));
        }
    });
    let told = moec_in(copy.path(), "import . -o x.moe").fine().stderr;
    let rule = "leaves out `model.layers.0.self_attn.rotary_emb.inv_freq` and 1 more, by `ignore \"model.layers.{any}";
    assert!(told.contains(rule), "{told}");
    let copy = changed(|tensors| _ = tensors.remove(NORM));
    moec_in(copy.path(), "import . -o x.moe").refused(1, &[NORM]);
    assert!(copy.path().join("x.moe").exists());
}

#[test]
fn files_that_are_no_specs() {
    let folder = folder();
    let path = folder.path();
    let model = oracle("mixtral").join("model.safetensors");
    moec(&["check".as_ref(), model.as_os_str()]).refused(1, &["model.safetensors"]);
    moec_in(path, "check missing.moe").refused(1, &["missing.moe"]);
    moec_in(path, "check .").refused(1, &["directory"]);
    fs::write(path.join("empty.moe"), "").expect("written");
    moec_in(path, "check empty.moe").refused(1, &["model"]);
    fs::write(path.join("latin.moe"), b"//! caf\xe9\n").expect("written");
    moec_in(path, "check latin.moe").refused(1, &["latin.moe"]);
    fs::write(path.join("large.moe"), "// nothing to see here\n".repeat(450_000)).expect("written");
    moec_in(path, "check large.moe").refused(1, &["large.moe"]);
    moec_in(path, "check /dev/zero").refused(1, &["/dev/zero"]);
}

#[test]
fn deep_and_hostile_specs() {
    let folder = folder();
    let path = folder.path();
    let model = |expression: String| format!("model m(x: f32[S, D = 4]) {{ out y: f32[S, D] = {expression} }}\n");
    let specs = [
        model("(".repeat(100_000) + "x" + &")".repeat(100_000)),
        model("(".repeat(100_000)),
        model("-".repeat(100_000) + "x"),
        model("x ^ ".repeat(100_000) + "x"),
        model("where(".repeat(50_000) + "x"),
        "model m(x: f32[S, D = 4]) { layers l in 0..1000000000000 { } out y: f32[S, D] = x }\n".into(),
        "config { D = 9223372036854775807 }\nmodel m(x: f32[S, D]) { param w[D, D2 = D] out y: f32[S] = sum(x over D) }\n".into(),
        "fn f(x) = g(x)\nfn g(x) = f(x)\nmodel m(x: f32[S, D = 4]) { out y: f32[S, D] = f(x) }\n".into(),
    ];
    for (number, spec) in specs.iter().enumerate() {
        let name = format!("hostile{number}.moe");
        fs::write(path.join(&name), spec).expect("written");
        moec_in(path, &format!("check {name}")).refused(1, &[]);
    }
    // Long, but no deeper than a sum: sound or refused, and soon.
    fs::write(path.join("sum.moe"), model("x + ".repeat(20_000) + "x")).expect("written");
    let ended = moec_in(path, "check sum.moe");
    assert!(ended.code == 0 || ended.code == 1, "{}", ended.code);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = folder();
    let path = folder.path();
    moec_in(path, "new layer --template layer").fine();
    fs::write(path.join("file"), "in the way").expect("written");
    moec_in(path, "build layer.moe -o file").refused(1, &["file"]);
    moec_in(path, "build layer.moe -o file/build").refused(1, &["file/build"]);
    moec_in(path, "build layer.moe -o /proc/moec").refused(1, &["/proc/moec"]);
    assert_eq!(fs::read_to_string(path.join("file")).expect("still there"), "in the way");
}

#[test]
fn wrong_usage() {
    for line in [
        "",
        "frobnicate",
        "build",
        "check",
        "build a.moe --cpu z80",
        "check a.moe --set D",
        "run a --inputs x",
        "new x --template y",
    ] {
        let ended = moec(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ended.code, 2, "`{line}`: {ended:#?}");
        assert!(ended.stderr.contains("Usage") || ended.stderr.contains("--help"), "`{line}`: {ended:#?}");
    }
    moec(&["--help"]).fine();
    moec(&["--version"]).fine();
}

#[test]
fn settings_that_do_not_fit() {
    let folder = folder();
    let path = folder.path();
    moec_in(path, "new layer --template layer").fine();
    moec_in(path, "check layer.moe --set Dd=4").refused(1, &["Dd"]);
    moec_in(path, "check layer.moe --set D=wide").refused(1, &["D"]);
    moec_in(path, "check layer.moe --set K=9").refused(1, &["top-9"]);
    moec_in(path, "check layer.moe --set D=0").refused(1, &["D"]);
    moec_in(path, "explain layer.moe --disable-pass nothing").refused(1, &["nothing", "fuse-router"]);
    let ended = moec_in(path, "check layer.moe --set K=9 --json");
    assert_eq!(ended.code, 1);
    let line = ended.stdout.lines().next().expect("a line");
    let problem: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
    assert!(problem["message"].is_string(), "{problem:#}");
}

#[test]
fn damaged_builds() {
    let folder = crate::command::built_bard();
    let path = folder.path();
    let weights = path.join("build/bard.weights");
    let bytes = fs::read(&weights).expect("built");
    let run = || moec_in(path, "run build --prompt A --max-new 1");
    run().fine();
    fs::write(&weights, &bytes[..bytes.len() / 2]).expect("written");
    run().refused(1, &["bard.weights"]);
    let mut damaged = bytes.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    damaged[bytes.len() / 2] ^= 0x10;
    fs::write(&weights, &damaged).expect("written");
    run().refused(1, &["bard.weights"]);
    fs::write(&weights, "no weights at all").expect("written");
    run().refused(1, &["bard.weights"]);
    fs::remove_file(&weights).expect("removed");
    run().refused(1, &["bard.weights"]);
    fs::write(path.join("build/build.json"), "{}").expect("written");
    run().refused(1, &["build.json"]);
    moec_in(path, "run . --prompt A").refused(1, &["build.json"]);
}

#[test]
fn token_ids_out_of_range() {
    let folder = crate::command::built_bard();
    let path = folder.path();
    for (ids, words) in [([1, 2, 256], ["ids", "256"]), ([-1, 2, 3], ["ids", "-1"])] {
        let bytes: Vec<u8> = ids.iter().flat_map(|id: &i32| id.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::I32, vec![3], &bytes).expect("consistent");
        fs::write(path.join("in.safetensors"), safetensors::serialize([("ids", view)], None).expect("serialised"))
            .expect("written");
        for line in ["run build", "run bard.moe --weights CHECKPOINT --backend oracle"] {
            let line = line.replace("CHECKPOINT", &crate::command::bard().display().to_string());
            let ended = moec_in(path, &format!("{line} --inputs in.safetensors --outputs out.safetensors"));
            ended.refused(1, &words);
            assert!(!path.join("out.safetensors").exists());
        }
    }
}

#[test]
fn what_the_target_cannot_do() {
    let folder = folder();
    let path = folder.path();
    moec_in(path, "new decoder").fine();
    // Attention that is not recognised would store scores of every pair of positions.
    moec_in(path, "build decoder.moe --disable-pass fuse-attention").refused(3, &["cannot", "help:"]);
    assert!(!path.join("build").exists());
    moec_in(path, "explain decoder.moe --disable-pass fuse-attention").fine();
}
