//! Tokens to text: whole characters as they come, up to the first text that ends it.

use std::sync::Arc;

use tokenizers::Tokenizer;
use tokio::sync::mpsc;

use crate::engine::Event;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An end token, or a text that the request named.
    Stop,
    /// As many tokens as were asked for.
    Length,
}

#[derive(Debug, PartialEq)]
pub enum Piece {
    Text(String),
    End { finish: Finish, tokens: usize },
    Failed(String),
}

/// Pieces that wait for a client who reads slowly; the tokens behind them are no more than a context.
const BUFFERED: usize = 16;

/// What becomes of a request's tokens. When its reader is gone, so is the request.
pub fn pieces(
    tokenizer: Arc<Tokenizer>,
    mut events: mpsc::UnboundedReceiver<Event>,
    stop: Vec<String>,
) -> mpsc::Receiver<Piece> {
    let (to, pieces) = mpsc::channel(BUFFERED);
    tokio::spawn(async move {
        let mut decoder = tokenizer.decode_stream(true);
        let mut held = Held { text: String::new(), stop };
        let mut tokens = 0;
        let last = loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = to.closed() => return,
            };
            match event {
                Some(Event::Token(token)) => {
                    tokens += 1;
                    let piece = match decoder.step(token as u32) {
                        Ok(piece) => piece,
                        Err(error) => break Piece::Failed(error.to_string()),
                    };
                    let Some(piece) = piece else { continue };
                    let (ready, stopped) = held.add(&piece);
                    if !ready.is_empty() && to.send(Piece::Text(ready)).await.is_err() {
                        return;
                    }
                    if stopped {
                        break Piece::End { finish: Finish::Stop, tokens };
                    }
                }
                Some(Event::End { by_token }) => {
                    let finish = if by_token { Finish::Stop } else { Finish::Length };
                    if !held.text.is_empty() && to.send(Piece::Text(held.text)).await.is_err() {
                        return;
                    }
                    break Piece::End { finish, tokens };
                }
                Some(Event::Failed(message)) => break Piece::Failed(message),
                None => break Piece::Failed("the server is stopping".to_owned()),
            }
        };
        // Nobody may be there to read it.
        let _ = to.send(last).await;
    });
    pieces
}

/// Text that may be the beginning of one that ends all.
struct Held {
    text: String,
    stop: Vec<String>,
}

impl Held {
    /// What can be told now, and whether an end was found behind it.
    fn add(&mut self, piece: &str) -> (String, bool) {
        self.text += piece;
        if let Some(at) = self.stop.iter().filter_map(|stop| self.text.find(stop.as_str())).min() {
            self.text.truncate(at);
            return (std::mem::take(&mut self.text), true);
        }
        let begins = |at: usize| self.stop.iter().any(|stop| stop.starts_with(&self.text[at..]));
        let at = self.text.char_indices().map(|(at, _)| at).find(|at| begins(*at)).unwrap_or(self.text.len());
        let rest = self.text.split_off(at);
        (std::mem::replace(&mut self.text, rest), false)
    }
}

#[cfg(test)]
mod tests {
    use super::Held;

    #[test]
    fn what_may_begin_a_stop_is_held_back() {
        let mut held = Held { text: String::new(), stop: vec!["\n\n".into(), "END".into()] };
        assert_eq!(held.add("one\n"), ("one".into(), false));
        assert_eq!(held.add("two E"), ("\ntwo ".into(), false));
        assert_eq!(held.add("NTER"), ("ENTER".into(), false));
        assert_eq!(held.add(" EN"), (" ".into(), false));
        assert_eq!(held.add("D of it"), (String::new(), true));
    }
}
