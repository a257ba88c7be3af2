//! Work that several threads share and whose results come in the order in which it was given.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Does one piece of work after the other; each thread has its own.
pub(crate) type Worker<T, R> = Box<dyn FnMut(T) -> R + Send>;

/// Threads with a bounded queue.
pub(crate) struct Lanes<T, R> {
    crew: Crew<T, R>,
    pending: VecDeque<Pending<R>>,
    pending_max: usize,
}

enum Crew<T, R> {
    /// One lane is the caller's own thread.
    Caller(Worker<T, R>),
    /// The sender is taken to end the threads.
    Threads { jobs: Option<SyncSender<Job<T, R>>>, threads: Vec<JoinHandle<()>> },
}

enum Pending<R> {
    Ready(R),
    Later(Receiver<R>),
}

type Job<T, R> = (T, SyncSender<R>);

impl<T: Send + 'static, R: Send + 'static> Lanes<T, R> {
    /// Starts `count` threads; with one or none, work is done where it is given.
    pub(crate) fn new(count: usize, worker: impl Fn() -> Worker<T, R>) -> io::Result<Self> {
        if count <= 1 {
            let crew = Crew::Caller(worker());
            return Ok(Self { crew, pending: VecDeque::new(), pending_max: 1 });
        }
        let pending_max = count * 2;
        let (jobs, queue) = sync_channel(pending_max);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::with_capacity(count);
        for _ in 0..count {
            let (queue, worker) = (Arc::clone(&queue), worker());
            let thread = thread::Builder::new().name("layer-lane".to_owned());
            threads.push(thread.spawn(move || work(&queue, worker))?);
        }
        let crew = Crew::Threads { jobs: Some(jobs), threads };
        Ok(Self { crew, pending: VecDeque::new(), pending_max })
    }

    /// Reports whether a result must be taken before more work is given.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= self.pending_max
    }

    /// Gives work.
    pub(crate) fn push(&mut self, work: T) {
        self.pending.push_back(match &mut self.crew {
            Crew::Caller(worker) => Pending::Ready(worker(work)),
            Crew::Threads { jobs, .. } => {
                let (result, later) = sync_channel(1);
                if let Some(jobs) = jobs {
                    // If every thread is gone the result's sender goes too, and `pop` says so.
                    drop(jobs.send((work, result)));
                }
                Pending::Later(later)
            }
        });
    }

    /// Returns the oldest result, once there is one; `None` if there is no work left.
    pub(crate) fn pop(&mut self) -> Option<io::Result<R>> {
        Some(match self.pending.pop_front()? {
            Pending::Ready(result) => Ok(result),
            Pending::Later(later) => {
                later.recv().map_err(|_| io::Error::other("a compression thread ended early"))
            }
        })
    }
}

fn work<T, R>(queue: &Mutex<Receiver<Job<T, R>>>, mut worker: Worker<T, R>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((work, result)) = job else { return };
        // Nobody waits for it any more if the lanes were dropped.
        drop(result.send(worker(work)));
    }
}

impl<T, R> Drop for Lanes<T, R> {
    fn drop(&mut self) {
        self.pending.clear();
        if let Crew::Threads { jobs, threads } = &mut self.crew {
            drop(jobs.take());
            for thread in threads.drain(..) {
                // A worker's panic was already told by `pop`.
                drop(thread.join());
            }
        }
    }
}

impl<T, R> fmt::Debug for Lanes<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}
