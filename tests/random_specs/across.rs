//! Specs that work across tokens, and along token axes of fixed size: by hand, since random ones seldom do.

/// A name, and the text.
pub const ACROSS: &[(&str, &str)] = &[
    (
        "reductions over tokens, of both orders of axes",
        "model m(x: f32[S, D = 20], n: i32[S]) {
  let total = sum(x over S)
  let most = max(x over S)
  let centred = x - mean(x over S)
  let spread = sqrt(mean(centred * centred over (S, D)) + 1e-3)
  out a: f32[S, D] = centred / spread + total * most
  out b: f32[D] = min(x over S) + f32(sum(n over S))
  out c: f32[S] = sum(x over D) / f32(1 + max(n over S))
}",
    ),
    (
        "a softmax over tokens",
        "model m(x: f32[S, D = 9]) {
  param W[E = 5, D]
  let p = softmax(x · W over S)
  let pooled = p · x over S
  out a: f32[S, E] = p * 2.0
  out b: f32[E, D] = pooled
}",
    ),
    (
        "the best tokens of each expert",
        "model m(x: f32[S, D = 6], first: i32[E = 3]) {
  param W[E, D]
  let (v, i) = top_k(x · W, 1 over S)
  let rows = gather(x, i over S)
  let named = gather(x, first * 0 over S)
  out a: f32[E, K, D] = rows * v
  out b: f32[E, D] = named + sum(rows over K)
}",
    ),
    (
        "tokens that other tokens name",
        "model m(x: f32[S, D = 6], i: i32[S]) {
  let other = gather(rename(x, S as N), i * 0 over N)
  let twice = rename(rename(x, S as N), N as M)
  out a: f32[S, D] = other + x
  out b: f32[M, D] = twice + 1.0
}",
    ),
    (
        "layers over what all tokens make",
        "model m(x: f32[S, D = 8]) {
  let h = x
  let g = mean(x over S)
  layers l in 0..3 {
    param W[O = 8, D]
    let y = rename(h · W, O as D)
    h = h + y / (1.0 + abs(g))
    g = 0.5 * g + max(h over S)
  }
  out a: f32[S, D] = h
  out b: f32[D] = g
}",
    ),
    (
        "places in a buffer: running counts of choices",
        "model m(x: f32[S, D = 7]) {
  param W[E = 4, D]
  let (v, i) = top_k(x · W, 2 over E)
  let chosen = one_hot(i over E)
  let before = cumsum(chosen over S) - chosen
  let earlier = cumsum(sum(chosen over S) over K) - sum(chosen over S)
  let place = gather(before + earlier, i over E)
  out a: f32[S, K] = where(place < 2.0, v, 0.0)
  out b: f32[S] = cumsum(sum(x over D) over S)
  out c: f32[S, D] = cumsum(x over D)
}",
    ),
    (
        "each expert takes its share of the tokens",
        "model m(x: f32[S, D = 6]) {
  param W[E = 3, D]
  let p = softmax(x · W over E)
  let (w, t) = top_k(p, ceil(size(S) * 2 / 3) over S)
  let rows = gather(x, t over S)
  let y = rows * w * 2.0
  out a: f32[S, D] = scatter_add(y, t, (E, K) as S)
  out b: f32[E] = sum(w over K) / f32(size(S))
}",
    ),
    (
        "a sort of all tokens, and back",
        "model m(x: f32[S, D = 5]) {
  let score = sum(x over D)
  let order = argsort(score over S)
  let sorted = gather(x, rename(order, S as N) over S)
  let summed = rename(cumsum(sorted over N), N as S)
  let back = rename(argsort(f32(order) over S), S as B)
  out a: f32[S, D] = rename(gather(summed, back over S), B as S)
  out b: i32[S] = order
}",
    ),
    (
        "products along heads, with and without a batch of parameters",
        "model m(x: f32[S, D = 24]) {
  param W[F = 20, Dh = 6]
  param U[G = 5, Dh = 6]
  param V[Head = 4, O = 3, Dh = 6]
  param bias[F = 20]
  param each[Head = 4]
  let heads = split(x, D as (Head = 4, Dh = 6))
  let y = max(heads · W + bias, 0.0) + each
  let z = rename(split(x, D as (Dh = 6, Head = 4)), Head as H2) · U
  out a: f32[S, Head, F] = y
  out b: f32[S, Head, O] = heads · V over Dh
  out c: f32[S, H2, G] = z * sum(y over (Head, F)) + z
}",
    ),
    (
        "an image of a fixed number of patches",
        "model m(x: f32[P = 65, D = 24]) {
  param W[H = 40, D]
  param U[O = 24, H]
  param scale[D]
  let n = x / sqrt(mean(x * x over D) + 1e-5) * scale
  let h = x + rename(max(n · W, 0.0) · U, O as D)
  let keys = rename(h, P as Q)
  let p = softmax(h · keys over D over Q)
  out a: f32[P, D] = p · keys over Q
  out b: f32[D] = mean(h over P)
}",
    ),
    (
        "experts over a fixed number of tokens",
        "use std::gate::top_k_softmax
use std::expert::{copy, mlp, swiglu, zero}
model m(x: f32[P = 13, D = 6], y: f32[D, P]) {
  part ffn = moe { gate top_k_softmax(2); experts swiglu(10) × 3, copy, zero; always mlp(4, silu) }
  part other = moe { gate top_k_softmax(1); experts mlp(7, silu) × 4 }
  let h = x + ffn(x)
  out a: f32[P, D] = h + other(x * 0.5 + y)
  out b: f32[D] = mean(h over P)
}",
    ),
];
