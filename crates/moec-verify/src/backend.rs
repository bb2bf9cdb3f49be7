//! What a decoder must be able to do to be compared.

use moec_diag::Problem;

/// What a decoder is scored on.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Of a model that has an encoder: what that reads.
    pub source: Option<&'a [i32]>,
    pub ids: &'a [i32],
}

/// A decoder on some machine: token ids in, logits out. Each call of `forward` is a sequence of its own; `begin` starts the
/// sequence that `step` goes on with.
pub trait Backend {
    /// For the table: `oracle`, `cpu avx512`.
    fn name(&self) -> String;

    /// Whether it has an encoder, so that every sequence needs a source.
    fn encodes(&self) -> bool;

    /// Scores a whole sequence.
    fn forward(&mut self, sequence: Sequence) -> Result<Scored, Problem>;

    /// Forgets the sequence of `step`; what an encoder reads is given once, here.
    fn begin(&mut self, source: Option<&[i32]>) -> Result<(), Problem>;

    /// Appends to the sequence and returns the logits of its last position, `[vocabulary]`. `ids` is not empty.
    fn step(&mut self, ids: &[i32]) -> Result<Vec<f32>, Problem>;
}

/// A scored sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// `[positions, vocabulary]`.
    pub logits: Vec<f32>,
    /// Every route in the order of execution; `None` where the backend cannot tell.
    pub routes: Option<Vec<Chosen>>,
}

/// The experts that a route chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Choices for each position.
    pub choices: usize,
    /// `[positions, choices]`; negative means no choice.
    pub experts: Vec<i32>,
}
