//! `resolv.conf`: which servers the host asks, and what a step is told.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// Where the host says whom it asks.
pub(in crate::execute) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the relay listens in a step's network, as Docker's does.
pub(super) const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port of name servers.
pub(super) const PORT: u16 = 53;

/// How many servers a resolver asks: the C library's limit.
const SERVERS_MAX: usize = 3;

/// How long a server is waited for before the next is asked, if the host does not say: short
/// enough that a step, which gives up on the relay after five seconds, hears of the second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whom to ask, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Servers {
    /// In the order of asking.
    pub(super) addresses: Vec<SocketAddr>,
    /// How long to wait for each.
    pub(super) patience: Duration,
    /// Whether the host names any, or is taken for its own one because it does not.
    pub(super) named: bool,
}

impl Servers {
    /// Reads what the host's file says.
    ///
    /// "If no nameserver entries are present, the default is to use the name server on the local
    /// machine." (resolv.conf(5))
    pub(super) fn parse(text: &str, scope: &dyn Fn(&str) -> Option<u32>) -> Servers {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let mut patience = PATIENCE;
        for (keyword, rest) in lines(text) {
            match keyword {
                "nameserver" => addresses.extend(server(rest, scope)),
                "options" => {
                    let timeout = rest.split_whitespace().find_map(|o| o.strip_prefix("timeout:"));
                    let seconds = timeout.and_then(|seconds| seconds.parse().ok());
                    patience = seconds.map_or(patience, |seconds: u64| {
                        Duration::from_secs(seconds.max(1)).min(PATIENCE)
                    });
                }
                _ => {}
            }
        }
        addresses.truncate(SERVERS_MAX);
        let named = !addresses.is_empty();
        if !named {
            addresses.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        Servers { addresses, patience, named }
    }
}

/// Returns the `resolv.conf` of a step: the relay instead of the servers, all else as on the host.
pub(in crate::execute) fn for_step(host: &str) -> String {
    let mut text = String::new();
    for (keyword, rest) in lines(host) {
        if matches!(keyword, "search" | "domain" | "options" | "sortlist") {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{keyword} {rest}");
        }
    }
    let _ = writeln!(text, "nameserver {RELAY}");
    text
}

fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        // "Lines that contain a semicolon (;) or hash character (#) in the first column are
        // treated as comments."
        let line = line.split(['#', ';']).next().unwrap_or_default();
        line.split_once(char::is_whitespace).map(|(keyword, rest)| (keyword, rest.trim()))
    })
}

/// Reads an address, which for a link-local one names its link: `fe80::1%eth0`.
fn server(text: &str, scope: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(a, zone)| (a, Some(zone)));
    match (address.parse().ok()?, zone) {
        (IpAddr::V6(address), Some(zone)) => {
            let scope = zone.parse().ok().or_else(|| scope(zone))?;
            Some(SocketAddrV6::new(address, PORT, 0, scope).into())
        }
        (address, _) => Some((address, PORT).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\n\
        search corp.example example\n\
        nameserver 127.0.0.53\n\
        nameserver\tfe80::1%eth7 # the router\n\
        nameserver nonsense\n\
        options edns0 timeout:1\n";

    #[test]
    fn servers_come_in_order_with_their_links() {
        let servers = Servers::parse(HOST, &|name| (name == "eth7").then_some(7));
        assert_eq!(servers.patience, Duration::from_secs(1));
        let addresses: Vec<_> = servers.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.53:53", "[fe80::1%7]:53"]);
    }

    #[test]
    fn without_a_server_it_is_the_machine_itself() {
        let servers = Servers::parse("", &|_| None);
        assert_eq!(servers.addresses, ["127.0.0.1:53".parse().unwrap()]);
        assert!(!servers.named);
    }

    #[test]
    fn a_step_asks_the_relay_and_searches_as_the_host_does() {
        assert_eq!(
            for_step(HOST),
            "search corp.example example\noptions edns0 timeout:1\nnameserver 127.0.0.11\n"
        );
    }
}
