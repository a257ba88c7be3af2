//! Links, addresses, routes and neighbours of one network namespace, by rtnetlink(7).
//!
//! A socket belongs for ever to the namespace in which it was opened, so a [`Netlink`] can be used
//! from any thread. Requests are made one at a time and each waits for its answer.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with,
};

/// Marks our routes among those of the host; a number that no daemon is known to use.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(198);

/// More than the kernel ever puts into one answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// An address of the link layer.
pub(super) type Mac = [u8; 6];

/// A socket to the kernel's routing tables.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A network: an address, and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) address: IpAddr,
    pub(super) bits: u8,
}

impl Prefix {
    /// Returns the prefix that holds `address` alone.
    pub(super) fn host(address: IpAddr) -> Prefix {
        Prefix { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Tells whether an address can be in both.
    pub(super) fn overlaps(&self, other: &Prefix) -> bool {
        let bits = self.bits.min(other.bits);
        match (self.address, other.address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                (ours.to_bits() ^ theirs.to_bits()) & mask == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                (ours.to_bits() ^ theirs.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hop {
    /// Out of a link.
    Link(u32),
    /// To a gateway that is reached by a link, though no route says so.
    Gateway(u32, IpAddr),
    /// Nowhere: whoever tries is told so.
    Unreachable,
}

/// A route of the main table, as it was found.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) destination: Prefix,
    /// The link it leads out of, if it is one.
    pub(super) link: Option<u32>,
    pub(super) protocol: RouteProtocol,
}

/// One end of a pair of links.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub(super) fn open() -> Result<Netlink, Errno> {
        let family = rustix::net::AddressFamily::NETLINK;
        // No protocol is NETLINK_ROUTE: its number is zero.
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Returns the number of the link called `name`.
    pub(super) fn link(&self, name: &str) -> Result<u32, Errno> {
        netdevice::name_to_index(&self.socket, name)
    }

    /// Makes a pair of links, `ours` in this namespace, `theirs` in `namespace`; both are down.
    pub(super) fn add_pair(
        &mut self,
        ours: &End<'_>,
        theirs: &End<'_>,
        namespace: BorrowedFd<'_>,
        mtu: u32,
    ) -> Result<(), Errno> {
        let end = |end: &End<'_>| {
            let mut link = LinkMessage::default();
            link.attributes = vec![
                LinkAttribute::IfName(end.name.to_owned()),
                LinkAttribute::Address(end.mac.to_vec()),
                LinkAttribute::Mtu(mtu),
            ];
            link
        };
        let mut peer = end(theirs);
        peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        let mut link = end(ours);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.make(Message::NewLink(link))
    }

    /// Switches a link on; with `mtu`, for packets of that size at most.
    pub(super) fn switch_on(&mut self, link: u32, mtu: Option<u32>) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        self.request(Message::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Switches a link on on which nobody asks who has an address: all is sent to the other end.
    pub(super) fn switch_on_without_arp(&mut self, link: u32, mtu: u32) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up | LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.request(Message::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Takes a link away, and its other end with it.
    pub(super) fn remove_link(&mut self, link: u32) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        self.request(Message::DelLink(message), NLM_F_ACK).map(drop)
    }

    /// Returns the largest packet that a link takes.
    pub(super) fn mtu(&mut self, link: u32) -> Result<Option<u32>, Errno> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        let answers = self.request(Message::GetLink(message), NLM_F_ACK)?;
        let attributes = answers.into_iter().flat_map(|answer| match answer {
            Message::NewLink(link) => link.attributes,
            _ => Vec::new(),
        });
        Ok(attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(mtu),
            _ => None,
        }))
    }

    /// Gives a link an address that no other host has to be asked about.
    pub(super) fn add_address(&mut self, link: u32, address: IpAddr) -> Result<(), Errno> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = Prefix::host(address).bits;
        message.header.index = link;
        if address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.make(Message::NewAddress(message))
    }

