//! One index set: what is held of it, and what its clients are given.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boatyard_content::generations::SetName;
use boatyard_content::local::write_unsynced;
use boatyard_content::{Root, Store as _, StoreError};
use boatyard_oci::Digest;
use http::header::{ETAG, LAST_MODIFIED, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;

use super::binding::{Bindings, Client};
use super::bring::Missing;
use super::check::Checked;
use super::format::Format;
use super::held::{Candidate, Generation};
use super::listing::Child;
use super::wanted::Wanted;
use crate::class::{Class, Promise};
use crate::ecosystem::{Fetcher, Resolution, Resolved};
use crate::request::Request;
use crate::statistics::Outcome;
use crate::target::Target;

const WANTED: &str = "wanted";
pub(super) const ADDRESS: &str = "address";
/// The format whose sets have no other name than their address.
pub(super) const FIRST_KIND: &str = "apt";
pub(super) const DERIVED: &str = "derived";

/// How generations are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many generations stay behind the newest, for clients that were given their roots.
    pub older_max: usize,
    /// How long a child counts as wanted after it was last asked for.
    pub wanted_for: Duration,
    /// How long a client that asks for the root waits until a new generation is complete. It gets
    /// the one before then; clients of package archives give up after 30 seconds.
    pub patience: Duration,
    /// How long a generation that lacks a child which clients want is held back at most.
    pub held_back_max: Duration,
    /// How long after a newer generation was found incomplete it is asked for again by itself; each
    /// further time twice as long.
    pub retry_first: Duration,
    /// The longest that is waited so.
    pub retry_max: Duration,
    /// A child that is larger goes to its client while it arrives.
    pub stream_from: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            older_max: 3,
            wanted_for: Duration::from_secs(14 * 24 * 3600),
            patience: Duration::from_secs(15),
            held_back_max: Duration::from_secs(3 * 24 * 3600),
            retry_first: Duration::from_secs(5),
            retry_max: Duration::from_secs(300),
            stream_from: 1 << 20,
        }
    }
}

/// Who asks, and with what is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The request.
    pub request: &'a Request,
    /// What fetches.
    pub fetcher: &'a dyn Fetcher,
}

impl Asking<'_> {
    fn client(&self) -> Client {
        let agent = self.request.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        Client { connection: self.request.client, agent: agent.unwrap_or_default().into() }
    }
}

/// An index set at one address.
#[derive(Debug)]
pub struct Set {
    pub(super) address: Target,
    pub(super) name: SetName,
    pub(super) format: Arc<dyn Format>,
    pub(super) root: Arc<Root>,
    pub(super) options: Options,
    pub(super) state: Mutex<State>,
    /// The number of the last request that a check answers; held while one is made.
    pub(super) checking: tokio::sync::Mutex<u64>,
    pub(super) arrivals: AtomicU64,
    /// What is incomplete is asked for again without a client.
    pub(super) retrying: AtomicBool,
}

/// What changes of a set.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The generations that are held, oldest first; the last one is shown.
    pub(super) held: Vec<Arc<Generation>>,
    /// The number in the file that says which is shown, when it was last read.
    pub(super) loaded: Option<u64>,
    pub(super) pending: Option<Pending>,
    pub(super) wanted: Wanted,
    pub(super) bindings: Bindings,
    /// What the last check said.
    pub(super) checked: Option<Checked>,
    /// When the upstream last said that what is shown is its newest.
    pub(super) confirmed: Option<Timestamp>,
    /// When what is shown changed last.
    pub(super) shown_since: Option<Timestamp>,
}

/// A newer root that lacks something.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) candidate: Candidate,
    pub(super) since: Timestamp,
    pub(super) missing: Vec<Missing>,
}

impl State {
    pub(super) fn shown(&self) -> Option<&Arc<Generation>> {
        self.held.last()
    }

    fn numbered(&self, number: u64) -> Option<&Arc<Generation>> {
        self.held.iter().find(|held| held.number == number)
    }
}

