//! Specs that go from position to position: of several widths, in and out of step, with what makes lowering careful.

/// A name, and the text.
pub const SCANS: &[(&str, &str)] = &[
    (
        "heads with a memory each",
        "model m(x: f32[S, D = 12]) {
  param q[Head = 3, Dk = 20, D]
  param k[Head, Dk, D]
  param v[Head, Dv = 24, D]
  param o[D, Head, Dv]
  let a = x · q  let b = x · k  let c = x · v
  let beta = sigmoid(sum(b over Dk))
  let y = scan over S {
    state memory[Head, Dk, Dv] = 0.0
    memory = 0.9 * memory
    let wrong = c - memory · b over Dk
    memory = memory + 0.05 * b * (beta * wrong)
    out memory · a over Dk
  }
  out y: f32[S, D] = y · o over (Head, Dv)
}",
    ),
    (
        "a convolution",
        "use std::mixer::causal_convolution
model m(x: f32[S, D = 768]) {
  param w[D, Tap = 4]
  out y: f32[S, D] = causal_convolution(x, w over (D, Tap, S))
}",
    ),
    (
        "all of a state mixed",
        "model m(x: f32[S, D = 512]) {
  out y: f32[S, D] = scan over S { state h[D] = 0.5; h = h / (1.0 + sum(h * h over D)) + x; out h }
}",
    ),
    (
        "states that take each other's values",
        "model m(x: f32[S, D = 3]) {
  out y: f32[S, D] = scan over S {
    state a[D] = 1.0
    state b[D] = 2.0
    state c[D] = 3.0
    let was = a
    a = b
    b = c + 0.5 * was
    c = was
    out a + 10.0 * b + 100.0 * c + x
  }
}",
    ),
    (
        "the old value after the new one",
        "model m(x: f32[S, D = 4]) {
  out y: f32[S, D] = scan over S {
    state h[D] = 0.0
    let was = h
    h = 0.5 * h + x
    let turned = concat(was[D = 1..4], was[D = 0..1] over D)
    out h + 0.1 * turned
  }
}",
    ),
    (
        "positions, learnt first values, layers",
        "model m(x: f32[S, D = 5]) {
  param rate[E = 2]
  let h = x
  layers l in 0..3 {
    param first[E, D]
    param mix[E]
    let all = scan over S {
      state sum[E, D] = first
      state count = 0
      sum   = sum * sigmoid(rate) + h
      count = count + 1
      out sum / count + 0.01 * f32(S)
    }
    h = h + sum(all * mix over E)
  }
  out y: f32[S, D] = h
}",
    ),
];