    /// Returns the addresses of all links.
    pub(super) fn addresses(&mut self) -> Result<Vec<IpAddr>, Errno> {
        let answers = self.request(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let mut found = Vec::new();
        for answer in answers {
            let Message::NewAddress(message) = answer else { continue };
            // Of a point-to-point link, `Address` is the other end; without `Local` it is ours.
            let own = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let given = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            found.extend(own.or(given));
        }
        Ok(found)
    }

    /// Adds a route. Where one to the same destination is there it fails with `EXIST`, which is
    /// how two builds agree on who has an address.
    pub(super) fn add_route(&mut self, destination: Prefix, hop: Hop) -> Result<(), Errno> {
        self.make(Message::NewRoute(route(destination, hop)))
    }

    /// Returns the routes of the main table.
    pub(super) fn routes(&mut self) -> Result<Vec<Route>, Errno> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let answers = self.request(Message::GetRoute(query), NLM_F_DUMP)?;
            found.extend(answers.into_iter().filter_map(|answer| match answer {
                Message::NewRoute(message) => found_route(&message),
                _ => None,
            }));
        }
        Ok(found)
    }

    /// Says once and for all which link address has `address`.
    pub(super) fn add_neighbour(
        &mut self,
        link: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<(), Errno> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            NeighbourAttribute::Destination(address.into()),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        self.make(Message::NewNeighbour(message))
    }

    fn make(&mut self, message: Message) -> Result<(), Errno> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Sends a request and returns what came before the end of its answer.
    fn request(&mut self, message: Message, flags: u16) -> Result<Vec<Message>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        retry_on_intr(|| send(&self.socket, &bytes, SendFlags::empty()))?;

        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        loop {
            let (length, _) =
                retry_on_intr(|| recv(&self.socket, &mut buffer[..], RecvFlags::empty()))?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Message>::deserialize(rest);
                let answer = answer.map_err(|_| Errno::BADMSG)?;
                let used = usize::try_from(answer.header.length).map_err(|_| Errno::BADMSG)?;
                rest = rest.get(used.next_multiple_of(4)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(code) => return Err(Errno::from_raw_os_error(-code.get())),
                    },
                    NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn route(destination: Prefix, hop: Hop) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.address);
    message.header.destination_prefix_length = destination.bits;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    if destination.bits > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.address.into()));
    }
    match hop {
        Hop::Link(link) => {
            if destination.address.is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            message.attributes.push(RouteAttribute::Oif(link));
        }
        Hop::Gateway(link, gateway) => {
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
            message.attributes.push(RouteAttribute::Oif(link));
        }
        Hop::Unreachable => message.header.kind = RouteType::Unreachable,
    }
    message
}

fn found_route(message: &RouteMessage) -> Option<Route> {
    use netlink_packet_route::route::RouteAddress;
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut address, mut link) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            RouteAttribute::Oif(found) => link = Some(*found),
            _ => {}
        }
    }
    let everything: IpAddr = match message.header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let bits = message.header.destination_prefix_length;
    let destination = Prefix { address: address.unwrap_or(everything), bits };
    Some(Route { destination, link, protocol: message.header.protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, bits) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), bits: bits.parse().unwrap() }
    }

    #[test]
    fn prefixes_overlap_if_the_shorter_holds_the_longer() {
        for (one, other, expected) in [
            ("10.0.0.0/8", "10.213.0.0/16", true),
            ("10.213.0.0/16", "10.213.7.1/32", true),
            ("10.212.0.0/16", "10.213.0.0/16", false),
            ("0.0.0.0/0", "10.213.0.0/16", true),
            ("::/0", "10.213.0.0/16", false),
            ("fd00::/8", "fdb0:a7::/32", true),
            ("fdb0:a8::/32", "fdb0:a7::/32", false),
        ] {
            assert_eq!(prefix(one).overlaps(&prefix(other)), expected, "{one} {other}");
            assert_eq!(prefix(other).overlaps(&prefix(one)), expected, "{other} {one}");
        }
    }
}
