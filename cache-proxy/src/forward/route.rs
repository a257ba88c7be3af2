//! What the target of a request line means.
//!
//! ```text
//! http://deb.example/debian/...        a forward proxy's request; Host means nothing
//! http://HTTPS///deb.example/...       the same with https, for clients that would use CONNECT
//! /deb/dists/...                       the configured upstream `deb`
//! /deb.example/debian/...              a server by its name, as apt-cacher-ng has it
//! /HTTPS///deb.example/...             both
//! /left/-/left-1.0.0.tgz               of the only npm registry, by npm that forgets its path
//! /                                    the page that helps
//! ```

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, Method};

use crate::ecosystem::{gem, npm};
use crate::target::{Target, TargetError};
use crate::upstreams::{Upstream, Upstreams};

/// What a request is for.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// A resource.
    Resource { target: Target, upstream: Option<Arc<Upstream>>, base: Option<String> },
    /// A tunnel.
    Tunnel { host: String, port: u16 },
    /// The page that helps.
    Help,
    /// Somebody asks whether we are there.
    Health,
}

/// Why a target means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RouteError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("CONNECT wants `host:port`")]
    Tunnel,
    #[error("no upstream `{name}` is configured here, and it is no host either")]
    Unknown { name: String },
}

/// The mark of https in the place of a host, in any case.
const HTTPS: &str = "https///";

/// Finds out what a request line's target means.
pub(super) fn route(
    upstreams: &Upstreams,
    method: &Method,
    text: &str,
    headers: &HeaderMap,
) -> Result<Route, RouteError> {
    if *method == Method::CONNECT {
        return tunnel(text);
    }
    let Some(path) = text.strip_prefix('/') else {
        let text = match strip_https(text.strip_prefix("http://").unwrap_or_default()) {
            Some(rest) => format!("https://{rest}"),
            None => text.to_owned(),
        };
        let target: Target = text.parse()?;
        return Ok(match upstreams.of(&target) {
            Some((upstream, target)) => {
                Route::Resource { target, upstream: Some(Arc::clone(upstream)), base: None }
            }
            None => Route::Resource { target, upstream: None, base: None },
        });
    };
    let (plain, _) = path.split_once('?').unwrap_or((path, ""));
    match plain {
        "" => return Ok(Route::Help),
        "livez" | "readyz" => return Ok(Route::Health),
        _ => {}
    }
    if let Some(target) = gem::source::target(upstreams, path, headers) {
        return Ok(with_base(by_name(upstreams, target), headers));
    }
    if let Some(rest) = strip_https(path) {
        return Ok(by_name(upstreams, format!("https://{rest}").parse()?));
    }
    let (name, below) = path.split_once('/').unwrap_or((path, ""));
    if let Some(upstream) = upstreams.named(name) {
        let target = upstream.target(below)?;
        let route = Route::Resource { target, upstream: Some(Arc::clone(upstream)), base: None };
        return Ok(with_base(route, headers));
    }
    if let Some((upstream, below)) = npm::tarball_of_only(upstreams, path, headers) {
        let target = upstream.target(below)?;
        let route = Route::Resource { target, upstream: Some(Arc::clone(upstream)), base: None };
        return Ok(with_base(route, headers));
    }
    // A name without a dot is a mistake more often than a host of this network.
    if !name.contains(['.', ':']) {
        return Err(RouteError::Unknown { name: name.to_owned() });
    }
    Ok(by_name(upstreams, format!("http://{path}").parse()?))
}

/// Adds where the client sees the upstream of a route, for one who speaks to us.
fn with_base(route: Route, headers: &HeaderMap) -> Route {
    match route {
        Route::Resource { target, upstream: Some(upstream), .. } => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let base = host.map(|host| format!("http://{host}/{}", upstream.name));
            Route::Resource { target, upstream: Some(upstream), base }
        }
        other => other,
    }
}

fn by_name(upstreams: &Upstreams, target: Target) -> Route {
    match upstreams.of(&target) {
        Some((upstream, target)) => {
            Route::Resource { target, upstream: Some(Arc::clone(upstream)), base: None }
        }
        None => Route::Resource { target, upstream: None, base: None },
    }
}

fn strip_https(text: &str) -> Option<&str> {
    let mark = text.get(..HTTPS.len())?;
    mark.eq_ignore_ascii_case(HTTPS).then(|| &text[HTTPS.len()..])
}

