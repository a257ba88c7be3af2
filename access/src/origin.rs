//! From where a request comes: what the connection says, and what a proxy says that is trusted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};

use crate::caller::Origin;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Where the token service is, below the server's URL: under `/v2`, so that a proxy which passes
/// on only that passes on this.
pub const TOKEN_PATH: &str = "/v2/token";

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address or range of addresses, such as 10.0.0.0/8")]
pub struct NetworkError {
    text: String,
}

impl Network {
    /// Says whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let prefix = |address: u128, width: u32| {
            address.checked_shr(width - u32::from(self.bits)).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                prefix(u128::from(own.to_bits()), 32) == prefix(u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                prefix(own.to_bits(), 128) == prefix(other.to_bits(), 128)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let refuse = || NetworkError { text: text.to_owned() };
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|b| *b <= most).ok_or_else(refuse)?,
        };
        Ok(Network { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Network, NetworkError> {
        text.parse()
    }
}

/// What a connection is, whatever is sent over it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The other end.
    pub peer: Option<IpAddr>,
    /// Whether it is encrypted.
    pub tls: bool,
    /// The client's certificate, verified, in DER.
    pub certificate: Option<Arc<[u8]>>,
}

/// Says where requests come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// How clients reach this server: a URL, without a slash at its end.
    pub public_url: Option<String>,
    /// The proxies whose `X-Forwarded-*` are believed.
    pub proxies: Vec<Network>,
    /// All addresses that are listened on are of loopback.
    pub all_loopback: bool,
}

impl Surroundings {
    /// Returns where a request comes from. `authority` is what HTTP/2 has in the place of `Host`.
    pub fn origin(
        &self,
        headers: &HeaderMap,
        authority: Option<&str>,
        connection: &Connection,
    ) -> Origin {
        let peer = connection.peer.map(|peer| peer.to_canonical());
        let by_proxy = peer.is_some_and(|peer| self.is_proxy(peer));
        let host = one(headers, header::HOST.as_str()).or(authority).filter(|host| is_host(host));
        let is_near = peer.is_none_or(|peer| peer.is_loopback());
        let is_local =
            self.all_loopback && is_near && !is_forwarded(headers) && host.is_some_and(is_local);
        let told = |name: &str| one(headers, name).filter(|_| by_proxy);
        let https = match told(FORWARDED_PROTO) {
            Some("https") => true,
            Some("http") => false,
            _ => connection.tls,
        };
        let host = told(FORWARDED_HOST).filter(|host| is_host(host)).or(host);
        let base = match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let scheme = if https { "https" } else { "http" };
                format!("{scheme}://{}", host.unwrap_or("localhost"))
            }
        };
        let address = if by_proxy { self.client(headers).or(peer) } else { peer };
        Origin { address, realm: format!("{base}{TOKEN_PATH}"), is_local, request_id: None }
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    /// Returns the address that our outermost proxy saw. What is further to the left was sent by
    /// the client, who can write there what it likes.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let texts = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::to_str);
        let texts: Vec<&str> = texts.collect::<Result<_, _>>().ok()?;
        let mut outermost = None;
        for text in texts.iter().flat_map(|text| text.split(',')).rev() {
            let text = text.trim();
            let address = text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
            let Some(address) = address.map(|address: IpAddr| address.to_canonical()) else {
                break;
            };
            outermost = Some(address);
            if !self.is_proxy(address) {
                break;
            }
        }
        outermost
    }
}

/// Returns a header that is there once, as text.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Says whether a text is a host with an optional port, and nothing that would end a quoted text.
fn is_host(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]%".contains(&b);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(known)
}