impl Set {
    /// Returns the set at an address, which is a directory; what is held of it is loaded. Blocking.
    ///
    /// # Errors
    /// Where its files cannot be read.
    pub fn open(
        address: Target,
        root: Arc<Root>,
        format: Arc<dyn Format>,
        options: Options,
    ) -> Result<Set, StoreError> {
        let name = SetName::of(&match format.kind() {
            FIRST_KIND => address.to_string(),
            kind => format!("{kind} {address}"),
        });
        let wanted = root.generations().directory(&name).join(WANTED);
        let wanted = fs_err::read(wanted).map(|bytes| Wanted::parse(&bytes)).unwrap_or_default();
        let state = Mutex::new(State { wanted, ..State::default() });
        let (checking, arrivals) = (tokio::sync::Mutex::new(0), AtomicU64::new(0));
        let retrying = AtomicBool::new(false);
        let set = Set { address, name, format, root, options, state, checking, arrivals, retrying };
        set.reload()?;
        Ok(set)
    }

    /// Returns the addresses of all sets of a kind of which something is held on a root. Blocking.
    pub fn addresses(root: &Root, kind: &str) -> Vec<Target> {
        let sets = fs_err::read_dir(root.layout().generations()).into_iter().flatten().flatten();
        let address = |set: fs_err::DirEntry| {
            let text = fs_err::read_to_string(set.path().join(ADDRESS)).ok()?;
            let mut lines = text.lines();
            let address = lines.next()?.parse().ok()?;
            (lines.next().unwrap_or(FIRST_KIND) == kind).then_some(address)
        };
        sets.filter_map(address).collect()
    }

    /// Returns its address: a directory.
    pub fn address(&self) -> &Target {
        &self.address
    }

    /// Returns the generations that are held: the one of a client first, then the one that is
    /// shown, then older ones.
    pub fn generations(&self, client: &Request) -> Vec<Arc<Generation>> {
        let state = self.state();
        let own = state.bindings.of_address(client.client.ip());
        let mut held: Vec<_> = state.held.iter().rev().map(Arc::clone).collect();
        held.sort_by_key(|generation| Some(generation.number) != own);
        held
    }

    /// Returns the file for what is made of a child: it is deleted when no generation lists it any
    /// more.
    pub fn derived(&self, child: &Digest) -> std::path::PathBuf {
        self.root.generations().directory(&self.name).join(DERIVED).join(child.hex())
    }

    /// Answers for a file of the root; `None` where what the upstream has is no root at all.
    pub async fn root(self: &Arc<Set>, asking: Asking<'_>, name: &str) -> Option<Resolution> {
        let client = asking.client();
        let now = asking.fetcher.now();
        let begins = self.format.forms().iter().any(|form| form.first() == Some(&name));
        let checked = if begins { Some(self.check(asking).await) } else { None };
        let generation = {
            let state = self.state();
            let bound = if begins { None } else { state.bindings.of_root(&client) };
            let bound = bound.and_then(|number| state.numbered(number)).or(state.shown());
            bound.map(Arc::clone)
        };
        let Some(mut generation) = generation else {
            return match checked? {
                Checked::NoRoot(_) if name != self.format.forms()[0][0] => None,
                checked => Some(self.refused(&checked)),
            };
        };
        if begins {
            generation = self.to_give(&client, generation, now);
        }
        if let Some(checked) = &checked
            && let Some(refused) = self.expired(&generation, checked, now)
        {
            return Some(refused);
        }
        let Some(file) = generation.root(name) else {
            // The check has looked for it, or nobody can.
            if begins && self.form(name) < self.form(&generation.roots[0].name) {
                return Some(self.refused(&Checked::Absent(StatusCode::NOT_FOUND)));
            }
            let number = generation.number;
            let resolution = self.other_form(asking, generation, name).await;
            if begins && matches!(resolution, Resolution::Blob(_)) {
                self.state().bindings.bind(&client, number, false, now);
            }
            return Some(resolution);
        };
        if begins {
            let had = asking.request.headers.get(http::header::IF_MODIFIED_SINCE);
            let unchanged = had.is_some_and(|had| *had == date(generation.modified));
            self.state().bindings.bind(&client, generation.number, unchanged, now);
        }
        let late = !matches!(checked, None | Some(Checked::Newest));
        Some(self.blob(&file.blob, &generation, late.then_some(now)))
    }

