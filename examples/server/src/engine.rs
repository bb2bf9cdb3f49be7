//! Continuous batching: one thread steps all requests that are under way together, lets new ones in between two steps, and
//! hands each token to whoever asked as soon as it is there.
//!
//! The queue is bounded: what does not fit is refused at once. When the caches' budget is used up, what others might begin
//! with is forgotten first; then the youngest request gives its pages back and waits, to be computed anew later.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use moec_program::{
    native::{NativeError, Session, Turn},
    sampling::{Sampler, Sampling},
};
use tokio::sync::mpsc;

use crate::model::Model;

/// Prompts of which the first so many tokens are known are not computed anew from the start.
const LEAST_SHARED: usize = 16;
/// Sequences that are kept for what others have in common with them.
const KEPT: usize = 16;
/// The most tokens of one step: a long prompt does not keep the others waiting.
const STEP_TOKENS: usize = 512;

/// What is to be continued, and by whom it is awaited.
pub struct Request {
    /// At least one; with `most` not more than the context.
    pub prompt: Vec<i32>,
    /// New tokens at most; at least 1.
    pub most: usize,
    pub sampling: Sampling,
    pub seed: u64,
    /// Gets every token. When its other end is dropped, the request is given up.
    pub tokens: mpsc::UnboundedSender<Event>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Token(i32),
    /// An end token, or as many tokens as were asked for.
    End {
        by_token: bool,
    },
    /// It cannot be done.
    Failed(String),
}

/// What the metrics page shows.
#[derive(Debug, Default)]
pub struct Metrics {
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    pub finished: AtomicU64,
    pub given_up: AtomicU64,
    pub failed: AtomicU64,
    pub active: AtomicU64,
    pub waiting: AtomicU64,
    pub steps: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub shared_tokens: AtomicU64,
    pub new_tokens: AtomicU64,
    pub set_back: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that step together.
    pub batch: usize,
    /// Requests that wait.
    pub queue: usize,
}

/// The thread, as others see it.
pub struct Engine {
    pub model: Arc<Model>,
    pub metrics: Arc<Metrics>,
    requests: mpsc::Sender<Request>,
    thread: JoinHandle<()>,
}

/// Lets requests in.
#[derive(Clone)]
pub struct Entrance {
    requests: mpsc::Sender<Request>,
    metrics: Arc<Metrics>,
}

impl Entrance {
    /// False where the queue is full.
    pub fn let_in(&self, request: Request) -> bool {
        let taken = self.requests.try_send(request).is_ok();
        if taken { &self.metrics.requests } else { &self.metrics.refused }.fetch_add(1, Relaxed);
        taken
    }
}

impl Engine {
    pub fn start(model: Arc<Model>, limits: Limits) -> Engine {
        let metrics = Arc::new(Metrics::default());
        let (requests, queue) = mpsc::channel(limits.queue.max(1));
        let running = Running {
            model: model.clone(),
            metrics: metrics.clone(),
            queue,
            batch: limits.batch.max(1),
            waiting: VecDeque::new(),
            active: Vec::new(),
            kept: VecDeque::new(),
            full: false,
            logits: Vec::new(),
        };
        let thread = std::thread::spawn(move || running.run());
        Engine { model, metrics, requests, thread }
    }

    pub fn entrance(&self) -> Entrance {
        Entrance { requests: self.requests.clone(), metrics: self.metrics.clone() }
    }

    /// Waits until all that was let in is done; every [`Entrance`] must be gone.
    pub fn finish(self) {
        drop(self.requests);
        if self.thread.join().is_err() {
            eprintln!("moec-server: the engine panicked");
        }
    }
}

/// A request and how far it is.
struct Work {
    request: Request,
    sampler: Sampler,
    /// The prompt, then what was drawn.
    known: Vec<i32>,
}

struct Active {
    work: Work,
    /// Has some of the known tokens: all but the last after each step, once the prompt is through.
    session: Session,
}

struct Running {
    model: Arc<Model>,
    metrics: Arc<Metrics>,
    queue: mpsc::Receiver<Request>,
    batch: usize,
    /// Set back; they come before the queue.
    waiting: VecDeque<Work>,
    /// The oldest first.
    active: Vec<Active>,
    /// Sequences that have ended, the oldest first, with their tokens.
    kept: VecDeque<(Vec<i32>, Session)>,
    /// Nobody is let in until somebody ends.
    full: bool,
    logits: Vec<f32>,
}

impl Running {
    fn run(mut self) {
        loop {
            if self.active.is_empty() && self.waiting.is_empty() {
                match self.queue.blocking_recv() {
                    Some(request) => self.waiting.push_back(Work::new(request)),
                    None => return,
                }
            }
            self.let_in();
            self.drop_abandoned();
            if !self.active.is_empty() {
                self.step();
            }
            self.metrics.active.store(self.active.len() as u64, Relaxed);
            self.metrics.waiting.store((self.waiting.len() + self.queue.len()) as u64, Relaxed);
        }
    }

    fn let_in(&mut self) {
        while self.active.len() < self.batch && (!self.full || self.active.is_empty()) {
            let next = self.waiting.pop_front().or_else(|| self.queue.try_recv().ok().map(Work::new));
            let Some(work) = next else { return };
            match self.session_for(&work.known) {
                Ok(session) => self.active.push(Active { work, session }),
                Err(failure) => self.fail(&work, failure.to_string()),
            }
        }
    }

