//! The engine: what answers a request.
//!
//! ```text
//! request ─▶ classify ─▶ kept? ──fresh──────────────────────────▶ answer
//!                          │ no, or stale                            ▲
//!                          ▼                                         │
//!                        flight (one per target and what tells requests apart)
//!                          │ transfer: the first request begins it, all others read along
//!                          ├─ 200, may be kept ──▶ blob, then entry ─┤
//!                          ├─ 304 ─────────────▶ entry renewed ──────┤
//!                          ├─ 404 ... ─────────▶ remembered briefly ─┤
//!                          ├─ may not be kept ─▶ passes, for its one request; others ask alone
//!                          └─ no answer ───────▶ what is kept, marked as stale, or an error
//! ```
//!
//! A flight belongs to the engine, never to a client: who hangs up stops nothing.

mod at_once;
mod bypass;
mod evict;
mod explain;
mod fetch;
mod flight;
mod judge;
mod kept;
mod obtain;
mod pass;
mod read;
mod receive;
mod remember;
mod render;
mod upstream;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use boatyard_content::cache::Cache;
use boatyard_content::entries::EntryKey;
use boatyard_content::local::LocalStore;
use boatyard_content::{Root, Store as _};
use boatyard_oci::Digest;
use boatyard_upstream::clock::Clock;
use boatyard_upstream::retry::RetryPolicy;
use boatyard_upstream::transfer::{Limits, Transfers};
use boatyard_upstream::transport::{Payload, Transport};
use http::header::{ACCEPT_ENCODING, VIA};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;

use crate::answer::Answer;
use crate::class::Class;
use crate::ecosystem::{Classified, Ecosystem};
use crate::policy::{Rules, Treatment};
use crate::request::Request;
use crate::statistics::Statistics;
use crate::upstreams::Upstreams;

use flight::Flight;
use kept::{Known, Opened};
use remember::Absent;
use upstream::Resting;

pub(crate) use bypass::Bypass;
pub use evict::{Evicted, Held};
pub use explain::Explanation;
pub use remember::Decision;

/// How many bytes of small bodies, and of what is known of entries, are kept in memory.
const MEMORY_BYTES: usize = 16 * 1024 * 1024;
/// How many blobs are kept open.
const OPEN_MAX: usize = 256;

/// What an [`Engine`] is made of.
#[derive(Debug)]
pub struct EngineOptions {
    /// What may change while it runs.
    pub settings: Settings,
    /// Those who know package archives, in the order in which they are asked.
    pub ecosystems: Vec<Arc<dyn Ecosystem>>,
    /// The limits of transfers.
    pub limits: Limits,
    /// How often an upstream is asked again.
    pub retry: RetryPolicy,
    /// How long it is remembered that something is absent.
    pub absent_for: Duration,
    /// How long an upstream that failed is not asked for what is kept, or what others have.
    pub rest_for: Duration,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What counts.
    pub statistics: Arc<dyn Statistics>,
}

/// What of an [`Engine`] may change while it runs: a request goes by those that it found.
#[derive(Debug)]
pub struct Settings {
    /// The upstreams that are configured.
    pub upstreams: Upstreams,
    /// What asks upstreams, and leads tunnels to them.
    pub transport: Arc<Transport>,
    /// The most bytes that are kept.
    pub bytes_max: Option<u64>,
    /// What URLs are that no ecosystem knows, wherever they are.
    pub rules: Rules,
    /// The most bytes that a client may publish at once.
    pub upload_max: u64,
    /// How long the collector leaves a blob that was given up.
    pub grace: Duration,
}

/// The engine. Clones are one.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    root: Arc<Root>,
    store: LocalStore,
    transfers: Transfers,
    settings: RwLock<Arc<Settings>>,
    options: Fixed,
    flights: Mutex<HashMap<EntryKey, Arc<Flight>>>,
    known: Cache<EntryKey, Arc<Known>>,
    small: Cache<Digest, bytes::Bytes>,
    open: Cache<Digest, Arc<boatyard_content::BlobFile>>,
    absent: Mutex<HashMap<EntryKey, Absent>>,
    decisions: Cache<EntryKey, Decision>,
    resting: Resting,
    rendering: render::Rendering,
    since_sweep: AtomicU64,
    /// What was forgotten and could not be deleted: somebody reads it, or the grace period holds it.
    forgotten: Mutex<Vec<Digest>>,
    /// How many passwords are computed at once.
    passwords: Semaphore,
    pseudonym: String,
    via: HeaderValue,
}

