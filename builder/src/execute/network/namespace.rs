//! A network namespace, held by a descriptor.
//!
//! A namespace is of a thread, not of a process: one is made by a thread that leaves its own for
//! it and ends. From then on descriptors keep it: this one, and sockets that were opened in it. It
//! goes, with its links and with the other ends of its pairs, when the last of them is closed,
//! which the kernel does for a process that is killed.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::Netlink;
use crate::execute::sys;

/// The files that list the sockets of a namespace, under `/proc/thread-self/net`.
const SOCKET_LISTS: [&str; 13] = [
    "tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "packet",
    "unix", "sctp/eps",
];

/// A network namespace of ours.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) descriptor: OwnedFd,
    pub(super) netlink: Netlink,
}

impl Namespace {
    /// Makes a namespace with a loopback interface, and does `work` in it.
    pub(super) fn make<T: Send>(
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<(Namespace, T)> {
        in_thread(|| {
            sys::enter_new_network_namespace()?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let descriptor = open("/proc/thread-self/ns/net", flags, Mode::empty())?;
            let mut netlink = Netlink::open()?;
            let loopback = netlink.link("lo")?;
            netlink.switch_on(loopback, None)?;
            Ok((Namespace { descriptor, netlink }, work()?))
        })
    }

    /// Does `work` in this namespace.
    pub(super) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        in_thread(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.descriptor.as_fd(), kind)?;
            work()
        })
    }

    /// Counts the sockets in it, also those whose process is gone but not yet their connection.
    pub(super) fn sockets(&self) -> io::Result<usize> {
        self.inside(|| {
            // A protocol that the kernel lacks has no list, and no socket.
            let lists = SOCKET_LISTS.map(|list| {
                fs_err::read_to_string(format!("/proc/thread-self/net/{list}")).unwrap_or_default()
            });
            Ok(lists.iter().map(|list| list.lines().count().saturating_sub(1)).sum())
        })
    }
}

/// Does `work` on a thread that ends with it, so that no other work finds itself elsewhere.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned());
        let thread = thread.spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
