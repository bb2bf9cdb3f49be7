//! The next token from logits.

/// How a request wants its tokens drawn.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// 0: the likeliest token, always.
    pub temperature: f32,
    /// Only the likeliest tokens that make up this part of the probability.
    pub top_p: f32,
}

/// Draws tokens; the same seed draws the same ones.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
}

impl Sampler {
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Sampler { sampling, state: seed }
    }

    /// Of equal logits the first is the likelier; NaN is the least likely.
    pub fn next(&mut self, logits: &[f32]) -> i32 {
        let value = |at: usize| if logits[at].is_nan() { f32::NEG_INFINITY } else { logits[at] };
        if self.sampling.temperature <= 0.0 {
            let best = (1..logits.len()).fold(0, |best, at| if value(at) > value(best) { at } else { best });
            return best as i32;
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| value(*b).total_cmp(&value(*a)).then(a.cmp(b)));
        let largest = value(order[0]);
        let weight = |at: &usize| f64::from((value(*at) - largest) / self.sampling.temperature).exp();
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let enough = f64::from(self.sampling.top_p.clamp(0.0, 1.0)) * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let reaches = |weight: &f64| {
            sum += weight;
            sum >= enough
        };
        let count = weights.iter().position(reaches).map_or(weights.len(), |last| last + 1);
        let mut left = self.uniform() * weights[..count].iter().sum::<f64>();
        let chosen = weights[..count].iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        order[chosen.unwrap_or(0)] as i32
    }

    /// In 0 .. 1, by splitmix64.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}
