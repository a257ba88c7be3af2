//! Which addresses steps get: those of a range that nothing on the host leads to.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::netlink::{PROTOCOL, Prefix, Route};

/// The ranges of IPv4 in the order of trying, from those that are rarely used: sixteen bits each.
const V4: [[u8; 2]; 10] = [
    [10, 213],
    [10, 87],
    [10, 171],
    [172, 29],
    [172, 23],
    [192, 168],
    [10, 39],
    [10, 250],
    [100, 113],
    [198, 18],
];

/// The range of IPv6: a unique local one (RFC 4193), its forty bits chosen at random once.
const V6: Ipv6Addr = Ipv6Addr::new(0xfdb0, 0xa7a2, 0x13, 0, 0, 0, 0, 0);

/// Returns a range of IPv4 that overlaps no route but the default one, and none of ours.
pub(super) fn v4(routes: &[Route]) -> Option<Ipv4Addr> {
    let ranges = V4.iter().map(|&[a, b]| Ipv4Addr::new(a, b, 0, 0));
    ranges.into_iter().find(|&range| is_free(Prefix { address: range.into(), bits: 16 }, routes))
}

/// Returns the range of IPv6, if it overlaps no route of somebody else's.
pub(super) fn v6(routes: &[Route]) -> Option<Ipv6Addr> {
    is_free(Prefix { address: V6.into(), bits: 112 }, routes).then_some(V6)
}

fn is_free(range: Prefix, routes: &[Route]) -> bool {
    !routes
        .iter()
        .filter(|route| route.protocol != PROTOCOL && route.destination.bits > 0)
        .any(|route| route.destination.overlaps(&range))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;

    use super::*;

    fn route(address: &str, bits: u8, protocol: RouteProtocol) -> Route {
        let destination = Prefix { address: address.parse().unwrap(), bits };
        Route { destination, link: None, protocol }
    }

    #[test]
    fn a_range_that_the_host_uses_is_left_alone() {
        let kernel = RouteProtocol::Kernel;
        let default = route("0.0.0.0", 0, RouteProtocol::Static);
        assert_eq!(v4(std::slice::from_ref(&default)), Some(Ipv4Addr::new(10, 213, 0, 0)));
        let ours = route("10.213.0.9", 32, PROTOCOL);
        assert_eq!(v4(&[default, ours]), Some(Ipv4Addr::new(10, 213, 0, 0)));
        let one = route("10.213.200.0", 24, kernel);
        assert_eq!(v4(&[one]), Some(Ipv4Addr::new(10, 87, 0, 0)));
        let all_of_ten = route("10.0.0.0", 8, kernel);
        assert_eq!(v4(&[all_of_ten]), Some(Ipv4Addr::new(172, 29, 0, 0)));
    }
}
