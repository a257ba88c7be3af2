//! A package index as one request sees it: where it lies upstream, where the client sees it, and
//! how others of its documents are asked for.

use http::header::{ACCEPT, AUTHORIZATION, COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::ecosystem::{Ask, Fetcher, Obtain, ObtainError, Obtained};
use crate::{Class, Request, Target};

/// Of a client's headers, those that say something to an index, or to us of what is kept of it.
/// What only tells the requests of one client apart (`npm-session`) is none of anybody's business.
const HEEDED: [HeaderName; 12] = [
    AUTHORIZATION,
    COOKIE,
    USER_AGENT,
    header::VIA,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// A package index as one request sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    request: &'a Request,
    base: &'a str,
}

impl<'a> Site<'a> {
    /// Returns the configured upstream of a request, and the path below it without the query.
    pub(super) fn configured(request: &'a Request) -> Option<(Site<'a>, &'a str)> {
        let upstream = request.upstream.as_ref()?;
        let below = upstream.below(&request.target)?;
        let below = below.split('?').next().unwrap_or_default();
        Some((Site { request, base: upstream.bases[0].as_str() }, below))
    }

    /// Returns the site whose documents lie below a part of a request's own URL.
    pub(super) fn above(request: &'a Request, below: &str) -> Option<Site<'a>> {
        let url = request.target.as_str().split('?').next().unwrap_or_default();
        Some(Site { request, base: url.strip_suffix(below)? })
    }

    /// Returns where the client sees it, without `/` at the end; `None` where it uses us as its
    /// forward proxy, and sees everything where it is.
    pub(super) fn seen(&self) -> Option<&'a str> {
        self.request.base.as_deref()
    }

    /// Returns the client's request for something of this site, in the form that all clients
    /// share. `accept` is what the upstream is to choose by.
    pub(super) fn client(&self, path: &str, accept: &str) -> Option<Request> {
        let target = format!("{}{path}", self.base).parse().ok()?;
        Some(Request { target, headers: self.headers(&HEEDED, accept), ..self.request.clone() })
    }

    /// Returns a request of our own for something of this site.
    pub(super) fn own(&self, path: &str, accept: &str) -> Option<Request> {
        let target = format!("{}{path}", self.base).parse().ok()?;
        let headers = self.headers(&HEEDED[..3], accept);
        Some(Request { method: Method::GET, target, headers, ..self.request.clone() })
    }

    /// Returns the client's request for a file that a document named. Nothing that was meant for
    /// the index is shown to another host.
    pub(super) fn file(&self, document: &Target, reference: &str) -> Option<Request> {
        // A document may lead upwards, as `../../packages/f`; what it leads to may not any more.
        let joined = document.url().join(reference).ok()?;
        let mut target: Target = joined.as_str().parse().ok()?;
        let mut headers = self.headers(&HEEDED, "*/*");
        let mut upstream = self.request.upstream.clone();
        let below = upstream.as_ref().and_then(|upstream| {
            let mut bases = upstream.bases.iter().map(url::Url::as_str);
            bases.find_map(|base| below(target.as_str(), base)).map(|below| upstream.target(below))
        });
        match below {
            Some(below) => target = below.ok()?,
            None if target.url().origin() == document.url().origin() => {}
            None => {
                upstream = None;
                headers.remove(AUTHORIZATION);
                headers.remove(COOKIE);
            }
        }
        Some(Request { target, headers, upstream, base: None, ..self.request.clone() })
    }

    fn headers(&self, heeded: &[HeaderName], accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in heeded {
            for value in self.request.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Ok(accept) = HeaderValue::from_str(accept) {
            headers.insert(ACCEPT, accept);
        }
        headers
    }
}

/// Returns what a URL has below a base. An index that is asked by https may still write `http` in
/// front of its own name.
fn below<'u>(url: &'u str, base: &str) -> Option<&'u str> {
    url.strip_prefix(base).or_else(|| {
        let plain = base.strip_prefix("https://")?;
        url.strip_prefix("http://")?.strip_prefix(plain)
    })
}

/// Brings a document of a site.
pub(super) async fn bring(
    fetcher: &dyn Fetcher,
    request: Request,
    class: Class,
    ask: Ask,
) -> Result<Obtained, ObtainError> {
    fetcher.obtain(&Obtain { request, class, ask }).await
}

/// Says whether what is kept of a document was given without a word on how long it is fresh. A
/// guess by its age, which is HTTP's rule then, would hide new versions for a day.
pub(super) async fn is_of_unknown_age(fetcher: &dyn Fetcher, request: &Request) -> bool {
    let kept = bring(fetcher, request.clone(), Class::Http, Ask::Never).await;
    kept.is_ok_and(|kept| {
        let headers = &kept.entry.policy.headers;
        !headers.contains_key(header::CACHE_CONTROL) && !headers.contains_key(header::EXPIRES)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Upstream;

    fn request() -> Request {
        let bases = ["https://index.example/a/", "http://two.example/"].map(str::to_owned);
        let upstream = Arc::new(Upstream::new("i", &bases).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers.insert("npm-session", HeaderValue::from_static("1"));
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"x\""));
        Request {
            method: Method::GET,
            target: upstream.target("p/q?r").unwrap(),
            headers,
            upstream: Some(upstream),
            base: Some("http://proxy.example/i".to_owned()),
            client: ([127, 0, 0, 1], 1).into(),
            admitted: crate::hosted::Admitted::default(),
        }
    }

    #[test]
    fn nothing_for_the_index_is_shown_to_another_host() {
        let request = request();
        let (site, below) = Site::configured(&request).unwrap();
        assert_eq!(below, "p/q");
        let of = |reference: &str| {
            let file = site.file(&request.target, reference)?;
            let login = file.headers.contains_key(AUTHORIZATION);
            Some(format!("{} {login} {}", file.target, file.upstream.is_some()))
        };
        for (reference, expected) in [
            ("https://files.example/f", "https://files.example/f false false"),
            ("https://index.example/a/f", "https://index.example/a/f true true"),
            ("http://index.example/a/f", "https://index.example/a/f true true"),
            ("http://two.example/f", "https://index.example/a/f true true"),
            ("https://index.example/b/f", "https://index.example/b/f true true"),
            ("f", "https://index.example/a/p/f true true"),
            ("../g/f#sha256=0", "https://index.example/a/g/f true true"),
        ] {
            assert_eq!(of(reference).as_deref(), Some(expected), "{reference}");
        }
        for bad in ["file:///etc/passwd", "https://u:p@files.example/f", "f/..%2fg", "http://"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn requests_of_all_clients_are_one() {
        let request = request();
        let (site, _) = Site::configured(&request).unwrap();
        let client = site.client("d", "text/html").unwrap();
        assert_eq!(client.target.as_str(), "https://index.example/a/d");
        assert!(client.headers.contains_key(header::IF_NONE_MATCH));
        assert!(!client.headers.contains_key("npm-session"));
        assert!(!site.own("d", "*/*").unwrap().headers.contains_key(header::IF_NONE_MATCH));
        assert!(site.client("../d", "*/*").is_none());
    }
}
