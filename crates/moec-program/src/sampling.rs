//! The next token from logits.

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The largest logit; the lowest token of equal ones.
    Greedy,
    /// From the softmax of `logits / temperature`, cut to the `top_k` largest and to the likeliest that make up `nucleus` of the
    /// probability, where given.
    Random { temperature: f32, top_k: Option<usize>, nucleus: Option<f32> },
}

/// Draws tokens. The same seed and logits give the same tokens on every machine.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
}

impl Sampler {
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Sampler { sampling, state: seed }
    }

    /// NaN counts as the least likely. `None` for no logits.
    pub fn next(&mut self, logits: &[f32]) -> Option<usize> {
        match self.sampling {
            Sampling::Greedy => argmax(logits),
            Sampling::Random { temperature, top_k, nucleus } => self.draw(logits, temperature, top_k, nucleus),
        }
    }

    fn draw(&mut self, logits: &[f32], temperature: f32, top_k: Option<usize>, nucleus: Option<f32>) -> Option<usize> {
        let mut order: Vec<usize> = (0..logits.len()).filter(|at| !logits[*at].is_nan()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        order.truncate(top_k.unwrap_or(order.len()).max(1));
        let largest = f64::from(logits[*order.first()?]);
        let scale = f64::from(temperature);
        let mut weights: Vec<f64> = order.iter().map(|at| ((f64::from(logits[*at]) - largest) / scale).exp()).collect();
        if let Some(part) = nucleus {
            weights.truncate(as_many_as_make_up(f64::from(part), &weights));
        }
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        for (at, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return Some(*at);
            }
        }
        // Rounding, or infinite logits: the likeliest.
        order.first().copied()
    }

    /// In 0 .. 1: splitmix64, of which 53 bits are used.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How many of the first make up a part of the whole; at least one.
fn as_many_as_make_up(part: f64, weights: &[f64]) -> usize {
    let enough = part * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reaches = |weight: &f64| {
        sum += weight;
        sum >= enough
    };
    weights.iter().position(reaches).map_or(weights.len(), |last| last + 1)
}

/// The largest; of equal ones the first.
fn argmax(logits: &[f32]) -> Option<usize> {
    let better = |best: usize, at: usize| logits[at] > logits[best] || (logits[best].is_nan() && !logits[at].is_nan());
    (0..logits.len()).reduce(|best, at| if better(best, at) { at } else { best })
}