    /// A session that has as much of the tokens as some earlier one had in common, but not the last.
    fn session_for(&mut self, tokens: &[i32]) -> Result<Session, NativeError> {
        let common = |other: &[i32]| other.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let best = self.kept.iter_mut().max_by_key(|(other, _)| common(other));
        if let Some((other, session)) = best {
            let shared = common(other).min(tokens.len() - 1);
            // A model with states of its own can go on from a session's last position only.
            if shared >= LEAST_SHARED
                && let Ok(fork) = session.fork(shared)
            {
                self.metrics.shared_tokens.fetch_add(shared as u64, Relaxed);
                return Ok(fork);
            }
        }
        self.model.session()
    }

    /// Those whom nobody listens to any more.
    fn drop_abandoned(&mut self) {
        let before = self.active.len() + self.waiting.len();
        self.active.retain(|active| !active.work.request.tokens.is_closed());
        self.waiting.retain(|work| !work.request.tokens.is_closed());
        let gone = before - self.active.len() - self.waiting.len();
        self.full &= gone == 0;
        self.metrics.given_up.fetch_add(gone as u64, Relaxed);
    }

    fn fail(&mut self, work: &Work, message: String) {
        self.metrics.failed.fetch_add(1, Relaxed);
        // Nobody may listen; then nobody minds.
        let _ = work.request.tokens.send(Event::Failed(message));
    }

    /// One step of all that are active, and a token for each whose known tokens are through.
    fn step(&mut self) {
        let taken = shares(self.active.iter().map(Active::left));
        let vocabulary = self.model.vocabulary;
        let mut logits = std::mem::take(&mut self.logits);
        logits.resize(self.active.len() * vocabulary, 0.0);
        let mut turns = Vec::new();
        for ((active, row), taken) in self.active.iter_mut().zip(logits.chunks_mut(vocabulary)).zip(&taken) {
            let (from, known) = (active.session.position(), &active.work.known);
            let logits = if from + taken == known.len() { row } else { &mut [] };
            if *taken > 0 {
                turns.push(Turn { session: &mut active.session, ids: &known[from..from + taken], logits });
            }
        }
        let done = self.model.step(&mut turns);
        drop(turns);
        match done {
            Ok(()) => self.draw(&logits, &taken),
            Err(failure) if failure.is_cache_full() => self.make_room(&failure.to_string()),
            Err(failure) => {
                for Active { work, .. } in std::mem::take(&mut self.active) {
                    self.fail(&work, failure.to_string());
                }
            }
        }
        self.logits = logits;
    }

    /// The next token of each that was asked for one; those that end leave.
    fn draw(&mut self, logits: &[f32], taken: &[usize]) {
        let metrics = self.metrics.clone();
        metrics.steps.fetch_add(1, Relaxed);
        let rows = logits.chunks(self.model.vocabulary);
        for ((mut active, row), taken) in std::mem::take(&mut self.active).into_iter().zip(rows).zip(taken) {
            let prompt = active.work.request.prompt.len();
            let computed = active.session.position().min(prompt).saturating_sub(active.session.position() - taken);
            metrics.prompt_tokens.fetch_add(computed as u64, Relaxed);
            if active.left() > 0 {
                self.active.push(active);
                continue;
            }
            let token = active.work.sampler.next(row).expect("a vocabulary has tokens") as i32;
            match active.work.gets(token, &self.model.about.end_tokens) {
                Next::More => self.active.push(active),
                Next::Ended => {
                    metrics.finished.fetch_add(1, Relaxed);
                    self.full = false;
                    let tokens = active.work.known[..active.session.position()].to_vec();
                    self.kept.push_back((tokens, active.session));
                    if self.kept.len() > KEPT {
                        self.kept.pop_front();
                    }
                }
                Next::NobodyListens => {
                    metrics.given_up.fetch_add(1, Relaxed);
                    self.full = false;
                }
            }
            metrics.new_tokens.fetch_add(1, Relaxed);
        }
    }

    /// The caches' budget is used up.
    fn make_room(&mut self, message: &str) {
        if self.kept.pop_front().is_some() {
            return;
        }
        let Some(Active { work, session }) = self.active.pop() else { return };
        drop(session);
        if self.active.is_empty() {
            self.fail(&work, format!("the request needs more of the caches than there is: {message}"));
        } else {
            self.metrics.set_back.fetch_add(1, Relaxed);
            self.waiting.push_front(work);
            self.full = true;
        }
    }
}

impl Active {
    /// Known tokens that the session does not have yet.
    fn left(&self) -> usize {
        self.work.known.len() - self.session.position()
    }
}

/// What becomes of a request after a token.
enum Next {
    More,
    Ended,
    NobodyListens,
}

impl Work {
    fn new(request: Request) -> Work {
        let sampler = Sampler::new(request.sampling, request.seed);
        Work { sampler, known: request.prompt.clone(), request }
    }

    fn gets(&mut self, token: i32, end_tokens: &[i32]) -> Next {
        let tell = |event| self.request.tokens.send(event).is_ok();
        if end_tokens.contains(&token) {
            tell(Event::End { by_token: true });
            return Next::Ended;
        }
        self.known.push(token);
        if !tell(Event::Token(token)) {
            return Next::NobodyListens;
        }
        if self.known.len() - self.request.prompt.len() < self.request.most {
            return Next::More;
        }
        tell(Event::End { by_token: false });
        Next::Ended
    }
}

/// How many tokens each takes in a step: one of each that has one, and of prompts what else a step may have, the oldest first.
fn shares(left: impl Iterator<Item = usize> + Clone) -> Vec<usize> {
    let single = left.clone().filter(|left| *left == 1).count();
    let mut room = STEP_TOKENS.saturating_sub(single).max(1);
    let share = |left: usize| {
        let taken = if left == 1 { 1 } else { left.min(room) };
        room -= if left == 1 { 0 } else { taken };
        taken
    };
    left.map(share).collect()
}