    /// Answers for a child by its path, below the set's address; `None` where no generation that the
    /// client may have lists it.
    pub async fn child(self: &Arc<Set>, asking: Asking<'_>, path: &str) -> Option<Resolution> {
        let generation = self.of_child(asking, path)?;
        let (looked, named) = (Arc::clone(&generation), Box::<str>::from(path));
        let child = self.blocking(move |set| set.look(&looked, &named)).await??;
        Some(self.give(asking, &generation, path, &child).await)
    }

    /// Answers for a child that is asked for by its digest; `None` where no generation lists it.
    pub async fn named(
        self: &Arc<Set>,
        asking: Asking<'_>,
        named: (&str, &str, &str),
    ) -> Option<Resolution> {
        let generations = self.generations(asking.request);
        let (directory, algorithm, hex) = named;
        let named = [directory, algorithm, hex].map(str::to_owned);
        let found = self.blocking(move |set| set.find(generations, &named)).await;
        let (generation, path, child) = found??;
        Some(self.give(asking, &generation, &path, &child).await)
    }

    /// Takes note that a child was kept, which went to a client while it arrived: it is looked up
    /// by its digest below its directory. Blocking.
    pub fn landed(&self, directory: &str, blob: &Digest, now: Timestamp) {
        let held: Vec<_> = self.state().held.iter().map(Arc::clone).collect();
        for generation in held {
            let named = (directory, blob.algorithm().name(), blob.hex());
            if let Some((path, _)) = generation.named(named, &*self.format, &self.root) {
                self.keep(&generation, &path, blob, now);
            }
        }
    }

