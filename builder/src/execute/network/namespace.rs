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

/// Counts the sockets of a namespace. The lists of sockets are no match for it: to read one, the
/// kernel walks its table for all namespaces, which takes milliseconds.
const SOCKET_COUNTS: &str = "/proc/thread-self/net/sockstat";

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
    pub(super) fn sockets(&self) -> io::Result<u64> {
        self.inside(|| {
            let counts = fs_err::read_to_string(SOCKET_COUNTS)?;
            counted(&counts).ok_or_else(|| io::Error::other("the kernel does not count sockets"))
        })
    }
}

/// Reads how many sockets there are, and how many connections wait for the end of their time.
fn counted(counts: &str) -> Option<u64> {
    let count = |line: &str, name: &str| {
        let words = counts.lines().find_map(|found| found.strip_prefix(line))?;
        let mut words = words.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()?.parse::<u64>().ok()
    };
    Some(count("sockets:", "used")? + count("TCP:", "tw")?)
}

/// Does `work` on a thread that ends with it, so that no other work finds itself elsewhere.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned());
        let thread = thread.spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_with_connections_that_linger() {
        let counts =
            "sockets: used 3\nTCP: inuse 1 orphan 7 tw 2 alloc 9 mem 0\nUDP: inuse 1 mem 0\n";
        assert_eq!(counted(counts), Some(5));
        assert_eq!(counted("sockets: used x\n"), None);
    }
}
