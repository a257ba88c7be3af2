//! The guard: where requests on behalf of strangers may go.
//!
//! Who asks for a URL chooses the address that is connected to, and so could reach what only this
//! machine reaches: its own services, the network behind it, a cloud's metadata. A transport with
//! a guard looks at each URL before it is asked, redirects included, and at the addresses that a
//! name resolves to; it connects to these very addresses, so that a name cannot change its mind in
//! between.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use url::{Host, Url};

/// What finds the addresses of a name.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Returns the addresses of a name, at least one.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Where requests may go.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Addresses that are not public may be connected to.
    pub allow_private: bool,
    /// The ports that may be connected to.
    pub ports: BTreeSet<u16>,
    /// Hosts, each with its port, that may be connected to in any case: the operator named them.
    pub trusted: BTreeSet<(String, u16)>,
    /// What finds addresses.
    pub resolver: Arc<dyn Resolver>,
}

/// A request that may not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The port is not allowed.
    #[error("port {port} is not allowed")]
    Port {
        /// The port.
        port: u16,
    },
    /// The address, or all addresses of the name, are not public.
    #[error("`{host}` is not a public address")]
    Private {
        /// The host.
        host: String,
    },
}

impl Default for Guard {
    fn default() -> Guard {
        Guard {
            allow_private: false,
            ports: BTreeSet::from([80, 443]),
            trusted: BTreeSet::new(),
            resolver: Arc::new(SystemResolver),
        }
    }
}

impl Guard {
    /// Checks all of a URL that can be checked without resolving its host.
    ///
    /// # Errors
    /// Why it may not be asked.
    pub fn check(&self, url: &Url) -> Result<(), Denied> {
        let host = url.host_str().unwrap_or_default();
        self.check_place(host, url.port_or_known_default().unwrap_or_default())
    }

    /// Checks a host, an IPv6 address in brackets, and a port.
    ///
    /// # Errors
    /// Why it may not be connected to.
    pub fn check_place(&self, host: &str, port: u16) -> Result<(), Denied> {
        let host = canonical(host);
        if self.trusted.contains(&(host.clone(), port)) {
            return Ok(());
        }
        if !self.ports.contains(&port) {
            return Err(Denied::Port { port });
        }
        let private = match Host::parse(&host) {
            Ok(Host::Ipv4(address)) => !is_public(IpAddr::V4(address)),
            Ok(Host::Ipv6(address)) => !is_public(IpAddr::V6(address)),
            Ok(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Err(_) => true,
        };
        if private && !self.allow_private {
            return Err(Denied::Private { host });
        }
        Ok(())
    }

    /// Returns the addresses of a host that may be connected to.
    ///
    /// # Errors
    /// Where it has none, or [`Denied`] where it has others only.
    pub async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let host = canonical(host);
        let any = self.allow_private || self.trusted.iter().any(|(trusted, _)| *trusted == host);
        let found = match Host::parse(&host) {
            Ok(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Ok(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            _ => self.resolver.resolve(&host).await?,
        };
        let allowed: Vec<IpAddr> =
            found.iter().copied().filter(|address| any || is_public(*address)).collect();
        match (allowed.is_empty(), found.is_empty()) {
            (false, _) => Ok(allowed),
            (true, true) => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
            (true, false) => Err(refused(Denied::Private { host })),
        }
    }

    /// Connects to a host and port that may be connected to.
    ///
    /// # Errors
    /// Where it may not be, or cannot be in time; the error then is of the last address.
    pub async fn connect(&self, host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
        self.check_place(host, port).map_err(refused)?;
        let connect = async {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for address in self.addresses(host).await? {
                match TcpStream::connect(SocketAddr::new(address, port)).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        tokio::time::timeout(within, connect).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"))
        })
    }
}

/// Returns a denial as the error of a connection; [`denied`] finds it there.
pub(crate) fn refused(denied: Denied) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, denied)
}

/// Returns one form of a host: a name without a dot at its end, in small letters.
fn canonical(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Returns the denial within an error, if that is what it is about.
pub fn denied<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Denied> {
    if let Some(denied) = error.downcast_ref::<Denied>() {
        return Some(denied);
    }
    // An io::Error shows what its content has for a source, but not the content.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| denied(inner)).or_else(|| error.source().and_then(denied))
}

/// Says whether an address is reached over the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        // Shared by carriers (RFC 6598), protocol assignments, benchmarks, reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Addresses that carry an IPv4 address lead to that one.
    let carried = match segments {
        [0, 0, 0, 0, 0, 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some((segments[6], segments[7])),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => Some((segments[6], segments[7])),
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = carried {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast is 2000::/3; of it, 2001:db8::/32 is for books, 2001::/32 is Teredo, which
    // carries addresses too.
    (segments[0] & 0xe000) == 0x2000
        && !(segments[0] == 0x2001 && (segments[1] == 0xdb8 || segments[1] == 0))
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(Vec<IpAddr>);

    #[async_trait]
    impl Resolver for Fixed {
        async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn what_is_not_public() {
        for address in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:0:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "fe80::1",
            "fc00::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "fec0::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "151.101.2.132", "2a04:4e42::644", "64:ff9b::8.8.8.8"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn urls_are_checked_before_anything_is_asked() {
        let guard =
            Guard { trusted: BTreeSet::from([("nexus.lan".to_owned(), 8081)]), ..Guard::default() };
        let check = |url: &str| guard.check(&url.parse().unwrap());
        for private in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0/",
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "https://192.168.0.1/",
            "http://0/",
            "http://[::]/",
        ] {
            assert!(matches!(check(private), Err(Denied::Private { .. })), "{private}");
        }
        for port in ["http://deb.example:22/", "http://deb.example:8080/", "http://nexus.lan:22/"] {
            assert!(matches!(check(port), Err(Denied::Port { .. })), "{port}");
        }
        for fine in ["http://deb.example/", "https://deb.example/", "http://nexus.lan:8081/"] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
    }

    #[tokio::test]
    async fn names_are_what_they_resolve_to() {
        let (public, private) = (IpAddr::from([8, 8, 8, 8]), IpAddr::from([10, 0, 0, 1]));
        let guard = |addresses: &[IpAddr]| Guard {
            trusted: BTreeSet::from([("nexus.lan".to_owned(), 80)]),
            resolver: Arc::new(Fixed(addresses.to_vec())),
            ..Guard::default()
        };
        let both = guard(&[private, public]).addresses("rebind.example").await.unwrap();
        assert_eq!(both, [public], "only these are connected to");
        let error = guard(&[private]).addresses("rebind.example").await.unwrap_err();
        assert!(denied(&error).is_some(), "{error}");
        assert_eq!(guard(&[private]).addresses("Nexus.lan.").await.unwrap(), [private]);
        let open = Guard { allow_private: true, ..guard(&[private]) };
        assert_eq!(open.addresses("x.example").await.unwrap(), [private]);
        assert!(guard(&[]).addresses("x.example").await.is_err());
    }
}
