//! `aux`, `trace`, `state`, `phase` and `iterate`: what is given on request, by the oracle, against the same arithmetic in Rust.

use moec_diag::SourceMap;
use moec_oracle::{MemoryWeights, Session, Tensor, Weights};
use moec_sema::{Also, Checked, ExtraKind, Phase, Settings, check};

const ALL: Also = Also { aux: true, trace: true, state: true };

fn checked(text: &str, phase: Phase, also: Also) -> Checked {
    let mut sources = SourceMap::default();
    let (file, problems) = moec_syntax::parse(&mut sources, "test.moe", text);
    assert!(problems.is_empty(), "{problems:?}");
    let settings = Settings { phase, also, ..Settings::default() };
    let (checked, problems) = check(&mut sources, &file.expect("a tree"), &settings);
    assert!(problems.is_empty(), "{problems:?}");
    let checked = checked.expect("no problems");
    moec_ir::verify(&checked.module).unwrap_or_else(|error| panic!("{error}"));
    checked
}

/// All outputs for `x: f32[S, D = 2]`.
fn run(checked: &Checked, x: &[f32], weights: &dyn Weights) -> Vec<(String, Tensor)> {
    let input = Tensor::named(&[("S", x.len() / 2), ("D", 2)], x.to_vec());
    Session::new(&checked.module, weights).run(&[("x", input)], None).expect("it runs")
}

fn output<'o>(outputs: &'o [(String, Tensor)], name: &str) -> (Vec<usize>, &'o [f32]) {
    let found = outputs.iter().find(|(known, _)| known == name);
    let (_, tensor) = found.unwrap_or_else(|| panic!("no output `{name}` among {:?}", outputs.len()));
    (tensor.sizes(), tensor.f32())
}

/// Layers 0, 2 and 3 have the block with extras, layer 1 has none.
const LAYERS: &str = "
block counted(l) {
  state seen[D] = 0.5 on step seen + mean(x over S)
  aux size(0.1) = sum(x * x over (S, D))
  trace doubled = 2 * x
  out x + 0.0 * seen
}

block plain {
  out x + 1
}

model m(x: f32[S, D = 2]) {
  let h = x
  layers l in 0..4 {
    part step = if l == 1 { plain } else { counted(l) }
    h = step(h) + 1
  }
  aux last(2) = sum(h over (S, D))
  out y: f32[S, D] = h
}
";

#[test]
fn what_layers_give_is_collected() {
    let checked = checked(LAYERS, Phase::Infer, ALL);
    let x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let outputs = run(&checked, &x, &MemoryWeights::default());
    // What comes into layers 0, 2 and 3.
    let added = [0.0f32, 3.0, 4.0];
    let squares = added.map(|more| x.iter().map(|x| (x + more) * (x + more)).sum::<f32>());
    assert_eq!(output(&outputs, "layers.step.size"), (vec![3], &squares[..]));
    let means: Vec<f32> = added.iter().flat_map(|more| [0.5 + 3.0 + more, 0.5 + 4.0 + more]).collect();
    assert_eq!(output(&outputs, "layers.step.seen"), (vec![3, 2], &means[..]));
    let doubled: Vec<f32> = x
        .chunks(2)
        .flat_map(|row| added.iter().flat_map(move |more| row.iter().map(move |x| 2.0 * (x + more))))
        .collect();
    assert_eq!(output(&outputs, "layers.step.doubled"), (vec![3, 3, 2], &doubled[..]));
    let last: f32 = x.iter().map(|x| x + 5.0).sum();
    assert_eq!(output(&outputs, "last"), (vec![], &[last][..]));
    let total = 0.1 * squares.iter().sum::<f32>() + 2.0 * last;
    let (_, found) = output(&outputs, "aux");
    assert!((found[0] - total).abs() < 1e-3, "{} is not {total}", found[0]);
    let state = checked.extras.iter().find(|extra| extra.kind == ExtraKind::State).expect("the state is there");
    assert_eq!((state.path.as_str(), state.layers.as_deref()), ("layers[l].step.seen", Some(&[0, 2, 3][..])));
}

