//! What random specs found, made small.

use crate::judge::{Verdict, judge};

fn sound(text: &str) {
    for seed in 0..3 {
        match judge(text, seed) {
            Ok(Verdict::Sound) => {}
            other => panic!("{other:?}\n{text}"),
        }
    }
}

#[test]
fn what_is_the_same_for_all_rows_of_an_expert_differs_between_experts() {
    sound(
        "config { D = 4 }
         use std::gate::top_k_of_logits
         expert shifted {
           param w[D, A = 3]
           out x + f32(A) · w
         }
         model shifts(x: f32[S, D]) {
           part ffn = moe { gate top_k_of_logits(2); experts shifted × 3 }
           out y: f32[S, D] = ffn(x)
         }",
    );
}

#[test]
fn keys_of_two_parts_are_kept_as_one() {
    sound(
        "config { D = 4 }
         block latent {
           param q[G = 3, Dh = 4, D]
           param k[G = 3, Dh = 4, D]
           param qr[G = 3, Dr = 2, D]
           param kr[Dr = 2, D]
           let kp = past(x · k, S as T)
           let kt = past(x · kr, S as T)
           let scores = ((x · q) · kp over Dh) + ((x · qr) · kt over Dr)
           out sum(softmax(where(T <= S, scores, -inf) over T) · kp over T over (G, Dh))
         }
         model latent_attention(x: f32[S, D]) {
           part attn = latent
           out y: f32[S] = attn(x)
         }",
    );
}

#[test]
fn an_expert_may_compute_its_axes_in_another_order() {
    sound(
        "config { D = 4 }
         use std::expert::copy
         use std::gate::top_k_of_logits
         expert constant {
           param c[D]
           out c + 0.5 * x
         }
         model orders(x: f32[S, D]) {
           part ffn = moe { gate top_k_of_logits(1); experts copy × 2, constant × 2 }
           out y: f32[S, D] = ffn(x)
         }",
    );
}

#[test]
fn a_batch_of_products_with_a_parameter_is_a_row_program() {
    sound(
        "model batch(x: f32[S, D = 3, B = 4]) {
           param w[B, C = 2]
           param v[D, B, C = 2]
           out y: f32[S, D = 3, C = 2] = tanh(x · w) + (x · v over B)
         }",
    );
}

#[test]
fn a_softmax_over_features_is_no_attention() {
    sound(
        "model features(x: f32[S, D = 4]) {
           param o[D, A = 3]
           let y = x · o
           out s: f32[S] = softmax(y over A) · y over A
         }",
    );
}

#[test]
fn choices_are_reported_in_the_order_of_the_text() {
    sound(
        "config { D = 4 }
         use std::expert::{mlp, swiglu}
         use std::gate::top_k_of_logits
         model two(x: f32[S, D]) {
           part a = moe { gate top_k_of_logits(2); experts swiglu(3) × 3 }
           part b = moe { gate top_k_of_logits(1); experts mlp(3, relu) × 2 }
           part c = moe { gate top_k_of_logits(1); experts mlp(2, relu) × 3 }
           let h = a(a(tanh(x)))
           let g = b(x)
           let u = tanh(x) + 0.5 * g
           out y: f32[S, D] = c(u) + h
           out z: f32[S, D] = g * u
         }",
    );
}

#[test]
fn a_choice_among_choices() {
    sound(
        "model twice(x: f32[S, D = 6]) {
           let (v, i) = top_k(x, 4 over D)
           let (w, j) = top_k(-v, 2 over K)
           let places = gather(rename(i, K as K1), j over K1)
           out y: f32[S, K = 2] = w + f32(places)
         }",
    );
}

#[test]
fn an_axis_is_as_long_as_the_argument_has_it() {
    sound(
        "model sums(x: f32[S, D = 6]) {
           let (v, i) = top_k(x, 3 over D)
           let (w, j) = top_k(x, 1 over D)
           let sums = cumsum(v over K)
           out y: f32[S] = sum(sums over K) + w[K = 0]
         }",
    );
}

#[test]
fn a_key_of_large_numbers_known_now_and_numbers_that_are_not() {
    sound(
        "model keys(i: i32[S], x: f32[S, D = 3]) {
           out y: f32[S, D] = x + random_uniform(key(i, 9, 30) over D)
           out z: f32[S, D] = x + random_uniform(key(i, i, 1000000) over D)
         }",
    );
}