/// Says whether a host is this machine whoever resolves it, so that no page of the web can have a
/// browser call us under a name of its own.
fn is_local(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().to_canonical().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.parse::<IpAddr>().map_or_else(
        |_| name.eq_ignore_ascii_case("localhost"),
        |address| address.to_canonical().is_loopback(),
    )
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name == "forwarded"
            || name == "via"
            || name == "x-real-ip"
            || name.starts_with("x-forwarded")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = of
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn from(peer: &str) -> Connection {
        Connection { peer: Some(peer.parse().unwrap()), ..Connection::default() }
    }

    #[test]
    fn ranges_contain_what_they_say() {
        let table = [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
        ];
        for (network, address, expected) in table {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                expected,
                "{network:?} {address}"
            );
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "x/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        let around = Surroundings { all_loopback: true, ..Surroundings::default() };
        let is_local = |around: &Surroundings, of: &[(&'static str, &'static str)]| {
            around.origin(&headers(of), None, &from("127.0.0.1")).is_local
        };
        for host in
            ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]"]
        {
            assert!(is_local(&around, &[("host", host)]), "{host}");
        }
        for host in [
            "registry.example",
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::2]",
            "",
            "localhost:x",
            "local host",
            "127.0.0.1@x",
        ] {
            assert!(!is_local(&around, &[("host", host)]), "{host}");
        }
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "via", "x-real-ip"] {
            assert!(!is_local(&around, &[("host", "localhost"), (name, "")]), "{name}");
        }
        assert!(!is_local(&around, &[]));
        let host = headers(&[("host", "localhost")]);
        assert!(!around.origin(&host, None, &from("192.0.2.1")).is_local);
        assert!(!is_local(&around, &[("host", "localhost"), ("host", "localhost")]));
        assert!(!is_local(&Surroundings::default(), &[("host", "localhost")]));
    }

    #[test]
    fn the_realm_is_where_the_client_is() {
        let trusting = Surroundings {
            proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..Surroundings::default()
        };
        let named = Surroundings {
            public_url: Some("https://hub.example/registry/".to_owned()),
            ..trusting.clone()
        };
        let proxied = &[
            ("host", "inner:5000"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "hub.example"),
        ];
        let table: [(&Surroundings, &str, bool, &[_], &str); 7] = [
            (&trusting, "192.0.2.1", false, &[("host", "a:5000")], "http://a:5000/v2/token"),
            (&trusting, "192.0.2.1", true, &[("host", "a")], "https://a/v2/token"),
            (&trusting, "192.0.2.1", false, proxied, "http://inner:5000/v2/token"),
            (&trusting, "10.0.0.9", false, proxied, "https://hub.example/v2/token"),
            (&named, "10.0.0.9", false, proxied, "https://hub.example/registry/v2/token"),
            (&trusting, "10.0.0.9", false, &[("host", "a\"b")], "http://localhost/v2/token"),
            (
                &trusting,
                "192.0.2.1",
                false,
                &[("host", "a, error=\"x\"")],
                "http://localhost/v2/token",
            ),
        ];
        for (around, peer, tls, of, realm) in table {
            let connection = Connection { tls, ..from(peer) };
            assert_eq!(around.origin(&headers(of), None, &connection).realm, realm);
        }
        let by_http2 = trusting.origin(&HeaderMap::new(), Some("a:1"), &from("192.0.2.1"));
        assert_eq!(by_http2.realm, "http://a:1/v2/token");
    }

    #[test]
    fn the_client_is_who_our_proxy_saw() {
        let around = Surroundings {
            proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..Surroundings::default()
        };
        let table: [(&str, &[_], &str); 7] = [
            ("192.0.2.1", &[("x-forwarded-for", "203.0.113.9")], "192.0.2.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")], "203.0.113.9"),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9:99")],
                "203.0.113.9",
            ),
            ("10.0.0.1", &[("x-forwarded-for", "nonsense")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, nonsense")], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ];
        for (peer, of, client) in table {
            let origin = around.origin(&headers(of), None, &from(peer));
            assert_eq!(origin.address, Some(client.parse().unwrap()), "{of:?}");
        }
    }
}