fn tunnel(text: &str) -> Result<Route, RouteError> {
    let (host, port) = text.rsplit_once(':').ok_or(RouteError::Tunnel)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or(RouteError::Tunnel)?;
    let target: Target = format!("http://{host}/").parse().map_err(|_| RouteError::Tunnel)?;
    if host.contains(['/', '?', '#']) || target.url().port().is_some() {
        return Err(RouteError::Tunnel);
    }
    Ok(Route::Tunnel { host: target.host().to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tarballs_at_the_root_are_of_the_only_registry() {
        let npm = |name: &str, url: &str| {
            let mut upstream = Upstream::new(name, &[url.to_owned()]).unwrap();
            upstream.ecosystem = Some("npm".to_owned());
            upstream
        };
        let agent = "npm/11.0.0 node/v20".parse().unwrap();
        let headers = HeaderMap::from_iter([(http::header::USER_AGENT, agent)]);
        let of = |upstreams: Vec<Upstream>, text: &str, headers: &HeaderMap| {
            let upstreams = Upstreams::new(upstreams).unwrap();
            match route(&upstreams, &Method::GET, text, headers) {
                Ok(Route::Resource { target, .. }) => target.to_string(),
                Ok(_) => "else".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        let one = || vec![npm("js", "https://r.example/repo/npm/")];
        for (text, expected) in [
            ("/left/-/left-1.tgz", "https://r.example/repo/npm/left/-/left-1.tgz"),
            ("/@a/b/-/b-1.tgz", "https://r.example/repo/npm/@a/b/-/b-1.tgz"),
            (
                "/socket.io/-/socket.io-1.tgz",
                "https://r.example/repo/npm/socket.io/-/socket.io-1.tgz",
            ),
            ("/repo/npm/left/-/left-1.tgz", "https://r.example/repo/npm/left/-/left-1.tgz"),
            ("/x.example/npm/left/-/left-1.tgz", "http://x.example/npm/left/-/left-1.tgz"),
            ("/left.example/left", "http://left.example/left"),
        ] {
            assert_eq!(of(one(), text, &headers), expected, "{text}");
        }
        let text = "/left.js/-/left.js-1.tgz";
        let two = vec![npm("js", "https://r.example/"), npm("ts", "https://s.example/")];
        assert_eq!(of(two, text, &headers), "http://left.js/-/left.js-1.tgz");
        assert_eq!(of(one(), text, &HeaderMap::new()), "http://left.js/-/left.js-1.tgz");
    }

    #[test]
    fn every_form_means_one_thing() {
        let deb = Upstream::new("deb", &["https://deb.example/debian".to_owned()]).unwrap();
        let upstreams = Upstreams::new(vec![deb]).unwrap();
        let headers = HeaderMap::from_iter([(HOST, "proxy.example:3142".parse().unwrap())]);
        let of = |method: Method, text: &str| match route(&upstreams, &method, text, &headers) {
            Ok(Route::Resource { target, upstream, base }) => {
                let name = upstream.map(|upstream| upstream.name.clone()).unwrap_or_default();
                format!("{name} {target} {}", base.unwrap_or_default()).trim().to_owned()
            }
            Ok(Route::Tunnel { host, port }) => format!("tunnel {host} {port}"),
            Ok(Route::Help) => "help".to_owned(),
            Ok(Route::Health) => "health".to_owned(),
            Err(error) => format!("error: {error}"),
        };
        let base = "http://proxy.example:3142/deb";
        for (text, expected) in [
            ("http://a.example/b?c", "http://a.example/b?c".to_owned()),
            ("http://HTTPS///a.example/b", "https://a.example/b".to_owned()),
            ("/HTTPS///a.example/b", "https://a.example/b".to_owned()),
            ("/a.example/b", "http://a.example/b".to_owned()),
            ("/a.example:8080/b", "http://a.example:8080/b".to_owned()),
            ("/deb/pool/x", format!("deb https://deb.example/debian/pool/x {base}")),
            ("/deb", format!("deb https://deb.example/debian/ {base}")),
            ("/HTTPS///deb.example/debian/x", "deb https://deb.example/debian/x".to_owned()),
            ("/", "help".to_owned()),
            ("/readyz", "health".to_owned()),
        ] {
            assert_eq!(of(Method::GET, text), expected, "{text}");
        }
        for bad in [
            "/nobody/x",
            "//etc/passwd",
            "*",
            "deb/x",
            "ftp://a.example/",
            "/deb/../x",
            "/../x",
            "/deb/%2e%2e/x",
        ] {
            assert!(of(Method::GET, bad).starts_with("error"), "{bad}");
        }
        assert_eq!(of(Method::CONNECT, "a.example:443"), "tunnel a.example 443");
        assert_eq!(of(Method::CONNECT, "[::1]:443"), "tunnel [::1] 443");
        for bad in [
            "a.example",
            "a.example:",
            "a.example:0",
            "a.example:70000",
            "http://a/:443",
            "a@b:443",
        ] {
            assert!(of(Method::CONNECT, bad).starts_with("error"), "{bad}");
        }
    }
}
