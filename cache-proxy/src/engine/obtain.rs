//! What ecosystems fetch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use boatyard_content::Root;
use http::StatusCode;
use jiff::Timestamp;

use super::Engine;
use super::fetch::Asking;
use super::flight::{FailedKind, News};
use super::judge::{Question, keeps_promise};
use super::read::Plan;
use super::receive::is_alone;
use crate::ecosystem::{Ask, Fetcher, Obtain, ObtainError, Obtained};
use crate::entry::Entry;

/// How often a flight that nobody waited for is begun anew.
const TRIES_MAX: usize = 3;

#[async_trait]
impl Fetcher for Engine {
    async fn obtain(&self, wanted: &Obtain) -> Result<Obtained, ObtainError> {
        let Obtain { request, class, ask } = wanted;
        let target = || request.target.clone();
        if is_alone(request) {
            return Err(ObtainError::Answered { target: target(), status: StatusCode::NOT_FOUND });
        }
        let kept = self.kept(&request.target, &request.headers).await;
        let kept = kept.filter(|kept| keeps_promise(class.promise(), &kept.blob));
        let fresh = |entry: Arc<Entry>| Ok(Obtained { entry, stale: false });
        let (known, on_error) = match (ask, kept) {
            (Ask::Never, None) => {
                let reason = "nothing is kept of it".to_owned();
                return Err(ObtainError::Unavailable { target: target(), reason });
            }
            (Ask::Never | Ask::IfAbsent, Some(kept)) => return fresh(kept),
            (Ask::IfAbsent, None) => (None, false),
            (Ask::IfStale, kept) => match self.plan(request, class, kept, self.now()).await {
                Plan::Serve(entry) | Plan::ServeAndAsk(entry) => return fresh(entry),
                Plan::Ask { known, on_error } => (known, on_error),
                Plan::Nothing => (None, false),
            },
            (Ask::Always, kept) => (kept, true),
        };
        let stale = |known: &Option<Arc<Entry>>| {
            let known = known.clone().filter(|_| on_error)?;
            Some(Ok(Obtained { entry: known, stale: true }))
        };
        for _ in 0..TRIES_MAX {
            let question =
                Question { request: request.clone(), class: class.clone(), known: known.clone() };
            let asking = match ask {
                Ask::Always => Asking::Always,
                _ if known.is_some() => Asking::Always,
                _ => Asking::UnlessKept,
            };
            let (flight, mine) = self.fly(question, asking);
            if !mine && flight.given().load(Ordering::SeqCst) {
                flight.end().await;
                continue;
            }
            // A reader's seat keeps the transfer going until it has landed.
            let _seat = match flight.news().await {
                News::Arriving(arriving) => arriving.reader().await,
                _ => None,
            };
            return match flight.end().await {
                News::Kept(entry) | News::Found(entry) | News::Renewed(entry) => fresh(entry),
                News::Arriving(_) | News::Declined => Err(ObtainError::NotKept {
                    target: target(),
                    reason: "it is meant for one user, or nobody can tell how long it is"
                        .to_owned(),
                }),
                News::Answered(answered) => {
                    let status = answered.status;
                    let known = if status.is_server_error() { stale(&known) } else { None };
                    known.unwrap_or_else(|| Err(ObtainError::Answered { target: target(), status }))
                }
                News::Failed(failed) if failed.kind == FailedKind::Abandoned => continue,
                News::Failed(failed) => {
                    let reason = failed.reason.clone();
                    if failed.kind == FailedKind::Forbidden {
                        return Err(ObtainError::Forbidden { target: target(), reason });
                    }
                    stale(&known)
                        .unwrap_or(Err(ObtainError::Unavailable { target: target(), reason }))
                }
            };
        }
        let reason = "its transfer was put aside again and again".to_owned();
        Err(ObtainError::Unavailable { target: target(), reason })
    }

    fn root(&self) -> &Arc<Root> {
        &self.shared.root
    }

    fn now(&self) -> Timestamp {
        self.shared.options.clock.now()
    }
}
