//! Whether the upstream has a newer generation, and bringing all of it before anybody sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use http::header::LAST_MODIFIED;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::held::{Candidate, Generation, RootBlob, borrowed, read_roots};
use super::set::{Asking, Pending, Set};
use crate::class::Class;
use crate::ecosystem::{Ask, ObtainError, Obtained, Resolution};
use crate::entry::Entry;

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// What is shown is the upstream's newest.
    Newest,
    /// There is a newer one that is not complete; it says what is missing first.
    Incomplete(String),
    /// What the upstream has is older than what was served before.
    Older,
    /// The upstream has no root any more, or never had one.
    Absent(StatusCode),
    /// What it has is no root, or files of a root that do not belong together.
    NoRoot(String),
    /// It cannot be asked.
    Unreachable(String),
    /// It was not done in time.
    Slow,
}

impl Checked {
    /// Returns the status for a client when nothing is held.
    pub fn status(&self) -> StatusCode {
        match self {
            Checked::Absent(status) => *status,
            Checked::NoRoot(_) | Checked::Unreachable(_) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Checked::Newest => f.write_str("the upstream has nothing newer"),
            Checked::Incomplete(what) => write!(f, "the upstream's newer one is not whole: {what}"),
            Checked::Older => f.write_str("the upstream has an older one than was served before"),
            Checked::Absent(status) => write!(f, "the upstream has none ({status})"),
            Checked::NoRoot(why) => write!(f, "what the upstream has makes no sense: {why}"),
            Checked::Unreachable(why) => write!(f, "the upstream cannot be asked: {why}"),
            Checked::Slow => f.write_str("the upstream is slow; it is still being asked"),
        }
    }
}

/// A root that was found, or why none was.
enum Found {
    Root { candidate: Candidate, why_stale: Option<String> },
    Nothing(Checked),
}

impl Set {
    /// Asks the upstream, and shows a newer generation if all of it is there. Requests that come
    /// while that is done share the next check; one that takes too long goes on with the next
    /// request.
    pub(super) async fn check(self: &Arc<Set>, asking: Asking<'_>) -> Checked {
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
        let check = async {
            let mut answered = self.checking.lock().await;
            // A check that began after this request had come answers it too.
            if *answered >= arrival
                && let Some(checked) = self.state().checked.clone()
            {
                return checked;
            }
            let last = self.arrivals.load(Ordering::Relaxed);
            let checked = self.check_now(asking).await;
            self.tell(&checked);
            self.state().checked = Some(checked.clone());
            if matches!(checked, Checked::Incomplete(_)) {
                self.retry(asking);
            }
            *answered = last;
            checked
        };
        // Without anything to give instead, there is nothing to do but to wait.
        if self.state().shown().is_none() {
            return check.await;
        }
        tokio::time::timeout(self.options.patience, check).await.unwrap_or(Checked::Slow)
    }

    fn tell(&self, checked: &Checked) {
        let before = self.state().checked.clone();
        if before.as_ref() != Some(checked) && *checked != Checked::Newest {
            tracing::warn!(set = %self.address, "{checked}");
        }
    }

    async fn check_now(self: &Arc<Set>, asking: Asking<'_>) -> Checked {
        if let Some(Err(error)) = self.blocking(Set::reload).await {
            tracing::warn!(set = %self.address, %error, "cannot read what is held of an index set");
        }
        let (candidate, why_stale) = match self.find_root(asking).await {
            Found::Root { candidate, why_stale } => (candidate, why_stale),
            Found::Nothing(checked) => return checked,
        };
        let now = asking.fetcher.now();
        let confirmed = || why_stale.clone().map_or(Checked::Newest, Checked::Unreachable);
        {
            let mut state = self.state();
            if let Some(shown) = state.shown() {
                let same = shown.roots == candidate.roots
                    || self.form(&shown.roots[0].name) < self.form(&candidate.roots[0].name)
                        && shown.listing == candidate.listing;
                if same {
                    if why_stale.is_none() {
                        (state.pending, state.confirmed) = (None, Some(now));
                    }
                    return confirmed();
                }
                if let Some(gone) = self.lost(&shown.roots, &candidate.roots) {
                    return Checked::NoRoot(format!("{gone} is gone"));
                }
                let was = state.held.iter().any(|held| held.roots == candidate.roots);
                if was || candidate.listing.date < shown.listing.date {
                    return Checked::Older;
                }
            }
        }
        let missing = self.complete(asking, &candidate).await;
        if let Some(first) = missing.first()
            && !self.is_held_back_too_long(&candidate, now)
        {
            let checked = Checked::Incomplete(first.to_string());
            let mut state = self.state();
            let since = match &state.pending {
                Some(pending) if pending.candidate.roots == candidate.roots => pending.since,
                _ => now,
            };
            state.pending = Some(Pending { candidate, since, missing });
            return checked;
        }
        match self.blocking(move |set| set.publish(&candidate, now)).await {
            Some(Ok(true)) => confirmed(),
            Some(Ok(false)) | None => Checked::Incomplete("it changed meanwhile".to_owned()),
            Some(Err(error)) => Checked::Incomplete(chain(&error)),
        }
    }

    /// Returns the place among the forms of the one whose first file this is.
    pub(super) fn form(&self, first: &str) -> Option<usize> {
        self.format.forms().iter().position(|form| form.first() == Some(&first))
    }