    /// Returns the children of a generation that are held. Blocking.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn held_children(
        &self,
        generation: &Generation,
    ) -> Result<Vec<(Box<str>, Digest)>, StoreError> {
        let held = self.root.generations().blobs(&self.name, generation.number)?;
        let children = generation.listing.children.iter();
        let children = children.filter(|(_, child)| held.contains(&child.digest));
        Ok(children.map(|(path, child)| (path.clone(), child.digest.clone())).collect())
    }

    /// Says whether any generation is held.
    pub fn is_empty(&self) -> bool {
        self.state().held.is_empty()
    }

    /// Says what there is to know, a line each.
    pub fn describe(&self, now: Timestamp) -> Vec<String> {
        let state = self.state();
        let mut lines = vec![format!("index set {}", self.address)];
        if let Some(shown) = state.shown() {
            let date = shown.listing.date.map_or("unknown".to_owned(), |date| date.to_string());
            lines.push(format!("generation {} of {date} is served", shown.number));
            if let Some(until) = shown.listing.valid_until {
                let verb = if until < now { "was" } else { "is" };
                lines.push(format!("it {verb} valid until {until}"));
            }
        }
        if let Some(pending) = &state.pending {
            lines.push("a newer one is not complete at the upstream:".to_owned());
            lines.extend(pending.missing.iter().map(ToString::to_string));
        }
        lines.extend(state.checked.as_ref().map(ToString::to_string));
        lines
    }

    fn of_child(&self, asking: Asking<'_>, path: &str) -> Option<Arc<Generation>> {
        let mut state = self.state();
        let bound = state.bindings.of_child(&asking.client(), path, asking.fetcher.now());
        let bound = bound.and_then(|number| state.numbered(number));
        bound.or(state.shown()).map(Arc::clone)
    }

    fn find(
        &self,
        generations: Vec<Arc<Generation>>,
        [directory, algorithm, hex]: &[String; 3],
    ) -> Option<(Arc<Generation>, Box<str>, Child)> {
        generations.into_iter().find_map(|generation| {
            let named = (&**directory, &**algorithm, &**hex);
            let found = generation.named(named, &*self.format, &self.root);
            found.map(|(path, child)| (generation, path, child))
        })
    }

    pub(super) fn look(&self, generation: &Generation, path: &str) -> Option<Child> {
        generation.child(path, &*self.format, &self.root)
    }

    async fn give(
        self: &Arc<Set>,
        asking: Asking<'_>,
        generation: &Arc<Generation>,
        path: &str,
        child: &Child,
    ) -> Resolution {
        let now = asking.fetcher.now();
        let there = self.is_there(&child.digest).await;
        if !there && child.size > self.options.stream_from {
            return Resolution::Class(Class::promised(self.promise(child)));
        }
        if !there && let Err(missing) = self.bring(asking, &generation.listing, path, child).await {
            let message = missing.to_string();
            if missing.is_absent {
                return Resolution::Refused { status: StatusCode::NOT_FOUND, message };
            }
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Resolution::Refused { status, message };
        }
        let (generation, path, digest) =
            (Arc::clone(generation), Box::from(path), child.digest.clone());
        let answer = self.blob(&digest, &generation, None);
        self.blocking(move |set| set.keep(&generation, &path, &digest, now)).await;
        answer
    }

    pub(super) async fn is_there(&self, blob: &Digest) -> bool {
        matches!(self.root.store().stat(blob).await, Ok(Some(_)))
    }

    /// Does what touches files on a thread of its own; `None` where that stopped, which is a bug of
    /// ours.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Set>,
        work: impl FnOnce(&Set) -> T + Send + 'static,
    ) -> Option<T> {
        let set = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&set)).await.ok()
    }

    /// Has a generation hold a child, and remembers that it is wanted. That it could not be written
    /// down hinders nobody: the bytes are right.
    fn keep(&self, generation: &Generation, path: &str, blob: &Digest, now: Timestamp) {
        let kept = self.root.generations().hold(&self.name, generation.number, blob);
        let bytes = {
            let mut state = self.state();
            state.wanted.note(&self.format.role(path), now).then(|| state.wanted.to_bytes())
        };
        let file = self.root.generations().directory(&self.name).join(WANTED);
        let noted = bytes.map_or(Ok(()), |bytes| write_unsynced(&file, &bytes));
        if let Err(error) = kept.map(drop).and(noted) {
            tracing::warn!(set = %self.address, path, %error, "cannot note a part of an index set");
        }
    }

    pub(super) fn promise(&self, child: &Child) -> Promise {
        let by = self.address.to_string();
        Promise { digest: child.digest.clone(), size: Some(child.size), by }
    }

    /// Returns the generation that a client which begins is given.
    fn to_give(&self, client: &Client, shown: Arc<Generation>, now: Timestamp) -> Arc<Generation> {
        if shown.listing.by_digest || self.format.keeps_connection(&client.agent) {
            return shown;
        }
        let state = self.state();
        // Not for ever: clients that look alike and never stop would see nothing new.
        let shown_for = state.shown_since.map(|since| now.duration_since(since).unsigned_abs());
        if shown_for.is_none_or(|shown_for| shown_for > Duration::from_secs(60)) {
            return shown;
        }
        let shared = state.bindings.shared(client, now).and_then(|number| state.numbered(number));
        shared.map_or(shown, Arc::clone)
    }

    /// Returns the refusal of a generation that is not valid any more, unless the upstream itself
    /// has nothing newer: then the client decides.
    fn expired(
        &self,
        generation: &Generation,
        checked: &Checked,
        now: Timestamp,
    ) -> Option<Resolution> {
        let until = generation.listing.valid_until.filter(|until| *until < now)?;
        if matches!(checked, Checked::Newest) {
            return None;
        }
        let message = format!(
            "{}: the index that is held was valid until {until}, and there is no newer one: {checked}",
            self.address
        );
        Some(Resolution::Refused { status: StatusCode::SERVICE_UNAVAILABLE, message })
    }

    pub(super) fn refused(&self, checked: &Checked) -> Resolution {
        let status = checked.status();
        Resolution::Refused { status, message: format!("{}: {checked}", self.address) }
    }

    pub(super) fn blob(
        &self,
        blob: &Digest,
        generation: &Generation,
        late: Option<Timestamp>,
    ) -> Resolution {
        let mut headers = HeaderMap::new();
        headers.insert(LAST_MODIFIED, date(generation.modified));
        let tag = HeaderValue::try_from(format!("\"{}\"", blob.hex()));
        headers.extend(tag.map(|tag| (ETAG, tag)));
        let stale = late.map(|now| {
            let since = self.state().confirmed.unwrap_or(generation.modified);
            now.duration_since(since).unsigned_abs()
        });
        let outcome = Outcome::Hit;
        Resolution::Blob(Resolved { blob: blob.clone(), headers, stale, outcome })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a time as HTTP writes it.
fn date(time: Timestamp) -> HeaderValue {
    let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time);
    let value = text.ok().and_then(|text| HeaderValue::try_from(text).ok());
    value.unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}
