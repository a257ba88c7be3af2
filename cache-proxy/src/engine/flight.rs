//! A flight: one question to the upstream, and all requests that wait for its answer.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_content::entries::EntryKey;
use boatyard_upstream::freshness::Policy;
use boatyard_upstream::transfer::{Reader, Watch};
use boatyard_upstream::transport::Incoming;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::watch;

use super::read::chosen;
use super::{Engine, Shared};
use crate::entry::Entry;
use crate::request::Request;

/// One question to the upstream.
pub(super) struct Flight {
    key: EntryKey,
    /// What is asked for, whatever else the request says.
    object: EntryKey,
    state: watch::Sender<Option<News>>,
    /// An answer that may not be kept: for the one request that asked.
    declined: Mutex<Option<Box<Incoming>>>,
    /// Somebody has all of the answer.
    given: Arc<AtomicBool>,
}

/// What those who wait are told. The last word is never [`News::Arriving`].
#[derive(Clone)]
pub(super) enum News {
    /// The bytes are on their way.
    Arriving(Arc<Arriving>),
    /// They are kept.
    Kept(Arc<Entry>),
    /// They were kept before anybody was asked.
    Found(Arc<Entry>),
    /// What was kept still holds.
    Renewed(Arc<Entry>),
    /// The upstream has something else to say.
    Answered(Arc<Answered>),
    /// The answer is for one request only.
    Declined,
    /// There is no answer.
    Failed(Arc<Failed>),
}

/// Bytes on their way.
pub(super) struct Arriving {
    pub(super) policy: Policy,
    watch: Watch,
    /// The first reader, until somebody reads.
    first: Mutex<Option<Reader>>,
}

/// A short answer without bytes worth keeping: 404, for example.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) kind: FailedKind,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailedKind {
    /// It could not be asked, or broke off.
    Unavailable,
    /// It took too long.
    TimedOut,
    /// What came was wrong.
    Wrong,
    /// It may not be asked.
    Forbidden,
    /// There is no room to keep it.
    NoSpace,
    /// Nobody waited any more.
    Abandoned,
}

impl Arriving {
    pub(super) fn new(policy: Policy, watch: Watch, first: Reader) -> Arriving {
        Arriving { policy, watch, first: Mutex::new(Some(first)) }
    }

    /// Begins to read; `None` where the transfer has ended without the object.
    pub(super) async fn reader(&self) -> Option<Reader> {
        if let Some(first) = self.take_first() {
            return Some(first);
        }
        self.watch.reader().await?.ok()
    }

    pub(super) fn take_first(&self) -> Option<Reader> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Flight {
    /// Waits for the first word.
    pub(super) async fn news(&self) -> News {
        self.wait(|_| true).await
    }

    /// Returns what is set once somebody has all of the answer. Who asks after that, perhaps the
    /// same client, does not take it for the answer to his own question.
    pub(super) fn given(&self) -> &Arc<AtomicBool> {
        &self.given
    }

    /// Says whether what is arriving is right for another request for an object: its headers may
    /// differ in what the answer does not depend on.
    fn serves(&self, object: &EntryKey, request: &Request) -> bool {
        self.object == *object
            && match &*self.state.borrow() {
                Some(News::Arriving(arriving)) => chosen(&arriving.policy, request),
                _ => false,
            }
    }

    /// Waits for the last word.
    pub(super) async fn end(&self) -> News {
        self.wait(|news| !matches!(news, News::Arriving(_))).await
    }

    async fn wait(&self, mut is_it: impl FnMut(&News) -> bool) -> News {
        let mut state = self.state.subscribe();
        let found = state.wait_for(|news| news.as_ref().is_some_and(&mut is_it)).await;
        found.ok().and_then(|news| news.clone()).unwrap_or_else(stopped)
    }

    pub(super) fn tell(&self, news: News) {
        self.state.send_replace(Some(news));
    }

    pub(super) fn decline(&self, answer: Box<Incoming>) {
        *self.declined.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Takes the answer that may not be kept.
    pub(super) fn take_declined(&self) -> Option<Box<Incoming>> {
        self.declined.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn stopped() -> News {
    let reason = "the proxy is stopping".to_owned();
    News::Failed(Arc::new(Failed { kind: FailedKind::Unavailable, reason }))
}

/// Takes a flight off the list when its task ends, however it ends.
pub(super) struct Landing {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
}

impl Landing {
    pub(super) fn flight(&self) -> &Flight {
        &self.flight
    }

    /// Takes the flight off the list, then says the last word: who asks from now on begins anew.
    pub(super) fn end(self, news: News) {
        self.shared.leave(&self.flight);
        self.flight.tell(news);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared.leave(&self.flight);
        self.flight.state.send_if_modified(|news| {
            let open = matches!(news, None | Some(News::Arriving(_)));
            if open {
                *news = Some(stopped());
            }
            open
        });
    }
}

impl Shared {
    fn leave(&self, flight: &Arc<Flight>) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(&flight.key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            flights.remove(&flight.key);
        }
    }
}

impl Engine {
    /// Joins the flight of a key, or one of the same object whose answer is known to be right for
    /// this request as well; where there is none, begins one, whose landing is the caller's.
    pub(super) fn board(
        &self,
        key: &EntryKey,
        object: &EntryKey,
        request: &Request,
    ) -> (Arc<Flight>, Option<Landing>) {
        let mut flights = self.shared.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return (Arc::clone(flight), None);
        }
        if let Some(flight) = flights.values().find(|flight| flight.serves(object, request)) {
            return (Arc::clone(flight), None);
        }
        let state = watch::Sender::new(None);
        let (key, object) = (key.clone(), object.clone());
        let (declined, given) = (Mutex::default(), Arc::default());
        let flight = Arc::new(Flight { key: key.clone(), object, state, declined, given });
        flights.insert(key, Arc::clone(&flight));
        let landing = Landing { shared: Arc::clone(&self.shared), flight: Arc::clone(&flight) };
        (flight, Some(landing))
    }
}
