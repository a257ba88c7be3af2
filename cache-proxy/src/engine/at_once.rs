//! What is answered at once: a hot object, from memory alone.

use std::sync::atomic::Ordering;

use boatyard_upstream::freshness::{self, Decision};
use http::header::VIA;

use super::Engine;
use super::judge::keeps_promise;
use super::read::recipe;
use crate::answer::{Answer, Bytesource};
use crate::class::Class;
use crate::ecosystem::Classified;
use crate::entry::Entry;
use crate::request::Request;
use crate::statistics::Outcome;

impl Engine {
    /// Answers a GET or HEAD at once, where what is kept is in memory and serves as it is; `None`
    /// where that takes more: then [`Engine::answer`] finds out what.
    ///
    /// It waits for nothing but one look at a directory's time: other processes change entries, too.
    pub fn at_once(&self, request: &Request) -> Option<Answer> {
        // Whether it was here before is for the one who has time to read it.
        if request.headers.contains_key(VIA) {
            return None;
        }
        let (ecosystem, Classified::As(class)) = self.classify(request) else { return None };
        let key = request.target.key();
        let known = self.known_in_memory(&key)?;
        let entry = known.choose(&request.headers).filter(|kept| kept.target == request.target)?;
        if !self.serves_as_it_is(request, &class, entry) {
            return None;
        }
        let bytes = self.shared.small.get(&entry.blob)?;
        let now = self.shared.options.clock.now();
        let age = entry.policy.age(now);
        let headers = &entry.policy.headers;
        let bytes = Bytesource::Memory(bytes);
        let mut answer = self.answer_with(request, headers, bytes, Outcome::Hit, Some(age));
        answer.ecosystem = ecosystem.map(|ecosystem| ecosystem.name());
        self.mark_known_used(&key, &known);
        // Why it is answered so is asked by people: once a second is often enough.
        if known.noted.swap(now.as_second(), Ordering::Relaxed) != now.as_second() {
            self.note(request, &answer);
        }
        Some(answer)
    }

    fn serves_as_it_is(&self, request: &Request, class: &Class, kept: &Entry) -> bool {
        if recipe(class).is_some() || !keeps_promise(class.promise(), &kept.blob) {
            return false;
        }
        match class {
            Class::Immutable(immutable) => immutable.promise.is_none() || kept.verified.is_some(),
            Class::Mutable(mutable) if mutable.always_ask => false,
            Class::Pass => false,
            _ => {
                let now = self.shared.options.clock.now();
                let asked =
                    freshness::Request { method: &request.method, headers: &request.headers };
                matches!(freshness::decide(&kept.policy, asked, now), Decision::Fresh { .. })
            }
        }
    }
}