#[test]
fn what_is_not_asked_for_leaves_no_trace() {
    let module = checked(LAYERS, Phase::Infer, Also::default()).module;
    assert_eq!(module.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), ["y"]);
    let without = LAYERS.lines().filter(|line| !line.contains("aux ") && !line.contains("trace "));
    let without: String = without.map(|line| line.split(" on step").next().unwrap_or(line).to_owned() + "\n").collect();
    assert_eq!(moec_ir::print(&module), moec_ir::print(&checked(&without, Phase::Infer, Also::default()).module));
}

#[test]
fn a_state_is_read_from_the_weights() {
    let text = "
      model m(x: f32[S, D = 2]) {
        state b[D] = 1 on step 2 * b
        out y: f32[S, D] = x + b
      }";
    let checked = checked(text, Phase::Infer, ALL);
    let mut weights = MemoryWeights::default();
    assert_eq!(output(&run(&checked, &[0.0, 0.0], &weights), "y").1, [1.0, 1.0]);
    let mut b = Vec::new();
    for wanted in [1.0, 2.0, 4.0] {
        let outputs = run(&checked, &[0.0, 0.0], &weights);
        assert_eq!(output(&outputs, "y").1, [wanted, wanted]);
        b.clear();
        b.extend_from_slice(output(&outputs, "b").1);
        weights.insert(moec_ir::ParamId(0), 0, 0, Tensor::named(&[("D", 2)], b.clone()));
    }
}

#[test]
fn a_phase_is_the_one_that_the_file_is_checked_for() {
    let text = "
      model m(x: f32[S, D = 2]) {
        out y: f32[S, D] = phase(train = x + schedule(3.0, 1.0, 4.0, 2.0), infer = nothing_at_all_like_this(x))
      }";
    let checked = checked(text, Phase::Train, Also::default());
    assert_eq!(output(&run(&checked, &[1.0, 2.0], &MemoryWeights::default()), "y").1, [2.0, 3.0]);
}

/// 16, 8, 4, 2, 1, …: the step from 4 to 2 changes by less than 2.5 and is the last.
#[test]
fn iterating_ends_where_it_is_told() {
    let text = |form: &str| format!("model m(x: f32[S, D = 2]) {{ out y: f32[S, D] = iterate {form} {{ z * 0.5 }} }}");
    for (form, wanted) in [("3 (z = x)", 2.0), ("6 (z = x, until = 2.5)", 2.0), ("0 (z = x)", 16.0)] {
        let checked = checked(&text(form), Phase::Infer, Also::default());
        let outputs = run(&checked, &[16.0, 16.0], &MemoryWeights::default());
        assert_eq!(output(&outputs, "y").1, [wanted, wanted], "{form}");
    }
}

/// Against the same hash in NumPy's u32, and f64 from there.
#[test]
fn random_numbers_are_those_of_the_key() {
    let text = |form: &str| {
        format!(
            "model m(x: f32[S, D = 2]) {{ let k = {form} out y: f32[S, D] = x * 0.0 + rename(k, N as D)[D = 2..4] }}"
        )
    };
    let cases = [
        ("random_uniform(key(7, 3, 2) over N)", [0.32540601, 0.35381991]),
        ("random_normal(key(7, 3, 2) over N)", [1.38691991, -1.20136423]),
        ("random_gumbel(key(7, 3, 2) over N)", [-0.11572011, -0.03822717]),
        ("f32(random_bits(key(7, 3, 2) over N))", [1397608183.0, 1519644742.0]),
        // A key that is known only when the model runs.
        ("random_uniform(key(7, i32(max(x over (S, D))), 2) over N)", [0.32540601, 0.35381991]),
    ];
    for (form, wanted) in cases {
        let text = format!("config {{ N = 4 }} {}", text(form));
        let checked = checked(&text, Phase::Infer, Also::default());
        let outputs = run(&checked, &[3.0, 1.0], &MemoryWeights::default());
        for (found, wanted) in output(&outputs, "y").1.iter().zip(wanted) {
            assert!(
                (f64::from(*found) - wanted).abs() <= 1e-6 * wanted.abs().max(1.0),
                "{form}: {found} is not {wanted}"
            );
        }
    }
}
