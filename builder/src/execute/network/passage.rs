//! Whether the host lets packets of steps through, which its firewall may not: docker's, for one,
//! gives the FORWARD chain of iptables a policy of DROP.
//!
//! There are many firewalls and three places where their rules can be, so nothing is read: packets
//! are sent. Both go to an address that nobody has, and neither gets beyond our own table, which
//! answers the one before any other rule and the other after all of them. The first answer says
//! that the second is due.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, connect, socket_with, sockopt};

/// "IPv4 dummy address" (RFC 7600).
const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Of the "Discard-Only Address Block" (RFC 6666).
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
/// The port that is answered before all other rules.
const FIRST: u16 = 9;
/// The port that is answered after them: one that a firewall is likely to let through.
const LAST: u16 = 443;

/// How long the first answer may take, of a busy machine.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// How long the second may take after it. Both are made in the order of the packets.
const GRACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// The families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Returns the rules that answer the first packet `from` a step.
pub(super) fn answered_first(from: &str) -> String {
    answer(from, FIRST)
}

/// Returns the rules that answer the second.
pub(super) fn answered_last(from: &str) -> String {
    answer(from, LAST)
}

/// No other firewall answers so: they speak of ports, or of what is prohibited.
fn answer(from: &str, port: u16) -> String {
    format!(
        "{from} ip daddr {NOBODY_V4} tcp dport {port} reject with icmp type prot-unreachable; \
         {from} ip6 daddr {NOBODY_V6} tcp dport {port} reject with icmpv6 type addr-unreachable;"
    )
}

/// Tells whether packets pass, those of the network that the calling thread is in.
pub(super) fn is_open(family: Family) -> io::Result<bool> {
    let (nobody, sign): (IpAddr, _) = match family {
        Family::V4 => (NOBODY_V4.into(), Errno::NOPROTOOPT),
        Family::V6 => (NOBODY_V6.into(), Errno::HOSTUNREACH),
    };
    let (last, first) = (begin(nobody, LAST)?, begin(nobody, FIRST)?);
    let answered = wait(&first, &PATIENCE)? == Some(sign);
    Ok(answered && wait(&last, &GRACE)? == Some(sign))
}

/// Sends the first packet of a connection.
fn begin(address: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let family = match address {
        IpAddr::V4(_) => rustix::net::AddressFamily::INET,
        IpAddr::V6(_) => rustix::net::AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddr::from((address, port))) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for the answer, which is always an error.
fn wait(socket: &impl AsFd, patience: &Timespec) -> io::Result<Option<Errno>> {
    poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(patience))?;
    Ok(sockopt::socket_error(socket)?.err())
}
