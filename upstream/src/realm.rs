//! The trust rule for realms: which token service may see a registry's credentials.
//!
//! A registry names its token service itself, in a header. Whoever answers for the registry once
//! could thus name a server of their own and be handed the user's password (distribution fixed
//! this in 3.1.0, "bind bearer realms to upstream trust boundary"). So credentials go only to a
//! realm
//!
//! - on the registry's own host, or on one with the same registrable domain (`docker.io` for
//!   `registry-1.docker.io` and `auth.docker.io`), or on a host that the user listed;
//! - where the registry's host is an address, on that very address;
//! - over HTTPS, unless the registry itself is spoken to over plain HTTP.
//!
//! There is no list of public suffixes in here. Two labels are taken for a registrable domain,
//! three where the second is a registry's class under a country (`co.uk`) or where the two are
//! known to be shared by strangers (`github.io`). A domain that is missing from these lists would be
//! trusted too widely among its own customers; a listed realm can only be trusted too little,
//! which the user mends by naming the host.

use std::collections::BTreeSet;

use url::{Host, Url};

/// Second-level labels under which countries register domains.
const COUNTRY_CLASSES: [&str; 17] = [
    "ac", "asn", "co", "com", "edu", "firm", "gen", "go", "gob", "gov", "gv", "ltd", "mil", "ne",
    "net", "or", "org",
];

/// Domains whose subdomains belong to strangers. Deeper ones (`eu-west-1.elb.amazonaws.com`) are
/// covered by the rule that below these only equal hosts count.
const SHARED_DOMAINS: [&str; 31] = [
    "amazonaws.com",
    "appspot.com",
    "azurecontainer.io",
    "azurecr.io",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "ddns.net",
    "digitaloceanspaces.com",
    "duckdns.org",
    "dyndns.org",
    "fly.dev",
    "github.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "linodeobjects.com",
    "netlify.app",
    "ngrok.app",
    "ngrok.io",
    "nip.io",
    "no-ip.org",
    "onrender.com",
    "pages.dev",
    "r2.dev",
    "run.app",
    "sslip.io",
    "trycloudflare.com",
    "vercel.app",
    "windows.net",
    "workers.dev",
];

/// Says whether a registry's credentials may be sent to `realm`.
///
/// `registry` is the URL under which the registry is spoken to; `trusted` are further hosts that
/// the user vouches for.
pub fn may_see_credentials(registry: &Url, realm: &Url, trusted: &BTreeSet<String>) -> bool {
    let downgraded = realm.scheme() != "https" && registry.scheme() == "https";
    if downgraded || !matches!(realm.scheme(), "https" | "http") {
        return false;
    }
    if realm.host_str().is_some_and(|host| trusted.contains(host)) {
        return true;
    }
    match (registry.host(), realm.host()) {
        (Some(Host::Domain(registry)), Some(Host::Domain(realm))) => same_domain(registry, realm),
        (Some(registry), Some(realm)) => registry == realm,
        _ => false,
    }
}

/// As [`may_see_credentials`], of a realm as the challenge has it.
pub(crate) fn sees_credentials(registry: &Url, realm: &str, trusted: &BTreeSet<String>) -> bool {
    Url::parse(realm).is_ok_and(|realm| may_see_credentials(registry, &realm, trusted))
}

fn same_domain(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('.'), other.trim_end_matches('.'));
    one.eq_ignore_ascii_case(other)
        || registrable(one)
            .zip(registrable(other))
            .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// Returns the part of a host's name that one owner registered, where it is plain.
fn registrable(host: &str) -> Option<&str> {
    let last = |labels: usize| {
        let start = host.rmatch_indices('.').nth(labels - 1).map_or(0, |(dot, _)| dot + 1);
        (host.split('.').count() >= labels).then(|| &host[start..])
    };
    let two = last(2)?;
    if SHARED_DOMAINS.iter().any(|shared| shared.eq_ignore_ascii_case(two)) {
        return None;
    }
    let (class, country) = two.split_once('.')?;
    if country.len() == 2 && COUNTRY_CLASSES.iter().any(|known| known.eq_ignore_ascii_case(class)) {
        return last(3);
    }
    Some(two)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(registry: &str, realm: &str) -> bool {
        let trusted = BTreeSet::from(["login.vouched.example".to_owned()]);
        may_see_credentials(&registry.parse().unwrap(), &realm.parse().unwrap(), &trusted)
    }

    #[test]
    fn realms_of_the_same_owner() {
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://registry.lan:5000", "https://registry.lan/token"),
            ("https://a.example.co.uk", "https://b.example.co.uk"),
            ("https://me.azurecr.io", "https://me.azurecr.io/oauth2/token"),
            ("https://10.0.0.1:5000", "https://10.0.0.1:5001/token"),
            ("https://[::1]:5000", "https://[::1]/token"),
            ("http://localhost:5000", "http://localhost:5001/token"),
            ("http://localhost:5000", "https://localhost/token"),
            ("https://registry.example", "https://login.vouched.example/token"),
        ] {
            assert!(allowed(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn realms_of_others() {
        for (registry, realm) in [
            ("https://registry.example", "https://evil.test/token"),
            ("https://docker.io", "https://docker.io.evil.test/token"),
            ("https://evildocker.io", "https://docker.io/token"),
            ("https://a.co.uk", "https://b.co.uk"),
            ("https://me.azurecr.io", "https://you.azurecr.io/token"),
            ("https://me.github.io", "https://you.github.io/token"),
            ("https://a.eu.elb.amazonaws.com", "https://b.eu.elb.amazonaws.com"),
            ("https://10.0.0.1", "https://10.0.0.2/token"),
            ("https://10.0.0.1", "https://10.0.0.1.evil.test/token"),
            ("https://registry.example", "http://registry.example/token"),
            ("http://localhost:5000", "http://127.0.0.1:5000/token"),
            ("https://registry.example", "ftp://registry.example/token"),
            ("https://com", "https://evil.com"),
            ("https://registry", "https://realm"),
        ] {
            assert!(!allowed(registry, realm), "{registry} {realm}");
        }
    }
}
