//! The nftables table of a build, and what keeps it.
//!
//! The table has an owner (`flags owner`, Linux 5.12): the kernel lets nobody else change it, not
//! even by `nft flush ruleset`, and takes it away when its owner's socket is closed. An `nft` makes
//! it, and we take a copy of that `nft`'s socket before it ends. So there is no process that could
//! be killed and the table with it: it is there as long as somebody has a copy. The builder has
//! one, and the helper one for each step that runs, since steps outlive a killed builder by a
//! moment. Nothing has to be cleaned up, and no two builds share a table.

use std::fmt::Write as _;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, netlink, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::NetworkError;
use super::join::Plan;
use super::passage;

/// How long `nft` may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A table, there as long as this or a copy of its descriptor lives.
#[derive(Debug)]
pub(super) struct Table {
    owner: OwnedFd,
}

impl Table {
    /// Adds the table `name`, for links whose names begin with it.
    pub(super) fn add(nft: &Path, name: &str, plan: &Plan) -> Result<Table, NetworkError> {
        let failed = NetworkError::io("run nft");
        let (mut output, theirs) = io::pipe().map_err(&failed)?;
        let nft = Command::new(nft)
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(theirs.try_clone().map_err(&failed)?)
            .stderr(theirs)
            .spawn()
            .map_err(&failed)?;
        let mut nft = Nft(nft);
        if let Some(stdin) = &mut nft.0.stdin {
            // It prints the last rule once all are in force.
            let commands = format!("{}\nlist chain inet {name} postrouting\n", ruleset(name, plan));
            stdin.write_all(commands.as_bytes()).map_err(&failed)?;
        }
        match wait_for("masquerade", &mut output).map_err(&failed)? {
            Ok(()) => {
                let owner = nft.socket().map_err(NetworkError::io("keep nft's socket"))?;
                Ok(Table { owner })
            }
            Err(said) => Err(NetworkError::Program { program: "nft", said }),
        }
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owner.as_fd()
    }
}

/// An `nft` that waits for commands, ended when this is dropped.
struct Nft(Child);

impl Nft {
    /// Returns a copy of its one socket to the kernel's firewall.
    fn socket(&self) -> io::Result<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let mut found = Vec::new();
        for entry in fs_err::read_dir(format!("/proc/{}/fd", self.0.id()))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let number = number.ok_or(io::ErrorKind::InvalidData)?;
            let copy = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())?;
            // Asked of what is no socket, both fail.
            let to_firewall = sockopt::socket_domain(&copy) == Ok(AddressFamily::NETLINK)
                && sockopt::socket_protocol(&copy) == Ok(Some(netlink::NETFILTER));
            if to_firewall {
                found.push(copy);
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => Err(io::Error::other("it does not have exactly one")),
        }
    }
}

impl Drop for Nft {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until a line holds `sign`; returns what was said if none does.
fn wait_for(sign: &str, output: &mut PipeReader) -> io::Result<Result<(), String>> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = String::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let silent = poll(&mut [PollFd::new(&*output, PollFlags::IN)], left.as_ref())? == 0;
        let length = if silent { 0 } else { output.read(&mut buffer)? };
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if said.contains("Error:") || length == 0 {
            return Ok(Err(said.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        if said.lines().any(|line| line.contains(sign)) {
            return Ok(Ok(()));
        }
    }
}

/// Returns the command that adds the table: one line, so that all of it holds at once or nothing.
///
/// What comes from a step and is for the host itself is dropped before anything could redirect it
/// (`prerouting`, before any DNAT such as that of published ports), and again where it would be
/// delivered (`input`). Steps reach neither one another nor may others open connections to them.
fn ruleset(name: &str, plan: &Plan) -> String {
    let from = format!("iifname \"{name}*\"");
    let mut sources = format!("{from} ip saddr != {}/16 drop; ", plan.v4);
    if let Some(v6) = plan.v6 {
        // Writing to a string cannot fail.
        let _ = write!(sources, "{from} ip6 saddr != {v6}/112 drop; ");
    } else {
        let _ = write!(sources, "{from} meta nfproto ipv6 drop; ");
    }
    [
        &format!("add table inet {name} {{ flags owner; "),
        "chain prerouting { type filter hook prerouting priority -300; policy accept; ",
        &format!("{from} fib daddr type local reject with icmpx type admin-prohibited; "),
        &format!("{from} fib daddr type {{ broadcast, anycast, multicast }} drop; }}; "),
        "chain input { type filter hook input priority -300; policy accept; ",
        &format!("{from} drop; }}; "),
        "chain forward { type filter hook forward priority -300; policy accept; ",
        &format!("{} {from} oifname \"boat*\" drop; {sources}", passage::answered_first(&from)),
        &format!("oifname \"{name}*\" ct state != {{ established, related }} drop; }}; "),
        // After everybody else's.
        "chain passed { type filter hook forward priority 2147483647; policy accept; ",
        &format!("{} }}; ", passage::answered_last(&from)),
        "chain postrouting { type nat hook postrouting priority 100; policy accept; ",
        &format!("{from} masquerade; }}; }}"),
    ]
    .concat()
}