    /// Returns a file that a root had and one of the same form has not: it is being replaced.
    fn lost<'a>(&self, had: &'a [RootBlob], has: &[RootBlob]) -> Option<&'a str> {
        if had.first()?.name != has.first()?.name {
            return None;
        }
        let lost = |file: &&RootBlob| !has.iter().any(|other| other.name == file.name);
        had.iter().find(lost).map(|file| &*file.name)
    }

    fn is_held_back_too_long(&self, candidate: &Candidate, now: Timestamp) -> bool {
        let state = self.state();
        state.pending.as_ref().is_some_and(|pending| {
            pending.candidate.roots == candidate.roots
                && now.duration_since(pending.since).unsigned_abs() > self.options.held_back_max
        })
    }

    /// Fetches the root, in the best form that the upstream has.
    async fn find_root(self: &Arc<Set>, asking: Asking<'_>) -> Found {
        let mut absent = StatusCode::NOT_FOUND;
        for form in self.format.forms() {
            let (mut roots, mut why_stale, mut modified) = (Vec::new(), None, None);
            for (at, name) in form.iter().enumerate() {
                match self.obtain(asking, name, Class::index(), Ask::Always).await {
                    Ok(Obtained { entry, stale }) => {
                        if stale {
                            why_stale = Some(format!("{name} could not be revalidated"));
                        }
                        if at == 0 {
                            modified = modified_of(&entry);
                        }
                        let blob = entry.blob.clone();
                        roots.push(RootBlob { name: (*name).to_owned(), blob });
                    }
                    Err(ObtainError::Answered { status, .. }) if at == 0 && is_absent(status) => {
                        absent = status;
                        break;
                    }
                    // Object stores forbid what is not there.
                    Err(ObtainError::Answered { status, .. })
                        if at > 0 && (is_absent(status) || status == StatusCode::FORBIDDEN) => {}
                    Err(error) => return Found::Nothing(Checked::Unreachable(error.to_string())),
                }
            }
            if !roots.is_empty() {
                let found = self.read_root(roots, modified, why_stale).await;
                if matches!(found, Found::Nothing(_)) {
                    self.forget(form).await;
                }
                return found;
            }
        }
        Found::Nothing(Checked::Absent(absent))
    }

    /// Has what makes no sense fetched anew the next time: asked whether it has changed, an upstream
    /// would say no of bytes that were damaged on the way.
    async fn forget(self: &Arc<Set>, form: &'static [&'static str]) {
        self.blocking(move |set| {
            for name in form {
                let target = set.address.at(&format!("{}{name}", set.address.path()));
                let forgotten = target.map(|target| set.root.entries().remove(&target.key()));
                if let Ok(Err(error)) = forgotten {
                    tracing::warn!(set = %set.address, name, %error, "cannot forget an entry");
                }
            }
        })
        .await;
    }

    async fn read_root(
        &self,
        roots: Vec<RootBlob>,
        modified: Option<Timestamp>,
        why_stale: Option<String>,
    ) -> Found {
        let known = {
            let state = self.state();
            let held = state.held.iter().map(|held| (&held.roots, &held.listing));
            let pending = state
                .pending
                .iter()
                .map(|pending| (&pending.candidate.roots, &pending.candidate.listing));
            let mut known = held.chain(pending).filter(|(known, _)| **known == roots);
            known.next().map(|(_, listing)| Arc::clone(listing))
        };
        if let Some(listing) = known {
            return Found::Root { candidate: Candidate { roots, listing, modified }, why_stale };
        }
        let (root, format) = (Arc::clone(&self.root), Arc::clone(&self.format));
        let read = tokio::task::spawn_blocking(move || {
            let files = match read_roots(&root, &roots) {
                Ok(Some(files)) => files,
                Ok(None) => return Err("a file of it is too large".to_owned()),
                Err(error) => return Err(error.to_string()),
            };
            let listing = format.read(&borrowed(&roots, &files)).map_err(|why| why.to_string())?;
            Ok(Candidate { roots, listing: Arc::new(listing), modified })
        });
        match read.await {
            Ok(Ok(candidate)) => Found::Root { candidate, why_stale },
            Ok(Err(why)) => Found::Nothing(Checked::NoRoot(why)),
            Err(_) => Found::Nothing(Checked::NoRoot("it could not be read".to_owned())),
        }
    }

    /// Answers with a file of another form of the root, where it tells the same.
    pub(super) async fn other_form(
        self: &Arc<Set>,
        asking: Asking<'_>,
        generation: Arc<Generation>,
        name: &str,
    ) -> Resolution {
        let mut why = "it does not belong to the index that is served".to_owned();
        for ask in [Ask::IfAbsent, Ask::Always] {
            let entry = match self.obtain(asking, name, Class::index(), ask).await {
                Ok(obtained) => obtained.entry,
                Err(ObtainError::Answered { status, .. }) if is_absent(status) => {
                    return self.refused(&Checked::Absent(status));
                }
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            let other = [RootBlob { name: name.to_owned(), blob: entry.blob.clone() }];
            let shown = Arc::clone(&generation);
            if self.blocking(move |set| set.agrees(&shown, &other)).await == Some(true) {
                return self.blob(&entry.blob, &generation, None);
            }
        }
        self.refused(&Checked::Incomplete(format!("{name}: {why}")))
    }

    fn agrees(&self, generation: &Generation, other: &[RootBlob]) -> bool {
        let read = |roots| read_roots(&self.root, roots).ok().flatten();
        let (Some(files), Some(bytes)) = (read(&generation.roots), read(other)) else {
            return false;
        };
        let root = borrowed(&generation.roots, &files);
        borrowed(other, &bytes).into_iter().all(|other| self.format.agrees(&root, other))
    }
}

/// Returns an error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    text
}

/// Says whether an answer means that there is nothing there.
pub(super) fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

fn modified_of(entry: &Entry) -> Option<Timestamp> {
    let value = entry.policy.headers.get(LAST_MODIFIED)?.to_str().ok()?;
    DateTimeParser::new().parse_timestamp(value).ok()
}
