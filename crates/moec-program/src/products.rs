//! What a pass multiplies by what, and so how many bytes and operations it takes at least.

use serde::{Deserialize, Serialize};

/// Rows times matrices: one matrix that all rows meet, or as many as there are experts, of which each token chooses some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// The storage format, by its name.
    pub format: String,
    /// Of one matrix.
    pub weights: f64,
    pub bytes: f64,
    pub matrices: f64,
    /// The share of tokens that meet one of the matrices.
    pub share: f64,
    /// Rows for each new position that meets it; 0 where `rows` does not depend on them.
    pub rows_of_token: f64,
    /// Rows besides, whatever the pass.
    pub rows: f64,
    /// Only rows whose outputs are asked for count.
    pub of_outputs: bool,
    /// How often in a pass.
    pub executions: u64,
}

/// A pass: how many new positions, after how many others, and of how many the outputs are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub tokens: u64,
    pub past: u64,
    pub outputs: u64,
}

impl Product {
    fn tokens(&self, size: Size) -> f64 {
        if self.of_outputs { size.outputs as f64 } else { size.tokens as f64 }
    }

    /// How likely it is that a matrix meets so many tokens, from the fewest on, with what is negligible left out.
    pub fn meetings(&self, size: Size) -> Vec<(f64, f64)> {
        let tokens = self.tokens(size);
        if self.share >= 1.0 || self.rows_of_token == 0.0 {
            return vec![(tokens, 1.0)];
        }
        // A binomial distribution, in logarithms: (1 - p)^T underflows.
        let (share, rest) = (self.share.ln(), (1.0 - self.share).ln());
        let mut logarithm = tokens * rest;
        let mut found = Vec::new();
        for met in 0..=tokens as u64 {
            let likely = logarithm.exp();
            if likely > 1e-6 {
                found.push((met as f64, likely));
            }
            logarithm += ((tokens - met as f64) / (met as f64 + 1.0)).ln() + share - rest;
        }
        found
    }

    /// Matrices that are expected to meet any token: E (1 - (1 - K/E)^T).
    pub fn touched(&self, size: Size) -> f64 {
        if self.rows_of_token == 0.0 {
            return self.matrices;
        }
        self.matrices * (1.0 - (1.0 - self.share.min(1.0)).powf(self.tokens(size)))
    }

    pub fn bytes_read(&self, size: Size) -> f64 {
        self.touched(size) * self.bytes * self.executions as f64
    }

    /// Multiplications and additions.
    pub fn flops(&self, size: Size) -> f64 {
        let rows = self.tokens(size) * self.share * self.rows_of_token + self.rows;
        2.0 * self.weights * self.matrices * rows * self.executions as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 16 tokens, of which each goes to 8 of 64 experts: on average an expert meets 2.
    #[test]
    fn tokens_meet_experts_as_coins_fall() {
        let product = Product {
            format: "int8".into(),
            weights: 1.0,
            bytes: 1.0,
            matrices: 64.0,
            share: 8.0 / 64.0,
            rows_of_token: 1.0,
            rows: 0.0,
            of_outputs: false,
            executions: 1,
        };
        let size = Size { tokens: 16, past: 0, outputs: 1 };
        let meetings = product.meetings(size);
        let sum = |of: fn(&(f64, f64)) -> f64| meetings.iter().map(of).sum::<f64>();
        assert!((sum(|(_, likely)| *likely) - 1.0).abs() < 1e-4);
        assert!((sum(|(met, likely)| met * likely) - 2.0).abs() < 1e-3);
        let missed = meetings.iter().find(|(met, _)| *met == 0.0).map_or(0.0, |(_, likely)| *likely);
        assert!((product.touched(size) - 64.0 * (1.0 - missed)).abs() < 1e-3);
    }
}
