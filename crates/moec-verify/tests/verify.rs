//! References are read or refused with a reason, and every kind of difference reaches the verdict.

use std::path::{Path, PathBuf};

use moec_diag::Problem;
use moec_verify::{Agreement, Backend, Chosen, Reference, Scored, Sequence, Tolerances, Verdict, render_table, verify};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const VOCABULARY: usize = 3;

/// Token `t` is followed by `t + 1`; the logits say so, and expert `t` and `t + 1` (of five) are chosen.
struct Counting {
    /// Added to every logit.
    shift: f32,
    experts: i32,
    last: i32,
    blind: bool,
}

impl Default for Counting {
    fn default() -> Self {
        Counting { shift: 0.0, experts: 0, last: 0, blind: false }
    }
}

fn row(token: i32) -> [f32; VOCABULARY] {
    std::array::from_fn(|next| if next as i32 == (token + 1) % VOCABULARY as i32 { 1.0 } else { 0.0 })
}

impl Backend for Counting {
    fn name(&self) -> String {
        "counting".to_string()
    }

    fn encodes(&self) -> bool {
        false
    }

    fn forward(&mut self, Sequence { ids, .. }: Sequence) -> Result<Scored, Problem> {
        let logits = ids.iter().flat_map(|id| row(*id)).map(|logit| logit + self.shift).collect();
        // The other way round than in the reference: only the set counts.
        let experts = ids.iter().flat_map(|id| [id + 1 + self.experts, *id]).collect();
        Ok(Scored { logits, routes: (!self.blind).then(|| vec![Chosen { choices: 2, experts }]) })
    }

    fn begin(&mut self, _: Option<&[i32]>) -> Result<(), Problem> {
        self.last = -1;
        Ok(())
    }

    fn step(&mut self, ids: &[i32]) -> Result<Vec<f32>, Problem> {
        assert_eq!(ids.len(), if self.last < 0 { 2 } else { 1 }, "the prompt, then one token after another");
        self.last = ids[ids.len() - 1];
        Ok(row(self.last).map(|logit| logit + self.shift).to_vec())
    }
}

struct Tensors(Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    fn ints(mut self, name: &'static str, shape: &[usize], values: &[i64]) -> Self {
        self.0.push((name, Dtype::I64, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect()));
        self
    }

    fn floats(mut self, name: &'static str, shape: &[usize], values: &[f32]) -> Self {
        self.0.push((name, Dtype::F32, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(other, ..)| *other != name);
        self
    }

    fn open(&self) -> Result<Reference, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("oracle.safetensors");
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("a sound tensor"))
        });
        safetensors::serialize_to_file(views, None, &path).expect("written");
        Reference::open(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }
}

/// Two sequences of three, of which the second is decoded further.
fn counted() -> Tensors {
    let ids = [0, 1, 2, 2, 0, 1];
    let logits: Vec<f32> = ids.iter().flat_map(|id| row(*id)).collect();
    let experts: Vec<i64> = ids.iter().flat_map(|id| [i64::from(*id), i64::from(*id) + 1]).collect();
    let steps: Vec<f32> = [1, 2].iter().flat_map(|id| row(*id)).collect();
    Tensors(Vec::new())
        .ints("forward.input_ids", &[2, 3], &ids.map(i64::from))
        .floats("logits", &[2, 3, 3], &logits)
        .ints("router.model.layers.1.mlp.experts.0i", &[6, 2], &experts)
        .floats("router.model.layers.1.mlp.experts.1f", &[6, 2], &[0.5; 12])
        .ints("router.model.layers.1.mlp.gate.2i", &[6, 2], &[7; 12])
        .ints("generate.input_ids", &[1, 2], &[0, 1])
        .ints("generate.sequences", &[1, 4], &[0, 1, 2, 0])
        .floats("generate.step_logits", &[1, 2, 3], &steps)
}

fn compare(reference: &Reference, mut backend: Counting) -> Verdict {
    verify("counter", reference, &mut backend, Tolerances::default()).expect("it runs")
}

#[test]
fn an_equal_backend_passes() {
    let reference = counted().open().expect("a reference");
    let verdict = compare(&reference, Counting::default());
    assert_eq!(verdict.failures(), Vec::<String>::new());
    assert_eq!(verdict.experts, Some(Agreement { equal: 6, total: 6 }));
    assert_eq!(verdict.tokens, Some(Agreement { equal: 2, total: 2 }));
    let table = render_table(&[Verdict { time: std::time::Duration::ZERO, ..verdict }]);
    assert_eq!(
        table,
        "model    backend   logits  experts  tokens  step logits    time\n\
         counter  counting  0.00e0      6/6     2/2       0.00e0  0.00 s  pass\n"
    );
}

