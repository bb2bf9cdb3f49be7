//! Several sessions of one model that step together.

use std::ptr;

use super::{Model, NativeError, RawSession, TokenFunctions, session::Session};

/// `NAME_turn`.
#[repr(C)]
pub(super) struct RawTurn {
    session: RawSession,
    ids: *const i32,
    n: usize,
    logits: *mut f32,
    reserved: [u64; 4],
}

/// One session's part of a step: its new tokens, and where the logits of what follows the last of them go.
pub struct Turn<'a> {
    pub session: &'a mut Session,
    pub ids: &'a [i32],
    /// Empty where none are wanted; else as long as the vocabulary.
    pub logits: &'a mut [f32],
}

impl Model {
    /// Steps all sessions at once, each at its own position: either all turns are done, or none. `vocabulary` is the build's.
    pub fn step_together(&self, turns: &mut [Turn], vocabulary: usize) -> Result<(), NativeError> {
        let TokenFunctions { step_batch, .. } = self.functions.tokens.ok_or(NativeError::NoTokens)?;
        let raw = |turn: &mut Turn| {
            assert!(turn.logits.is_empty() || turn.logits.len() == vocabulary, "logits of a turn");
            let logits = if turn.logits.is_empty() { ptr::null_mut() } else { turn.logits.as_mut_ptr() };
            let (ids, n) = (turn.ids.as_ptr(), turn.ids.len());
            RawTurn { session: turn.session.handle, ids, n, logits, reserved: [0; 4] }
        };
        let raw: Vec<RawTurn> = turns.iter_mut().map(raw).collect();
        let mut error = ptr::null_mut();
        // SAFETY: sessions are held exclusively, ids and logits are as long as said; the library refuses sessions of others.
        let code = unsafe { step_batch(self.handle, raw.as_ptr(), raw.len(), &mut error) };
        self.functions.check(code, error)
    }
}
