//! What came out of a comparison, and the table of it.

use std::time::Duration;

use crate::verify::Tolerances;

/// How many of how many are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    pub equal: usize,
    pub total: usize,
}

impl Agreement {
    pub fn holds(self) -> bool {
        self.equal == self.total
    }

    pub(crate) fn count(&mut self, equal: bool) {
        self.total += 1;
        self.equal += usize::from(equal);
    }
}

/// The largest distance between logits and where it is, and what they come to on average; infinite where either is not a number, or where there are not as many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogitError {
    pub largest: f32,
    pub sequence: usize,
    pub position: usize,
    pub token: usize,
    /// All distances together, and how many there are.
    pub sum: f64,
    pub count: u64,
}

impl LogitError {
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// The first position at which a backend chose other experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMismatch {
    /// The routing module in the reference.
    pub route: String,
    pub sequence: usize,
    pub position: usize,
    /// Ascending.
    pub wanted: Vec<i32>,
    pub found: Vec<i32>,
}

/// The first greedy token that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMismatch {
    pub sequence: usize,
    pub step: usize,
    pub wanted: i32,
    pub found: i32,
}

/// A backend's results beside the reference's.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub name: String,
    pub backend: String,
    pub tolerances: Tolerances,
    /// Of the scored pass.
    pub logits: LogitError,
    /// Positions times routed layers with the same set of experts; `None` where the backend cannot
    /// tell or the reference does not say.
    pub experts: Option<Agreement>,
    pub first_route: Option<RouteMismatch>,
    /// Routed layers in the reference and in the backend, where they differ.
    pub routed_layers: Option<(usize, usize)>,
    /// Greedy tokens, decoded with the cache; `None` where the reference has none.
    pub tokens: Option<Agreement>,
    pub first_token: Option<TokenMismatch>,
    /// Of the decoding steps; position counts steps.
    pub steps: LogitError,
    /// Spent in the backend.
    pub time: Duration,
}

impl Verdict {
    pub fn passes(&self) -> bool {
        self.failures().is_empty()
    }

    /// What is wrong, a sentence each.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let at = |error: &LogitError, what: &str| {
            format!(
                "logits differ by {:.2e} at sequence {}, {what} {}, token {}; {:.0e} is allowed",
                error.largest, error.sequence, error.position, error.token, self.tolerances.logits
            )
        };
        // Written so that NaN fails.
        let within = |error: &LogitError| error.largest <= self.tolerances.logits;
        if !within(&self.logits) {
            failures.push(at(&self.logits, "position"));
        }
        if let Some((wanted, found)) = self.routed_layers {
            failures.push(format!("the reference routes {wanted} times, this model {found} times"));
        }
        if let Some(route) = &self.first_route {
            failures.push(format!(
                "{} chooses {:?} at sequence {}, position {}; the reference chooses {:?}",
                route.route, route.found, route.sequence, route.position, route.wanted
            ));
        }
        if let Some(token) = self.first_token {
            failures.push(format!(
                "greedy token {} of sequence {} is {}, the reference has {}",
                token.step, token.sequence, token.found, token.wanted
            ));
        }
        if !within(&self.steps) {
            failures.push(at(&self.steps, "step"));
        }
        failures
    }

    fn cells(&self) -> [String; 8] {
        let agreement = |agreement: Option<Agreement>| {
            agreement.map_or("-".to_string(), |agreement| format!("{}/{}", agreement.equal, agreement.total))
        };
        [
            self.name.clone(),
            self.backend.clone(),
            format!("{:.2e}", self.logits.largest),
            agreement(self.experts),
            agreement(self.tokens),
            self.tokens.map_or("-".to_string(), |_| format!("{:.2e}", self.steps.largest)),
            format!("{:.2} s", self.time.as_secs_f64()),
            if self.passes() { "pass" } else { "FAIL" }.to_string(),
        ]
    }
}

const HEAD: [&str; 8] = ["model", "backend", "logits", "experts", "tokens", "step logits", "time", ""];

/// One line for each verdict under a head; numbers stand on the right.
pub fn render_table(verdicts: &[Verdict]) -> String {
    let rows: Vec<[String; 8]> =
        std::iter::once(HEAD.map(str::to_string)).chain(verdicts.iter().map(Verdict::cells)).collect();
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 | 7 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}