/// What of an engine stays as it was made.
struct Fixed {
    ecosystems: Vec<Arc<dyn Ecosystem>>,
    retry: RetryPolicy,
    absent_for: Duration,
    rest_for: Duration,
    clock: Arc<dyn Clock>,
    statistics: Arc<dyn Statistics>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

impl Engine {
    /// Returns an engine on a root.
    pub fn new(root: &Arc<Root>, options: EngineOptions) -> Engine {
        let store = root.store();
        let kept: Arc<dyn boatyard_content::Store> = Arc::new(store.clone());
        let transfers = Transfers::new(kept, options.limits.clone(), Arc::clone(&options.clock));
        // Nobody else calls itself that, so a request that has it in `Via` was here before.
        let random = (options.clock.jitter() * (1u64 << 53) as f64) as u64;
        let pseudonym = format!("boatyard-{random:014x}");
        let via = HeaderValue::from_str(&format!("1.1 {pseudonym}"))
            .expect("hex digits are a header's text");
        let fixed = Fixed {
            ecosystems: options.ecosystems,
            retry: options.retry,
            absent_for: options.absent_for,
            rest_for: options.rest_for,
            clock: options.clock,
            statistics: options.statistics,
        };
        let shared = Shared {
            root: Arc::clone(root),
            store,
            transfers,
            settings: RwLock::new(Arc::new(options.settings)),
            flights: Mutex::default(),
            known: Cache::new(MEMORY_BYTES),
            small: Cache::new(MEMORY_BYTES),
            open: Cache::new(OPEN_MAX),
            absent: Mutex::default(),
            decisions: Cache::new(20_000),
            resting: Resting::default(),
            rendering: render::Rendering::default(),
            since_sweep: AtomicU64::new(0),
            forgotten: Mutex::default(),
            passwords: Semaphore::new(receive::PASSWORDS_AT_ONCE),
            pseudonym,
            via,
            options: fixed,
        };
        Engine { shared: Arc::new(shared) }
    }

    /// Returns the settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings()
    }

    /// Has requests from now on go by other settings. What is under way ends as it began.
    pub fn configure(&self, settings: Settings) {
        let mut current = self.shared.settings.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(settings);
    }

    /// Returns what counts.
    pub fn statistics(&self) -> &Arc<dyn Statistics> {
        &self.shared.options.statistics
    }

    /// Answers a request. `payload` is the body of one that writes.
    pub async fn answer(&self, mut request: Request, payload: Payload) -> Answer {
        if self.was_here(&request) {
            let message = "the request has been here before: this proxy is its own upstream";
            return Answer::own(StatusCode::LOOP_DETECTED, message);
        }
        // Bytes are kept as they are, so nobody chooses an encoding.
        request.headers.remove(ACCEPT_ENCODING);
        if let Err(answer) = self.admit(&mut request).await {
            return answer;
        }
        let (ecosystem, classified) = self.classify(&request);
        let mut answer = match request.method {
            Method::GET | Method::HEAD => self.read(&request, ecosystem, classified).await,
            _ => match self.receiver(&request) {
                Some(receiver) => self.receive(&request, receiver, payload).await,
                None => self.write(&request, payload).await,
            },
        };
        answer.ecosystem = ecosystem.map(|ecosystem| ecosystem.name());
        self.note(&request, &answer);
        answer
    }

    fn was_here(&self, request: &Request) -> bool {
        let pseudonym = self.shared.pseudonym.as_str();
        let names = |via: &HeaderValue| via.to_str().is_ok_and(|via| via.contains(pseudonym));
        request.headers.get_all(VIA).iter().any(names)
    }

    /// Asks the ecosystems what a target is; HTTP's rules hold where none knows it.
    fn classify(&self, request: &Request) -> (Option<&Arc<dyn Ecosystem>>, Classified) {
        let wanted = request.upstream.as_ref().and_then(|upstream| upstream.ecosystem.as_deref());
        self.shared
            .options
            .ecosystems
            .iter()
            .filter(|ecosystem| wanted.is_none_or(|wanted| wanted == ecosystem.name()))
            .find_map(|ecosystem| Some((Some(ecosystem), ecosystem.classify(request)?)))
            .unwrap_or_else(|| (None, Classified::As(self.by_rules(request))))
    }

    /// Returns what the operator says of a target that no ecosystem knows.
    fn by_rules(&self, request: &Request) -> Class {
        let settings = self.settings();
        let of_upstream = request
            .upstream
            .as_ref()
            .and_then(|upstream| upstream.policy.rules.of(&request.target));
        match of_upstream.or_else(|| settings.rules.of(&request.target)) {
            None => Class::Http,
            Some(Treatment::Pass) => Class::Pass,
            Some(Treatment::Immutable) => Class::immutable(),
            Some(Treatment::Revalidate(Duration::ZERO)) => Class::index(),
            Some(Treatment::Revalidate(time)) => Class::Revalidate(time),
        }
    }

    /// Runs blocking work; `None` where the program is stopping.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared)).await.ok()
    }

    /// Opens a blob of the store; small ones come from memory.
    async fn open(&self, digest: &Digest) -> Option<Opened> {
        if let Some(bytes) = self.shared.small.get(digest) {
            return Some(Opened::Memory(bytes));
        }
        if let Some(file) = self.shared.open.get(digest) {
            return Some(Opened::File(file));
        }
        let wanted = digest.clone();
        self.blocking(move |shared| shared.open(&wanted)).await?
    }

    /// Says whether the store has a blob, and keeps it for the collector's grace period.
    async fn has(&self, digest: &Digest) -> bool {
        matches!(self.shared.store.touch(digest).await, Ok(Some(_)))
    }
}

impl Shared {
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}
