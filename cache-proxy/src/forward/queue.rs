//! The requests of one connection that wait for their answers, in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use boatyard_upstream::redact::url_without_secrets;
use http::Method;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::answer::Answer;
use crate::target::Target;

/// How many requests are read ahead.
pub(super) const AHEAD_MAX: usize = 32;

/// A request whose answer is due.
pub(super) struct Due {
    pub(super) answer: Pending,
    pub(super) asked: Asked,
    /// The client sends the body of its request when it is told to.
    pub(super) expects: bool,
}

/// An answer that is being made.
pub(super) enum Pending {
    /// It is there.
    Ready(Box<Answer>),
    /// By whoever waits for it: nothing is before it.
    Here(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// By a task of its own: others are before it.
    Elsewhere(JoinHandle<Answer>),
}

/// What of a request matters for writing and logging its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// As the request line has it; empty where there was no request.
    pub(super) target: String,
    /// Whom statistics name: the configured upstream, or the server.
    pub(super) upstream: String,
    pub(super) is_11: bool,
    pub(super) closes: bool,
    pub(super) since: Instant,
}

impl Asked {
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Returns the request as the log shows it.
    pub(super) fn line(&self) -> String {
        match self.target.as_str() {
            "" => "(no request)".to_owned(),
            target => match target.parse::<Target>() {
                Ok(target) => format!("{} {}", self.method, url_without_secrets(target.url())),
                Err(_) => {
                    format!("{} {}", self.method, target.split('?').next().unwrap_or_default())
                }
            },
        }
    }
}

/// The queue of one connection.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something was put in, or nothing will be any more.
    filled: Notify,
    /// Something was answered, or the client was told to go on.
    drained: Notify,
    /// How much of the body is still to come of the request that is alone here.
    unread: AtomicU64,
}

#[derive(Default)]
struct State {
    due: VecDeque<Due>,
    /// An answer is being written.
    writing: bool,
    continued: bool,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, due: Due) {
        self.state().due.push_back(due);
        self.filled.notify_one();
    }

    /// Says that nothing will be put in any more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
    }

    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.due.is_empty() && !state.writing
    }

    /// Waits until there is room for another request.
    pub(super) async fn room(&self) {
        self.until(|state| state.due.len() < AHEAD_MAX).await;
    }

    /// Waits until all answers are written.
    pub(super) async fn idle(&self) {
        self.until(|state| state.due.is_empty() && !state.writing).await;
    }

    /// Returns how much is still to come of a body. Requests with one are alone.
    pub(super) fn unread(&self) -> &AtomicU64 {
        &self.unread
    }

    /// Waits until the client was told to go on, or has its answer.
    pub(super) async fn continued(&self) {
        self.until(|state| state.continued || (state.due.is_empty() && !state.writing)).await;
        self.state().continued = false;
    }

    async fn until(&self, mut holds: impl FnMut(&State) -> bool) {
        while !holds(&self.state()) {
            self.drained.notified().await;
        }
    }

    /// Takes the next request to be answered; `None` where there are no more.
    pub(super) async fn next(&self) -> Option<Due> {
        loop {
            {
                let mut state = self.state();
                if let Some(due) = state.due.pop_front() {
                    state.writing = true;
                    return Some(due);
                }
                if state.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn told_to_go_on(&self) {
        self.state().continued = true;
        self.drained.notify_one();
    }

    pub(super) fn written(&self) {
        let mut state = self.state();
        state.writing = false;
        if state.due.is_empty() {
            // An idle connection keeps as little as can be.
            state.due = VecDeque::new();
        }
        drop(state);
        self.drained.notify_one();
    }
}

impl Pending {
    pub(super) async fn get(self) -> Option<Answer> {
        match self {
            Pending::Ready(answer) => Some(*answer),
            Pending::Here(answer) => Some(answer.await),
            // It fails where the program is stopping, or where our code panicked.
            Pending::Elsewhere(answer) => answer.await.ok(),
        }
    }
}