#[test]
fn every_difference_is_a_failure() {
    let reference = counted().open().expect("a reference");
    let near = compare(&reference, Counting { shift: 5e-5, ..Counting::default() });
    assert!(near.passes() && near.logits.largest > 0.0);
    let far = compare(&reference, Counting { shift: 0.25, ..Counting::default() });
    assert_eq!(
        far.failures(),
        [
            "logits differ by 2.50e-1 at sequence 0, position 0, token 0; 1e-4 is allowed",
            "logits differ by 2.50e-1 at sequence 0, step 0, token 0; 1e-4 is allowed"
        ]
    );
    let broken = compare(&reference, Counting { shift: f32::NAN, ..Counting::default() });
    assert_eq!(broken.logits.largest, f32::INFINITY);
    assert_eq!(broken.tokens, Some(Agreement { equal: 1, total: 2 }), "nothing is largest, so token 0 is found");
    let elsewhere = compare(&reference, Counting { experts: 1, ..Counting::default() });
    assert_eq!(
        elsewhere.failures(),
        ["model.layers.1.mlp chooses [0, 2] at sequence 0, position 0; the reference chooses [0, 1]"]
    );
    assert!(render_table(&[elsewhere]).contains("0/6"));
    let blind = compare(&reference, Counting { blind: true, ..Counting::default() });
    assert!(blind.passes() && blind.experts.is_none());
}

#[test]
fn another_number_of_routes_is_a_failure_unless_the_reference_has_none() {
    let more = counted().ints("router.model.layers.2.mlp.gate.2i", &[6, 2], &[0; 12]);
    let verdict = compare(&more.open().expect("a reference"), Counting::default());
    assert_eq!(verdict.failures(), ["the reference routes 2 times, this model 1 times"]);
    let none = counted().without("router.model.layers.1.mlp.experts.0i").without("router.model.layers.1.mlp.gate.2i");
    let verdict = compare(&none.open().expect("a reference"), Counting::default());
    assert!(verdict.passes() && verdict.experts.is_none());
}

#[test]
fn references_that_are_not_whole_are_refused() {
    let problem = |tensors: Tensors| tensors.open().expect_err("refused");
    assert_eq!(problem(counted().without("logits")), "FILE has no tensor `logits`");
    assert_eq!(
        problem(counted().without("logits").floats("logits", &[2, 9], &[0.0; 18])),
        "tensor `logits` of FILE is F32 of shape [2, 9], it should be f32 of shape [2, 3, vocabulary]"
    );
    assert_eq!(
        problem(counted().without("logits").floats("logits", &[], &[0.0])),
        "tensor `logits` of FILE is F32 of shape [], it should be f32 of 3 axes"
    );
    let ids = |values: &[i64]| counted().without("forward.input_ids").ints("forward.input_ids", &[2, 3], values);
    assert!(problem(ids(&[0, 0, 0, 0, 0, 1 << 40])).contains("integers of 2 axes that fit 32 bits"));
    let sequences = counted().without("generate.sequences").ints("generate.sequences", &[1, 4], &[1, 1, 2, 0]);
    assert!(problem(sequences).contains("`generate.sequences`"));
    let routes = counted().ints("router.model.layers.2.mlp.gate.0i", &[5, 2], &[0; 10]);
    assert!(problem(routes).contains("integers of shape [6, choices]"));
    assert!(problem(counted().ints("forward.decoder_input_ids", &[1, 1], &[0])).contains("as many rows"));
    assert!(Reference::open(Path::new("no/such/file")).expect_err("refused").to_string().starts_with("cannot read"));
}

#[test]
fn a_reference_with_a_source_needs_an_encoder() {
    let reference = counted()
        .ints("forward.decoder_input_ids", &[2, 3], &[0, 1, 2, 2, 0, 1])
        .without("generate.sequences")
        .ints("generate.sequences", &[1, 3], &[0, 1, 2]);
    let reference = reference.open().expect("a reference");
    // What is generated then starts with one token.
    assert_eq!(reference.generation.as_ref().expect("some").prompts, [[0]]);
    let refused = verify("counter", &reference, &mut Counting::default(), Tolerances::default());
    assert!(refused.expect_err("refused").to_string().contains("has one input"));
}

#[test]
fn the_references_in_the_repository_are_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/oracles");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path().join("oracle.safetensors");
        if !path.is_file() {
            continue;
        }
        let reference = Reference::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let length = reference.sources.as_ref().map_or(reference.positions(), |sources| sources[0].len());
        assert_eq!((reference.ids.len(), length), (2, 17));
        assert!(!reference.routes.is_empty() && reference.generation.is_some());
        assert!(reference.about.contains_key("greedy_margin"));
        read += 1;
    }
    assert!(read > 0);
}
